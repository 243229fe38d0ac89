use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use ringlog_protocol::frame;
use ringlog_protocol::messages::MetadataRequest;

use super::*;
use crate::log_dirs::tests::cluster::TestNode;
use crate::shard::Shard;

/// A request that every broker answers from what it knows.
fn request(correlation_id: i32, padding: usize) -> Bytes {
    let client = "c".repeat(padding);
    let request = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
    frame::encode_request(&request, 1, correlation_id, Some(&client)).expect("a small request").chunks.concat().into()
}

/// A connection to a shard that serves it.
async fn connected(shard: &Rc<Shard>) -> ring::Connection {
    // Little that isn't taken goes on its way.
    let options = ring::SocketOptions { send_buffer_bytes: Some(16 * 1024), ..ring::SocketOptions::default() };
    let port = ring::ClaimedPort::claim("127.0.0.1:0".parse().unwrap()).unwrap();
    let socket = port.listen(options, 1).unwrap().remove(0);
    let listener = ring::Listener::adopt(socket);
    let address = listener.local_addr().unwrap();
    let shard = shard.clone();
    ring::spawn_detached(async move {
        let socket = listener.accept().await.unwrap();
        serve(
            shard.net.budgets.clone(),
            shard.dispatcher.clone(),
            socket,
            Rc::new(ListenerInfo { name: "PLAINTEXT".to_owned(), is_controller: false }),
        )
        .await;
    });
    ring::Connection::connect(address, 1_000).await.unwrap()
}

async fn send(client: &ring::Connection, bytes: Bytes) {
    client.write_chunks(&mut VecDeque::from([bytes])).await.unwrap();
}

/// The next answer's correlation id.
async fn answer(client: &ring::Connection) -> i32 {
    let mut size = [0; 4];
    read_exactly(client, &mut size).await;
    let mut body = vec![0; i32::from_be_bytes(size) as usize];
    read_exactly(client, &mut body).await;
    i32::from_be_bytes(body[..4].try_into().unwrap())
}

async fn read_exactly(client: &ring::Connection, mut room: &mut [u8]) {
    while !room.is_empty() {
        let count = client.read(room).await.unwrap();
        assert!(count > 0, "the connection was closed");
        room = &mut room[count..];
    }
}

/// Lets all others run until they wait for something that doesn't happen.
async fn settle() {
    ring::sleep_ms(30).await;
}

#[test]
fn answers_come_in_order_and_a_connection_that_is_idle_holds_nothing() {
    TestNode::formatted().run(1, async |shard| {
        let client = connected(&shard).await;
        let before = shard.net.budgets.request_memory.available();
        for round in 0..3 {
            let requests: Vec<Bytes> =
                (0..40).map(|number| request(round * 100 + number, 500 * number as usize)).collect();
            send(&client, requests.concat().into()).await;
            for number in 0..40 {
                assert_eq!(answer(&client).await, round * 100 + number);
            }
        }
        settle().await;
        assert_eq!(shard.net.budgets.request_memory.available(), before);
        assert_eq!(shard.net.budgets.response_memory.available(), 128 << 20);
    });
}

#[test]
fn where_there_is_no_memory_for_requests_nothing_is_read_until_there_is() {
    TestNode::formatted().run(1, async |shard| {
        let client = connected(&shard).await;
        let mut all = RequestHold::default();
        assert!(shard.net.budgets.request_memory.try_grow(&mut all, shard.net.budgets.request_memory.available()));
        send(&client, request(1, 200)).await;
        settle().await;
        assert_eq!(shard.core.metrics.requests.get(), 0);
        drop(all);
        assert_eq!(answer(&client).await, 1);
    });
}

#[test]
fn no_request_is_begun_while_answers_take_all_memory() {
    TestNode::formatted().run(1, async |shard| {
        let client = connected(&shard).await;
        let all = shard.net.budgets.response_memory.hold(usize::MAX / 4);
        send(&client, [request(1, 1), request(2, 1)].concat().into()).await;
        settle().await;
        assert_eq!(shard.core.metrics.requests.get(), 1, "it was read, and waits");
        assert!(shard.net.budgets.response_memory.is_wanted());
        drop(all);
        assert_eq!((answer(&client).await, answer(&client).await), (1, 2));
    });
}

#[test]
fn the_next_request_waits_until_the_answer_is_taken() {
    TestNode::formatted().run(1, async |shard| {
        let client = connected(&shard).await;
        // Far more than both sockets' buffers take as answers.
        let requests: Bytes = (0..60_000).map(|number| request(number, 1)).collect::<Vec<_>>().concat().into();
        let writer = ring::spawn({
            let client = client.clone();
            async move { send(&client, requests).await }
        });
        let mut begun = 0;
        loop {
            ring::sleep_ms(100).await;
            let now = shard.core.metrics.requests.get();
            if now == begun {
                break;
            }
            begun = now;
        }
        assert!(begun < 60_000, "all are begun though nobody takes an answer");
        let held = (128 << 20) - shard.net.budgets.response_memory.available();
        assert!(held <= 1024, "one answer is unsent, not {held} bytes of them");
        for number in 0..60_000 {
            assert_eq!(answer(&client).await, number);
        }
        writer.await;
    });
}

