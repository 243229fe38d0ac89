//! A controller whose disk is full stops and says why; the others go on, and it comes back when there is room again.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::small_disk::SmallDisk;
use ringlog_e2e_tests::topics::{Creator, TopicPlan};
use ringlog_e2e_tests::wait_until;

/// What the system says.
const NO_SPACE: &str = "No space left on device";
/// The controller with the small disk.
const VICTIM: i32 = 1;

#[test]
fn a_controller_without_space_leaves_the_quorum_alone() -> Result<()> {
    let _turn = cluster::turn();
    // Dropped last, when nobody uses it any more.
    let Some(disk) = SmallDisk::new("disk-full", 32)? else { return Ok(()) };
    let mut cluster = ClusterPlan::new("full", Voters::Static)
        .controllers(3, &Kind::controllers()?, Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .prepare()?;
    let metadata = disk.folder().join("metadata").display().to_string();
    let node = cluster.node(VICTIM)?;
    node.set("metadata.log.dir", &metadata)?;
    node.wipe(&[])?;
    cluster.start()?;
    let creator = Creator::start(&cluster.bootstrap(), "made", TopicPlan::replicated(1));
    creator.wait_for_more(5)?;
    let view = cluster.wait_until_caught_up()?;
    if view.leader == VICTIM {
        let another = view.voter_ids().into_iter().find(|id| *id != VICTIM).context("another controller")?;
        cluster.move_leadership_to(another)?;
    }
    run_out(&mut cluster, &disk, &creator).context("as a follower")?;
    cluster.move_leadership_to(VICTIM)?;
    run_out(&mut cluster, &disk, &creator).context("as the leader")?;
    let brokers = cluster.brokers();
    let (count, longest) = creator.finish(&brokers)?;
    println!("{count} topics; the longest took {longest:?}");
    cluster.check_logs()?;
    cluster.stop_and_check()
}

fn run_out(cluster: &mut Cluster, disk: &SmallDisk, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let said = cluster.node(VICTIM)?.words()?.len();
    disk.fill()?;
    let ended = wait_until("the controller to end", PATIENCE, || Ok((!cluster.node(VICTIM)?.is_alive()).then_some(())));
    ended.with_context(|| cluster.explanation())?;
    let node = cluster.node(VICTIM)?;
    let status = node.wait_for_end(PATIENCE)?;
    let words = node.words()?;
    println!("the controller ended with {status}");
    ensure!(!status.success(), "it ended well");
    ensure!(words[said..].contains(NO_SPACE), "it didn't say that its disk is full: {}", node.explanation());
    creator.wait_for_more(10)?;
    let after = cluster.wait_for_leader()?;
    let is_same = (after.leader, after.epoch) == (before.leader, before.epoch);
    ensure!(is_same != (before.leader == VICTIM), "before: {before:?}\nafter: {after:?}");
    disk.free()?;
    cluster.start_node(VICTIM)?;
    cluster.wait_until_caught_up()?;
    creator.wait_for_more(5)?;
    cluster.check_logs()
}
