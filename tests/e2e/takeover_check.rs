//! `ringlog takeover check` looks at a live Kafka node, and says what stands in the way of taking its place.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{self, ClusterPlan, FIRST_BROKER, Voters};
use ringlog_e2e_tests::jvm::{Jvm, Outcome};
use ringlog_e2e_tests::node::{CLUSTER_ID, Kind, Node, Roles};
use ringlog_e2e_tests::tool::Tool;
use ringlog_e2e_tests::wait_until;

fn check(node: &Node, config: Option<&str>) -> Result<Outcome> {
    check_at(&node.bootstrap(), config)
}

fn check_at(bootstrap: &str, config: Option<&str>) -> Result<Outcome> {
    let mut arguments = vec!["takeover", "check", "--bootstrap-server", bootstrap];
    arguments.extend(config.iter().flat_map(|config| ["--config", config]));
    Tool::start(&arguments, "")?.finish()
}

/// The check ends with this code, and each of the texts is in a line of that level.
fn expect(outcome: &Outcome, status: i32, lines: &[(&str, &str)]) -> Result<()> {
    let Outcome { status: found, output, errors } = outcome;
    ensure!(*found == status, "ended with {found}:\n{output}\n{errors}");
    for (level, text) in lines {
        let is_there = output.lines().any(|line| line.starts_with(level) && line.contains(text));
        ensure!(is_there, "no {level} line has {text:?}:\n{output}\n{errors}");
    }
    Ok(())
}

fn properties(node: &Node) -> String {
    node.properties().display().to_string()
}

/// The node's own server.properties with other lines at the end, in a file of its own.
fn altered(node: &Node, lines: &str) -> Result<String> {
    let path = node.folder().join("altered.properties");
    fs::write(&path, fs::read_to_string(node.properties())? + lines)?;
    Ok(path.display().to_string())
}

/// What Kafka's own tool turns on in a new cluster can be taken over; what isn't served then is said.
fn default_features(node: &Node) -> Result<()> {
    let expected = [
        ("ok", CLUSTER_ID),
        ("ok", "metadata.version=4.3-IV0"),
        ("ok", "kraft.version=1"),
        ("warn", "transaction.version=2 is taken, but transactions aren't served"),
        ("warn", "group.version=1 is taken, but groups of the consumer protocol aren't served"),
        ("warn", "share.version=1 is taken"),
        ("warn", "streams.version=1 is taken"),
        ("ok", "broker 1 answers"),
        ("ok", "broker 1 is configured with nothing that Ringlog refuses"),
        ("warn", "the only voter"),
        ("ok", "no transactions, no groups but classic ones, no quotas"),
        ("ok", "no reassignment"),
    ];
    expect(&check(node, None)?, 0, &expected)?;
    let with_file = check(node, Some(&properties(node)))?;
    expect(&with_file, 0, &expected)?;
    let data = node.folder().join("data").display().to_string();
    let of_node = [
        ("ok", "server.properties has nothing that Ringlog refuses".to_owned()),
        ("ok", format!("{data} is the node's, with directory.id")),
        ("ok", format!("{data} is in use")),
        ("ok", "no topic is compacted".to_owned()),
        ("Ringlog can take the place of node 1", "nothing stands in the way".to_owned()),
    ];
    let of_node: Vec<(&str, &str)> = of_node.iter().map(|(level, text)| (*level, text.as_str())).collect();
    expect(&with_file, 0, &of_node)
}

