//! Direct files, the fallback, and operations on names.

use ringlog_ring::{BLOCK_BYTES, Direct, File, FramePool, MAX_FRAME_BYTES, MAX_IO_BYTES, Open, fs};

use crate::{Scratch, run};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// What segment stores do: append to frames, write whole blocks and a padded tail, rewrite the tail, read any range.
fn frames_reach_the_file(scratch: Scratch, open: Open) {
    run(move || async move {
        let path = scratch.file("segment");
        let file = File::open(&path, open).await.expect("opens");
        let pool = FramePool::new(4 * MAX_FRAME_BYTES);
        let bytes = pattern(MAX_FRAME_BYTES - 100);
        let mut frame = pool.acquire(MAX_FRAME_BYTES).await;
        frame.append(&bytes[..10_000]);
        file.write_frame(0, &frame, 0..10_000).await.expect("a short range with a partial block");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 12_288);
        assert_eq!(&file.read(0, 12_288).await.unwrap()[10_000..], &[0; 2_288], "zeros fill the block");
        frame.append(&bytes[10_000..]);
        file.write_frame(8192, &frame, 8192..bytes.len()).await.expect("a long range");
        file.fdatasync().await.expect("syncs");
        file.truncate(bytes.len() as u64).await.expect("truncates");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);

        for (position, len) in [(0, 1), (4095, 2), (5000, 70_000), (0, 512 * 1024), (bytes.len() - 10, 100)] {
            let found = file.read(position as u64, len).await.expect("reads");
            assert_eq!(&found[..], &bytes[position..(position + len).min(bytes.len())], "{len} bytes at {position}");
        }
        assert!(file.read(bytes.len() as u64, 100).await.unwrap().is_empty(), "nothing after the end");
        assert!(file.read(bytes.len() as u64 + 9999, 100).await.unwrap().is_empty());
        drop(frame);
        file.close().await.expect("closes");
        assert_eq!(pool.in_use_bytes(), 0, "no write holds memory after its end");
    });
}

#[test]
fn frames_reach_a_direct_file() {
    let scratch = Scratch::new(false);
    frames_reach_the_file(scratch, Open::CREATE);
}

#[test]
fn frames_reach_a_buffered_file() {
    frames_reach_the_file(Scratch::new(false), Open { direct: Direct::Off, ..Open::CREATE });
}

#[test]
fn frames_reach_a_file_system_without_direct_io() {
    let scratch = Scratch::new(true);
    let probe = scratch.file("probe");
    assert!(!run(move || async move { File::open(&probe, Open::CREATE).await.expect("opens").is_direct() }));
    frames_reach_the_file(scratch, Open::CREATE);
}

#[test]
fn large_reads_and_writes_are_split() {
    let scratch = Scratch::new(false);
    run(move || async move {
        let file = File::open(&scratch.file("large"), Open::CREATE).await.expect("opens");
        let bytes = pattern(3 * MAX_IO_BYTES + 77);
        file.write_all_at(BLOCK_BYTES as u64, &bytes).await.expect("writes");
        let found = file.read(BLOCK_BYTES as u64 + 5, bytes.len() - 5).await.expect("reads");
        assert!(found == bytes[5..]);
        drop(scratch);
    });
}

#[test]
fn slices_of_a_read_stay_valid_on_other_threads_after_the_executor_ended() {
    let scratch = Scratch::new(false);
    let path = scratch.file("read");
    std::fs::write(&path, pattern(100_000)).unwrap();
    let slice = run(move || async move {
        let file = File::open(&path, Open::READ).await.expect("opens");
        let slice = file.read(1000, 50_000).await.expect("reads");
        for _ in 0..50 {
            file.read(0, 100_000).await.expect("reads over other memory");
        }
        slice
    });
    assert!(slice == pattern(100_000)[1000..51_000]);
}

#[test]
fn preallocated_space_reads_as_zeros() {
    let scratch = Scratch::new(false);
    run(move || async move {
        let file = File::open(&scratch.file("preallocated"), Open::CREATE).await.expect("opens");
        file.write_all_at(0, b"data").await.expect("writes");
        if file.preallocate(1 << 20).await.expect("preallocates") {
            let found = file.read(0, 1 << 20).await.expect("reads");
            assert_eq!((found.len(), &found[..4]), (1 << 20, &b"data"[..]));
            assert!(found[4..].iter().all(|byte| *byte == 0));
        }
        drop(scratch);
    });
}

#[test]
fn a_write_that_nobody_waits_for_still_happens() {
    let scratch = Scratch::new(false);
    run(move || async move {
        let file = File::open(&scratch.file("dropped"), Open::CREATE).await.expect("opens");
        let pool = FramePool::new(MAX_FRAME_BYTES);
        let mut frame = pool.acquire(1).await;
        frame.append(&pattern(8192));
        {
            let mut write = std::pin::pin!(file.write_frame(0, &frame, 0..8192));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(write.as_mut().poll(&mut context).is_pending());
        }
        while frame.is_shared() {
            ringlog_ring::sleep_ms(1).await;
        }
        assert_eq!(&file.read(0, 8192).await.unwrap()[..], &pattern(8192)[..]);
        drop(scratch);
    });
}

#[test]
fn names_are_changed_on_the_helper_thread() {
    let scratch = Scratch::new(false);
    run(move || async move {
        let folder = scratch.file("a/b");
        fs::create_dir_all(&folder).await.expect("makes folders");
        let file = folder.join("checkpoint");
        fs::write_atomically(&file, b"one".to_vec()).await.expect("writes");
        fs::write_atomically(&file, b"second".to_vec()).await.expect("writes again");
        assert_eq!(fs::read_to_vec(&file, 6).await.expect("reads"), b"second");
        assert_eq!(fs::read_to_vec(&file, 5).await.unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
        fs::rename(&file, folder.join("renamed")).await.expect("renames");
        let entries = fs::read_dir(&folder).await.expect("lists");
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].name.to_str(), entries[0].metadata.len), (Some("renamed"), 6));
        assert!(fs::available_space(&folder).await.expect("asks") > 0);
        fs::syncfs(&folder).await.expect("syncs");
        fs::remove_file(folder.join("renamed")).await.expect("removes");
        fs::remove_file(folder.join("renamed")).await.expect("nothing to remove is fine");
        fs::remove_dir_all(scratch.file("a")).await.expect("removes all");
        assert!(fs::metadata(&folder).await.is_err());
    });
}

#[test]
fn a_panic_on_the_helper_thread_is_an_error_and_the_thread_goes_on() {
    run(|| async {
        let result: std::io::Result<()> = ringlog_ring::blocking(|| panic!("this panic belongs to the test")).await;
        assert!(result.is_err());
        assert_eq!(ringlog_ring::blocking(|| Ok(5)).await.expect("goes on"), 5);
    });
}

#[test]
fn a_lock_is_held_against_others() {
    let scratch = Scratch::new(false);
    let lock = fs::lock_file(&scratch.file(".lock")).expect("free");
    assert!(matches!(fs::lock_file(&scratch.file(".lock")), Err(fs::LockError::Held(_))));
    drop(lock);
    drop(fs::lock_file(&scratch.file(".lock")).expect("free again"));
}
