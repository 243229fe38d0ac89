//! The metadata quorum on whole nodes: fixed seeds.
#![cfg(ringlog_sim)]

use ringlog_simnode_tests::quorum::plan::{Kind, QuorumPlan};
use ringlog_simnode_tests::quorum::run::run;

#[test]
fn a_quorum_stays_one_whatever_happens() {
    let mut answers = 0;
    for seed in 1..=12 {
        let outcome = run(&QuorumPlan::of(Kind::Faults, seed), |_| ());
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        answers += outcome.answers;
    }
    assert!(answers > 100, "{answers} answers");
}

#[test]
fn each_epoch_has_one_leader_at_most() {
    let mut elections = 0;
    for seed in 1..=12 {
        let outcome = run(&QuorumPlan::of(Kind::Elections, seed), |_| ());
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        elections += outcome.elections;
    }
    assert!(elections > 60, "{elections} elections");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for kind in [Kind::Faults, Kind::Elections] {
        let plan = QuorumPlan::of(kind, 3);
        assert_eq!(run(&plan, |_| ()), run(&plan, |_| ()));
    }
}
