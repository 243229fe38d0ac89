//! Several nodes over a network that delays, loses, reorders and doubles, with crashes that lose what was not flushed.
//! The seed decides everything. Checked throughout: one leader per epoch, high watermarks that only rise, and records
//! that once committed anywhere are the same everywhere for ever.

mod node;
mod sim;

use sim::{Faults, Sim};

/// Runs a faulty minute, heals, and wants every node to commit new records.
fn run(seed: u64, voters: i32, observers: i32, faults: Faults) -> Sim {
    let mut sim = Sim::new(seed, voters, observers);
    sim.faults = faults;
    sim.run_for(60_000);
    sim.heal();
    sim.run_for(15_000);
    let before = sim.committed_end();
    sim.run_for(5_000);
    assert!(sim.committed_end() > before, "seed {seed}: nothing is committed after the faults are over");
    sim.assert_all_caught_up(before);
    sim
}

#[test]
fn three_voters_under_every_fault() {
    let mut commits = 0;
    for seed in 0..8 {
        commits += run(seed, 3, 0, Faults::ALL).committed_end();
    }
    assert!(commits > 8 * 100, "the faults leave no room for progress: {commits} records");
}

#[test]
fn three_voters_that_crash_all_the_time() {
    for seed in 700..712 {
        run(seed, 3, 0, Faults::HARSH);
    }
}

/// How many elections there are is said by `RINGLOG_RAFT_ELECTIONS`: a few in a test, a million in a hunt.
#[test]
fn each_epoch_has_one_leader_however_often_they_change() {
    let wanted = std::env::var("RINGLOG_RAFT_ELECTIONS").map_or(300, |text| text.parse().expect("a number"));
    let (mut elections, mut seed) = (0, 10_000);
    while elections < wanted {
        let mut sim = Sim::new(seed, 3 + 2 * (seed % 2) as i32, 0);
        sim.faults = Faults::HARSH;
        sim.run_for(60_000);
        elections += sim.elections();
        seed += 1;
    }
    println!("{elections} elections in {} virtual minutes", seed - 10_000);
}

#[test]
fn five_voters_and_observers_under_every_fault() {
    for seed in 100..104 {
        run(seed, 5, 2, Faults::ALL);
    }
}

#[test]
fn snapshots_bring_nodes_back_whose_log_is_gone() {
    let mut downloads = 0;
    for seed in 200..204 {
        downloads += run(seed, 3, 1, Faults { snapshot: 200, ..Faults::ALL }).downloads;
    }
    assert!(downloads > 0, "no node ever fetched a snapshot");
}

#[test]
fn controllers_join_a_dynamic_quorum_and_survive_faults() {
    for seed in 500..506 {
        let mut sim = Sim::dynamic(seed, 3);
        sim.run_for(20_000);
        assert_eq!(sim.voter_ids().len(), 3, "seed {seed}: not everybody joined");
        sim.faults = Faults::ALL;
        sim.run_for(40_000);
        sim.heal();
        sim.run_for(15_000);
        let before = sim.committed_end();
        sim.run_for(5_000);
        assert!(sim.committed_end() > before, "seed {seed}: no progress");
        sim.assert_all_caught_up(before);
    }
}

#[test]
fn a_removed_leader_resigns_and_joins_again() {
    for seed in 600..604 {
        let mut sim = Sim::dynamic(seed, 3);
        sim.run_for(20_000);
        let leader = sim.leader().expect("a leader after 20 s");
        sim.remove_voter(leader);
        sim.run_for(3_000);
        assert_ne!(sim.leader(), Some(leader), "seed {seed}: the removed node still leads");
        // Auto-join undoes the removal, as in Kafka.
        sim.run_for(10_000);
        assert_eq!(sim.voter_ids().len(), 3, "seed {seed}");
    }
}

#[test]
fn a_calm_network_keeps_its_first_leader() {
    let mut sim = Sim::new(7, 3, 1);
    sim.run_for(10_000);
    let (epoch, elections) = (sim.epoch(), sim.elections());
    sim.run_for(60_000);
    assert_eq!((sim.epoch(), sim.elections()), (epoch, elections), "there was an election without need");
}

#[test]
fn a_killed_leader_is_replaced_within_seconds() {
    for seed in 300..310 {
        let mut sim = Sim::new(seed, 3, 0);
        sim.run_for(8_000);
        let leader = sim.leader().expect("a leader after 8 s");
        sim.crash(leader);
        sim.run_for(6_000);
        let next = sim.leader().expect("a new leader within 6 s");
        assert_ne!(next, leader);
    }
}

#[test]
fn an_orderly_leader_hands_over_at_once() {
    for seed in 400..410 {
        let mut sim = Sim::new(seed, 3, 0);
        sim.run_for(8_000);
        let leader = sim.leader().expect("a leader after 8 s");
        let handed_over_ms = sim.shut_down(leader);
        assert!(handed_over_ms < 1500, "seed {seed}: {handed_over_ms} ms");
    }
}
