//! Starting, stopping, and going on under load.

use std::cell::Cell;
use std::rc::Rc;

use ringlog_ring::{
    ExecutorContext, ExecutorOptions, Executors, StartError, TaskQueue, hostname, lookup, outside_channel, probe,
    raise_nofile, spawn, spawn_detached, spawn_into, timeout_outside_ms, usable_cpus, yield_now,
};

use crate::{options, process, run, run_all};

/// Far more than what is waited for takes.
const PATIENCE_MS: u64 = 60_000;

#[test]
fn the_host_is_asked_first() {
    process(|| async {
        probe().expect("these tests need io_uring");
        assert!(!usable_cpus().expect("an affinity mask").is_empty());
        assert!(raise_nofile() > 100);
        assert!(!hostname().is_empty());
    });
}

#[test]
fn names_have_addresses_and_numbers_are_some() {
    run(|| async {
        let addresses = lookup("localhost", 9092).await.expect("every host knows itself");
        assert!(!addresses.is_empty() && addresses.iter().all(|it| it.ip().is_loopback() && it.port() == 9092));
        for (number, address) in [("10.1.2.3", "10.1.2.3:7"), ("[::1]", "[::1]:7"), ("::1", "[::1]:7")] {
            assert_eq!(lookup(number, 7).await.expect("a number"), [address.parse().expect("an address")]);
        }
        assert!(lookup("no-such-name.invalid", 9092).await.is_err());
    });
}

#[test]
fn pinned_executors_start_together_and_stop_when_asked_from_outside() {
    process(|| async {
        let cpus = usable_cpus().unwrap();
        let mains = (0..2).map(|index| {
            let options = ExecutorOptions { cpu: Some(cpus[index % cpus.len()]), ..options() };
            let main = |context: ExecutorContext| async move {
                assert_eq!(context.count(), 2);
                context.ready();
                context.stopped().wait().await;
                assert!(context.stopped().is_set());
                context.index()
            };
            (options, main)
        });
        let mut executors = Executors::start(mains.collect()).expect("start");
        executors.ready().await.expect("ready");
        executors.stop_handle().stop();
        assert_eq!(executors.join().await, [0, 1]);
    });
}

#[test]
fn an_executor_that_cannot_start_or_ends_early_is_reported() {
    process(|| async {
        let main = |_context: ExecutorContext| async { Err::<(), _>("no directory") };
        let mut executors = Executors::start(vec![(options(), main)]).expect("starts");
        assert!(matches!(executors.ready().await, Err(StartError::EndedEarly { index: 0 })));
        assert_eq!(executors.join().await, [Err("no directory")]);

        let nowhere = ExecutorOptions { cpu: Some(100_000), ..options() };
        let failed = Executors::start(vec![(nowhere, |_context: ExecutorContext| async {})]);
        assert!(matches!(failed, Err(StartError::NoExecutor { index: 0, .. })));
    });
}

/// Whichever of them it is, whatever the others wait for.
#[test]
fn one_that_fails_to_get_ready_is_heard_of_while_the_others_wait() {
    process(|| async {
        for bad in 0..3 {
            let mains = (0..3).map(|_| {
                let main = move |context: ExecutorContext| async move {
                    if context.index() == bad {
                        context.faults().send("no directory".to_owned());
                    }
                    context.stopped().wait().await;
                };
                (options(), main)
            });
            let mut executors = Executors::start(mains.collect()).expect("starts");
            match executors.ready().await {
                Err(StartError::Failed { index, reason }) => {
                    assert_eq!((index, reason.as_str()), (bad, "no directory"));
                }
                other => panic!("{other:?}"),
            }
            assert!(!executors.end_within(0).await, "they go on until they are asked to stop");
            executors.stop_handle().stop();
            assert!(executors.end_within(PATIENCE_MS).await);
            executors.join().await;
        }
    });
}

#[test]
fn a_fault_of_one_that_serves_ends_the_wait_for_their_end() {
    process(|| async {
        let main = |context: ExecutorContext| async move {
            context.ready();
            if context.index() == 1 {
                context.faults().send("no disk".to_owned());
            }
            context.stopped().wait().await;
        };
        let mut executors = Executors::start(vec![(options(), main), (options(), main)]).expect("starts");
        // The fault may be heard of before the other is ready.
        let outcome = match executors.ready().await {
            Ok(()) => executors.end().await,
            failed => failed,
        };
        assert!(matches!(outcome, Err(StartError::Failed { index: 1, .. })), "{outcome:?}");
        executors.stop_handle().stop();
        executors.end().await.expect("they end");
        assert_eq!(executors.join().await.len(), 2);
    });
}

#[test]
fn a_request_to_stop_ends_the_wait_for_readiness() {
    process(|| async {
        let asks = |context: ExecutorContext, stop: ringlog_ring::OutsideReceiver<ringlog_ring::StopHandle>| async move {
            stop.recv().await.expect("a handle").stop();
            context.stopped().wait().await;
        };
        let (sender, receiver) = outside_channel(1);
        let main = move |context: ExecutorContext| asks(context, receiver);
        let mut executors = Executors::start(vec![(options(), main)]).expect("starts");
        assert!(sender.send(executors.stop_handle()).is_ok());
        assert!(matches!(executors.ready().await, Err(StartError::Stopped | StartError::EndedEarly { .. })));
        assert!(executors.end_within(PATIENCE_MS).await);
        executors.join().await;
    });
}

