//! Memory for the largest frames: huge pages, where the host has them. One is made at a fraction of the cost of the small
//! pages that it stands for, and the kernel pins fewer for direct I/O.

use std::ptr::{self, NonNull};

/// What a huge page has on the machines that matter; elsewhere the advice means nothing.
const ALIGN: usize = 2 << 20;

/// Zeroed memory aligned to [`ALIGN`], of which `bytes` must be a multiple; `None` when the system has none.
pub(crate) fn take(bytes: usize) -> Option<NonNull<u8>> {
    assert!(bytes > 0 && bytes.is_multiple_of(ALIGN), "whole huge pages");
    let size = bytes + ALIGN;
    // SAFETY: a new mapping of its own; nothing else is touched.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(ALIGN);
    // SAFETY: `before` is at most `ALIGN`, so what is kept, and what is before and behind it, lies within the mapping; nobody
    // has a reference to any of it yet.
    let data = unsafe {
        let data = start.add(before);
        if before > 0 {
            libc::munmap(start.cast(), before);
        }
        if before < ALIGN {
            libc::munmap(data.add(bytes).cast(), ALIGN - before);
        }
        libc::madvise(data.cast(), bytes, libc::MADV_HUGEPAGE);
        data
    };
    NonNull::new(data)
}

/// Gives it back to the system.
///
/// # Safety
///
/// `data` came from [`take`] with as many `bytes`, hasn't been given back, and nobody uses it any more.
pub(crate) unsafe fn give_back(data: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(data.as_ptr().cast(), bytes) };
}
