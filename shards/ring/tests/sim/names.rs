//! Names, locks, and work on them that a crash interrupts.

use std::path::Path;

use ringlog_ring::sim::{DiskSettings, Exit, MS, SECOND, US};
use ringlog_ring::{File, Open, fs};

use crate::{calm, outcomes, put, run, shared, world};

#[test]
fn a_file_without_a_synced_name_may_be_gone_with_its_bytes() {
    let left = outcomes(40, |seed| {
        let (world, hosts) = world(seed);
        run(&world, hosts[0], || async {
            let file = File::open(Path::new("/a"), Open::CREATE).await.expect("opens");
            file.write_all_at(0, &[1; 4096]).await.expect("writes");
            file.fdatasync().await.expect("syncs");
        });
        world.power_off(hosts[0]);
        world.power_on(hosts[0]);
        world.file(hosts[0], Path::new("/a")).map(|bytes| bytes.len())
    });
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [None, Some(4096)]);
}

/// The old file or the new one, whole: whenever the process is killed or the power fails, between any two operations.
#[test]
fn an_atomic_write_is_whole_at_any_moment() {
    let left = outcomes(300, |seed| {
        let (world, hosts) = world(seed);
        run(&world, hosts[0], || async { put("/file", b"old").await });
        let process = world.start(hosts[0], "writer", || async {
            put("/file", b"new").await;
            std::future::pending::<()>().await;
        });
        world.run_for(20 * US + seed * 5 * US);
        let is_kill = seed % 3 == 0;
        if is_kill {
            world.kill(process)
        } else {
            world.power_off(hosts[0])
        }
        world.run_for(SECOND);
        let expected = if is_kill { Exit::Killed } else { Exit::PowerLost };
        assert_eq!(world.exit(process), Some(expected));
        world.power_on(hosts[0]);
        calm(&world);
        let temporary = world.file(hosts[0], Path::new("/file.tmp")).map(|bytes| bytes.len());
        (world.file(hosts[0], Path::new("/file")).expect("a file"), temporary)
    });
    let contents: Vec<&[u8]> = left.iter().map(|(content, _)| &content[..]).collect();
    assert!(contents.iter().all(|content| [&b"old"[..], b"new"].contains(content)), "{contents:?}");
    assert!(contents.contains(&&b"old"[..]) && contents.contains(&&b"new"[..]));
    assert!(left.iter().any(|(_, temporary)| temporary.is_some()), "some end in the middle");
}

/// What two cores do with files interleaves.
#[test]
fn work_of_two_threads_interleaves_operation_by_operation() {
    let orders = outcomes(200, |seed| {
        let (world, hosts) = world(seed);
        run(&world, hosts[0], || async {
            let order = shared::<String>();
            let all: Vec<_> = ["a", "b"]
                .map(|name| {
                    let order = order.clone();
                    ringlog_ring::spawn(async move {
                        let files = fs::now();
                        for step in ["1", "2"] {
                            let path = format!("/{name}{step}");
                            files.create_dir(Path::new(&path)).await.expect("makes");
                            *order.borrow_mut() += &path;
                        }
                    })
                })
                .into();
            for task in all {
                task.await;
            }
            order.take()
        })
    });
    assert_eq!(orders.len(), 6, "{orders:?}");
}

#[test]
fn a_lock_goes_with_its_process() {
    let (world, hosts) = world(1);
    let holder = world.start(hosts[0], "holder", || async {
        let _lock = fs::now().lock(Path::new("/.lock")).await.expect("free");
        std::future::pending::<()>().await;
    });
    world.run_for(10 * MS);
    let attempt = || async { fs::now().lock(Path::new("/.lock")).await.map(drop).map_err(|error| error.to_string()) };
    assert_eq!(run(&world, hosts[0], attempt), Err("/.lock is locked by another process".to_owned()));
    world.kill(holder);
    world.run_for(10 * MS);
    assert_eq!(run(&world, hosts[0], attempt), Ok(()));
    let again = world.start(hosts[0], "holder", || async {
        let _lock = fs::now().lock(Path::new("/.lock")).await.expect("free");
        std::future::pending::<()>().await;
    });
    world.run_for(10 * MS);
    world.power_off(hosts[0]);
    world.run_for(10 * MS);
    world.power_on(hosts[0]);
    assert_eq!(world.exit(again), Some(Exit::PowerLost));
    assert_eq!(run(&world, hosts[0], attempt), Ok(()));
}

#[test]
fn disks_are_mounted_at_folders_and_names_do_not_cross_them() {
    let (world, hosts) = world(1);
    let small = DiskSettings { size_bytes: 8 * 4096, direct: false, ..DiskSettings::default() };
    world.mount(hosts[0], Path::new("/data/one"), small);
    run(&world, hosts[0], || async {
        put("/data/one/a", b"bytes").await;
        let crossing = fs::rename("/data/one/a", "/b").await.unwrap_err();
        assert_eq!(crossing.raw_os_error(), Some(18));
        assert_eq!(fs::space("/data/one").await.expect("asks").total_bytes, 8 * 4096);
        let file = File::open(Path::new("/data/one/a"), Open::WRITE).await.expect("opens");
        assert!(!file.is_direct(), "a file system without direct I/O");
        fs::run(async |fs| fs.open_to_write(Path::new("/data/one/a")).await?.set_read_only().await)
            .await
            .expect("sets");
        let refused = File::open(Path::new("/data/one/a"), Open::WRITE).await.err().expect("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    });
    assert_eq!(world.list(hosts[0], Path::new("/data/one")).expect("a folder"), ["a"]);
    calm(&world);
}
