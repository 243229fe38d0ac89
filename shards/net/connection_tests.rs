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
