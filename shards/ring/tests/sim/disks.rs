//! Files in the simulated world: what survives, what fails, and what is seen of operations under way.

use std::io::ErrorKind;
use std::path::Path;

use ringlog_ring::sim::{DiskFault, DiskOperation, DiskSettings, Exit, HostSettings, MS, SECOND, Settings, World};
use ringlog_ring::{BLOCK_BYTES, Connection, File, FramePool, Open, SocketOptions, fs, sleep_ms, spawn, timeout_ms};

use crate::{calm, listen, outcomes, put, run, shared, world};

const FILE: &str = "/data/file";

async fn open() -> File {
    fs::create_dir_all("/data").await.expect("a folder");
    let file = File::open(Path::new(FILE), Open::CREATE).await.expect("opens");
    fs::sync_dir("/data").await.expect("syncs");
    fs::sync_dir("/").await.expect("syncs");
    file
}

#[test]
fn a_kill_leaves_what_was_written_and_a_power_failure_what_was_synced() {
    let left = outcomes(40, |seed| {
        let (world, hosts) = world(seed);
        run(&world, hosts[0], || async {
            let file = open().await;
            file.write_all_at(0, &[1; 8192]).await.expect("writes");
            file.fdatasync().await.expect("syncs");
            file.write_all_at(4096, &[2; 8192]).await.expect("writes");
        });
        // The process has ended, and lost nothing.
        let path = Path::new(FILE);
        assert_eq!(world.file(hosts[0], path).expect("a file"), [vec![1; 4096], vec![2; 8192]].concat());
        world.power_off(hosts[0]);
        world.power_on(hosts[0]);
        calm(&world);
        let left = world.file(hosts[0], path).expect("a file");
        assert_eq!(left, world.safe_file(hosts[0], path).expect("a file"));
        assert_eq!(left[..4096], [1; 4096]);
        left
    });
    assert!(left.iter().any(|bytes| bytes.len() == 8192 && bytes[4096..] == [1; 4096]), "all of it lost");
    assert!(left.iter().any(|bytes| bytes.len() == 12288 && bytes[4096..] == [2; 8192]), "all of it kept");
    let sectors = |bytes: &Vec<u8>| bytes[4096..8192].chunks(512).map(|sector| sector[0]).collect::<Vec<_>>();
    assert!(left.iter().any(|bytes| sectors(bytes).contains(&1) && sectors(bytes).contains(&2)), "torn");
    for bytes in &left {
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "sectors are whole");
    }
}

#[test]
fn a_write_that_was_under_way_at_the_end_leaves_any_of_its_sectors() {
    let left = outcomes(60, |seed| {
        let (world, hosts) = world(seed);
        world.change_disk(hosts[0], Path::new("/"), |disk| disk.write_ns = (MS, MS));
        let process = world.start(hosts[0], "writer", || async {
            let file = open().await;
            file.write_all_at(0, &[1; 4096]).await.expect("writes");
            // Never seen to end.
            let _ = file.write_all_at(0, &[2; 4096]).await;
            ringlog_ring::observe(&"written");
        });
        world.observe(|_, value| panic!("the process lives on: {:?}", value.downcast_ref::<&str>()));
        let path = Path::new(FILE);
        assert!(world.run_until(SECOND, || world.file(hosts[0], path).is_some_and(|bytes| bytes.len() == 4096)));
        world.run_for(MS / 2);
        world.kill(process);
        world.run_for(SECOND);
        assert_eq!(world.exit(process), Some(Exit::Killed));
        world.file(hosts[0], path).expect("a file").chunks(512).map(|sector| sector[0]).collect::<Vec<_>>()
    });
    assert!(left.contains(&vec![1; 8]) && left.contains(&vec![2; 8]));
    assert!(left.iter().any(|sectors| sectors.contains(&1) && sectors.contains(&2)));
}

#[test]
fn operations_under_way_at_a_time_end_in_any_order() {
    let orders = outcomes(30, |seed| {
        let (world, hosts) = world(seed);
        run(&world, hosts[0], || async {
            let file = open().await;
            let order = shared::<Vec<u64>>();
            let writes: Vec<_> = (0..3)
                .map(|number| {
                    let (file, order) = (file.clone(), order.clone());
                    spawn(async move {
                        file.write_all_at(number * 4096, &[7; 4096]).await.expect("writes");
                        order.borrow_mut().push(number);
                    })
                })
                .collect();
            for write in writes {
                write.await;
            }
            order.take()
        })
    });
    assert_eq!(orders.len(), 6, "{orders:?}");
}

