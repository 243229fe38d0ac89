//! Sockets.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use bytes::Bytes;
use ringlog_ring::{Connection, Listener, SocketOptions, spawn};

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
        let listener = Listener::bind(localhost(), SocketOptions::default()).expect("binds");
        let address = listener.local_addr().unwrap();
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

#[test]
fn executors_share_a_port_and_others_are_refused_it() {
    run(|| async {
        let first = Listener::bind(localhost(), SocketOptions::default()).expect("binds");
        let address = first.local_addr().unwrap();
        let second = Listener::bind(address, SocketOptions::default()).expect("binds the same");
        drop(second);
        let foreign = TcpListener::bind(localhost()).unwrap();
        let taken = Listener::bind(foreign.local_addr().unwrap(), SocketOptions::default());
        assert_eq!(taken.err().map(|error| error.kind()), Some(ErrorKind::AddrInUse));
        // Nobody listens any more.
        drop(foreign);
        drop(first);
        assert!(TcpStream::connect(address).is_err());
    });
}
