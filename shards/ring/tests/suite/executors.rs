//! Starting, stopping, and going on under load.

use std::cell::Cell;
use std::rc::Rc;

use ringlog_ring::{
    ExecutorContext, ExecutorOptions, Executors, StartError, TaskQueue, probe, spawn, spawn_detached, spawn_into,
    stall_stats, usable_cpus, yield_now,
};

use crate::{options, run};

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
        let main = |mut context: ExecutorContext| async move {
            assert_eq!(context.count(), 2);
            context.ready();
            context.stopped().wait().await;
            assert!(context.stopped().is_set());
            context.index()
        };
        (options, main)
    });
    let executors = Executors::start(mains.collect()).expect("start");
    executors.wait_until_ready().expect("ready");
    executors.stop_handle().stop();
    assert_eq!(executors.join(), [0, 1]);
}

#[test]
fn an_executor_that_cannot_start_or_ends_early_is_reported() {
    let main = |_context: ExecutorContext| async { Err::<(), _>("no directory") };
    let executors = Executors::start(vec![(options(), main)]).expect("starts");
    assert!(matches!(executors.wait_until_ready(), Err(StartError::EndedEarly { index: 0 })));
    assert_eq!(executors.join(), [Err("no directory")]);

    let nowhere = ExecutorOptions { cpu: Some(100_000), ..options() };
    let failed = Executors::start(vec![(nowhere, |_context: ExecutorContext| async {})]);
    assert!(matches!(failed, Err(StartError::Failed { index: 0, .. })));
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