/// Topics and groups that Ringlog doesn't do all for.
fn what_is_in_use(node: &Node) -> Result<()> {
    let bootstrap = node.bootstrap();
    let create =
        ["--bootstrap-server", &bootstrap, "--create", "--topic", "kept", "--config", "cleanup.policy=compact"];
    let jvm = |name: &str, arguments: &[&str]| Jvm::shared()?.tool(name, arguments, b"a\n")?.success();
    jvm("kafka-topics", &create)?;
    jvm("kafka-console-producer", &["--bootstrap-server", &bootstrap, "--topic", "plain"])?;
    let quota = ["--bootstrap-server", &bootstrap, "--alter", "--entity-type", "clients", "--entity-name", "c"];
    jvm("kafka-configs", &[&quota[..], &["--add-config", "producer_byte_rate=100000"]].concat())?;
    let to = format!("bootstrap.servers={bootstrap}");
    let records = ["--topic", "plain", "--num-records", "5", "--record-size", "9", "--throughput", "-1"];
    let transactions = ["--transactional-id", "payer", "--transaction-duration-ms", "100", "--producer-props", &to];
    jvm("kafka-producer-perf-test", &[&records[..], &transactions].concat())?;
    let read = ["--bootstrap-server", &bootstrap, "--topic", "plain", "--group", "new-readers", "--max-messages", "1"];
    let consumer = ["--timeout-ms", "30000", "--consumer-property", "group.protocol=consumer"];
    let from_start = ["--consumer-property", "auto.offset.reset=earliest"];
    jvm("kafka-console-consumer", &[&read[..], &consumer[..], &from_start[..]].concat())?;
    let expected = [
        (
            "warn",
            "aren't compacted by Ringlog yet: their logs on its nodes grow; watch the space of: __consumer_offsets",
        ),
        ("warn", "cleanup.policy=compact isn't done by Ringlog yet"),
        ("warn", "new-readers"),
        ("warn", "payer"),
        ("warn", "1 quota is set"),
        ("warn", "single replica"),
    ];
    expect(&check(node, None)?, 0, &expected)
}

fn unsupported_keys(node: &Node) -> Result<()> {
    let config = altered(node, "authorizer.class.name=org.example.Authorizer\nnum.io.threads=9\n")?;
    let refused = ("stop", "authorizer.class.name=org.example.Authorizer");
    expect(&check(node, Some(&config))?, 1, &[refused, ("Ringlog can't", "1 finding stands in the way")])?;
    let config = altered(node, "num.io.threads=9\n")?;
    expect(&check(node, Some(&config))?, 0, &[("warn", "num.io.threads has no effect")])?;
    let config = altered(node, "node.id=2\n")?;
    let strange = [("warn", "no broker 2"), ("stop", "belongs to node 1")];
    expect(&check(node, Some(&config))?, 1, &strange)
}

/// What brokers run with is seen without their files.
fn key_of_a_running_broker(node: &Node) -> Result<()> {
    let bootstrap = node.bootstrap();
    let alter = ["--bootstrap-server", &bootstrap, "--alter", "--entity-type", "brokers", "--entity-name", "1"];
    let set = ["--add-config", "max.connection.creation.rate=1000"];
    Jvm::shared()?.tool("kafka-configs", &[&alter[..], &set].concat(), b"")?.success()?;
    wait_until("the broker to tell of its key", Duration::from_secs(30), || {
        let refused = [("stop", "broker 1: max.connection.creation.rate=1000")];
        Ok(expect(&check(node, None)?, 1, &refused).ok())
    })
}

fn directories(node: &Node) -> Result<()> {
    let other = node.folder().join("other");
    fs::create_dir_all(other.join("t-0.711669e5f1b04cb5b57675f03a1eb1c1-future"))?;
    let own = fs::read_to_string(node.folder().join("data/meta.properties"))?;
    fs::write(other.join("meta.properties"), &own)?;
    let config = altered(node, &format!("log.dirs={}\n", other.display()))?;
    let expected = [("ok", "-future"), ("warn", ".kafka_cleanshutdown")];
    expect(&check(node, Some(&config))?, 0, &expected)?;
    fs::remove_dir_all(other.join("t-0.711669e5f1b04cb5b57675f03a1eb1c1-future"))?;
    expect(&check(node, Some(&config))?, 0, &[])?;
    fs::write(other.join("meta.properties"), own.replace(CLUSTER_ID, "another-cluster-of-kafka"))?;
    expect(&check(node, Some(&config))?, 1, &[("stop", "belongs to cluster another-cluster-of-kafka")])?;
    fs::remove_file(other.join("meta.properties"))?;
    expect(&check(node, Some(&config))?, 1, &[("stop", "has no meta.properties")])?;
    let config = altered(node, "log.dirs=/no/such/folder\n")?;
    expect(&check(node, Some(&config))?, 0, &[("warn", "aren't on this machine")])
}

