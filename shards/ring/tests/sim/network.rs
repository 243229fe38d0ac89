//! Connections in the simulated world.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;

use bytes::Bytes;
use ringlog_ring::sim::{Exit, HostId, Link, MS, NetworkSettings, SECOND, Settings, TapKind, World};
use ringlog_ring::{ClaimedPort, Connection, Listener, SocketOptions, now, sleep_ms, spawn_detached, timeout_ms};

use crate::{calm, listen, outcomes, run, shared, world, write};

const PORT: u16 = 9092;
const EVERYWHERE: &str = "0.0.0.0:9092";

fn address(world: &World, host: HostId) -> SocketAddr {
    SocketAddr::new(world.address(host), PORT)
}

/// Starts a program that sends back what it receives.
fn start_echo(world: &World, host: HostId) -> ringlog_ring::sim::ProcessId {
    let process = world.start(host, "echo", || async {
        let listener = listen(EVERYWHERE, SocketOptions::default()).expect("binds");
        loop {
            let connection = listener.accept().await.expect("accepts");
            spawn_detached(async move {
                let mut buffer = vec![0; 10_000];
                while let Ok(count @ 1..) = connection.read(&mut buffer).await {
                    if write(&connection, &buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    world.run_for(10 * MS);
    process
}

async fn echoed(connection: &Connection, bytes: &[u8]) -> std::io::Result<()> {
    write(connection, bytes).await?;
    let (mut found, mut buffer) = (Vec::new(), vec![0; 1000]);
    while found.len() < bytes.len() {
        match connection.read(&mut buffer).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => found.extend_from_slice(&buffer[..count]),
        }
    }
    assert_eq!(found, bytes);
    Ok(())
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_connection_needs_a_listener_and_a_way_to_it() {
    let (world, hosts) = world(1);
    let there = address(&world, hosts[1]);
    let nobody = run(&world, hosts[0], move || async move { kind(Connection::connect(there, 1000).await) });
    assert_eq!(nobody, Some(ErrorKind::ConnectionRefused));
    let took = |world: &World, of: SocketAddr| {
        run(world, hosts[0], move || async move {
            let begin = now().monotonic;
            assert_eq!(kind(Connection::connect(of, 1500).await), Some(ErrorKind::TimedOut));
            now().monotonic.since_ms(begin)
        })
    };
    assert!((1500..1600).contains(&took(&world, "10.9.9.9:9092".parse().expect("an address"))), "a host of nobody");
    start_echo(&world, hosts[1]);
    for (from, to) in [(0, 1), (1, 0)] {
        world.set_cut(hosts[from], hosts[to], true);
        assert!((1500..1600).contains(&took(&world, there)), "cut in one direction");
        world.heal_network();
    }
    world.power_off(hosts[1]);
    world.run_for(MS);
    assert!((1500..1600).contains(&took(&world, there)), "a host without power is silent");
    world.power_on(hosts[1]);
    let nobody = run(&world, hosts[0], move || async move { kind(Connection::connect(there, 1000).await) });
    assert_eq!(nobody, Some(ErrorKind::ConnectionRefused));
    assert_eq!(world.connections(), 0);
}

#[test]
fn a_request_for_a_connection_is_repeated_until_it_is_heard() {
    let (world, hosts) = world(2);
    start_echo(&world, hosts[1]);
    world.set_cut(hosts[0], hosts[1], true);
    world.after(1500 * MS, |world| world.heal_network());
    let there = address(&world, hosts[1]);
    let took = run(&world, hosts[0], move || async move {
        let begin = now().monotonic;
        echoed(&Connection::connect(there, 60_000).await.expect("connects"), b"hello").await.expect("is answered");
        now().monotonic.since_ms(begin)
    });
    // After one second, two more, …: heard at the third.
    assert!((3000..3100).contains(&took), "{took}");
}

#[test]
fn bytes_wait_for_a_cut_to_heal_in_either_direction() {
    for (from, to) in [(0, 1), (1, 0)] {
        let (world, hosts) = world(3);
        start_echo(&world, hosts[1]);
        let there = address(&world, hosts[1]);
        let control = ringlog_ring::sim::control();
        run(&world, hosts[0], move || async move {
            let connection = Connection::connect(there, 1000).await.expect("connects");
            echoed(&connection, b"before").await.expect("is answered");
            control.set_cut(hosts[from], hosts[to], true);
            let mut echo = Box::pin(echoed(&connection, b"meanwhile"));
            assert!(timeout_ms(5000, &mut echo).await.is_err());
            control.set_cut(hosts[from], hosts[to], false);
            let begin = now().monotonic;
            echo.await.expect("is answered");
            // The sender doesn't know of the healing: it tries again as it would have.
            assert!(now().monotonic.since_ms(begin) < 7000);
            echoed(&connection, b"after").await.expect("is answered");
        });
        calm(&world);
    }
}

#[test]
fn a_cut_that_lasts_ends_the_connection_for_who_has_something_to_say() {
    let network = NetworkSettings { give_up_ns: 30 * SECOND, ..NetworkSettings::default() };
    let world = World::new(Settings { network, ..Settings::default() });
    let hosts = ["n0", "n1"].map(|name| world.add_host(ringlog_ring::sim::HostSettings::named(name)));
    let server = world.start(hosts[1], "silent", || async {
        let listener = listen(EVERYWHERE, SocketOptions::default()).expect("binds");
        let connection = listener.accept().await.expect("accepts");
        // Has nothing to say, and never learns.
        let learnt = timeout_ms(1_000_000, connection.read(&mut [0; 10])).await;
        assert!(learnt.is_err());
    });
    let there = address(&world, hosts[1]);
    let control = ringlog_ring::sim::control();
    world.run_for(10 * MS);
    run(&world, hosts[0], move || async move {
        let connection = Connection::connect(there, 1000).await.expect("connects");
        sleep_ms(10).await;
        control.set_cut(hosts[0], hosts[1], true);
        control.set_cut(hosts[1], hosts[0], true);
        write(&connection, b"lost").await.expect("the kernel takes it");
        let begin = now().monotonic;
        assert_eq!(kind(connection.read(&mut [0; 10]).await), Some(ErrorKind::TimedOut));
        assert!((30_000..80_000).contains(&now().monotonic.since_ms(begin)));
        assert_eq!(kind(write(&connection, b"more").await), Some(ErrorKind::BrokenPipe));
    });
    assert_eq!(world.run_until_exit(server, 2000 * SECOND), Some(Exit::Returned));
    calm(&world);
}

#[test]
fn a_host_that_lost_its_power_answers_with_a_reset_once_it_is_back() {
    let (world, hosts) = world(5);
    start_echo(&world, hosts[1]);
    let there = address(&world, hosts[1]);
    let control = ringlog_ring::sim::control();
    run(&world, hosts[0], move || async move {
        let connection = Connection::connect(there, 1000).await.expect("connects");
        echoed(&connection, b"hello").await.expect("is answered");
        control.power_off(hosts[1]);
        let mut echo = Box::pin(echoed(&connection, b"anybody?"));
        assert!(timeout_ms(10_000, &mut echo).await.is_err(), "nobody says anything");
        control.power_on(hosts[1]);
        assert_eq!(kind(echo.await), Some(ErrorKind::ConnectionReset));
        assert_eq!(connection.read(&mut [0; 10]).await.expect("the end"), 0);
    });
    assert_eq!(world.connections(), 0);
    calm(&world);
}

#[test]
fn a_killed_process_leaves_an_end_or_a_reset() {
    let (world, hosts) = world(6);
    let echo = start_echo(&world, hosts[1]);
    let there = address(&world, hosts[1]);
    let control = ringlog_ring::sim::control();
    run(&world, hosts[0], move || async move {
        let connection = Connection::connect(there, 1000).await.expect("connects");
        echoed(&connection, b"hello").await.expect("is answered");
        control.kill(echo);
        assert_eq!(connection.read(&mut [0; 10]).await.expect("the end"), 0);
        write(&connection, b"late").await.expect("the kernel takes it");
        assert_eq!(kind(connection.read(&mut [0; 10]).await), None, "the end was known already");
        sleep_ms(100).await;
        assert!(matches!(kind(write(&connection, b"late").await), Some(ErrorKind::ConnectionReset)));
        assert_eq!(kind(Connection::connect(there, 1000).await), Some(ErrorKind::ConnectionRefused));
    });
    start_echo(&world, hosts[1]);
    let client = world.start(hosts[0], "client", move || async move {
        let connection = Connection::connect(there, 1000).await.expect("connects");
        echoed(&connection, b"hello").await.expect("is answered");
        assert_eq!(kind(connection.read(&mut [0; 10]).await), Some(ErrorKind::ConnectionReset));
    });
    world.run_for(10 * MS);
    assert_eq!(world.reset_connections(hosts[0], hosts[1]), 1);
    assert_eq!(world.run_until_exit(client, SECOND), Some(Exit::Returned));
    calm(&world);
}

#[test]
fn a_writer_waits_for_a_reader_that_does_not_read() {
    let (world, hosts) = world(7);
    let server = world.start(hosts[1], "lazy", || async {
        let options = SocketOptions { receive_buffer_bytes: Some(5000), ..SocketOptions::default() };
        let listener = listen(EVERYWHERE, options).expect("binds");
        let connection = listener.accept().await.expect("accepts");
        sleep_ms(60_000).await;
        let (mut total, mut buffer) = (0, [0; 700]);
        while let Ok(count @ 1..) = connection.read(&mut buffer).await {
            total += count;
        }
        assert_eq!(total, 100_000);
    });
    world.run_for(10 * MS);
    let there = address(&world, hosts[1]);
    run(&world, hosts[0], move || async move {
        let connection = Connection::connect(there, 1000).await.expect("connects");
        connection
            .set_buffers(SocketOptions { send_buffer_bytes: Some(3000), ..SocketOptions::default() })
            .expect("sets");
        let mut chunks = VecDeque::from([Bytes::from(vec![1; 100_000])]);
        let begin = now().monotonic;
        assert!(timeout_ms(50_000, connection.write_chunks(&mut chunks)).await.is_err());
        let taken = 100_000 - chunks.iter().map(Bytes::len).sum::<usize>();
        assert!((5000..=8000).contains(&taken), "both buffers are full: {taken}");
        connection.write_chunks(&mut chunks).await.expect("writes");
        assert!(now().monotonic.since_ms(begin) > 59_000);
    });
    assert_eq!(world.run_until_exit(server, 100 * SECOND), Some(Exit::Returned));
    calm(&world);
}

#[test]
fn connections_wait_to_be_accepted_as_far_as_there_is_room() {
    let (world, hosts) = world(8);
    world.start(hosts[1], "slow", || async {
        let listener = listen(EVERYWHERE, SocketOptions { backlog: 2, ..SocketOptions::default() }).expect("binds");
        sleep_ms(5_000).await;
        let mut all = Vec::new();
        loop {
            all.push(listener.accept().await.expect("accepts"));
        }
    });
    world.run_for(10 * MS);
    let there = address(&world, hosts[1]);
    let connected = run(&world, hosts[0], move || async move {
        let begin = now().monotonic;
        let mut times = Vec::new();
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(Connection::connect(there, 60_000).await.expect("connects"));
            times.push(now().monotonic.since_ms(begin));
        }
        times
    });
    assert!(connected[1] < 100 && connected[2] >= 5000, "{connected:?}");
}

#[test]
fn connections_are_spread_over_those_who_share_a_port() {
    let counts = shared::<[u32; 3]>();
    let (world, hosts) = world(9);
    let noted = counts.clone();
    world.start(hosts[1], "shared", move || async move {
        let port = ClaimedPort::claim(SocketAddr::new([0, 0, 0, 0].into(), PORT)).expect("free");
        let sockets = port.listen(SocketOptions::default(), 3).expect("listens");
        for (index, socket) in sockets.into_iter().enumerate() {
            let listener = Listener::adopt(socket);
            let noted = noted.clone();
            spawn_detached(async move {
                loop {
                    listener.accept().await.expect("accepts");
                    noted.borrow_mut()[index] += 1;
                }
            });
        }
        std::future::pending::<()>().await;
    });
    world.run_for(10 * MS);
    let there = address(&world, hosts[1]);
    run(&world, hosts[0], move || async move {
        for _ in 0..90 {
            Connection::connect(there, 1000).await.expect("connects");
        }
    });
    world.run_for(MS);
    let counts = *counts.borrow();
    assert!(counts.iter().all(|count| *count > 15) && counts.iter().sum::<u32>() == 90, "{counts:?}");
}

#[test]
fn loss_and_delay_slow_bytes_down_and_taps_see_them() {
    let network = NetworkSettings { loss_permille: 100, partial_permille: 300, ..NetworkSettings::default() };
    let seen = outcomes(5, |seed| {
        let world = World::new(Settings { seed, network: network.clone(), ..Settings::default() });
        let hosts = ["n0", "n1"].map(|name| world.add_host(ringlog_ring::sim::HostSettings::named(name)));
        start_echo(&world, hosts[1]);
        world.set_link(hosts[0], hosts[1], Link { slow_ns: 50 * MS, ..Link::default() });
        let (sent, delivered) = (shared::<Vec<u8>>(), shared::<Vec<u8>>());
        let (to_sent, to_delivered) = (sent.clone(), delivered.clone());
        world.tap(move |tap| {
            let noted = match tap.kind {
                TapKind::Sent if tap.to.port() == PORT => &to_sent,
                TapKind::Delivered if tap.to.port() == PORT => &to_delivered,
                _ => return,
            };
            assert_eq!(tap.position, noted.borrow().len() as u64);
            noted.borrow_mut().extend_from_slice(tap.bytes);
        });
        let there = address(&world, hosts[1]);
        let bytes: Vec<u8> = (0..20_000u32).map(|number| number as u8).collect();
        let expected = bytes.clone();
        run(&world, hosts[0], move || async move {
            let connection = Connection::connect(there, 60_000).await.expect("connects");
            let begin = now().monotonic;
            echoed(&connection, &bytes).await.expect("is answered");
            assert!(now().monotonic.since_ms(begin) >= 50);
        });
        assert_eq!(*sent.borrow(), expected);
        assert_eq!(*delivered.borrow(), expected);
        calm(&world);
        world.now_ns()
    });
    assert_eq!(seen.len(), 5, "seeds differ");
}

#[test]
fn hosts_know_each_other_by_name_unless_told_otherwise() {
    let (world, hosts) = world(1);
    let there = world.address(hosts[1]);
    let lookup = || async { ringlog_ring::lookup("n1", 5).await.map_err(|error| error.to_string()) };
    assert_eq!(run(&world, hosts[0], lookup), Ok(vec![SocketAddr::new(there, 5)]));
    world.set_addresses(hosts[0], "n1", vec![]);
    assert!(run(&world, hosts[0], lookup).is_err());
    let elsewhere = "10.7.7.7".parse().expect("an address");
    world.set_addresses(hosts[0], "n1", vec![elsewhere, there]);
    let both = vec![SocketAddr::new(elsewhere, 5), SocketAddr::new(there, 5)];
    assert_eq!(run(&world, hosts[0], lookup), Ok(both));
    assert_eq!(run(&world, hosts[1], || async { ringlog_ring::hostname() }), "n1");
}
