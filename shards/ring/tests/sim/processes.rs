//! Processes: how they end, what they leave, clocks, and cores that stand still.

use std::cell::Cell;
use std::rc::Rc;

use ringlog_ring::sim::{Exit, HostSettings, MS, SECOND, Settings, World};
use ringlog_ring::{
    ExecutorContext, ExecutorOptions, Executors, MeshBuilder, now, observe, sleep_ms, sleep_until, spawn_detached,
};

use crate::{calm, run, shared, world};

#[test]
fn a_process_ends_with_its_main_function_or_at_once() {
    let (world, hosts) = world(1);
    let returned = world.start(hosts[0], "returns", || async { sleep_ms(5).await });
    let halted = world.start(hosts[0], "halts", || async {
        sleep_ms(5).await;
        spawn_detached(async { ringlog_ring::halt(3) });
        unreachable!("nothing goes on");
    });
    assert_eq!(world.run_until_exit(returned, SECOND), Some(Exit::Returned));
    assert_eq!(world.run_until_exit(halted, SECOND), Some(Exit::Halted(3)));
    calm(&world);
    let panics = world.start(hosts[0], "panics", || async {
        ringlog_ring::blocking(|| Ok(())).await.expect("computes");
        let nothing: Option<u8> = None;
        nothing.expect("this panic belongs to the test");
    });
    world.run_for(SECOND);
    let Some(Exit::Panicked(message)) = world.exit(panics) else { panic!("it panicked") };
    assert!(message.contains("this panic belongs to the test at ") && message.contains("processes.rs"), "{message}");
    let violations = world.take_violations();
    assert!(violations[0].contains("panics on n0 panicked"), "{violations:?}");
    assert!(world.running().is_empty());
}

#[test]
fn a_panic_beside_the_executors_is_an_error_and_a_violation() {
    let (world, hosts) = world(1);
    run(&world, hosts[0], || async {
        let work = || -> std::io::Result<()> { panic!("this panic belongs to the test") };
        assert!(ringlog_ring::blocking(work).await.is_err());
        assert_eq!(ringlog_ring::blocking(|| Ok(5)).await.expect("goes on"), 5);
        let work = async |_fs| -> std::io::Result<()> { panic!("this panic belongs to the test") };
        assert!(ringlog_ring::fs::run(work).await.is_err());
    });
    assert_eq!(world.take_violations().len(), 2);
}

/// Counts those that live.
struct Counted(Rc<Cell<i32>>);

impl Counted {
    fn new(count: &Rc<Cell<i32>>) -> Counted {
        count.set(count.get() + 1);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        // What a destructor asks for is of no consequence when the process is gone.
        spawn_detached(async { unreachable!("nothing runs any more") });
        let _ = now();
    }
}

#[test]
fn a_killed_process_leaves_nothing_in_memory() {
    let (world, hosts) = world(1);
    let count = Rc::new(Cell::new(0));
    for round in 0..20 {
        let counting = count.clone();
        let process = world.start(hosts[0], "node", move || async move {
            let _here = Counted::new(&counting);
            let (sender, receiver) = ringlog_ring::local_channel(1);
            let inner = counting.clone();
            spawn_detached(async move {
                let _there = Counted::new(&inner);
                while receiver.recv().await.is_some() {}
            });
            let other = Counted::new(&counting);
            spawn_detached(async move {
                let _moved = other;
                sleep_ms(1_000_000).await;
            });
            sender.send(1).await.expect("received");
            std::future::pending::<()>().await;
        });
        world.run_for(MS + round * 1000);
        assert_eq!(count.get(), 3);
        world.kill(process);
        world.run_for(MS);
        assert_eq!((world.exit(process), count.get()), (Some(Exit::Killed), 0));
    }
    calm(&world);
}

#[test]
fn a_killed_process_with_executors_leaves_nothing_either() {
    let (world, hosts) = world(2);
    // The count is one of all threads, as production code may only share those.
    let count = std::sync::Arc::new(());
    let held = count.clone();
    let process = world.start(hosts[0], "node", move || async move {
        let mesh = MeshBuilder::<std::sync::Arc<()>>::new(2, 4);
        let mains = (0..2).map(|_| {
            let (mesh, held) = (mesh.clone(), held.clone());
            let main = |context: ExecutorContext| async move {
                let endpoint = mesh.join(context.index()).await;
                while endpoint.try_send(1 - context.index(), held.clone()).is_ok() {}
                std::future::pending::<()>().await;
            };
            (ExecutorOptions::default(), main)
        });
        Executors::start(mains.collect()).expect("starts").join().await;
    });
    world.run_for(SECOND);
    assert_eq!(world.cores(process), 3);
    assert!(std::sync::Arc::strong_count(&count) > 8);
    world.kill(process);
    world.run_for(SECOND);
    assert_eq!(std::sync::Arc::strong_count(&count), 1);
}

