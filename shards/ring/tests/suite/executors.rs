//! Starting, stopping, and going on under load.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use ringlog_ring::{
    ExecutorContext, ExecutorOptions, Executors, StartError, TaskQueue, blocking, probe, spawn, spawn_detached,
    spawn_into, stall_stats, usable_cpus, yield_now,
};

use crate::{options, run};

/// Far more than what is waited for takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_host_is_asked_first() {
    probe().expect("these tests need io_uring");
    assert!(!usable_cpus().expect("an affinity mask").is_empty());
}

#[test]
fn pinned_executors_start_together_and_stop_when_asked_from_outside() {
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
    executors.wait_until_ready().expect("ready");
    executors.stop_handle().stop();
    assert_eq!(executors.join(), [0, 1]);
}

#[test]
fn an_executor_that_cannot_start_or_ends_early_is_reported() {
    let main = |_context: ExecutorContext| async { Err::<(), _>("no directory") };
    let mut executors = Executors::start(vec![(options(), main)]).expect("starts");
    assert!(matches!(executors.wait_until_ready(), Err(StartError::EndedEarly { index: 0 })));
    assert_eq!(executors.join(), [Err("no directory")]);

    let nowhere = ExecutorOptions { cpu: Some(100_000), ..options() };
    let failed = Executors::start(vec![(nowhere, |_context: ExecutorContext| async {})]);
    assert!(matches!(failed, Err(StartError::NoExecutor { index: 0, .. })));
}

/// Whichever of them it is, whatever the others wait for.
#[test]
fn one_that_fails_to_get_ready_is_heard_of_while_the_others_wait() {
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
        match executors.wait_until_ready() {
            Err(StartError::Failed { index, reason }) => assert_eq!((index, reason.as_str()), (bad, "no directory")),
            other => panic!("{other:?}"),
        }
        assert!(!executors.wait_until_ended(Duration::ZERO), "they go on until they are asked to stop");
        executors.stop_handle().stop();
        assert!(executors.wait_until_ended(PATIENCE));
        executors.join();
    }
}

#[test]
fn a_request_to_stop_ends_the_wait_for_readiness() {
    let main = |context: ExecutorContext| async move { context.stopped().wait().await };
    let mut executors = Executors::start(vec![(options(), main), (options(), main)]).expect("starts");
    let stop = executors.stop_handle();
    let asker = std::thread::Builder::new().spawn(move || stop.stop()).unwrap();
    assert!(matches!(executors.wait_until_ready(), Err(StartError::Stopped | StartError::EndedEarly { .. })));
    assert!(executors.wait_until_ended(PATIENCE));
    asker.join().unwrap();
    executors.join();
}

/// A helper thread whose executor has gone has nobody to tell what it did. In a node a panic would end the process.
#[test]
fn an_executor_may_end_while_a_helper_thread_is_busy() {
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
    Executors::start(vec![(options(), main)]).expect("starts").join();
    release.send(()).unwrap();
    has_ended.recv_timeout(PATIENCE).expect("the helper thread ends");
    assert!(!HAS_PANICKED.load(Ordering::SeqCst));
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
    assert_eq!(Executors::start(vec![(options, main)]).expect("starts").join(), [2000]);
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

#[test]
fn an_executor_that_does_not_answer_is_seen() {
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
