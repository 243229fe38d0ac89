//! Direct files, the fallback, and operations on names.

use std::io::ErrorKind;
use std::path::Path;

use ringlog_ring::{BLOCK_BYTES, Direct, File, FramePool, MAX_FRAME_BYTES, MAX_IO_BYTES, Open, fs};

use crate::{Scratch, process, run};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// A whole file, by another way than it was written.
async fn whole(path: &Path) -> Vec<u8> {
    fs::read_to_vec(path, usize::MAX).await.expect("reads")
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
        assert_eq!(fs::metadata(&path).await.unwrap().len, 12_288);
        assert_eq!(&file.read(0, 12_288).await.unwrap()[10_000..], &[0; 2_288], "zeros fill the block");
        frame.append(&bytes[10_000..]);
        file.write_frame(8192, &frame, 8192..bytes.len()).await.expect("a long range");
        file.fdatasync().await.expect("syncs");
        file.truncate(bytes.len() as u64).await.expect("truncates");
        assert_eq!(whole(&path).await, bytes);

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
    let path = scratch.file("probe");
    assert!(!run(move || async move { File::open(&path, Open::CREATE).await.expect("opens").is_direct() }));
    frames_reach_the_file(scratch, Open::CREATE);
}

/// It opens, or isn't there. Simulated files can't be renamed from outside.
#[cfg(not(ringlog_sim))]
#[test]
#[allow(clippy::disallowed_methods, reason = "somebody else renames it, from a thread")]
fn a_file_may_be_renamed_while_it_is_opened() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let scratch = Scratch::new(false);
    let (one, other) = (scratch.file("one"), scratch.file("other"));
    std::fs::write(&one, b"something").expect("writes");
    let is_over = Arc::new(AtomicBool::new(false));
    let (path, until) = (one.clone(), is_over.clone());
    let renamer = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            std::fs::rename(&one, &other).expect("renames");
            std::fs::rename(&other, &one).expect("renames");
        }
    });
    let opened = run(move || async move {
        let mut opened = 0;
        for _ in 0..2_000 {
            match File::open(&path, Open::READ).await {
                Ok(file) => {
                    opened += 1;
                    file.close().await.expect("closes");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
        opened
    });
    is_over.store(true, Ordering::Relaxed);
    renamer.join().expect("no panic");
    assert!(opened > 0);
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
fn slices_of_a_read_stay_valid_elsewhere_after_the_executor_ended() {
    let scratch = Scratch::new(false);
    let path = scratch.file("read");
    let slice = run(move || async move {
        fs::run({
            let path = path.clone();
            async move |fs| fs.write(&path, &pattern(100_000)).await
        })
        .await
        .expect("writes");
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

/// Reading in place: whole blocks, one after the other, up to the file's end.
fn frames_are_read_into(open: Open) {
    let scratch = Scratch::new(false);
    run(move || async move {
        let path = scratch.file("segment");
        let bytes = pattern(300_000);
        fs::write_atomically(&path, bytes.clone()).await.expect("writes");
        let file = File::open(&path, Open { create: false, ..open }).await.expect("opens");
        let pool = FramePool::new(MAX_FRAME_BYTES);
        let frame = pool.acquire(300_000).await;
        let frame = file.read_frame(8192, frame, 100 * BLOCK_BYTES).await.expect("reads up to the end");
        assert!(frame.as_slice() == &bytes[8192..]);
        drop(frame);
        let mut frame = pool.acquire(4 * BLOCK_BYTES).await;
        for block in 0..4 {
            frame = file.read_frame((block * BLOCK_BYTES) as u64, frame, BLOCK_BYTES).await.expect("reads a block");
        }
        assert!(frame.as_slice() == &bytes[..4 * BLOCK_BYTES]);
        drop(frame);
        let frame = file.read_frame(1 << 20, pool.acquire(1).await, 100).await.expect("reads nothing");
        assert!(frame.is_empty());
        drop(frame);
        // Who doesn't wait leaves the memory alone until it has ended.
        {
            let mut read = std::pin::pin!(file.read_frame(0, pool.acquire(65_536).await, 65_536));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(read.as_mut().poll(&mut context).is_pending());
        }
        while pool.in_use_bytes() > 0 {
            ringlog_ring::sleep_ms(1).await;
        }
        drop(scratch);
    });
}

#[test]
fn a_direct_file_is_read_into_frames() {
    frames_are_read_into(Open::WRITE);
}

#[test]
fn a_buffered_file_is_read_into_frames() {
    frames_are_read_into(Open { direct: Direct::Off, ..Open::WRITE });
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
        fs::create_dir_all(&folder).await.expect("they are there");
        let file = folder.join("checkpoint");
        fs::write_atomically(&file, b"one".to_vec()).await.expect("writes");
        fs::write_atomically(&file, b"second".to_vec()).await.expect("writes again");
        assert_eq!(fs::read_to_vec(&file, 6).await.expect("reads"), b"second");
        assert_eq!(fs::read_to_vec(&file, 5).await.unwrap_err().kind(), ErrorKind::FileTooLarge);
        fs::rename(&file, folder.join("renamed")).await.expect("renames");
        let entries = fs::read_dir(&folder).await.expect("lists");
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].name.to_str(), entries[0].metadata.len), (Some("renamed"), 6));
        assert!(fs::space(&folder).await.expect("asks").available_bytes > 0);
        fs::syncfs(&folder).await.expect("syncs");
        fs::remove_file(folder.join("renamed")).await.expect("removes");
        fs::remove_file(folder.join("renamed")).await.expect("nothing to remove is fine");
        fs::create_dir_all(folder.join("c/d")).await.expect("makes folders");
        fs::remove_dir_all(scratch.file("a")).await.expect("removes all");
        assert!(fs::metadata(&folder).await.is_err());
        fs::remove_dir_all(scratch.file("a")).await.expect("nothing to remove is fine");
    });
}

#[test]
fn several_operations_are_one_piece_of_work() {
    let scratch = Scratch::new(false);
    run(move || async move {
        let folder = scratch.file("log");
        let found = fs::run(async move |fs| {
            fs.create_dir(&folder).await?;
            let mut file = fs.create(&folder.join("part")).await?;
            file.append(b"0123456789")?;
            file.append(b"abc")?;
            file.write_all_at(2, b"xx").await?;
            file.sync().await?;
            assert_eq!(file.len().await?, 13);
            file.set_read_only().await?;
            fs.rename_and_sync(&folder.join("part"), &folder.join("whole")).await?;
            fs.sync_file(&folder.join("whole")).await?;
            let file = fs.open(&folder.join("whole")).await?;
            let mut last = [0; 3];
            file.read_exact_at(file.len().await? - 3, &mut last).await?;
            assert_eq!(&last, b"abc");
            assert_eq!(file.read_at(13, &mut last).await?, 0);
            let beyond = file.read_exact_at(12, &mut last).await.unwrap_err();
            assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
            assert!(fs.is_dir(&folder).await? && !fs.is_dir(&folder.join("whole")).await?);
            assert!(fs.exists(&folder.join("whole")).await? && !fs.exists(&folder.join("part")).await?);
            assert_eq!(fs.read_if_there(&folder.join("part"), 100).await?, None);
            fs.write(&folder.join("other"), b"12345678").await?;
            fs.open_to_write(&folder.join("other")).await?.write_all_at(6, b"xx").await?;
            fs.set_len(&folder.join("other"), 7).await?;
            assert_eq!(fs.read(&folder.join("other"), 100).await?, b"123456x");
            assert_eq!(fs.remove_dir(&folder).await.unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
            assert!(fs.remove_file_if_there(&folder.join("other")).await?);
            assert!(!fs.remove_file_if_there(&folder.join("other")).await?);
            assert_eq!(fs.remove_file(&folder.join("other")).await.unwrap_err().kind(), ErrorKind::NotFound);
            fs.read(&folder.join("whole"), 100).await
        });
        assert_eq!(found.await.expect("done"), b"01xx456789abc");
    });
}

#[test]
fn long_work_has_a_thread_of_its_own() {
    let scratch = Scratch::new(false);
    run(move || async move {
        let path = scratch.file("long");
        let (work, other) = (path.clone(), path.clone());
        let long = fs::run_apart("long", async move |fs| {
            fs.write(&work, b"long").await?;
            // The helper thread is free meanwhile.
            while !fs.exists(&work.with_extension("short")).await? {}
            fs.read(&work, 100).await
        });
        let short = async move {
            while fs::metadata(&other).await.is_err() {}
            fs::write_atomically(other.with_extension("short"), b"short".to_vec()).await
        };
        let short = ringlog_ring::spawn(short);
        assert_eq!(long.await.expect("ends"), b"long");
        short.await.expect("written");
        drop(scratch);
    });
}

/// In a simulation it is a violation besides, and has a test there.
#[cfg(not(ringlog_sim))]
#[test]
fn a_panic_on_the_helper_thread_is_an_error_and_the_thread_goes_on() {
    run(|| async {
        let result: std::io::Result<()> = ringlog_ring::blocking(|| panic!("this panic belongs to the test")).await;
        assert!(result.is_err());
        assert_eq!(ringlog_ring::blocking(|| Ok(5)).await.expect("goes on"), 5);
    });
}

#[test]
fn work_is_done_beside_the_executor() {
    run(|| async {
        assert_eq!(ringlog_ring::blocking(|| Ok(5)).await.expect("computes"), 5);
        assert_eq!(ringlog_ring::blocking_apart("apart", || Ok(6)).await.expect("computes"), 6);
    });
}

#[test]
fn a_lock_is_held_against_others() {
    let scratch = Scratch::new(false);
    process(move || async move {
        let files = fs::now();
        let path = scratch.file(".lock");
        let lock = files.lock(&path).await.expect("free");
        assert!(matches!(files.lock(&path).await, Err(fs::LockError::Held(_))));
        drop(lock);
        drop(files.lock(&path).await.expect("free again"));
        let nowhere = files.lock(&scratch.file("no/.lock")).await;
        assert!(matches!(nowhere, Err(fs::LockError::Io(..))));
    });
}
