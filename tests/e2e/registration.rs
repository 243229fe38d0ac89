//! What a broker says of itself that doesn't do all that a broker of Kafka does.
//!
//! The node is Ringlog whatever `RINGLOG_E2E_NODE` says; the controller is Kafka, too.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{self, ClusterPlan, FIRST_BROKER, Voters};
use ringlog_e2e_tests::node::{Kind, Node, Roles};
use ringlog_e2e_tests::paths;

/// What brokers don't serve, and Kafka's newest levels of it.
const NOT_SERVED: [(&str, i16); 4] =
    [("transaction.version", 2), ("group.version", 1), ("share.version", 1), ("streams.version", 1)];

fn features(bootstrap: &str, arguments: &[&str]) -> Result<Output> {
    let connect = ["features", "--bootstrap-server", bootstrap];
    Ok(Command::new(paths::ringlog()?).args(connect).args(arguments).output()?)
}

/// The highest supported and the finalized level, as the broker tells them.
fn levels(bootstrap: &str, feature: &str) -> Result<(String, String)> {
    let shown = String::from_utf8(features(bootstrap, &["describe"])?.stdout)?;
    let mut lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let words = lines.find(|words| words.get(1) == Some(&feature)).with_context(|| shown.clone())?;
    let value = |name: &str| {
        let at = words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
        at.map(|word| (*word).to_owned()).with_context(|| format!("{name} in {words:?}"))
    };
    Ok((value("SupportedMaxVersion:")?, value("FinalizedVersionLevel:")?))
}

#[test]
fn what_is_not_served_can_not_be_turned_on() -> Result<()> {
    let mut node = Node::prepare("unserved", Kind::Ringlog, 1, "data", "", "")?;
    let levels_of: Vec<String> = NOT_SERVED.iter().map(|(name, _)| format!("{name}=0")).collect();
    let named = levels_of.iter().flat_map(|level| ["--feature", level]);
    node.format(&["--standalone"].into_iter().chain(named).collect::<Vec<_>>())?;
    node.start()?;
    let bootstrap = node.bootstrap();
    for (name, newest) in NOT_SERVED {
        ensure!(
            levels(&bootstrap, name)? == ("0".to_owned(), "0".to_owned()),
            "{name}: {:?}",
            levels(&bootstrap, name)?
        );
        let output = features(&bootstrap, &["upgrade", "--feature", &format!("{name}={newest}")])?;
        let said = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(!output.status.success() && said.contains("Could not"), "{name}: {said}");
        ensure!(levels(&bootstrap, name)?.1 == "0", "{name}");
    }
    node.stop()
}

/// Kafka's own tool formats a cluster so that all of it is on, and its controllers take no broker that knows less.
#[test]
fn a_cluster_of_kafka_with_all_features_takes_the_broker() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("all-features", Voters::Initial)
        .controllers(1, &[Kind::Kafka], Roles::Controller)
        .brokers(1, &[Kind::Ringlog])
        .prepare()?;
    cluster.start()?;
    for (name, newest) in NOT_SERVED {
        let expected = (newest.to_string(), newest.to_string());
        ensure!(levels(&cluster.bootstrap(), name)? == expected, "{name}: {:?}", levels(&cluster.bootstrap(), name)?);
    }
    let said = cluster.node(FIRST_BROKER)?.words()?;
    ensure!(said.contains("transaction.version=2") && said.contains("doesn't serve yet"), "{said}");
    cluster.stop_and_check()
}
