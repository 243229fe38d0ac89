//! Making the file of a busy log longer ahead of its writes.

use std::rc::Rc;

use ringlog_ring::{self as ring, File};
use ringlog_types::Offset;
use tracing::debug;

use super::{LARGEST_FRAME_BYTES, SegmentStore, Tail};
use crate::log_dirs::allows_preallocation;

const FIRST_ALLOCATION_BYTES: u64 = 1024 * 1024;
const LARGEST_ALLOCATION_BYTES: u64 = 32 * 1024 * 1024;

impl SegmentStore {
    /// Makes the file of a busy log longer before its writes come to its end, so that they don't wait for the inode.
    /// Nobody waits for this either, and where it fails, also for want of space, the file grows by its writes.
    pub(super) fn grow_ahead(self: &Rc<Self>, file: &File, base_offset: Offset) {
        let Some(Some((by, to))) = self.with_tail(base_offset, |tail| tail.growth()) else { return };
        if !allows_preallocation(&self.directory.borrow(), by) {
            return;
        }
        self.with_tail(base_offset, |tail| tail.is_growing = true);
        let (store, file) = (self.clone(), file.clone());
        ring::spawn_detached(async move {
            if let Err(error) = file.preallocate(to).await {
                debug!(directory = %store.directory().display(), "can't allocate ahead: {error}");
            }
            // Also when it failed half-way: at most that long, and not tried again before the end comes near.
            store.with_tail(base_offset, |tail| {
                tail.is_growing = false;
                tail.file_len = tail.file_len.max(to);
            });
            store.grown.notify_all();
        });
    }

    /// Waits until nobody makes the segment's file longer any more.
    pub(super) async fn grown(&self, base_offset: Offset) {
        while self.with_tail(base_offset, |tail| tail.is_growing) == Some(true) {
            self.grown.wait().await;
        }
    }

    /// [`SegmentStore::grown`] for the active segment: before its file is cut.
    pub async fn active_has_grown(&self) {
        let base_offset = self.tails.borrow().back().map(|tail| tail.base_offset);
        if let Some(base_offset) = base_offset {
            self.grown(base_offset).await;
        }
    }
}

impl Tail {
    /// By how much, and to what length, the file of a busy log should be made longer now.
    fn growth(&self) -> Option<(u64, u64)> {
        let busy = self.next_frame_bytes == LARGEST_FRAME_BYTES && !self.sealed && !self.is_growing;
        let step = self.end.clamp(FIRST_ALLOCATION_BYTES, LARGEST_ALLOCATION_BYTES);
        if !busy || self.end + step / 2 <= self.file_len {
            return None;
        }
        Some((step, ringlog_types::align_up(self.end + step, FIRST_ALLOCATION_BYTES)))
    }
}
