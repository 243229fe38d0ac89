//! Log levels while a node runs (KIP-412), altered by Kafka's `kafka-configs`, and logs that can't be written.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{Client, ClientOptions, Connection};
use ringlog_e2e_tests::child::{self, Reaper};
use ringlog_e2e_tests::jvm::{Jvm, Outcome};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::{paths, wait_until};
use ringlog_protocol::messages::MetadataRequest;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(15);

/// `kafka-configs` for the loggers of node 1.
fn configs(at: [&str; 2], rest: &[&str]) -> Result<Outcome> {
    let loggers = ["--entity-type", "broker-loggers", "--entity-name", "1"];
    Jvm::shared()?.tool("kafka-configs", &[&at[..], &loggers, rest].concat(), b"")
}

fn set(at: [&str; 2], levels: &str) -> Result<()> {
    let output = configs(at, &["--alter", "--add-config", levels])?.success()?;
    ensure!(output.trim() == "Completed updating config for broker-logger 1.", "{output}");
    Ok(())
}

fn delete(at: [&str; 2], loggers: &str) -> Result<()> {
    configs(at, &["--alter", "--delete-config", loggers])?.success().map(drop)
}

/// The level that is shown for a logger.
fn level(at: [&str; 2], logger: &str) -> Result<String> {
    let output = configs(at, &["--describe"])?.success()?;
    let line = output.lines().find_map(|line| line.trim().strip_prefix(&format!("{logger}=")));
    let level = line.with_context(|| format!("{logger} isn't shown"))?.split(' ').next();
    Ok(level.unwrap_or_default().to_owned())
}

/// Lines of the request log from clients that call themselves so.
fn requests(node: &Node, client_id: &str) -> Result<usize> {
    let mark = format!("client=\"{client_id}\"");
    Ok(node.words()?.lines().filter(|line| line.contains("request api=") && line.contains(&mark)).count())
}

/// Asks on so many connections, which the kernel spreads over the node's cores.
fn ask(node: &Node, client_id: &str, connections: usize) -> Result<()> {
    let options = ClientOptions { client_id: client_id.to_owned(), ..ClientOptions::default() };
    for _ in 0..connections {
        Connection::connect(&node.bootstrap(), &options)?.call(&MetadataRequest::default())?;
    }
    Ok(())
}

#[test]
fn levels_are_altered_on_all_cores_at_once_by_brokers_and_controllers() -> Result<()> {
    // Kafka has neither these shards nor this log.
    let mut node = Node::start_new("loggers", Kind::Ringlog, "ringlog.shards=2\n")?;
    let (broker, controller) = (node.bootstrap(), node.controller());
    let by_broker = ["--bootstrap-server", broker.as_str()];
    let by_controller = ["--bootstrap-controller", controller.as_str()];
    ask(&node, "quiet", 20)?;
    set(by_broker, "kafka.request.logger=DEBUG")?;
    ensure!(requests(&node, "quiet")? == 0, "nothing is logged before it is asked for");
    ask(&node, "loud", 20)?;
    // Each connection asked for versions and metadata.
    let shown = wait_until("all requests in the log", PATIENCE, || {
        let count = requests(&node, "loud")?;
        Ok((count >= 40).then_some(count))
    })?;
    ensure!(shown == 40, "{shown} lines");
    ensure!(level(by_controller, "kafka.request.logger")? == "DEBUG", "a node's levels are one");
    set(by_controller, "kafka.request.logger=WARN,org.apache.kafka.controller=TRACE")?;
    ask(&node, "hushed", 20)?;
    ensure!(level(by_broker, "org.apache.kafka.controller.QuorumController")? == "TRACE", "it is inherited");
    delete(by_broker, "org.apache.kafka.controller")?;
    ensure!(level(by_broker, "org.apache.kafka.controller.QuorumController")? == "INFO", "that of the root again");
    set(by_broker, "root=ERROR")?;
    ensure!(level(by_controller, "org.apache.kafka.raft.KafkaRaftClient")? == "ERROR", "all inherit from the root");
    ensure!(requests(&node, "hushed")? == 0, "and back again");
    node.stop()?;
    let words = node.words()?;
    let last = words.lines().last().unwrap_or_default();
    ensure!(!last.contains("stopped"), "the root was hushed: {last}");
    Ok(())
}

#[test]
fn what_kafka_refuses_is_refused() -> Result<()> {
    let mut node = Node::start_new("loggers-refused", Kind::under_test(), "")?;
    let (broker, controller) = (node.bootstrap(), node.controller());
    for at in [["--bootstrap-server", broker.as_str()], ["--bootstrap-controller", controller.as_str()]] {
        for (change, expected) in [
            ("kafka.server.KafkaApis=LOUD", "Cannot set the log level of kafka.server.KafkaApis to LOUD"),
            ("no.such.logger=INFO", "no.such.logger"),
        ] {
            let outcome = configs(at, &["--alter", "--add-config", change])?;
            let text = outcome.output + &outcome.errors;
            ensure!(outcome.status == 1 && text.contains(expected), "{at:?} {change}: {text}");
        }
        let outcome = configs(at, &["--alter", "--delete-config", "root"])?;
        let text = outcome.output + &outcome.errors;
        let expected = "Removing the log level of the root logger is not allowed";
        ensure!(outcome.status == 1 && text.contains(expected), "{at:?}: {text}");
        ensure!(level(at, "root")? == "INFO", "nothing has changed");
    }
    node.stop()
}

#[test]
fn a_node_whose_log_cannot_be_written_goes_on() -> Result<()> {
    let mut node = Node::prepare("loggers-unread", Kind::Ringlog, 1, "data", "1@127.0.0.1", "")?;
    node.format(&[])?;
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(paths::ringlog()?);
    command.arg("server").arg(node.properties()).current_dir(node.folder()).stdin(Stdio::null());
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    drop(command);
    let reaper = Reaper::new(child.id(), Some(node.folder().as_os_str()))?;
    // Nobody reads it from the first line on.
    drop(reader);
    let mut client = Client::connect_within(&node.bootstrap(), &ClientOptions::default(), PATIENCE)?;
    client.refresh_metadata(None, false)?;
    child::signal(&child, Signal::TERM)?;
    let status = child::wait_for_end(&mut child, PATIENCE)?;
    ensure!(status.success(), "it ended with {status}");
    reaper.dismiss();
    node.ask_to_stop().ok();
    Ok(())
}
