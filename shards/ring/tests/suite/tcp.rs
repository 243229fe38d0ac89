//! Sockets.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use bytes::Bytes;
use ringlog_ring::{ClaimedPort, Connection, Listener, PortHolder, SocketOptions, port_holder, spawn};

use crate::{localhost, run};

fn chunks() -> VecDeque<Bytes> {
    let size = |i: usize| (i * 7919) % 40_000;
    (0..400).map(|i| Bytes::from(vec![i as u8; size(i)])).collect()
}

/// Many more slices and bytes than one send or the socket's buffers take, to a peer that starts to read late.
#[test]
fn all_chunks_arrive_in_order_at_a_slow_reader() {
    let expected: Vec<u8> = chunks().iter().flatten().copied().collect();
    let server = TcpListener::bind(localhost()).unwrap();
    let address = server.local_addr().unwrap();
    let reader = std::thread::Builder::new().spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        // The writer runs into a full socket.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut found = first.to_vec();
        let mut buffer = vec![0; 10_000];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return found,
                count => found.extend_from_slice(&buffer[..count]),
            }
        }
    });
    run(move || async move {
        let connection = Connection::connect(address, 5000).await.expect("connects");
        let mut chunks = chunks();
        connection.write_chunks(&mut chunks).await.expect("writes");
        assert!(chunks.is_empty());
    });
    assert!(reader.unwrap().join().unwrap() == expected);
}

#[test]
fn one_task_reads_while_another_writes() {
    run(|| async {
        let (listener, address) = listener();
        let server = spawn(async move {
            let connection = listener.accept().await.expect("accepts");
            let writer = connection.clone();
            let writing = spawn(async move {
                let mut chunks = VecDeque::from([Bytes::from(vec![1; 3_000_000])]);
                writer.write_chunks(&mut chunks).await.expect("writes");
                writer.shutdown(Shutdown::Write).expect("ends");
            });
            let read = read_all(&connection).await;
            writing.await;
            read
        });
        let client = Connection::connect(address, 5000).await.expect("connects");
        assert_eq!(client.peer_addr(), address);
        let writer = client.clone();
        let writing = spawn(async move {
            let mut chunks = VecDeque::from([Bytes::from(vec![2; 2_000_000])]);
            writer.write_chunks(&mut chunks).await.expect("writes");
            writer.shutdown(Shutdown::Write).expect("ends");
        });
        assert_eq!(read_all(&client).await, 3_000_000);
        writing.await;
        assert_eq!(server.await, 2_000_000);
    });
}

async fn read_all(connection: &Connection) -> usize {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match connection.read(&mut buffer).await.expect("reads") {
            0 => return total,
            count => total += count,
        }
    }
}

#[test]
fn a_shutdown_wakes_a_reader_and_fails_a_writer() {
    let server = TcpListener::bind(localhost()).unwrap();
    let address = server.local_addr().unwrap();
    run(move || async move {
        let connection = Connection::connect(address, 5000).await.expect("connects");
        let reader = connection.clone();
        let reading = spawn(async move { reader.read(&mut [0; 10]).await });
        ringlog_ring::yield_now().await;
        connection.shutdown(Shutdown::Both).expect("shuts down");
        assert_eq!(reading.await.expect("the end"), 0);
        let mut chunks = VecDeque::from([Bytes::from_static(b"late")]);
        assert_eq!(connection.write_chunks(&mut chunks).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(chunks.len(), 1);
    });
}

#[test]
fn dropping_the_last_clone_closes() {
    let server = TcpListener::bind(localhost()).unwrap();
    let address = server.local_addr().unwrap();
    run(move || async move {
        let connection = Connection::connect(address, 5000).await.expect("connects");
        let (mut peer, _) = server.accept().unwrap();
        peer.write_all(b"hello").unwrap();
        let mut buffer = [0; 10];
        assert_eq!(connection.read(&mut buffer).await.expect("reads"), 5);
        drop(connection.clone());
        peer.write_all(b"again").unwrap();
        assert_eq!(connection.read(&mut buffer).await.expect("reads"), 5);
        drop(connection);
        assert_eq!(peer.read(&mut buffer).unwrap(), 0);
    });
}

/// Listens at a port of its own.
fn listener() -> (Listener, SocketAddr) {
    let port = ClaimedPort::claim(localhost()).expect("a free port");
    let socket = port.listen(SocketOptions::default(), 1).expect("listens").pop().expect("one socket");
    (Listener::adopt(socket), port.address())
}

#[test]
fn a_claimed_port_is_nobody_elses_and_refuses_clients_until_somebody_listens() {
    run(|| async {
        let port = ClaimedPort::claim(localhost()).expect("a free port");
        let address = port.address();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let sockets = port.listen(SocketOptions::default(), 3).expect("three share it");
        let listeners: Vec<Listener> = sockets.into_iter().map(Listener::adopt).collect();
        TcpStream::connect(address).expect("connects");
        // Another process would do the same.
        assert_eq!(ClaimedPort::claim(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert_eq!(ClaimedPort::claim(everywhere).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(matches!(port_holder(address), PortHolder::Process { id, .. } if id == std::process::id()));
        assert_eq!(port_holder(everywhere), port_holder(address));
        drop(listeners);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
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
        let foreign = TcpListener::bind(localhost()).unwrap();
        let address = foreign.local_addr().unwrap();
        assert_eq!(ClaimedPort::claim(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        // The other end of a connection has a port, too.
        let client = TcpStream::connect(address).unwrap();
        let connected = client.local_addr().unwrap();
        assert_eq!(ClaimedPort::claim(connected).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(port_holder(connected), PortHolder::Nobody);
    });
}
