//! Memory for the largest frames.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::BLOCK_BYTES;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, BLOCK_BYTES).expect("a frame's size")
}

/// Zeroed memory of so many `bytes`, not none; `None` when the system has none.
pub(crate) fn take(bytes: usize) -> Option<NonNull<u8>> {
    assert!(bytes > 0, "some memory");
    // SAFETY: the layout's size isn't zero.
    NonNull::new(unsafe { alloc_zeroed(layout(bytes)) })
}

/// Gives it back to the system.
///
/// # Safety
///
/// `data` came from [`take`] with as many `bytes`, hasn't been given back, and nobody uses it any more.
pub(crate) unsafe fn give_back(data: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(data.as_ptr(), layout(bytes)) };
}
