//! Whole nodes: fixed seeds, and those that once found a fault.
#![cfg(ringlog_sim)]

use ringlog_ring::sim::{MS, SECOND};
use ringlog_simnode_tests::nemesis::{Fault, Planned};
use ringlog_simnode_tests::plan::Plan;
use ringlog_simnode_tests::run::run;
use ringlog_simnode_tests::scenario::Scenario;
use ringlog_simnode_tests::shrink::{Parts, leave_out};
use ringlog_simnode_tests::weather::Weather;
use ringlog_simnode_tests::workload::Workload;

#[test]
fn what_was_promised_is_there() {
    let mut answers = 0;
    for seed in 1..=20 {
        let outcome = run(&Plan::of(seed), |_| ());
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        answers += outcome.answers;
    }
    assert!(answers > 1_000, "{answers} answers");
}

#[test]
fn every_weather_is_borne() {
    for weather in Weather::ALL {
        for seed in [1, 2] {
            let outcome = run(&Plan::in_weather(seed, weather), |_| ());
            assert!(outcome.violations.is_empty(), "{} seed {seed}: {:#?}", weather.name(), outcome.violations);
        }
    }
}

#[test]
fn every_kind_of_client_is_served_when_nothing_is_wrong() {
    let kinds: [fn(&Workload) -> bool; 4] = [
        |workload| workload.groups.iter().any(|group| group.is_static && group.members > 1),
        |workload| workload.topics.iter().any(|topic| topic.message_bytes_max.is_some()),
        |workload| workload.has_prober,
        |workload| workload.crowd.is_some(),
    ];
    for (kind, is_there) in kinds.into_iter().enumerate() {
        let plans = (0..).map(|seed| Plan::in_weather(seed, Weather::Calm));
        for plan in plans.filter(|plan| is_there(&plan.workload)).take(2) {
            let outcome = run(&plan, |_| ());
            assert!(outcome.violations.is_empty(), "kind {kind}, seed {}: {:#?}", plan.seed, outcome.violations);
        }
    }
}

#[test]
fn seeds_that_found_faults_pass() {
    // As plans were then; what these runs are like has changed since, and the list of mistakes has what can be put back.
    // 104: a broker that remembered its leader by name alone never registered. 17: who waited for room at a peer that had
    // lost its power never learned of it. 49: nobody is led yet when everything is read. 5001: each flush synced all
    // segments that were in memory. 1006: a directory that fails at the start after a crash ended the node, which has others.
    // 511552, 511661: retention took the segment that was searched for a time, and the answer was that there is no such record.
    for seed in [17, 49, 104, 5001, 1006, 511_552, 511_661] {
        let outcome = run(&Plan::of(seed), |_| ());
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
    }
    // 30, 68: a follower whose leader's log starts inside of a batch began anew for ever, now at the start, now at the batch.
    for seed in [30, 68] {
        let outcome = run(&Plan::replicated(seed), |_| ());
        assert!(outcome.violations.is_empty(), "replicas, seed {seed}: {:#?}", outcome.violations);
    }
    // 45: a log directory that failed took the others along, as names in all of them were made at once.
    let outcome = run(&Plan::in_weather(45, Weather::Disks), |_| ());
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn a_power_failure_loses_nothing_that_was_flushed() {
    for seed in 1..=5 {
        let mut plan = Plan::of(seed);
        let failure = |at_ns| Planned { at_ns, for_ns: 200 * MS, fault: Fault::PowerOffAll };
        plan.faults = vec![failure(SECOND), failure(4 * SECOND)];
        plan.topics.iter_mut().for_each(|topic| topic.flushes = true);
        plan.producers.iter_mut().filter(|producer| producer.is_idempotent).for_each(|it| it.in_flight = 1);
        let outcome = run(&plan, |_| ());
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3] {
        assert_eq!(run(&Plan::of(seed), |_| ()), run(&Plan::of(seed), |_| ()));
    }
}

#[test]
fn a_node_lives_on_without_one_of_its_directories() {
    for seed in 1..=3 {
        let mut plan = Plan::of(seed);
        plan.nodes.iter_mut().for_each(|node| node.log_dirs = 3);
        plan.producers.iter_mut().for_each(|producer| producer.in_flight = 1);
        let fails = |node| Fault::FailingDisk { node, directory: 1, kind: 2 };
        let planned = |node| Planned { at_ns: SECOND, for_ns: 2 * SECOND, fault: fails(node) };
        plan.faults = (0..plan.nodes.len()).map(planned).collect();
        let outcome = run(&plan, |_| ());
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
    }
}

#[test]
fn parts_of_a_plan_can_be_left_out() {
    let seed = (0..).find(|seed| Plan::of(*seed).faults.len() > 2).unwrap();
    let parts: Vec<Parts> = vec!["faults:0,2".parse().unwrap(), "consumers:0".parse().unwrap()];
    let (all, plan) = (Plan::of(seed), leave_out(Plan::of(seed), &parts));
    assert_eq!((plan.faults.len(), plan.consumers), (all.faults.len() - 2, 0));
    assert_eq!(plan.faults[0].fault, all.faults[1].fault);
    let told = Scenario::Nodes(None).again(7, &parts);
    assert_eq!(told, "cargo xtask simnode nodes --seed 7 --without faults:0,2 --without consumers:0 --trace");
    assert!("weather:1".parse::<Parts>().is_err() && "faults".parse::<Parts>().is_err());
}
