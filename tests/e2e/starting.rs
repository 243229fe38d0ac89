//! What a node says and does that can't start, is stopped meanwhile, or finds nobody to start with.
//!
//! The texts are Ringlog's own, so the node is Ringlog whatever `RINGLOG_E2E_NODE` says. Everything that may fail on one
//! core while others wait is tried with several numbers of cores.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{self, ClusterPlan, FIRST_BROKER, Voters, random_id};
use ringlog_e2e_tests::namespaces::Network;
use ringlog_e2e_tests::node::{CLUSTER_ID, Kind, Node, NodePlan, Roles};
use ringlog_e2e_tests::{paths, wait_until};

const SHARDS: [&str; 3] = ["1", "2", "4"];
/// Longer than a refusal takes on the slowest machine; those that hang never end.
const REFUSAL: Duration = Duration::from_secs(15);
/// Kafka takes five seconds to stop where nobody answers; those that hang never do.
const STOP: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(60);
/// A host that there never is (RFC 2606).
const NO_HOST: &str = "no-such-host.invalid";
/// An address that no host has (RFC 5737).
const FOREIGN_ADDRESS: &str = "192.0.2.1";

/// The only node of its cluster, formatted.
fn alone(name: &str, shards: &str) -> Result<Node> {
    let settings = format!("ringlog.shards={shards}\n");
    let node = Node::prepare(name, Kind::Ringlog, 1, "data0,data1", "1@127.0.0.1", &settings)?;
    node.format(&[])?;
    Ok(node)
}