#[test]
fn two_writes_of_a_block_at_a_time_are_a_violation() {
    let (world, hosts) = world(1);
    run(&world, hosts[0], || async {
        let file = open().await;
        let one = spawn({
            let file = file.clone();
            async move { file.write_all_at(0, &[1; 8192]).await }
        });
        file.write_all_at(4096, &[2; 4096]).await.expect("writes");
        one.await.expect("writes");
    });
    let violations = world.take_violations();
    assert!(violations[0].contains("two writes of a block of data/file"), "{violations:?}");
}

#[test]
fn a_failing_sync_loses_what_it_should_have_kept_and_the_next_one_says_nothing() {
    let left = outcomes(40, |seed| {
        let (world, hosts) = world(seed);
        let control = ringlog_ring::sim::control();
        run(&world, hosts[0], move || async move {
            let file = open().await;
            file.write_all_at(0, &[1; 4096]).await.expect("writes");
            let operations = vec![DiskOperation::Sync];
            let fault = DiskFault { under: "/data".into(), operations, errno: 5, permille: 1000, left: Some(1) };
            control.fail_disk(hosts[0], fault);
            assert_eq!(file.fdatasync().await.unwrap_err().raw_os_error(), Some(5));
            file.fdatasync().await.expect("nothing is left to be synced");
        });
        world.power_off(hosts[0]);
        world.power_on(hosts[0]);
        world.file(hosts[0], Path::new(FILE)).expect("a file")
    });
    assert!(left.contains(&vec![]) && left.contains(&vec![1; 4096]));
}

