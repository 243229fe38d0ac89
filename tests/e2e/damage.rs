//! A controller whose metadata was damaged while it was down says so, doesn't vote with what is left, and gets everything
//! again from the others; one that is alone refuses to start.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::metadata_log;
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::topics::{self, Creator, TopicPlan};

/// Snapshots soon, so that there is one to be damaged; and no election because the machine stood still for a moment.
const SETTINGS: &str =
    "metadata.log.max.record.bytes.between.snapshots=20000\ncontroller.quorum.fetch.timeout.ms=10000";
/// What is said of a snapshot whose checksums are wrong.
const SET_ASIDE: &str = "the snapshot is damaged and is set aside";
/// What is said of a log that ends below what had been durable.
const LOST: &str = "records of the metadata log are lost that this node may have acknowledged";
/// What follows when all is well again.
const REBUILT: &str = "the lost records of the metadata log are there again";
/// Why a controller that is alone doesn't start.
const REFUSED: &str = "there is no other controller to fetch them from";

#[test]
fn damaged_metadata_is_fetched_again_from_the_others() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("damage", Voters::Initial)
        .settings(SETTINGS)
        .controllers(3, &[Kind::Ringlog], Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .prepare()?;
    cluster.start()?;
    let plan = TopicPlan { ballast_bytes: 4000, ..TopicPlan::replicated(1) };
    let creator = Creator::start(&cluster.bootstrap(), "made", plan);
    creator.wait_for_more(20)?;
    damage(&mut cluster, &creator, &[SET_ASIDE], flip_in_newest_snapshot).context("a byte of a snapshot")?;
    damage(&mut cluster, &creator, &[LOST, REBUILT], flip_in_log).context("a byte of the log")?;
    damage(&mut cluster, &creator, &[LOST, REBUILT], cut_log).context("half of the log")?;
    let everything = [SET_ASIDE, LOST, REBUILT];
    let both = |folder: &Path| flip_in_newest_snapshot(folder).and_then(|()| cut_log(folder));
    damage(&mut cluster, &creator, &everything, both).context("snapshot and log")?;
    let brokers = cluster.brokers();
    creator.finish(&brokers)?;
    cluster.stop_and_check()
}

/// A follower is damaged while it is down, says so when it comes back, catches up, and leads.
fn damage(
    cluster: &mut Cluster,
    creator: &Creator,
    expected: &[&str],
    harm: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let victim = cluster.controller_ids().into_iter().find(|id| *id != before.leader).context("a follower")?;
    let said = cluster.node(victim)?.words()?.len();
    cluster.node(victim)?.stop()?;
    creator.wait_for_more(5)?;
    harm(&cluster.node(victim)?.metadata_folder())?;
    cluster.start_node(victim)?;
    let after = cluster.wait_until_caught_up()?;
    ensure!((after.leader, after.epoch) == (before.leader, before.epoch), "an election: {after:?}");
    let words = cluster.node(victim)?.words()?;
    for expected in expected {
        ensure!(words[said..].contains(expected), "it didn't say: {expected}\n{}", cluster.explanation());
    }
    cluster.check_logs()?;
    cluster.move_leadership_to(victim)?;
    creator.wait_for_more(5)
}

fn flip(file: &Path, position: impl Fn(usize) -> usize) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let position = position(bytes.len());
    *bytes.get_mut(position).with_context(|| format!("{} has {position} bytes", file.display()))? ^= 0x10;
    // Snapshots are read-only.
    fs::remove_file(file)?;
    Ok(fs::write(file, bytes)?)
}

fn flip_in_newest_snapshot(folder: &Path) -> Result<()> {
    flip(metadata_log::snapshots(folder)?.last().context("a snapshot")?, |len| len / 2)
}

fn flip_in_log(folder: &Path) -> Result<()> {
    flip(metadata_log::segments(folder)?.last().context("a segment")?, |len| 2 * len / 3)
}

fn cut_log(folder: &Path) -> Result<()> {
    let segment = metadata_log::segments(folder)?.pop().context("a segment")?;
    let file = fs::File::options().write(true).open(segment)?;
    Ok(file.set_len(file.metadata()?.len() / 2)?)
}

#[test]
fn a_controller_that_is_alone_refuses_a_log_that_lost_its_end() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("damage-alone", Voters::Initial)
        .controllers(1, &[Kind::Ringlog], Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .prepare()?;
    cluster.start()?;
    topics::create(&cluster.bootstrap(), "made", &TopicPlan::replicated(1), PATIENCE)?;
    let controller = cluster.controller_ids()[0];
    let node = cluster.node(controller)?;
    node.stop()?;
    cut_log(&node.metadata_folder())?;
    node.spawn()?;
    let status = node.wait_for_end(PATIENCE)?;
    ensure!(!status.success() && node.words()?.contains(REFUSED), "{}", node.explanation());
    Ok(())
}
