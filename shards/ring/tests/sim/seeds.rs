//! One seed, one run.

use std::path::Path;

use ringlog_ring::sim::{CoreSettings, HostSettings, MS, NetworkSettings, SECOND, Settings, World};
use ringlog_ring::{
    ClaimedPort, Connection, ExecutorContext, ExecutorOptions, Executors, File, Listener, ListeningSocket, MeshBuilder,
    Open, SocketOptions, fs, sleep_ms, spawn, spawn_detached,
};

use crate::{outcomes, shared, write};

/// Two nodes with two cores each, clients, disks, a crash: something of everything.
fn busy_run(seed: u64) -> (u64, u64, usize) {
    let cores = CoreSettings { out_of_order_permille: 50, ..CoreSettings::default() };
    let network = NetworkSettings { loss_permille: 20, partial_permille: 200, ..NetworkSettings::default() };
    let world = World::new(Settings { seed, cores, network });
    let hosts = ["n0", "n1", "client"].map(|name| world.add_host(HostSettings::named(name)));
    let node = || async {
        let mesh = MeshBuilder::<u64>::new(2, 8);
        let port = ClaimedPort::claim("0.0.0.0:9092".parse().expect("an address")).expect("free");
        let sockets = port.listen(SocketOptions::default(), 2).expect("listens");
        let mains = sockets.into_iter().map(|socket| {
            let mesh = mesh.clone();
            (ExecutorOptions::default(), |context: ExecutorContext| serve(context, mesh, socket))
        });
        Executors::start(mains.collect()).expect("starts").join().await;
    };
    let nodes = [0, 1].map(|number| world.start(hosts[number], "node", node));
    for number in 0..4 {
        let address = std::net::SocketAddr::new(world.address(hosts[number % 2]), 9092);
        world.start(hosts[2], "client", move || async move {
            loop {
                let Ok(connection) = Connection::connect(address, 500).await else { continue };
                for round in 0..10u8 {
                    let mut answer = [0; 100];
                    if write(&connection, &[round; 50]).await.is_err() || connection.read(&mut answer).await.is_err() {
                        break;
                    }
                    sleep_ms(ringlog_ring::sim::draw(5)).await;
                }
            }
        });
    }
    world.run_for(200 * MS);
    world.kill(nodes[0]);
    world.power_off(hosts[1]);
    world.run_for(200 * MS);
    world.power_on(hosts[1]);
    hosts[..2].iter().for_each(|host| _ = world.start(*host, "node", node));
    world.run_for(SECOND);
    let violations = world.take_violations();
    assert!(violations.is_empty(), "{violations:?}");
    let file = world.file(hosts[1], Path::new("/log-0")).expect("written");
    (world.trace_hash(), world.events(), file.len())
}

async fn serve(context: ExecutorContext, mesh: MeshBuilder<u64>, socket: ListeningSocket) {
    let endpoint = mesh.join(context.index()).await;
    let listener = Listener::adopt(socket);
    let path = format!("/log-{}", context.index());
    let file = File::open(Path::new(&path), Open::CREATE).await.expect("opens");
    let receiving = endpoint.clone();
    let peer = 1 - context.index();
    spawn_detached(async move {
        let mut position = 0;
        while let Some(number) = receiving.recv_from(peer).await {
            file.write_all_at(position, &number.to_le_bytes()).await.expect("writes");
            position += 4096;
            if number % 8 == 0 {
                file.fdatasync().await.expect("syncs");
            }
        }
    });
    let mut accepted = 0;
    loop {
        let connection = listener.accept().await.expect("accepts");
        let endpoint = endpoint.clone();
        accepted += 1;
        spawn_detached(async move {
            let mut buffer = [0; 100];
            while let Ok(count @ 1..) = connection.read(&mut buffer).await {
                let sending = endpoint.clone();
                let _ = spawn(async move { sending.send(peer, accepted).await }).await;
                if write(&connection, &buffer[..count]).await.is_err() {
                    break;
                }
            }
            let _ = fs::write_atomically(format!("/last-{peer}"), buffer.to_vec()).await;
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3] {
        assert_eq!(busy_run(seed), busy_run(seed));
    }
}

/// The hash is the same wherever this is built, with whatever optimisation.
#[test]
fn the_run_of_a_seed_is_known() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/seeds.txt");
    let known = std::fs::read_to_string(path).expect("known hashes");
    let lines = (1..=3).map(|seed| format!("{seed} {:016x}\n", busy_run(seed).0));
    assert_eq!(lines.collect::<String>(), known, "what runs of these seeds do has changed");
}

#[test]
fn different_seeds_differ() {
    assert_eq!(outcomes(20, |seed| busy_run(seed).0).len(), 20);
}

#[test]
fn the_story_is_told_with_time_and_place() {
    let story = shared::<Vec<String>>();
    let told = story.clone();
    let world = World::new(Settings::default());
    let host = world.add_host(HostSettings::named("n0"));
    world.tell(move |context, text| told.borrow_mut().push(format!("{} {}: {text}", context.at_ns / MS, context.host)));
    world.start(host, "node", || async {
        sleep_ms(5).await;
        ringlog_ring::sim::control().note(|| "has slept".to_owned());
        fs::write_atomically("/a", b"bytes".to_vec()).await.expect("writes");
    });
    world.run_for(SECOND);
    let story = story.take().join("\n");
    for sentence in ["0 : node starts on n0", "5 n0: has slept", "n0: a has its name", "node on n0 ends: Returned"] {
        assert!(story.contains(sentence), "{sentence} isn't told in:\n{story}");
    }
}
