//! Sockets.

use std::collections::VecDeque;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};

use bytes::{Bytes, BytesMut};
use ringlog_ring::{
    ClaimedPort, Connection, Listener, PortHolder, SocketOptions, Task, port_holder, sleep_ms, spawn, yield_now,
};

use crate::{localhost, run};

fn chunks() -> VecDeque<Bytes> {
    let size = |i: usize| (i * 7919) % 40_000;
    (0..400).map(|i| Bytes::from(vec![i as u8; size(i)])).collect()
}

/// A connection to a task that does `serve` with its other end.
async fn pair<T, Fut>(serve: impl FnOnce(Connection) -> Fut + 'static) -> (Connection, Task<T>)
where
    T: 'static,
    Fut: Future<Output = T> + 'static,
{
    let (listener, address) = listener();
    assert_eq!(listener.local_addr().expect("an address"), address);
    let server = spawn(async move { serve(listener.accept().await.expect("accepts")).await });
    let client = Connection::connect(address, 5000).await.expect("connects");
    assert_eq!(client.peer_addr(), address);
    (client, server)
}

async fn read_all(connection: &Connection) -> Vec<u8> {
    let mut buffer = vec![0; 64 * 1024];
    let mut found = Vec::new();
    loop {
        match connection.read(&mut buffer).await.expect("reads") {
            0 => return found,
            count => found.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Many more slices and bytes than one send or the socket's buffers take, to a peer that starts to read late.
#[test]
fn all_chunks_arrive_in_order_at_a_slow_reader() {
    let expected: Vec<u8> = chunks().iter().flatten().copied().collect();
    run(|| async move {
        let (client, server) = pair(|connection| async move {
            let mut first = [0; 1];
            assert_eq!(connection.read(&mut first).await.expect("reads"), 1);
            // The writer runs into a full socket.
            sleep_ms(50).await;
            [first.to_vec(), read_all(&connection).await].concat()
        })
        .await;
        let mut chunks = chunks();
        client.write_chunks(&mut chunks).await.expect("writes");
        assert!(chunks.is_empty());
        drop(client);
        assert!(server.await == expected);
    });
}

#[test]
fn one_task_reads_while_another_writes() {
    async fn both_ways(connection: Connection, byte: u8, count: usize) -> usize {
        let writer = connection.clone();
        let writing = spawn(async move {
            let mut chunks = VecDeque::from([Bytes::from(vec![byte; count])]);
            writer.write_chunks(&mut chunks).await.expect("writes");
            writer.shutdown(Shutdown::Write).expect("ends");
        });
        let read = read_all(&connection).await;
        writing.await;
        read.len()
    }
    run(|| async {
        let (client, server) = pair(|connection| both_ways(connection, 1, 3_000_000)).await;
        assert_eq!(both_ways(client, 2, 2_000_000).await, 3_000_000);
        assert_eq!(server.await, 2_000_000);
    });
}

#[test]
fn what_is_there_is_read_without_waiting() {
    run(|| async {
        let (client, server) = pair(|connection| async move {
            let mut chunks = VecDeque::from([Bytes::from_static(b"hello")]);
            connection.write_chunks(&mut chunks).await.expect("writes");
            read_all(&connection).await
        })
        .await;
        let mut buffer = BytesMut::with_capacity(1000);
        let mut found = Vec::new();
        while found.len() < 5 {
            match client.try_read(&mut buffer) {
                Ok(count) => found.extend_from_slice(&buffer.split_to(count)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            yield_now().await;
        }
        assert_eq!(found, b"hello");
        assert_eq!(client.try_read(&mut BytesMut::new()).expect("no room"), 0);
        assert_eq!(client.try_read_some(&mut BytesMut::with_capacity(10), 0).expect("no wish"), 0);
        drop(client);
        assert!(server.await.is_empty());
    });
}

#[test]
fn a_shutdown_wakes_a_reader_and_fails_a_writer() {
    run(|| async {
        let (client, server) = pair(|connection| async move { read_all(&connection).await }).await;
        let reader = client.clone();
        let reading = spawn(async move { reader.read(&mut [0; 10]).await });
        yield_now().await;
        client.shutdown(Shutdown::Both).expect("shuts down");
        assert_eq!(reading.await.expect("the end"), 0);
        let mut chunks = VecDeque::from([Bytes::from_static(b"late")]);
        assert_eq!(client.write_chunks(&mut chunks).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(chunks.len(), 1);
        assert!(server.await.is_empty());
    });
}

#[test]
fn dropping_the_last_clone_closes() {
    run(|| async {
        let (client, server) = pair(|connection| async move {
            for word in [&b"hello"[..], b"again"] {
                let mut chunks = VecDeque::from([Bytes::from_static(word)]);
                connection.write_chunks(&mut chunks).await.expect("writes");
                let mut answer = [0; 1];
                assert_eq!(connection.read(&mut answer).await.expect("reads"), 1);
            }
            read_all(&connection).await
        })
        .await;
        for _ in 0..2 {
            let mut found = 0;
            while found < 5 {
                found += client.read(&mut [0; 10]).await.expect("reads");
            }
            drop(client.clone());
            client.write_chunks(&mut VecDeque::from([Bytes::from_static(b"!")])).await.expect("writes");
        }
        drop(client);
        assert!(server.await.is_empty());
    });
}

/// Listens at a port of its own.
fn listener() -> (Listener, SocketAddr) {
    let port = ClaimedPort::claim(localhost()).expect("a free port");
    let socket = port.listen(SocketOptions::default(), 1).expect("listens").pop().expect("one socket");
    (Listener::adopt(socket), port.address())
}

/// Unread bytes at a close tell the other end that they were lost.
#[test]
fn closing_with_something_unread_resets() {
    run(|| async {
        let (client, server) = pair(|connection| async move {
            let mut chunks = VecDeque::from([Bytes::from_static(b"unread")]);
            connection.write_chunks(&mut chunks).await.expect("writes");
            let mut answer = [0; 10];
            connection.read(&mut answer).await.unwrap_err().kind()
        })
        .await;
        let mut first = [0; 1];
        assert_eq!(client.read(&mut first).await.expect("reads"), 1);
        drop(client);
        assert_eq!(server.await, ErrorKind::ConnectionReset);
    });
}

/// A socket that doesn't share its port, as other programs open them.
#[cfg(not(ringlog_sim))]
fn exclusive() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind(localhost()).expect("binds");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[cfg(not(ringlog_sim))]
fn own_id() -> u32 {
    std::process::id()
}

#[cfg(ringlog_sim)]
fn own_id() -> u32 {
    ringlog_ring::sim::context().and_then(|context| context.process).expect("code of a process")
}

#[cfg(ringlog_sim)]
fn exclusive() -> (Listener, SocketAddr) {
    let listener = ringlog_ring::sim::bind_exclusively(localhost()).expect("binds");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[test]
fn a_claimed_port_is_nobody_elses_and_refuses_clients_until_somebody_listens() {
    run(|| async {
        let port = ClaimedPort::claim(localhost()).expect("a free port");
        let address = port.address();
        let connect = async || Connection::connect(address, 5000).await.map(drop).map_err(|error| error.kind());
        assert_eq!(connect().await, Err(ErrorKind::ConnectionRefused));
        let sockets = port.listen(SocketOptions::default(), 3).expect("three share it");
        let listeners: Vec<Listener> = sockets.into_iter().map(Listener::adopt).collect();
        connect().await.expect("connects");
        // Another process would do the same.
        assert_eq!(ClaimedPort::claim(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert_eq!(ClaimedPort::claim(everywhere).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(matches!(port_holder(address), PortHolder::Process { id, .. } if id == own_id()));
        assert_eq!(port_holder(everywhere), port_holder(address));
        drop(listeners);
        assert_eq!(connect().await, Err(ErrorKind::ConnectionRefused), "nobody listens any more");
        assert_eq!(port_holder(address), PortHolder::Nobody);
    });
}

#[test]
fn of_two_that_claimed_a_port_at_a_time_only_one_listens() {
    run(|| async {
        let first = ClaimedPort::claim(localhost()).expect("a free port");
        let second = ClaimedPort::claim(first.address()).expect("nobody listens yet");
        let listening = first.listen(SocketOptions::default(), 2).expect("the first to come");
        let late = second.listen(SocketOptions::default(), 2).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::AddrInUse);
        drop(listening);
        second.listen(SocketOptions::default(), 2).expect("the first has gone");
    });
}

#[test]
fn a_port_that_a_foreign_socket_has_is_refused() {
    run(|| async {
        let (foreign, address) = exclusive();
        assert_eq!(ClaimedPort::claim(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(foreign);
        ClaimedPort::claim(address).expect("nobody listens any more");
        let elsewhere = "192.0.2.1:0".parse().expect("an address of nobody");
        assert_eq!(ClaimedPort::claim(elsewhere).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    });
}

/// Ports of connections that go out aren't listened at in the simulation.
#[cfg(not(ringlog_sim))]
#[test]
fn the_port_of_a_connection_is_refused() {
    run(|| async {
        let (_foreign, address) = exclusive();
        let client = std::net::TcpStream::connect(address).unwrap();
        let connected = client.local_addr().unwrap();
        assert_eq!(ClaimedPort::claim(connected).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(port_holder(connected), PortHolder::Nobody);
    });
}
