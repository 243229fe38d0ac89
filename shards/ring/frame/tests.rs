//! Frames and their pool. Nothing here needs the kernel: `cargo miri test -p ringlog-ring frame` runs them too.

use super::{FramePool, MAX_FRAME_BYTES, MIN_FRAME_BYTES};

#[test]
fn slices_see_what_was_appended_and_later_appends_leave_them_alone() {
    let pool = FramePool::new(MAX_FRAME_BYTES);
    let mut frame = pool.try_frame(20_000).expect("budget");
    assert_eq!(frame.capacity(), 32 * 1024);
    frame.append(b"first");
    let first = frame.slice(0..5);
    frame.append_with(6, |place| place.copy_from_slice(b"second"));
    assert_eq!(&first[..], b"first");
    assert_eq!(&frame.slice(3..8)[..], b"stsec");
    assert_eq!(frame.as_slice(), b"firstsecond");
    assert_eq!(frame.remaining(), 32 * 1024 - 11);
    assert_eq!(frame.as_slice().as_ptr() as usize % 4096, 0, "direct I/O needs this alignment");
}

#[test]
fn memory_comes_back_from_other_threads_and_is_used_again() {
    let pool = FramePool::new(2 * MIN_FRAME_BYTES);
    let mut frame = pool.try_frame(MIN_FRAME_BYTES).expect("budget");
    frame.append(&[9; 100]);
    let address = frame.as_slice().as_ptr() as usize;
    let slices: Vec<_> = (0..4).map(|i| frame.slice(i * 10..100)).collect();
    drop(frame);
    assert_eq!(pool.in_use_bytes(), MIN_FRAME_BYTES);
    let threads: Vec<_> = slices
        .into_iter()
        .map(|slice| std::thread::Builder::new().spawn(move || assert!(slice.iter().all(|byte| *byte == 9))).unwrap())
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pool.in_use_bytes(), 0);
    let again = pool.try_frame(1).expect("budget");
    assert_eq!(again.as_slice().as_ptr() as usize, address);
    assert!(again.is_empty());
}

#[test]
fn the_budget_bounds_what_is_in_use_and_free_memory_of_one_size_makes_room_for_another() {
    let pool = FramePool::new(4 * MIN_FRAME_BYTES);
    let frames: Vec<_> = (0..4).map(|_| pool.try_frame(MIN_FRAME_BYTES).expect("budget")).collect();
    assert!(pool.try_frame(1).is_none());
    drop(frames);
    let large = pool.try_frame(4 * MIN_FRAME_BYTES).expect("the free small ones are given back");
    assert!(pool.try_frame(1).is_none());
    assert_eq!(pool.in_use_bytes(), 4 * MIN_FRAME_BYTES);
    drop(large);
    pool.trim();
    assert_eq!(pool.in_use_bytes(), 0);
}

#[test]
fn truncation_is_refused_while_a_slice_could_see_it() {
    let pool = FramePool::new(MIN_FRAME_BYTES);
    let mut frame = pool.try_frame(1).expect("budget");
    frame.append(b"0123456789");
    let slice = frame.slice(0..10);
    assert!(!frame.try_truncate(5));
    assert_eq!(frame.len(), 10);
    drop(slice);
    assert!(frame.try_truncate(5));
    frame.append(b"abc");
    assert_eq!(frame.as_slice(), b"01234abc");
}

#[test]
fn slices_outlive_the_pool() {
    let pool = FramePool::new(MIN_FRAME_BYTES);
    let mut frame = pool.try_frame(1).expect("budget");
    frame.append(b"kept");
    let slice = frame.slice(0..4);
    drop((frame, pool));
    assert_eq!(&slice[..], b"kept");
}

#[test]
fn a_frame_counts_as_lent_once_and_only_while_a_reader_has_some_of_it() {
    let pool = FramePool::new(2 * MIN_FRAME_BYTES);
    let mut frame = pool.try_frame(1).expect("budget");
    frame.append(b"0123456789");
    let written = frame.lend(0..10);
    assert_eq!((pool.lent_bytes(), frame.is_lent()), (0, false), "a write isn't a reader");
    let (first, second) = (frame.slice(0..1), frame.slice(5..10));
    let clone = second.slice(1..2);
    assert_eq!(pool.lent_bytes(), MIN_FRAME_BYTES);
    drop((first, second));
    assert!(frame.is_lent());
    drop((frame, written));
    assert_eq!(pool.lent_bytes(), MIN_FRAME_BYTES, "the frame's owner has let it go, the reader not");
    std::thread::Builder::new().spawn(move || drop(clone)).unwrap().join().unwrap();
    assert_eq!((pool.lent_bytes(), pool.in_use_bytes()), (0, 0));
}

#[test]
fn what_is_taken_beyond_the_budget_counts_until_it_goes_and_does_not_come_back() {
    let pool = FramePool::new(MIN_FRAME_BYTES);
    let within = pool.try_frame(1).expect("budget");
    let beyond = pool.frame_beyond_budget(4 * MIN_FRAME_BYTES);
    assert_eq!(pool.in_use_bytes(), 5 * MIN_FRAME_BYTES);
    drop(beyond);
    assert_eq!(pool.in_use_bytes(), MIN_FRAME_BYTES);
    assert!(pool.try_frame(1).is_none());
    drop(within);
    assert!(pool.try_frame(1).is_some());
}