#[test]
fn a_node_of_kafka_is_looked_at_before_it_is_replaced() -> Result<()> {
    let _turn = cluster::turn();
    let mut node = Node::start_new("takeover-check", Kind::Kafka, "")?;
    default_features(&node).context("a new node")?;
    unsupported_keys(&node).context("keys")?;
    directories(&node).context("directories")?;
    what_is_in_use(&node).context("in use")?;
    key_of_a_running_broker(&node).context("a key of a running broker")?;
    let bootstrap = node.bootstrap();
    node.stop()?;
    nobody(&node, &bootstrap)
}

/// What can't be found out is neither yes nor no.
fn nobody(node: &Node, bootstrap: &str) -> Result<()> {
    let client = node.folder().join("client.properties");
    fs::write(&client, "default.api.timeout.ms=1000\n")?;
    let client = client.display().to_string();
    let ask = ["takeover", "check", "--bootstrap-server", bootstrap];
    let outcome = Tool::start(&[&ask[..], &["--command-config", &client]].concat(), "")?.finish()?;
    ensure!(outcome.status == 2 && outcome.errors.contains(bootstrap), "{outcome:?}");
    for wrong in [&["--config", "/no/such.properties"][..], &["--nonsense"]] {
        let outcome = Tool::start(&[&ask[..], wrong].concat(), "")?.finish()?;
        ensure!(outcome.status == 2 && outcome.output.is_empty(), "{wrong:?}: {outcome:?}");
    }
    Ok(())
}

/// Whether a node can go depends on who else is there; one that has gone already comes back.
#[test]
fn a_node_goes_only_when_the_others_have_everything() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("takeover-check-two", Voters::Initial)
        .controllers(1, &[Kind::Kafka], Roles::Controller)
        .brokers(2, &[Kind::Kafka, Kind::Ringlog])
        .prepare()?;
    cluster.start()?;
    let remaining = cluster.node(FIRST_BROKER)?.bootstrap();
    let create = ["--bootstrap-server", &remaining, "--create", "--topic", "both", "--replication-factor", "2"];
    Jvm::shared()?.tool("kafka-topics", &create, b"")?.success()?;
    let leaving = properties(cluster.node(FIRST_BROKER + 1)?);
    let staying = properties(cluster.node(FIRST_BROKER)?);
    let second = FIRST_BROKER + 1;
    let answers = format!("broker {second} answers");
    let accepted = format!("broker {second} is configured with nothing that Ringlog refuses");
    let healthy = [("ok", answers.as_str()), ("ok", &accepted), ("ok", "all replicas in sync, and enough of them")];
    expect(&check_at(&remaining, None)?, 0, &healthy)?;
    expect(&check_at(&remaining, Some(&leaving))?, 0, &[&healthy[..], &[("ok", "data is in use")]].concat())?;

    cluster.node(second)?.stop()?;
    let fenced = format!("broker {second} is fenced");
    wait_until("a stop in the way", Duration::from_secs(60), || {
        let outcome = check_at(&remaining, Some(&staying))?;
        let expected = [("warn", fenced.as_str()), ("stop", "one replica in sync, which would go")];
        Ok(expect(&outcome, 1, &expected).ok())
    })?;
    let itself = format!("broker {second}, the node itself, is stopped");
    let stopped = [("ok", itself.as_str()), ("ok", "was left in order"), ("ok", "all replicas in sync")];
    expect(&check_at(&remaining, Some(&leaving))?, 0, &stopped)?;
    cluster.start_node(second)?;
    cluster.stop_and_check()
}