#[test]
fn room_follows_what_a_connection_sends() {
    let mut room = ROOM_MIN_BYTES;
    for _ in 0..10 {
        room = next_room(room, room, room);
    }
    assert_eq!(room, ROOM_MAX_BYTES);
    assert_eq!(next_room(room, 40_000, room), ROOM_MAX_BYTES);
    for _ in 0..3 {
        room = next_room(room, 100, room);
    }
    assert_eq!(room, ROOM_MIN_BYTES);
}

#[test]
fn frames_of_impossible_sizes_are_refused_as_soon_as_the_size_is_there() {
    let size_of = |bytes: &[u8]| frame_size(&BytesMut::from(bytes), 1000);
    assert!(matches!(size_of(&[0, 0, 3]), Ok(None)));
    assert!(matches!(size_of(&[0, 0, 3, 232]), Ok(Some(1000))));
    assert!(matches!(size_of(&[0, 0, 0, 8]), Ok(Some(8))));
    for bytes in [[0, 0, 3, 233], [0, 0, 0, 7], [0, 0, 0, 0], [255, 255, 255, 255], [127, 0, 0, 0]] {
        assert!(matches!(size_of(&bytes), Err(Close::FrameSize(..))), "{bytes:?}");
    }
}

fn is_ready<F: Future<Output = ()>>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

#[test]
fn what_is_split_off_is_returned_with_its_request() {
    let memory = RequestMemory::new(1000);
    let mut received = RequestHold::default();
    assert!(memory.try_grow(&mut received, 600));
    let first = received.split(100);
    let second = received.split(200);
    assert!(memory.try_grow(&mut received, 300), "it still has them");
    assert_eq!(memory.available(), 400);
    drop(second);
    assert_eq!(memory.available(), 600);
    drop((received, first));
    assert_eq!(memory.available(), 1000);
}

#[test]
fn large_requests_that_began_together_are_finished_one_after_the_other() {
    let memory = RequestMemory::new(1000);
    let mut holds: Vec<RequestHold> = (0..4).map(|_| RequestHold::default()).collect();
    assert!(holds.iter_mut().all(|hold| memory.try_grow(hold, 250)));
    // All of it is taken, and each wants more.
    let [first, second, third, fourth] = &mut holds[..] else { panic!("four") };
    assert!(is_ready(pin!(memory.grow(first, 900))), "the turn is free");
    assert!(memory.try_grow(first, 5000), "whose turn it is takes what it needs");
    {
        let mut waiting = pin!(memory.grow(second, 400));
        assert!(!is_ready(waiting.as_mut()));
        // Done: its turn and its bytes are free.
        drop(first.split(5000));
        assert!(is_ready(waiting.as_mut()));
    }
    assert!(!memory.try_grow(third, 900) && !memory.try_grow(fourth, 900));
}

#[test]
fn who_has_nothing_yet_waits_without_the_turn() {
    let memory = RequestMemory::new(1000);
    let mut all = RequestHold::default();
    assert!(memory.try_grow(&mut all, 1000));
    let mut newcomer = RequestHold::default();
    let mut waiting = pin!(memory.grow(&mut newcomer, 10));
    assert!(!is_ready(waiting.as_mut()));
    assert!(is_ready(pin!(memory.grow(&mut all, 2000))), "who has begun goes on beside");
    drop(all);
    assert!(is_ready(waiting.as_mut()));
}

#[test]
fn a_peer_that_moves_on_has_its_pause_again_and_one_that_trickles_does_not() {
    let start = MonotonicMs(500);
    let pace = Pace::begin(start, 30_000);
    assert_eq!(pace.next_ms(start, 0), Some(30_000));
    assert_eq!(pace.next_ms(start.plus_ms(29_999), 0), Some(1));
    assert_eq!(pace.next_ms(start.plus_ms(30_000), 0), None);
    // 64 KB in the first second are worth a second.
    assert_eq!(pace.next_ms(start.plus_ms(1_000), 64_000), Some(30_000));
    assert_eq!(pace.next_ms(start.plus_ms(30_000), 64_000), Some(1_000));
    // A byte every 29 s.
    assert_eq!(pace.next_ms(start.plus_ms(58_000), 2), None);
}

#[test]
fn a_wait_for_the_node_is_not_the_peers() {
    let start = MonotonicMs(0);
    let mut pace = Pace::begin(start, 1_000);
    pace.forgive(start.plus_ms(100), start.plus_ms(60_100));
    assert_eq!(pace.next_ms(start.plus_ms(60_200), 0), Some(800));
}