#[test]
fn a_wait_outside_of_executors_ends_with_the_value_or_the_time() {
    process(|| async {
        assert!(timeout_outside_ms(5, std::future::pending::<()>()).await.is_err());
        assert_eq!(timeout_outside_ms(PATIENCE_MS, async { 7 }).await, Ok(7));
        let (sender, receiver) = outside_channel(1);
        let main = move |_context: ExecutorContext| async move { sender.send(8) };
        let executors = Executors::start(vec![(options(), main)]).expect("starts");
        assert_eq!(timeout_outside_ms(PATIENCE_MS, receiver.recv()).await, Ok(Some(8)));
        executors.join().await;
    });
}

/// A helper thread whose executor has gone has nobody to tell what it did. In a node a panic would end the process. The
/// simulation's helpers end with their executor.
#[cfg(not(ringlog_sim))]
#[test]
fn an_executor_may_end_while_a_helper_thread_is_busy() {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use ringlog_ring::blocking;

    struct SendAtEnd(Sender<bool>);
    impl Drop for SendAtEnd {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::panicking());
        }
    }
    thread_local! { static AT_END: RefCell<Option<SendAtEnd>> = const { RefCell::new(None) }; }
    static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        HAS_PANICKED.fetch_or(info.to_string().contains("failed to send response"), Ordering::SeqCst);
        before(info);
    }));
    let (begun, has_begun) = channel();
    let (release, released) = channel::<()>();
    let (ended, has_ended) = channel();
    let main = move |_context: ExecutorContext| async move {
        let work = move || {
            AT_END.set(Some(SendAtEnd(ended)));
            begun.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        };
        spawn_detached(async move { drop(blocking(work).await) });
        yield_now().await;
        has_begun.recv().unwrap();
    };
    run_all(vec![(options(), main)]);
    release.send(()).unwrap();
    has_ended.recv_timeout(Duration::from_millis(PATIENCE_MS)).expect("the helper thread ends");
    assert!(!HAS_PANICKED.load(Ordering::SeqCst));
}

#[test]
fn tasks_of_an_executor_end_with_it() {
    struct Told(std::sync::mpsc::Sender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    run(move || async move {
        let told = Told(sender);
        spawn_detached(async move {
            yield_now().await;
            drop(told);
            std::future::pending::<()>().await;
        });
        yield_now().await;
    });
    receiver.recv().expect("it ran while its executor did");
}

/// With unpatched glommio this ends in a sleep from which nothing wakes: the preempt timer nearly always fires before
/// the first task gets its turn. `hang/` runs the same against the unpatched crate.
#[test]
fn an_executor_preempted_before_its_first_task_does_not_go_to_sleep() {
    let options = ExecutorOptions { preempt_timer_us: 1, ..options() };
    let main = |_context| async {
        for _ in 0..2000 {
            yield_now().await;
        }
        2000
    };
    assert_eq!(run_all(vec![(options, main)]), [2000]);
}

/// More wakers of one task than the unpatched crate's 16-bit count allows.
#[test]
fn a_task_may_have_many_wakers() {
    run(|| async {
        let wakers = spawn(std::future::poll_fn(|context| {
            std::task::Poll::Ready((0..100_000).map(|_| context.waker().clone()).collect::<Vec<_>>())
        }));
        assert_eq!(wakers.await.len(), 100_000);
    });
}

#[test]
fn queues_share_the_time_and_tasks_can_be_cancelled() {
    run(|| async {
        let background = TaskQueue::new("background", 10, None);
        let count = Rc::new(Cell::new(0));
        let counting = Rc::clone(&count);
        let endless = spawn_into(background, async move {
            loop {
                counting.set(counting.get() + 1);
                yield_now().await;
            }
        });
        while count.get() < 10 {
            yield_now().await;
        }
        assert_eq!(endless.cancel().await, None::<()>);
        let done = Rc::new(Cell::new(false));
        let doing = Rc::clone(&done);
        spawn_detached(async move {
            yield_now().await;
            doing.set(true);
        });
        while !done.get() {
            yield_now().await;
        }
    });
}

/// The simulation has no watchdog: nothing is late there but by its own doing.
#[cfg(not(ringlog_sim))]
#[test]
fn an_executor_that_does_not_answer_is_seen() {
    use ringlog_ring::stall_stats;
    let before = stall_stats();
    run(|| async {
        // Busy without a look at anything else, until the watchdog has noticed.
        let begin = std::time::Instant::now();
        while stall_stats().longest_stall_ms == 0 && begin.elapsed().as_secs() < 20 {
            std::hint::spin_loop();
        }
    });
    let after = stall_stats();
    assert!(after.longest_stall_ms > 0 && after.stalls >= before.stalls);
}

/// In the simulation no time passes in a loop that doesn't yield.
#[cfg(not(ringlog_sim))]
#[test]
fn others_run_between_the_steps_of_a_long_loop() {
    run(|| async {
        let ran = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = ran.clone();
        let other = spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let begin = std::time::Instant::now();
        let mut turns = ringlog_ring::Turns::begin();
        while ran.get() < 10 {
            assert!(begin.elapsed().as_secs() < 20, "the other task has run {} times", ran.get());
            turns.step().await;
        }
        other.cancel().await;
    });
}