#[test]
fn a_paused_process_does_nothing_until_it_goes_on() {
    let (world, hosts) = world(1);
    let ticks = shared::<Vec<u64>>();
    let ticking = ticks.clone();
    let process = world.start(hosts[0], "ticks", move || async move {
        loop {
            sleep_ms(10).await;
            ticking.borrow_mut().push(now().monotonic.0);
        }
    });
    world.run_for(100 * MS);
    let before = ticks.borrow().len();
    assert!((8..=10).contains(&before));
    world.pause(process);
    world.run_for(SECOND);
    assert_eq!(ticks.borrow().len(), before);
    world.resume(process);
    world.run_for(25 * MS);
    let ticks = ticks.take();
    assert!(ticks.len() > before && ticks[before] - ticks[before - 1] >= 1000, "{ticks:?}");
    world.pause(process);
    world.kill(process);
    world.run_for(MS);
    assert_eq!(world.exit(process), Some(Exit::Killed), "a stopped process can be killed");
}

#[test]
fn one_core_stands_still_while_the_others_go_on() {
    let (world, hosts) = world(1);
    let seen = shared::<Vec<(usize, u64)>>();
    let noted = seen.clone();
    world.observe(move |context, value| {
        if let Some(number) = value.downcast_ref::<u64>() {
            noted.borrow_mut().push((context.core, *number));
            assert_eq!((context.host.as_str(), context.program.as_str()), ("n0", "node"));
            assert_eq!(context.thread, format!("shard-{}", context.core));
        }
    });
    let process = world.start(hosts[0], "node", || async {
        let mains = (0..2).map(|index| {
            let options = ExecutorOptions { name: format!("shard-{index}"), ..ExecutorOptions::default() };
            let main = |_context: ExecutorContext| async {
                loop {
                    sleep_ms(10).await;
                    observe(&now().monotonic.0);
                }
            };
            (options, main)
        });
        Executors::<()>::start(mains.collect()).expect("starts").join().await;
    });
    world.run_for(100 * MS);
    world.stand_still(process, 2, 500 * MS);
    seen.borrow_mut().clear();
    world.run_for(400 * MS);
    let of = |core| seen.borrow().iter().filter(|(seen, _)| *seen == core).count();
    assert!(of(0) > 30 && of(1) == 0, "{} and {}", of(0), of(1));
    world.run_for(200 * MS);
    assert!(of(1) > 5);
}

#[test]
fn computing_takes_time_and_holds_up_what_else_there_is_to_do() {
    let (world, hosts) = world(1);
    run(&world, hosts[0], || async {
        let begin = now().monotonic;
        let late = ringlog_ring::spawn(async move {
            sleep_ms(5).await;
            now().monotonic.since_ms(begin)
        });
        ringlog_ring::spend_ns(200 * MS);
        assert!(now().monotonic.since_ms(begin) >= 200, "its own clock has gone on");
        assert!(late.await >= 200);
        let mut is_preempted = false;
        for _ in 0..100_000 {
            is_preempted |= ringlog_ring::needs_preempt();
        }
        assert!(is_preempted, "whoever asks often enough is told to yield");
    });
}

#[test]
fn clocks_run_at_their_own_pace_and_the_wall_clock_may_be_set() {
    let world = World::new(Settings::default());
    let fast = HostSettings { rate_ppm: 100_000, monotonic_ns: 7 * SECOND, ..HostSettings::named("fast") };
    let fast = world.add_host(fast);
    let off = world.add_host(HostSettings { wall_offset_ms: -500, ..HostSettings::named("off") });
    let right = world.add_host(HostSettings::named("right"));
    let clocks = [fast, off, right].map(|host| {
        let clocks = || async {
            let before = now();
            sleep_ms(11_000).await;
            sleep_until(before.monotonic.plus_ms(12_000)).await;
            let passed = now().monotonic.since_ms(before.monotonic);
            assert!((12_000..12_010).contains(&passed), "{passed}");
            (before.monotonic.0, before.wall.0)
        };
        let begin = world.now_ns();
        let before = run(&world, host, clocks);
        ((world.now_ns() - begin) / MS, before)
    });
    assert_eq!((clocks[0].0, clocks[0].1.0), (12_000 * 10 / 11, 7_000));
    assert!((12_000..12_010).contains(&clocks[2].0));
    let wall = || async { now().wall.0 };
    let before = run(&world, right, wall);
    assert!((before - run(&world, off, wall) - 500).abs() < 5);
    world.set_wall_clock(right, 60_000);
    let (monotonic, wall) = run(&world, right, || async { (now().monotonic.0, now().wall.0) });
    assert!((60_000..60_010).contains(&(wall - before)));
    assert!(monotonic < 1_100_000, "the monotonic clock knows nothing of it");
}

#[test]
fn a_program_hears_that_it_shall_stop() {
    let (world, hosts) = world(1);
    let process = world.start(hosts[0], "node", || async {
        let main = |context: ExecutorContext| async move {
            context.ready();
            context.stopped().wait().await;
        };
        let mut executors = Executors::start(vec![(ExecutorOptions::default(), main)]).expect("starts");
        executors.ready().await.expect("ready");
        let stop = executors.stop_handle();
        spawn_detached(async move {
            ringlog_ring::sim::signal(1).await;
            stop.stop();
        });
        executors.join().await;
    });
    world.run_for(SECOND);
    assert_eq!(world.exit(process), None);
    world.terminate(process);
    assert_eq!(world.run_until_exit(process, SECOND), Some(Exit::Returned));
    calm(&world);
}
