//! `topics`, `console-producer` and `console-consumer` beside Kafka's tools of these names; how all tools wait, how they
//! end, and what they do when their output can't be written.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

#[path = "../data/command_lines.rs"]
mod command_lines;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::jvm::{Jvm, Outcome};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::paths;
use ringlog_e2e_tests::tool::Tool;
use rustix::process::Signal;

use command_lines::words;

/// A tool that waits for nothing has ended by then; one that is stuck is made to after six seconds, or never.
const AT_ONCE: Duration = Duration::from_secs(5);

/// `$B` is the node; `$T` begins the names of each side's own topics; `$D` is a folder with a good configuration, `bad`
/// and `odd`. `<` parts the input.
const COMMANDS: &[&str] = &[
    // How lines are read.
    "topics --bootstrap-server $B --lis",
    "topics --boot $B --list",
    "topics -l",
    "topics -bootstrap-server=$B -lis",
    "topics --bootstrap-server",
    "topics --bootstrap-server $B --list --topic",
    "topics --bootstrap-server $B --nosuch x",
    "topics --bootstrap-server $B --bootstrap-server $B --list",
    "topics --bootstrap-server $B --describe --topic a --topic b",
    "topics --version extra",
    "topics words",
    "topics --help",
    "console-producer --bootstrap-server $B --top $T",
    "console-producer --bootstrap-server $B --topic",
    "console-producer --bootstrap-server $B --topic a --topic b",
    "console-producer --bootstrap-server localhost --topic $T",
    "console-producer --topic $T",
    "console-producer --bootstrap-server $B",
    "console-producer --bootstrap-server $B --topic $T --property a=b --reader-property c=d",
    "console-consumer --bootstrap-server $B --topic $T --from-beg",
    "console-consumer --bootstrap-server $B --topic a --topic b",
    "console-consumer --bootstrap-server $B --topic $T --timeout-ms 1 --timeout-ms 2",
    "console-consumer --bootstrap-server $B --topic $T --max-messages x",
    "console-consumer --bootstrap-server $B --topic $T --timeout-ms x",
    "console-consumer --bootstrap-server $B",
    "console-consumer --topic $T",
    "console-consumer --bootstrap-server $B --topic $T --property a=b --formatter-property c=d",
    // Topics.
    "topics --bootstrap-server $B --create --topic $T --partitions 1 extra words",
    "topics --bootstrap-server $B --create --topic $T",
    "topics --bootstrap-server $B --create --topic $T --if-not-exists --list=x",
    "topics --bootstrap-server $B --create --topic $T.a --partitions 0",
    "topics --bootstrap-server $B --create --topic $T.a --partitions x",
    "topics --bootstrap-server $B --create --topic $T.a --replication-factor 40000",
    "topics --bootstrap-server $B --create --topic $T.a --replication-factor 3",
    "topics --bootstrap-server $B --create --topic $T.a",
    "topics --bootstrap-server $B --create --topic ${T}_a",
    "topics --bootstrap-server $B --create --topic 'a b'",
    "topics --bootstrap-server $B --create --topic ''",
    "topics --bootstrap-server $B --create --topic ${T}1 --replica-assignment 1,2:3",
    "topics --bootstrap-server $B --create --topic ${T}1 --replica-assignment 1:1",
    "topics --bootstrap-server $B --create --topic ${T}1 --replica-assignment 1:x",
    "topics --bootstrap-server $B --create --topic ${T}1 --replica-assignment 1,,1",
    "topics --bootstrap-server $B --create --topic ${T}1 --replica-assignment 1:",
    "topics --bootstrap-server $B --create --topic ${T}2 --config retention.ms",
    "topics --bootstrap-server $B --create --topic ${T}2 --config a=b=c",
    "topics --bootstrap-server $B --create --topic ${T}2 --config 'retention.ms = 1000 '",
    "topics --bootstrap-server $B --describe --topic ${T}2",
    "topics --bootstrap-server $B --describe --topic ${T}2 --partition-size-limit-per-response x",
    "topics --bootstrap-server $B --describe --topic-id xx",
    "topics --bootstrap-server $B --describe --topic-id dRzIH-JZUKJPhdqVcU5J_g",
    "topics --bootstrap-server $B --list --topic ' ${T}1 , ${T}2 '",
    "topics --bootstrap-server $B --alter --topic ${T}1 --partitions 3 --replica-assignment 1,1",
    "topics --bootstrap-server $B --alter --topic nosuch --partitions 2",
    "topics --bootstrap-server $B --delete --topic '('",
    "topics --bootstrap-server $B --delete --topic ${T}1",
    "topics --bootstrap-server $B --delete --topic ''",
    // Clusters and files that aren't there.
    "topics --bootstrap-server localhost --list",
    "topics --bootstrap-server localhost:99999 --list",
    "topics --bootstrap-server '' --list",
    "topics --bootstrap-server $B --command-config /nonexistent --list",
    "topics --bootstrap-server $B --command-config /tmp --list",
    "topics --bootstrap-server $B --command-config $D/bad --list",
    "topics --bootstrap-server $B --command-config $D/odd --list",
    "topics --bootstrap-server 127.0.0.1:1 --command-config $D/hasty --list",
    "topics --bootstrap-server 127.0.0.1:1 --command-config $D/hasty --create --topic x",
    "console-producer --bootstrap-server $B --topic $T --command-config /nonexistent",
    "console-producer --bootstrap-server $B --topic $T --producer.config $D/bad",
    "console-producer --bootstrap-server $B --topic $T --producer-property acks=7",
    "console-producer --bootstrap-server $B --topic $T --producer-property batch.size=x",
    "console-producer --bootstrap-server $B --topic $T --batch-size x",
    "console-producer --bootstrap-server $B --topic $T --batch-size -5",
    "console-producer --bootstrap-server $B --topic $T --compression-codec foo",
    "console-producer --bootstrap-server $B --topic $T --property parse.headers=true --property headers.separator=:",
    "console-producer --bootstrap-server 127.0.0.1:1 --topic $T --max-block-ms 500 < lost\\ntoo\\n",
    "console-producer --bootstrap-server 127.0.0.1:1 --topic $T --max-block-ms 500 --sync < lost\\n",
    "console-consumer --bootstrap-server localhost --topic $T",
    "console-consumer --bootstrap-server $B --topic $T --command-config /nonexistent",
    "console-consumer --bootstrap-server $B --topic $T --command-config $D/bad",
    "console-consumer --bootstrap-server $B --topic $T --consumer-property fetch.min.bytes=x",
    "console-consumer --bootstrap-server $B --topic $T --isolation-level foo",
    "console-consumer --bootstrap-server $B --topic $T --group ''",
    "console-consumer --bootstrap-server $B --topic $T --command-property session.timeout.ms=1",
    "console-consumer --bootstrap-server 127.0.0.1:1 --topic $T --timeout-ms 500",
    // Records in.
    "console-producer --bootstrap-server $B --topic $T words < a\\rb\\r\\nc\\n",
    "console-producer --bootstrap-server $B --topic $T --property parse.key=true --property key.separator=: < k:v\\n",
    "console-producer --bootstrap-server $B --topic $T --producer-property foo --producer-property a=b=c < old\\n",
    "console-producer --bootstrap-server $B --topic $T --property parse.key=true < nokey\\n",
    "console-producer --bootstrap-server $B --topic $T --max-partition-memory-bytes 100 < small\\n",
    "console-producer --bootstrap-server $B --topic $T --max-memory-bytes 10 < large\\n",
    "console-producer --bootstrap-server $B --topic $T --command-property max.request.size=10 < large\\n",
    "console-producer --bootstrap-server $B --topic $T --compression-codec --sync < zipped\\n",
    // Records out.
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --max-messages 3 words",
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --timeout-ms 3000 --property print.key=true",
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --max-messages 1 --consumer-property foo",
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --max-messages 1 --consumer.config $D/good",
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --max-messages 1 --enable-systest-events",
    "console-consumer --bootstrap-server $B --topic $T --max-messages 1 --consumer-property auto.offset.reset=by_duration:P1D",
    "console-consumer --bootstrap-server $B --topic $T --timeout-ms 3000 --command-property auto.offset.reset=none",
    "console-consumer --bootstrap-server $B --topic $T --partition 0 --offset 1 --max-messages 1",
    "console-consumer --bootstrap-server $B --topic $T --partition 0 --offset -1",
    "console-consumer --bootstrap-server $B --topic $T --partition 7 --timeout-ms 1000",
    "console-consumer --bootstrap-server $B --topic 'a b' --timeout-ms 3000",
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --max-messages 3 --formatter $F.LoggingMessageFormatter",
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --max-messages 3 --formatter $F.NoOpMessageFormatter",
    "console-consumer --bootstrap-server $B --topic $T --from-beginning --max-messages 2 --skip-message-on-error \
     --value-deserializer org.apache.kafka.common.serialization.LongDeserializer",
];