/// Starts it, and expects that it ends at once with exit code 1 and one error, which says this.
fn refuses(node: &mut Node, expected: &[&str]) -> Result<()> {
    let before = node.words()?.len();
    node.spawn()?;
    let status = node.wait_for_end(REFUSAL)?;
    let said = node.words()?.split_off(before);
    ensure!(status.code() == Some(1), "{status}: {said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).collect();
    ensure!(errors.len() == 1, "{} errors: {said}", errors.len());
    ensure!(expected.iter().all(|text| errors[0].contains(text)), "{expected:?} was to be said: {}", errors[0]);
    Ok(())
}

fn shell(script: &str, folder: &Path) -> Result<()> {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Damage, as a shell does it in the node's folder, and what the node says about it.
const DAMAGE: [(&str, &[&str]); 14] = [
    (
        "for log in data0/__cluster_metadata-0/*.log; do head -c 200 /dev/urandom | dd of=$log conv=notrunc; done",
        &["damaged or lost"],
    ),
    (
        "rm -r data0/__cluster_metadata-0; yes garbage | head -c 500 > data0/bootstrap.checkpoint",
        &["bootstrap.checkpoint", "Restore it"],
    ),
    (
        "rm -r data0/__cluster_metadata-0; truncate -s -40 data0/bootstrap.checkpoint",
        &["bootstrap.checkpoint", "Restore it"],
    ),
    (": > data0/__cluster_metadata-0/quorum-state", &["quorum-state", "Restore it"]),
    ("echo garbage > data0/__cluster_metadata-0/quorum-state", &["quorum-state", "Restore it"]),
    ("truncate -s 20 data0/__cluster_metadata-0/quorum-state", &["quorum-state", "Restore it"]),
    ("head -c 100 /dev/zero > data0/__cluster_metadata-0/quorum-state", &["quorum-state", "Restore it"]),
    (
        r#"sed -i 's/"leaderEpoch":[0-9]*/"leaderEpoch":"x"/' data0/__cluster_metadata-0/quorum-state"#,
        &["quorum-state", "Restore it"],
    ),
    (
        r#"sed -i 's/"leaderEpoch":[0-9]*/"leaderEpoch":-3/' data0/__cluster_metadata-0/quorum-state"#,
        &["negative", "Restore it"],
    ),
    (
        "rm data0/__cluster_metadata-0/quorum-state; mkdir data0/__cluster_metadata-0/quorum-state",
        &["quorum-state", "Is a directory", "files that this node wrote"],
    ),
    (
        "rm data0/__cluster_metadata-0/*.log; mkdir data0/__cluster_metadata-0/00000000000000000000.log",
        &["Is a directory"],
    ),
    ("cp -r data0/t-* data1/", &["One of them is a copy"]),
    ("echo garbage > data0/meta.properties", &["meta.properties"]),
    ("rm data0/.kafka_cleanshutdown; mkdir data0/.kafka_cleanshutdown", &[".kafka_cleanshutdown"]),
];

fn refuses_damage(shards: &str) -> Result<()> {
    let mut node = alone("damaged-start", shards)?;
    node.start()?;
    let arguments = ["--bootstrap-server", &node.bootstrap(), "--create", "--topic", "t", "--partitions", "8"];
    ensure!(Command::new(paths::ringlog()?).arg("topics").args(arguments).output()?.status.success());
    node.stop()?;
    let folder = node.folder().to_path_buf();
    shell("mkdir whole; cp -r data0 data1 whole", &folder)?;
    for (damage, expected) in DAMAGE {
        shell(damage, &folder)?;
        refuses(&mut node, expected).with_context(|| format!("after: {damage}"))?;
        shell("rm -r data0 data1; cp -r whole/* .", &folder)?;
    }
    node.start()?;
    node.stop()
}

#[test]
fn damage_ends_the_start_of_one_core() -> Result<()> {
    refuses_damage("1")
}

#[test]
fn damage_ends_the_start_of_two_cores() -> Result<()> {
    refuses_damage("2")
}

#[test]
fn damage_ends_the_start_of_four_cores() -> Result<()> {
    refuses_damage("4")
}

#[test]
fn listeners_that_cannot_be_opened_end_the_start() -> Result<()> {
    for shards in SHARDS {
        let mut node = alone("bad-listeners", shards)?;
        let (own, controller) = (node.bootstrap(), node.controller());
        let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
        let whole = fs::read_to_string(node.properties())?;
        let listeners = |broker: &str, controller: &str| {
            let text = format!("listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n");
            format!("{whole}{text}advertised.listeners=PLAINTEXT://{own}\n")
        };
        for (host, expected) in [(NO_HOST, "has no address"), (FOREIGN_ADDRESS, "isn't one of this host's")] {
            let text = listeners(&format!("{host}:{}", port(&own)), &controller);
            fs::write(node.properties(), text)?;
            refuses(&mut node, &["listener PLAINTEXT", host, expected, "'listeners'"])?;
            let text = listeners(&own, &format!("{host}:{}", port(&controller)));
            fs::write(node.properties(), text)?;
            refuses(&mut node, &["listener CONTROLLER", host, expected, "'listeners'"])?;
        }
        fs::write(node.properties(), &whole)?;
        for (address, name) in [(&own, "PLAINTEXT"), (&controller, "CONTROLLER")] {
            let held = TcpListener::bind(address)?;
            let holder = format!("Process {}", std::process::id());
            refuses(&mut node, &[&format!("listener {name}"), address, &holder, "stop it"])?;
            drop(held);
        }
        node.start()?;
        node.stop()?;
    }
    Ok(())
}

/// Two nodes on one port would share its connections, each of which reaches one or the other.
#[test]
fn a_second_node_on_a_port_does_not_start() -> Result<()> {
    for shards in SHARDS {
        let mut first = alone("first-on-port", shards)?;
        first.start()?;
        let mut second = alone("second-on-port", shards)?;
        let holder = format!("Process {}", first.process_id()?);
        let whole = fs::read_to_string(second.properties())?;
        for (old, taken) in [(second.bootstrap(), first.bootstrap()), (second.controller(), first.controller())] {
            fs::write(second.properties(), whole.replace(&old, &taken))?;
            refuses(&mut second, &[&taken, &holder, "stop it"])?;
        }
        fs::write(second.properties(), whole)?;
        second.start()?;
        second.stop()?;
        ensure!(first.is_alive(), "{}", first.last_words());
        first.stop()?;
    }
    Ok(())
}

/// A controller, or broker and controller, whose two other voters have names without an address.
fn lonely(roles: Roles, shards: &str) -> Result<Node> {
    let settings = format!("ringlog.shards={shards}\n");
    let mut node = Node::prepare("lonely", Kind::Ringlog, 1, "data", "1@127.0.0.1", &settings)?;
    let controller = node.controller();
    if roles == Roles::Controller {
        node.set("process.roles", "controller")?;
        node.set("listeners", &format!("CONTROLLER://{controller}"))?;
    }
    node.set("controller.quorum.voters", &format!("1@{controller},2@two.{NO_HOST}:9093,3@three.{NO_HOST}:9093"))?;
    node.format(&[])?;
    Ok(node)
}

#[test]
fn a_signal_ends_a_start_that_waits_for_a_quorum() -> Result<()> {
    for (roles, shards) in [(Roles::Controller, "1"), (Roles::Both, "1"), (Roles::Both, "2"), (Roles::Both, "4")] {
        let mut node = lonely(roles, shards)?;
        node.spawn()?;
        wait_until("the voters to be named", PATIENCE, || {
            let said = node.words()?;
            let is_named = |id| said.contains(&format!("controller {id} at ")) && said.contains("has not answered");
            Ok(((2..=3).all(is_named) && said.contains("no active controller")).then_some(()))
        })
        .with_context(|| node.explanation())?;
        let asked_at = Instant::now();
        node.ask_to_stop()?;
        let status = node.wait_for_end(STOP)?;
        println!("{roles:?}, {shards} shards: ended {:?} after the signal", asked_at.elapsed());
        ensure!(status.success(), "{status}: {}", node.explanation());
        let said = node.words()?;
        let count = |text: &str| said.lines().filter(|line| line.contains(text)).count();
        for text in ["WARN controller 2 at", "WARN controller 3 at", "no active controller"] {
            ensure!(count(text) == 1, "{text}: {} times in\n{said}", count(text));
        }
        ensure!(count("stands for election") <= 1, "{said}");
    }
    Ok(())
}

#[test]
fn a_signal_at_any_moment_of_the_start_ends_it() -> Result<()> {
    for shards in SHARDS {
        let mut node = alone("stopped-early", shards)?;
        // From before anything is opened until it serves.
        for moment in ["starting", "metadata log loaded", "leads the metadata quorum", " started "] {
            let before = node.words()?.len();
            node.spawn()?;
            wait_until(moment, PATIENCE, || {
                let said = node.words()?;
                // A new directory has no log to load.
                Ok((said[before..].contains(moment) || said[before..].contains(" started ")).then_some(()))
            })
            .with_context(|| node.explanation())?;
            node.ask_to_stop()?;
            let status = node.wait_for_end(REFUSAL).with_context(|| format!("at {moment:?}"))?;
            ensure!(status.success(), "at {moment:?}: {status}: {}", node.explanation());
        }
        node.start()?;
        node.stop()?;
    }
    Ok(())
}

/// Connections that failed so far in the network namespace of a process.
fn failed_connects(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/net/snmp"))?;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next().context("names")?, rows.next().context("values")?);
    let mut cells = names.split(' ').zip(values.split(' '));
    Ok(cells.find(|(name, _)| *name == "AttemptFails").context("it is counted")?.1.parse()?)
}

#[test]
fn absent_voters_are_asked_some_two_times_a_second() -> Result<()> {
    if !Network::is_possible()? {
        return Ok(());
    }
    let network = Network::new(1)?;
    for roles in [Roles::Controller, Roles::Broker] {
        let mut node = Node::new(NodePlan {
            name: "asks".to_owned(),
            kind: Kind::Ringlog,
            id: if roles == Roles::Controller { 1 } else { FIRST_BROKER },
            roles,
            log_dirs: "data".to_owned(),
            settings: String::new(),
            place: network.places().remove(0),
            java_options: Vec::new(),
        })?;
        // Nothing listens at 9094 and 9095.
        let host = node.controller().replace(":9093", "");
        node.set("controller.quorum.voters", &format!("1@{host}:9093,2@{host}:9094,3@{host}:9095"))?;
        node.format(&[])?;
        node.spawn()?;
        let process = node.process_id()?;
        // By its first words it has come into the namespace.
        wait_until("its first words", PATIENCE, || Ok((!node.words()?.is_empty()).then_some(())))?;
        let count = || failed_connects(process);
        // The namespace counts those of earlier nodes, too; and the first attempts come faster.
        let before = count()?;
        let begun =
            wait_until("first attempts", PATIENCE, || Ok(Some(count()?).filter(|count| *count >= before + 12)))?;
        let at = Instant::now();
        wait_until("further attempts", PATIENCE, || Ok((count()? >= begun + 20).then_some(())))
            .with_context(|| node.explanation())?;
        let took = at.elapsed();
        println!("{roles:?}: 20 attempts to absent voters took {took:?}");
        ensure!(took > Duration::from_secs(2), "{took:?}");
        node.ask_to_stop()?;
        ensure!(node.wait_for_end(STOP)?.success(), "{}", node.explanation());
    }
    Ok(())
}

#[test]
fn who_belongs_to_another_cluster_is_told_so_and_ends() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("own-cluster", Voters::Static)
        .controllers(1, &[Kind::Ringlog], Roles::Controller)
        .prepare()?;
    cluster.start()?;
    let (voters, other_id) = (cluster.static_voters(), random_id()?);
    for roles in [Roles::Broker, Roles::Controller] {
        let mut stranger = Node::new(NodePlan {
            name: "stranger".to_owned(),
            kind: Kind::Ringlog,
            id: if roles == Roles::Controller { 2 } else { FIRST_BROKER },
            roles,
            log_dirs: "data".to_owned(),
            settings: String::new(),
            place: ringlog_e2e_tests::place::Place::own_loopback()?,
            java_options: Vec::new(),
        })?;
        let voters = match roles {
            Roles::Controller => format!("{voters},2@{}", stranger.controller()),
            _ => voters.clone(),
        };
        stranger.set("controller.quorum.voters", &voters)?;
        let properties = stranger.properties().display().to_string();
        let arguments = ["storage", "format", "-t", &other_id, "-c", &properties];
        ensure!(Command::new(paths::ringlog()?).args(arguments).output()?.status.success());
        let at = Instant::now();
        refuses(&mut stranger, &["controller 1 at", CLUSTER_ID, &other_id, "controller.quorum.voters"])?;
        println!("{roles:?}: ended after {:?}", at.elapsed());
    }
    cluster.stop_and_check()
}

#[test]
fn a_second_process_with_a_node_id_says_where_the_first_is() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("twins", Voters::Static)
        .settings("broker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=200")
        .controllers(1, &[Kind::Ringlog], Roles::Controller)
        .brokers(1, &[Kind::Ringlog])
        .prepare()?;
    cluster.start()?;
    let (voters, first) = (cluster.static_voters(), cluster.bootstrap());
    let mut second = Node::new(NodePlan {
        name: "twin".to_owned(),
        kind: Kind::Ringlog,
        id: FIRST_BROKER,
        roles: Roles::Broker,
        log_dirs: "data".to_owned(),
        settings: "broker.session.timeout.ms=2000\ninitial.broker.registration.timeout.ms=6000\n".to_owned(),
        place: ringlog_e2e_tests::place::Place::own_loopback()?,
        java_options: Vec::new(),
    })?;
    second.set("controller.quorum.voters", &voters)?;
    second.format(&[])?;
    refuses(&mut second, &["in use by another live process", &first, "node.id"])?;
    let said = second.words()?;
    ensure!(
        said.lines().any(|line| line.contains("WARN") && line.contains(&first)),
        "it was told only at the end: {said}"
    );
    cluster.stop_and_check()
}
