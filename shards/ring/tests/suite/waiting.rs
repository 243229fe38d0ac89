//! Waiting between tasks of one executor.

use std::cell::RefCell;
use std::rc::Rc;

use ringlog_ring::{
    Alarm, ByteSemaphore, Disconnected, Elapsed, Gate, Notify, TryLocalSendError, local_channel, now, oneshot,
    sleep_ms, spawn, spawn_detached, timeout_ms, yield_now,
};

use crate::run;

#[test]
fn permits_are_granted_in_the_order_of_asking() {
    run(|| async {
        let budget = ByteSemaphore::new(100);
        let mut first = budget.acquire(60).await;
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = [("large", 90), ("small", 10)]
            .map(|(name, bytes)| {
                let (budget, order) = (budget.clone(), Rc::clone(&order));
                spawn(async move {
                    let permit = budget.acquire(bytes).await;
                    order.borrow_mut().push(name);
                    yield_now().await;
                    drop(permit);
                })
            })
            .into();
        yield_now().await;
        assert_eq!((budget.available(), budget.waiters()), (40, 2), "the small one doesn't overtake");
        assert!(budget.try_acquire(1).is_none());
        first.shrink_to(10);
        yield_now().await;
        for task in tasks {
            task.await;
        }
        assert_eq!(*order.borrow(), ["large", "small"]);
        drop(first);
        assert_eq!(budget.available(), 100);
        assert_eq!(budget.acquire(1000).await.bytes(), 100, "more than all is all");
    });
}

#[test]
fn a_waiter_that_gives_up_makes_room_for_the_next() {
    run(|| async {
        let budget = ByteSemaphore::new(100);
        let held = budget.acquire(50).await;
        assert!(matches!(timeout_ms(1, budget.acquire(80)).await, Err(Elapsed)));
        assert_eq!((budget.available(), budget.waiters()), (50, 0));
        assert!(budget.try_acquire(50).is_some());
        drop(held);
        assert_eq!(budget.available(), 100);
    });
}

#[test]
fn a_closing_gate_waits_for_those_inside() {
    run(|| async {
        let gate = Gate::new();
        let done = Rc::new(RefCell::new(0));
        for _ in 0..3 {
            let (inner, done) = (gate.clone(), Rc::clone(&done));
            let task = async move {
                inner.closing().await;
                sleep_ms(1).await;
                *done.borrow_mut() += 1;
            };
            gate.spawn(task).expect("open");
        }
        assert_eq!(gate.inside(), 3);
        gate.close().await;
        assert_eq!((*done.borrow(), gate.inside()), (3, 0));
        assert!(gate.enter().is_err());
    });
}

#[test]
fn an_alarm_rings_at_the_deadline_set_last() {
    run(|| async {
        let alarm = Alarm::new();
        let start = now().monotonic;
        alarm.set(Some(start.plus_ms(60_000)));
        let setter = alarm.clone();
        spawn_detached(async move {
            yield_now().await;
            setter.set(Some(start.plus_ms(120_000)));
            yield_now().await;
            setter.set_earlier(start.plus_ms(5));
        });
        alarm.wait().await;
        assert!((5..30_000).contains(&now().monotonic.since_ms(start)));
        assert_eq!(alarm.deadline(), None);
    });
}

#[test]
fn channels_are_bounded_and_close() {
    run(|| async {
        let (sender, receiver) = local_channel(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TryLocalSendError::Full(3)));
        let task = spawn(async move { sender.send(3).await });
        let mut found = Vec::new();
        while let Some(number) = receiver.recv().await {
            found.push(number);
        }
        assert_eq!((found, task.await), (vec![1, 2, 3], Ok(())));

        let (sender, receiver) = local_channel(1);
        drop(receiver);
        assert_eq!(sender.send(1).await, Err(1));
    });
}

#[test]
fn one_value_is_handed_over_or_the_loss_is_told() {
    run(|| async {
        let (sender, receiver) = oneshot();
        spawn_detached(async move {
            yield_now().await;
            let _ = sender.send(5);
        });
        assert_eq!(receiver.await, Ok(5));
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(receiver.await, Err(Disconnected));
        let (sender, receiver) = oneshot();
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(1), Err(1));
    });
}

#[test]
fn a_wake_up_is_neither_lost_nor_given_to_one_that_left() {
    run(|| async {
        let notify = Notify::new();
        notify.notify_one();
        notify.wait().await;

        let mut first = Box::pin(notify.wait());
        let mut second = Box::pin(notify.wait());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        notify.notify_one();
        drop(first);
        assert!(second.as_mut().poll(&mut context).is_ready());
    });
}