/// Each command by both tools, one after the other.
#[test]
fn tools_say_what_kafkas_say() -> Result<()> {
    let mut node = Node::start_new("console-tools", Kind::under_test(), "")?;
    let folder = node.folder().join("client");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("good"), "client.id=x\n")?;
    fs::write(folder.join("bad"), "request.timeout.ms=abc\n")?;
    fs::write(folder.join("odd"), "security.protocol=FOO\n")?;
    fs::write(folder.join("hasty"), "default.api.timeout.ms=1000\nrequest.timeout.ms=500\n")?;
    let mut differences = String::new();
    for command in COMMANDS {
        let (line, input) = command.split_once(" < ").unwrap_or((command, ""));
        let input = input.replace("\\r", "\r").replace("\\n", "\n");
        let words = |topic: &str| -> Vec<String> {
            let line = line.replace("$B", &node.bootstrap()).replace("$D", &folder.display().to_string());
            let line = line.replace("$F", "org.apache.kafka.tools.consumer");
            words(&line.replace("${T}", topic).replace("$T", topic))
        };
        let kafkas = words("kafkas");
        let arguments: Vec<&str> = kafkas.iter().map(String::as_str).collect();
        let tool = format!("kafka-{}", arguments[0]);
        let kafkas = comparable(&Jvm::shared()?.tool(&tool, &arguments[1..], input.as_bytes())?, "kafkas");
        let ours = words("ours");
        let ours = Tool::start(&ours.iter().map(String::as_str).collect::<Vec<_>>(), &input)?.finish()?;
        let ours = comparable(&ours, "ours");
        if kafkas != ours {
            differences += &format!("$ {command}\nkafka: {kafkas:#?}\nringlog: {ours:#?}\n");
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    node.stop()
}

/// What groups keep, by both tools; it has no place of its own in the log's order.
#[test]
fn formatters_show_what_groups_keep() -> Result<()> {
    let mut node = Node::start_new("console-tools-state", Kind::under_test(), "")?;
    let at = ["--bootstrap-server", &node.bootstrap()];
    run(&[&["console-producer"], &at[..], &["--topic", "t"]].concat(), "a\nb\nc\n")?;
    let group = ["--topic", "t", "--group", "g\"1", "--from-beginning", "--max-messages", "2"];
    run(&[&["console-consumer"], &at[..], &group].concat(), "")?;
    for (formatter, shown) in [("OffsetsMessageFormatter", r#""group":"g\"1""#), ("GroupMetadataMessageFormatter", "")]
    {
        let formatter = format!("org.apache.kafka.tools.consumer.{formatter}");
        let options = ["--topic", "__consumer_offsets", "--formatter", &formatter, "--timeout-ms", "3000"];
        // The group of the tool itself has records, too, but at the start of this run there is none.
        let partitions = [0, 1, 2].map(|partition: i32| partition.to_string());
        let mut outputs = [String::new(), String::new()];
        for partition in &partitions {
            let place = ["--partition", partition, "--offset", "earliest"];
            let arguments = [&at[..], &options, &place].concat();
            outputs[0] += &Jvm::shared()?.tool("kafka-console-consumer", &arguments, b"")?.success()?;
            outputs[1] += &run(&[&["console-consumer"], &arguments[..]].concat(), "")?.output;
        }
        let [kafkas, ours] = outputs;
        ensure!(kafkas == ours && ours.contains(shown) && !ours.is_empty(), "kafka: {kafkas}\nringlog: {ours}");
    }
    node.stop()
}

/// Runs a tool that has to succeed.
fn run(arguments: &[&str], input: &str) -> Result<Outcome> {
    let outcome = Tool::start(arguments, input)?.finish()?;
    ensure!(outcome.status == 0, "{arguments:?}: {outcome:?}");
    Ok(outcome)
}

/// The outcome without what can't be the same: names of topics, ids, help, and what is logged by the way.
fn comparable(outcome: &Outcome, topic: &str) -> Outcome {
    let output = outcome.output.replace(topic, "$T").replace("4.3.1 (Ringlog 0.1.0)", "4.3.1");
    let output = output.split('\t').map(|cell| if cell.starts_with("TopicId: ") { "TopicId: $ID" } else { cell });
    let mut errors: Vec<String> = Vec::new();
    for line in outcome.errors.replace(topic, "$T").lines() {
        let line = match line.split_once("] ") {
            Some((time, rest)) if time.starts_with("[20") => rest,
            _ => line,
        };
        // Kafka shows a table of options where Ringlog's help begins with how the tool is used.
        if line.starts_with("Option ") && line.contains("Description") || line.starts_with("Usage: ") {
            errors.push("<help>".to_owned());
            break;
        }
        let is_log = ["WARN ", "ERROR [Producer", "ERROR [Consumer", "The consumer rebalance protocol"]
            .iter()
            .any(|begin| line.starts_with(begin));
        let is_about = line.starts_with("This tool helps to ") || line.starts_with("Create, delete, describe");
        let is_trace = line.starts_with("\tat ") || line.starts_with("\t... ") || line.starts_with("Caused by: ");
        // An exception after its own message is the head of its trace.
        let repeats = errors.last().is_some_and(|last| line.ends_with(&format!("Exception: {last}")));
        if !line.trim().is_empty() && !is_log && !is_about && !is_trace && !repeats {
            errors.push(line.to_owned());
        }
    }
    Outcome { status: outcome.status, output: output.collect::<Vec<_>>().join("\t"), errors: errors.join("\n") }
}

/// The tools that wait for a cluster, with what they say in the end.
fn waiting_tools(at: &str) -> Vec<(Vec<&str>, &'static str, &'static str)> {
    let at = ["--bootstrap-server", at];
    let tool = |name: &'static str, rest: &[&'static str]| [&[name], &at[..], rest].concat();
    vec![
        (tool("topics", &["--list"]), "", "early\n"),
        (tool("metadata-quorum", &["describe", "--status"]), "", "ClusterId:"),
        (tool("features", &["describe"]), "", "Feature: group.version"),
        (tool("console-producer", &["--topic", "early", "--max-block-ms", "40000"]), "hello\n", ""),
        (tool("console-consumer", &["--topic", "early", "--from-beginning", "--max-messages", "1"]), "", "hello\n"),
    ]
}

#[test]
fn tools_wait_for_a_node_that_is_not_there_yet() -> Result<()> {
    let mut node = Node::start_new("console-tools-early", Kind::under_test(), "")?;
    let at = node.bootstrap();
    run(&["topics", "--bootstrap-server", &at, "--create", "--topic", "early"], "")?;
    node.stop()?;
    let mut tools = Vec::new();
    {
        // In its place somebody who hangs up, so that each tool is known to have tried.
        let nobody = TcpListener::bind(&at)?;
        for (arguments, input, last) in waiting_tools(&at) {
            tools.push((Tool::start(&arguments, input)?, arguments[0], last));
            drop(nobody.accept()?);
        }
    }
    for (tool, name, _) in &mut tools {
        ensure!(tool.is_running()?, "{name} has ended: {}", tool.errors()?);
    }
    node.start()?;
    for (tool, name, last) in tools {
        let outcome = tool.finish()?;
        ensure!(outcome.status == 0 && outcome.output.contains(last), "{name}: {outcome:?}");
    }
    node.stop()
}

#[test]
fn a_signal_ends_a_tool_at_once_whatever_it_waits_for() -> Result<()> {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let at = silent.local_addr()?.to_string();
    for (signal, exit_code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for (arguments, input, _) in waiting_tools(&at) {
            let tool = Tool::start(&arguments, input)?;
            let connection = silent.accept()?;
            tool.signal(signal)?;
            let outcome = tool.finish_within(AT_ONCE)?;
            ensure!(outcome.status == exit_code, "{arguments:?}: {outcome:?}");
            drop(connection);
        }
    }
    Ok(())
}

#[test]
fn waits_within_a_tool_keep_to_its_time_and_to_signals() -> Result<()> {
    let mut node = Node::start_new("console-tools-waits", Kind::under_test(), "")?;
    let at = node.bootstrap();
    run(&["topics", "--bootstrap-server", &at, "--create", "--topic", "t", "--partitions", "1"], "")?;
    let consumer = |rest: &[&'static str]| [&["console-consumer", "--bootstrap-server", &at], rest].concat();
    // A partition that isn't there, one that has nothing, and a group that waits for records.
    let waits: [&[&str]; 4] = [
        &["--topic", "t", "--partition", "7"],
        &["--topic", "t", "--partition", "7", "--offset", "3"],
        &["--topic", "t", "--partition", "0"],
        &["--topic", "t", "--group", "g"],
    ];
    for wait in waits {
        let begin = Instant::now();
        let limited = [&consumer(wait)[..], &["--timeout-ms", "1500"]].concat();
        let outcome = Tool::start(&limited, "")?.finish()?;
        let took = begin.elapsed();
        ensure!(outcome.status == 0 && outcome.errors.contains("TimeoutException"), "{wait:?}: {outcome:?}");
        ensure!((Duration::from_millis(1500)..Duration::from_secs(30)).contains(&took), "{wait:?} took {took:?}");
        let tool = Tool::start(&consumer(wait), "")?;
        tool.wait_for_sockets(1)?;
        tool.signal(Signal::INT)?;
        let outcome = tool.finish_within(AT_ONCE)?;
        ensure!(outcome.status == 130, "{wait:?}: {outcome:?}");
        ensure!(outcome.errors == "Processed a total of 0 messages\n", "{wait:?}: {outcome:?}");
    }
    // What a producer has taken is sent: the second line, which makes the first one's batch full, waits for more.
    let producer = ["console-producer", "--bootstrap-server", &at, "--topic", "t", "--timeout", "60000"];
    let (reader, mut writer) = std::io::pipe()?;
    let mut command = Command::new(paths::ringlog()?);
    let mut child = command.args(producer).stdin(reader).stderr(Stdio::null()).spawn()?;
    drop(command);
    let lines = ["first", "kept"].map(|name| format!("{name}{}\n", "-".repeat(9000)));
    std::io::Write::write_all(&mut writer, lines.concat().as_bytes())?;
    let from_beginning = [&consumer(&["--topic", "t"])[..], &["--from-beginning", "--max-messages"]].concat();
    let read = run(&[&from_beginning[..], &["1"]].concat(), "")?;
    ensure!(read.output == lines[0], "{read:?}");
    ringlog_e2e_tests::child::signal(&child, Signal::TERM)?;
    let status = ringlog_e2e_tests::child::wait_for_end(&mut child, AT_ONCE * 2)?;
    ensure!(status.code() == Some(143), "{status}");
    let read = run(&[&from_beginning[..], &["2"]].concat(), "")?;
    ensure!(read.output == lines.concat(), "{read:?}");
    node.stop()
}

#[test]
fn tools_fail_when_their_output_cannot_be_written() -> Result<()> {
    let mut node = Node::start_new("console-tools-full", Kind::under_test(), "")?;
    let at = node.bootstrap();
    let lines: String = (0..2000).map(|number| format!("{number:0100}\n")).collect();
    run(&["console-producer", "--bootstrap-server", &at, "--topic", "t"], &lines)?;
    let properties = node.properties().display().to_string();
    let tools: &[&[&str]] = &[
        &["topics", "--bootstrap-server", &at, "--list"],
        &["topics", "--bootstrap-server", &at, "--describe"],
        &["topics", "--bootstrap-server", &at, "--create", "--topic", "t"],
        &["metadata-quorum", "--bootstrap-server", &at, "describe", "--replication"],
        &["features", "--bootstrap-server", &at, "describe"],
        &["features", "version-mapping"],
        &["storage", "random-uuid"],
        &["storage", "info", "-c", &properties],
        &["storage", "--help"],
        &["console-producer", "--bootstrap-server", &at, "--topic", "t", "--property", "a=b"],
        &["tune", "--check"],
        &["--version"],
        &["--help"],
        &["topics", "--version"],
    ];
    for arguments in tools {
        let full = Tool::start_with_output(arguments, fs::File::options().write(true).open("/dev/full")?)?.finish()?;
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let closed = Tool::start_with_output(arguments, writer)?.finish()?;
        for (outcome, why) in [(full, "No space left on device"), (closed, "Broken pipe")] {
            let says_so = outcome.errors.contains("standard output can't be written: ") && outcome.errors.contains(why);
            ensure!(outcome.status == 1 && says_so, "{arguments:?}: {outcome:?}");
        }
    }
    node.stop()
}

#[test]
fn a_consumer_commits_only_what_was_written() -> Result<()> {
    const COUNT: usize = 2000;
    let mut node = Node::start_new("console-tools-commit", Kind::under_test(), "")?;
    let at = node.bootstrap();
    let line = |number: usize| format!("{number:0100}\n");
    let lines: String = (0..COUNT).map(line).collect();
    run(&["console-producer", "--bootstrap-server", &at, "--topic", "t"], &lines)?;
    let consume = ["console-consumer", "--bootstrap-server", &at, "--topic", "t", "--from-beginning", "--group"];
    let rest = |group: &str| -> Result<String> {
        Ok(run(&[&consume[..], &[group, "--timeout-ms", "5000"]].concat(), "")?.output)
    };

    let full = fs::File::options().write(true).open("/dev/full")?;
    let outcome = Tool::start_with_output(&[&consume[..], &["full"]].concat(), full)?.finish()?;
    let unwritable = "Unable to write to standard out, closing consumer.\nProcessed a total of 0 messages\n";
    ensure!(outcome.status == 1 && outcome.errors == unwritable, "{outcome:?}");
    ensure!(rest("full")? == lines, "nothing was written, so all is read again");

    // Of a pipe whose reader goes away, what it took has arrived.
    let (mut reader, writer) = std::io::pipe()?;
    let tool = Tool::start_with_output(&[&consume[..], &["pipe"]].concat(), writer)?;
    let mut taken = vec![0; 10 * line(0).len()];
    reader.read_exact(&mut taken)?;
    drop(reader);
    let outcome = tool.finish()?;
    ensure!(outcome.status == 1 && outcome.errors.starts_with("Unable to write to standard out"), "{outcome:?}");
    let processed = outcome.errors.lines().last().and_then(|line| line.split(' ').nth(4)?.parse::<usize>().ok());
    let processed = processed.with_context(|| outcome.errors.clone())?;
    ensure!((10..COUNT).contains(&processed), "{outcome:?}");
    let again = rest("pipe")?;
    let expected: String = (processed..COUNT).map(line).collect();
    ensure!(again == expected, "goes on with {:?}, not {processed}", again.lines().next());

    // An end by count leaves the rest, too.
    let outcome = run(&[&consume[..], &["count", "--max-messages", "7"]].concat(), "")?;
    ensure!(outcome.output == (0..7).map(line).collect::<String>(), "{outcome:?}");
    ensure!(rest("count")? == (7..COUNT).map(line).collect::<String>(), "goes on with the eighth");
    node.stop()
}

#[test]
fn links_named_like_kafkas_scripts_are_those_tools_or_nothing() -> Result<()> {
    let folder = paths::scratch("links")?;
    for (name, status, says) in [
        ("kafka-topics.sh", 0, "4.3.1"),
        ("kafka-configs.sh", 1, "there is no tool named 'configs'"),
        ("kafka-acls", 1, "there is no tool named 'acls'"),
        ("connect-distributed.sh", 1, "there is no tool named 'connect-distributed'"),
    ] {
        let link = folder.join(name);
        std::os::unix::fs::symlink(paths::ringlog()?, &link)?;
        let outcome = Tool::start_command(Command::new(&link).arg("--version"), "")?.finish()?;
        let text = if status == 0 { &outcome.output } else { &outcome.errors };
        ensure!(outcome.status == status && text.contains(says), "{name}: {outcome:?}");
    }
    fs::remove_dir_all(folder)?;
    Ok(())
}
