//! Messages between executors.

use bytes::Bytes;
use ringlog_ring::{
    ExecutorContext, Executors, FramePool, MIN_FRAME_BYTES, MeshBuilder, TrySendError, outside_channel, spawn,
};

use crate::{options, process, run_all};

enum Message {
    Number(usize),
    Slice(Bytes),
}

/// Every executor sends to every one, itself included, more than the queues hold.
#[test]
fn all_messages_arrive_in_order_from_every_peer() {
    const PEERS: usize = 3;
    const MESSAGES: usize = 1000;
    let mesh = MeshBuilder::new(PEERS, 8);
    let mains = (0..PEERS).map(|_| {
        let mesh = mesh.clone();
        let main = |context: ExecutorContext| async move {
            let endpoint = mesh.join(context.index()).await;
            assert_eq!((endpoint.index(), endpoint.peers()), (context.index(), PEERS));
            let sending: Vec<_> = (0..PEERS)
                .map(|to| {
                    let endpoint = endpoint.clone();
                    spawn(async move {
                        for number in 0..MESSAGES {
                            assert!(endpoint.send(to, Message::Number(number)).await.is_ok());
                        }
                    })
                })
                .collect();
            for number in 0..MESSAGES {
                for peer in 0..PEERS {
                    match endpoint.recv_from(peer).await {
                        Some(Message::Number(found)) => assert_eq!(found, number),
                        _ => panic!("a number from {peer}"),
                    }
                }
            }
            for task in sending {
                task.await;
            }
        };
        (options(), main)
    });
    run_all(mains.collect());
}

#[test]
fn a_full_queue_gives_the_message_back_and_an_ended_peer_closes_it() {
    let mesh = MeshBuilder::new(2, 2);
    let main = move |context: ExecutorContext| {
        let mesh = mesh.clone();
        async move {
            let endpoint = mesh.join(context.index()).await;
            if context.index() == 1 {
                assert!(endpoint.recv_from(0).await.is_some());
                return;
            }
            // The peer takes one message and ends while this waits for room.
            while endpoint.try_send(1, 7).is_ok() {}
            while endpoint.send(1, 8).await.is_ok() {}
            assert_eq!(endpoint.try_send(1, 9), Err(TrySendError::Closed(9)));
            assert_eq!(endpoint.recv_from(1).await, None);
        }
    };
    run_all(vec![(options(), main.clone()), (options(), main)]);
}

#[test]
fn a_frame_lent_to_another_executor_comes_back_when_it_is_done() {
    let mesh = MeshBuilder::new(2, 4);
    let main = move |context: ExecutorContext| {
        let mesh = mesh.clone();
        async move {
            let endpoint = mesh.join(context.index()).await;
            if context.index() == 1 {
                while let Some(message) = endpoint.recv_from(0).await {
                    let Message::Slice(slice) = message else { panic!("a slice") };
                    assert!(slice.iter().all(|byte| *byte == slice[0]));
                }
                return;
            }
            // Room for two frames: the third is waited for until the peer has dropped one.
            let pool = FramePool::new(2 * MIN_FRAME_BYTES);
            for round in 0..50u8 {
                let mut frame = pool.acquire(MIN_FRAME_BYTES).await;
                frame.append(&[round; 5000]);
                assert!(endpoint.send(1, Message::Slice(frame.slice(0..5000))).await.is_ok());
            }
            endpoint.close();
            while pool.in_use_bytes() > 0 {
                ringlog_ring::sleep_ms(1).await;
            }
        }
    };
    run_all(vec![(options(), main.clone()), (options(), main)]);
}

#[test]
fn who_is_no_executor_can_send() {
    process(|| async {
        let (sender, receiver) = outside_channel(4);
        let (room, has_room) = outside_channel(4);
        let main = |_context| async move {
            let mut sum = 0;
            while let Some(number) = receiver.recv().await {
                sum += number;
                let _ = room.send(());
            }
            sum
        };
        let executors = Executors::start(vec![(options(), main)]).expect("starts");
        for number in 1..=100u32 {
            while sender.send(number).is_err() {
                has_room.recv().await;
            }
        }
        drop(sender);
        assert_eq!(executors.join().await, [5050]);
    });
}
