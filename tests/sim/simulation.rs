//! Fixed seeds of all scenarios, and that the simulation itself is worth something. Fresh seeds: `cargo xtask sim`.

use ringlog_sim_tests::{Bug, Scenario, Stats, run};

/// Seeds of the log and of groups that always run.
const FIXED_SEEDS: u64 = 60;
/// Those that found a fault once: a finished segment's epochs that a power loss forgot, producer snapshots that knew of
/// lost batches, and a flush that didn't wait for the file's name, since another one was about to.
const FOUND_SEEDS: [u64; 4] = [104_468_923_833_170, 182_726_890_201_055, 202_518_378_906_575, 39_700_671_873_404];
/// Seeds of the metadata quorum that always run.
const QUORUM_SEEDS: u64 = 100;
/// Those that found a fault once: a leader that moved and wasn't found, epochs of a broker's log that its file got wrong,
/// a partition that began without a replica in sync, decisions that contradict each other, a broker's rotten epoch, a
/// record that was acknowledged, lost, and counted, and a leader that was elected uncleanly by the very change that said
/// that its predecessor had recovered.
const FOUND_FAULTS: [u64; 8] =
    [602_459, 607_683, 607_005, 1_000_003, 61_277_421_774_273, 246_029_342_532_225, 80_096_676_466_425, 1_928];
/// A vote kept with records that a power failure took, a cut at the wrong place, a leader that stopped and stayed; and
/// a snapshot of the leader before, which a checker took for news of the present one.
const FOUND_ELECTIONS: [u64; 4] = [502_453, 508_705, 310_360, 269_927_049_243_218];
/// Seeds among which a deliberate mistake must be found; most are in the first.
const MISTAKE_SEEDS: u64 = 400;

fn run_all(scenario: Scenario, seeds: impl IntoIterator<Item = u64>) -> Stats {
    let mut stats = Stats::default();
    for seed in seeds {
        match run(scenario, seed, None) {
            Ok(of_run) => stats.add(&of_run),
            Err(failure) => panic!("seed {seed}\n{failure}"),
        }
    }
    stats
}

#[test]
fn a_logs_promises_survive_crashes() {
    let stats = run_all(Scenario::Log, (0..FIXED_SEEDS).chain(FOUND_SEEDS));
    assert!(stats.appends > 10_000 && stats.restarts > 100, "the runs do little: {stats:?}");
    assert!(stats.rolls > 100 && stats.duplicates > 100, "the runs do little: {stats:?}");
}

#[test]
fn a_groups_promises_survive_crashes() {
    let stats = run_all(Scenario::Groups, (0..FIXED_SEEDS).chain(FOUND_SEEDS));
    assert!(stats.commits > 1_000 && stats.rebalances > 50, "the runs do little: {stats:?}");
}

#[test]
fn a_metadata_quorum_bears_all_faults() {
    let stats = run_all(Scenario::Faults, (0..QUORUM_SEEDS).chain(FOUND_FAULTS));
    assert!(stats.elections > 500 && stats.crashes > 700, "the runs do little: {stats:?}");
    assert!(stats.commits > 10_000 && stats.truncations > 70, "the runs do little: {stats:?}");
    assert!(stats.snapshots > 700 && stats.snapshots_fetched > 30, "the runs do little: {stats:?}");
}

#[test]
fn a_metadata_quorum_bears_all_elections() {
    let stats = run_all(Scenario::Elections, (0..QUORUM_SEEDS).chain(FOUND_ELECTIONS));
    assert!(stats.elections > 1_000 && stats.crashes > 1_500, "the runs do little: {stats:?}");
    assert!(stats.truncations > 150 && stats.commits > 5_000, "the runs do little: {stats:?}");
}

#[test]
fn a_seed_repeats_its_run() {
    for scenario in Scenario::ALL {
        let stats = run(scenario, 3, None).unwrap();
        assert_eq!(run(scenario, 3, None).unwrap(), stats);
    }
}

/// Each deliberate mistake of the simulated drivers is found with some seed, which passes without it. Those of the cores
/// are `cargo xtask sim --mutants`.
#[test]
fn every_deliberate_mistake_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let find = |scenario: Scenario| (0..MISTAKE_SEEDS).find_map(|seed| run(scenario, seed, Some(*bug)).err());
        match [Scenario::Log, Scenario::Groups].into_iter().find_map(find) {
            Some(failure) => {
                println!("{bug:?}: seed {}: {}", failure.seed, failure.message);
                let without = run(failure.scenario, failure.seed, None);
                assert!(without.is_ok(), "seed {} fails without a mistake, too", failure.seed);
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "no checker finds {missed:?}");
}