#[test]
fn a_full_disk_takes_what_it_has_room_for() {
    let world = World::new(Settings::default());
    let disk = DiskSettings { size_bytes: 10 * 4096, partial_permille: 0, ..DiskSettings::default() };
    let host = world.add_host(HostSettings { disk, ..HostSettings::named("n0") });
    run(&world, host, || async {
        let file = open().await;
        file.write_all_at(0, &[1; 8 * 4096]).await.expect("fits");
        assert_eq!(fs::space("/data").await.expect("asks").available_bytes, 2 * 4096);
        let full = file.write_all_at(8 * 4096, &[2; 4 * 4096]).await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(file.read(0, 1 << 20).await.expect("reads").len(), 10 * 4096);
        file.write_all_at(0, &[3; 4096]).await.expect("what has its room can be written again");
        file.truncate(4096).await.expect("cuts");
        assert_eq!(fs::space("/data").await.expect("asks").available_bytes, 9 * 4096);
        assert_eq!(file.preallocate(11 * 4096).await.unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(file.preallocate(10 * 4096).await.expect("fits"));
        drop(file);
        fs::remove_file(FILE).await.expect("removes");
        assert_eq!(fs::space("/data").await.expect("asks").available_bytes, 10 * 4096);
    });
    calm(&world);
}

#[test]
fn faults_come_where_and_as_often_as_was_asked() {
    let (world, hosts) = world(3);
    let control = ringlog_ring::sim::control();
    run(&world, hosts[0], move || async move {
        put("/other", b"kept").await;
        let file = open().await;
        file.write_all_at(0, &[1; 4096]).await.expect("writes");
        let fail = |operation, errno, left| {
            let fault = DiskFault { under: "/data".into(), operations: vec![operation], errno, permille: 1000, left };
            control.fail_disk(hosts[0], fault);
        };
        fail(DiskOperation::Read, 5, Some(2));
        for _ in 0..2 {
            assert_eq!(file.read(0, 10).await.unwrap_err().raw_os_error(), Some(5));
        }
        assert_eq!(file.read(0, 10).await.expect("reads")[..], [1; 10]);
        fail(DiskOperation::Grow, 28, None);
        assert_eq!(file.write_all_at(4096, &[1; 4096]).await.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs::create_dir_all("/data/x").await.unwrap_err().kind(), ErrorKind::StorageFull);
        file.write_all_at(0, &[2; 4096]).await.expect("takes no more room");
        put("/other", b"still").await;
        control.mend_disks(hosts[0]);
        file.write_all_at(4096, &[1; 4096]).await.expect("writes");
        fail(DiskOperation::Write, 5, Some(1));
        assert_eq!(file.write_all_at(0, &[3; 4096]).await.unwrap_err().raw_os_error(), Some(5));
        fail(DiskOperation::Open, 13, None);
        assert_eq!(fs::read_to_vec(FILE, 1 << 20).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
    let kept = world.file(hosts[0], Path::new(FILE)).expect("a file");
    assert!(kept[..4096].chunks(512).all(|sector| sector == [2; 512] || sector == [3; 512]));
    assert!(world.rot(hosts[0], Path::new(FILE), 100, 1));
    assert_eq!(world.file(hosts[0], Path::new(FILE)).expect("a file")[100], kept[100] ^ 1);
    assert!(!world.rot(hosts[0], Path::new(FILE), 1 << 20, 1));
}

#[test]
fn descriptors_are_limited_and_come_back() {
    let (world, hosts) = world(1);
    world.set_descriptors(hosts[0], 10);
    let process = world.start(hosts[0], "many", || async {
        fs::create_dir_all("/data").await.expect("a folder");
        let mut files = Vec::new();
        let error = loop {
            match File::open(Path::new(&format!("/data/{}", files.len())), Open::CREATE).await {
                Ok(file) => files.push(file),
                Err(error) => break error,
            }
        };
        // Three are the standard streams'.
        assert_eq!((error.raw_os_error(), files.len()), (Some(24), 7));
        let address = "127.0.0.1:1".parse().expect("an address");
        assert_eq!(Connection::connect(address, 100).await.err().and_then(|error| error.raw_os_error()), Some(24));
        assert!(fs::read_to_vec("/data/0", 10).await.is_err());
        files.pop();
        assert!(fs::read_to_vec("/data/0", 10).await.is_ok());
        drop(files);
        // A listener that can't accept says so, and the connection waits.
        let listener = listen("127.0.0.1:0", SocketOptions::default()).expect("binds");
        let address = listener.local_addr().expect("an address");
        let client = Connection::connect(address, 1000).await.expect("connects");
        let mut files = Vec::new();
        while let Ok(file) = File::open(Path::new("/data/0"), Open::READ).await {
            files.push(file);
        }
        assert_eq!(listener.accept().await.err().and_then(|error| error.raw_os_error()), Some(24));
        files.clear();
        listener.accept().await.expect("it is still there");
        drop(client);
    });
    assert_eq!(world.run_until_exit(process, 100 * SECOND), Some(Exit::Returned));
    calm(&world);
}

#[test]
fn direct_io_is_checked_as_by_the_kernel() {
    let (world, hosts) = world(1);
    run(&world, hosts[0], || async {
        let file = open().await;
        assert!(file.is_direct());
        let pool = FramePool::new(1 << 20);
        let mut frame = pool.acquire(20_000).await;
        frame.append(&[5; 20_000]);
        file.write_frame(0, &frame, 0..20_000).await.expect("aligned");
        assert!(!frame.is_shared(), "no write holds memory after its end");
        assert_eq!(file.read(4000, 200).await.expect("any place")[..], [5; 200]);
        let read_only = File::open(Path::new(FILE), Open::READ).await.expect("opens");
        assert!(read_only.write_all_at(0, &[1; BLOCK_BYTES]).await.is_err());
        assert!(read_only.truncate(0).await.is_err());
    });
    calm(&world);
}

#[test]
fn a_device_that_hangs_holds_everything_until_it_goes_on() {
    let (world, hosts) = world(1);
    let control = ringlog_ring::sim::control();
    run(&world, hosts[0], move || async move {
        let file = open().await;
        let root = Path::new("/");
        control.set_hanging(hosts[0], root, true);
        assert!(timeout_ms(10_000, file.write_all_at(0, &[1; 4096])).await.is_err());
        assert!(timeout_ms(10_000, fs::metadata(FILE)).await.is_err());
        control.set_hanging(hosts[0], root, false);
        sleep_ms(100).await;
        assert_eq!(file.read(0, 10_000).await.expect("reads").len(), 4096, "the write went on");
        control.set_slowness(hosts[0], root, 1000);
        assert!(timeout_ms(10, file.read(0, 4096)).await.is_err());
        control.mend_disks(hosts[0]);
        assert!(timeout_ms(100, file.read(0, 4096)).await.is_ok());
    });
    calm(&world);
}

#[test]
fn reads_and_writes_that_do_a_part_are_continued() {
    let world = World::new(Settings::default());
    let disk = DiskSettings { partial_permille: 900, ..DiskSettings::default() };
    let host = world.add_host(HostSettings { disk, ..HostSettings::named("n0") });
    run(&world, host, || async {
        let bytes: Vec<u8> = (0..100_000u32).map(|number| (number % 251) as u8).collect();
        let file = open().await;
        file.write_all_at(4096, &bytes).await.expect("writes");
        let found = file.read(4096 + 3, bytes.len() - 3).await.expect("reads");
        assert!(found[..] == bytes[3..]);
        assert_eq!(file.read(0, 1 << 20).await.expect("reads").len(), 4096 + bytes.len().next_multiple_of(4096));
    });
    calm(&world);
}
