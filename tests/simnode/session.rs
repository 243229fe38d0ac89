//! A broker's session. By itself, since what nodes log is looked at, and that is the whole process's.
#![cfg(ringlog_sim)]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use ringlog_ring::sim::SECOND;
use ringlog_simnode_tests::nemesis::{Fault, Planned};
use ringlog_simnode_tests::plan::Plan;
use ringlog_simnode_tests::run::run;
use tracing_subscriber::filter::LevelFilter;

/// What the nodes of a run logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_lively_broker_is_not_fenced_however_slow_the_controllers_disk_is() {
    let mut plan = Plan::of(1);
    plan.nodes.truncate(1);
    (plan.nodes[0].is_controller, plan.nodes[0].is_broker) = (true, true);
    // Somebody makes topics, so that there are records whose flush is waited for.
    plan.has_admin = true;
    plan.has_rude_client = false;
    // Twice as long as a session.
    let hangs = |at_ns| Planned { at_ns, for_ns: 6 * SECOND, fault: Fault::HangingDisk { node: 0, directory: 0 } };
    plan.faults = vec![hangs(SECOND), hangs(10 * SECOND), hangs(19 * SECOND)];
    plan.lasts_ns = 30 * SECOND;
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(LevelFilter::DEBUG);
    subscriber.with_writer(move || writer.clone()).init();
    let outcome = run(&plan, |_| ());
    assert_eq!(outcome.violations, Vec::<String>::new());
    let logged = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    let led: Vec<&str> = logged.lines().filter(|line| line.contains("state.change.logger: new leader")).collect();
    assert!(!led.is_empty());
    // Who is fenced leads nothing, and then leads again in another epoch. Who stops, at the end, leads no more.
    let again: Vec<_> = led.iter().filter(|line| line.contains(" leader=1 ") && !line.ends_with(" epoch=0")).collect();
    assert!(again.is_empty(), "{again:#?}");
}
