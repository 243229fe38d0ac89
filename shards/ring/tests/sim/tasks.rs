//! The order of things on and between cores.

use ringlog_ring::sim::{CoreSettings, HostSettings, SECOND, Settings, US, World};
use ringlog_ring::{
    ExecutorContext, ExecutorOptions, Executors, MeshBuilder, TaskQueue, TrySendError, observe, sleep_ms, spawn,
    spawn_into, yield_now,
};

use crate::{outcomes, run, shared, world};

fn order_of_woken(seed: u64, out_of_order_permille: u64) -> Vec<usize> {
    let cores = CoreSettings { out_of_order_permille, ..CoreSettings::default() };
    let world = World::new(Settings { seed, cores, ..Settings::default() });
    let host = world.add_host(HostSettings::named("n0"));
    run(&world, host, || async {
        let (order, notify) = (shared::<Vec<usize>>(), ringlog_ring::Notify::new());
        let tasks: Vec<_> = (0..3)
            .map(|number| {
                let (order, notify) = (order.clone(), notify.clone());
                spawn(async move {
                    notify.wait().await;
                    order.borrow_mut().push(number);
                })
            })
            .collect();
        notify.notify_all();
        for task in tasks {
            task.await;
        }
        order.take()
    })
}

#[test]
fn runnable_tasks_run_in_turn_or_in_any_order() {
    assert_eq!(outcomes(20, |seed| order_of_woken(seed, 0)).into_iter().collect::<Vec<_>>(), [[0, 1, 2]]);
    assert_eq!(outcomes(200, |seed| order_of_woken(seed, 500)).len(), 6);
}

#[test]
fn a_task_runs_to_its_first_wait_when_it_is_spawned() {
    let (world, hosts) = world(1);
    run(&world, hosts[0], || async {
        let order = shared::<Vec<u8>>();
        let (inner, into) = (order.clone(), order.clone());
        let queue = TaskQueue::new("other", 100, None);
        let task = spawn(async move {
            inner.borrow_mut().push(1);
            yield_now().await;
            inner.borrow_mut().push(4);
        });
        let other = spawn_into(queue, async move { into.borrow_mut().push(3) });
        order.borrow_mut().push(2);
        other.await;
        task.await;
        let order = order.take();
        assert_eq!(order[..2], [1, 2], "another queue's has to wait for its turn");
    });
}

#[test]
fn queues_get_time_by_their_shares() {
    let (world, hosts) = world(1);
    let ratio = run(&world, hosts[0], || async {
        let counts = shared::<[u64; 2]>();
        let tasks = [800, 200].map(|shares| TaskQueue::new("busy", shares, None)).into_iter().enumerate();
        let tasks: Vec<_> = tasks
            .map(|(index, queue)| {
                let counts = counts.clone();
                spawn_into(queue, async move {
                    loop {
                        counts.borrow_mut()[index] += 1;
                        yield_now().await;
                    }
                })
            })
            .collect();
        sleep_ms(1000).await;
        for task in tasks {
            assert_eq!(task.cancel().await, None::<()>);
        }
        let [first, second] = *counts.borrow();
        first as f64 / second as f64
    });
    assert!((3.2..4.8).contains(&ratio), "{ratio}");
}

/// Two cores that send to each other: order within a pair holds, and the queue's bound.
#[test]
fn the_mesh_is_bounded_and_in_order() {
    let interleavings = outcomes(30, |seed| {
        let (world, hosts) = world(seed);
        let seen = shared::<Vec<(usize, u32)>>();
        let noted = seen.clone();
        world.observe(move |_, value| noted.borrow_mut().extend(value.downcast_ref::<(usize, u32)>()));
        run(&world, hosts[0], || async {
            let mesh = MeshBuilder::<u32>::new(3, 2);
            let mains = (0..3).map(|_| {
                let mesh = mesh.clone();
                let main = |context: ExecutorContext| async move {
                    let endpoint = mesh.join(context.index()).await;
                    if context.index() == 0 {
                        sleep_ms(1).await;
                        let receive = |peer| {
                            let endpoint = endpoint.clone();
                            spawn(async move {
                                while let Some(number) = endpoint.recv_from(peer).await {
                                    observe(&(peer, number));
                                }
                            })
                        };
                        for task in [receive(1), receive(2)] {
                            task.await;
                        }
                        return;
                    }
                    assert_eq!((endpoint.try_send(0, 0), endpoint.try_send(0, 1)), (Ok(()), Ok(())));
                    assert_eq!(endpoint.try_send(0, 2), Err(TrySendError::Full(2)));
                    for number in 2..5 {
                        endpoint.send(0, number).await.expect("received");
                    }
                    endpoint.close();
                    assert_eq!(endpoint.try_send(0, 9), Err(TrySendError::Closed(9)));
                };
                (ExecutorOptions::default(), main)
            });
            Executors::start(mains.collect()).expect("starts").join().await;
        });
        let seen = seen.take();
        for peer in [1, 2] {
            let of_peer: Vec<u32> = seen.iter().filter(|(from, _)| *from == peer).map(|(_, number)| *number).collect();
            assert_eq!(of_peer, [0, 1, 2, 3, 4]);
        }
        seen
    });
    assert!(interleavings.len() > 3, "{}", interleavings.len());
}

#[test]
fn a_world_that_spins_is_stopped() {
    let cores = CoreSettings { poll_ns: (0, 0), long_poll_permille: 0, ..CoreSettings::default() };
    let world = World::new(Settings { cores, ..Settings::default() });
    let host = world.add_host(HostSettings::named("n0"));
    // A task that never waits lets time go on, slowly.
    let count = shared::<u64>();
    let counting = count.clone();
    world.start(host, "spins", move || async move {
        loop {
            *counting.borrow_mut() += 1;
            yield_now().await;
        }
    });
    world.run_for(100 * US);
    assert_eq!(world.now_ns(), 100 * US);
    assert!(*count.borrow() > 10_000);
    assert!(world.events() < SECOND);
}
