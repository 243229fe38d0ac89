//! Write passes: what is new in the tails goes to the files, from where it lies. And the length of those files: ahead of
//! a busy log's writes, cut to the records when it isn't busy.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use ringlog_ring::{self as ring, BLOCK_BYTES, File};
use ringlog_types::align_up;
use smallvec::SmallVec;
use tracing::debug;

use super::SegmentStore;
use super::tail::{ActiveFile, Job, Tail, Write};
use crate::storage::cache_memory::CacheMemory;
use crate::storage::disk_space::allows_preallocation;
use crate::storage::frames::HoldsFrames;
use crate::storage::generations::Segment;

/// What passes share.
#[derive(Default)]
pub(super) struct Writer {
    pub is_writing: Cell<bool>,
    /// A file that was made longer ahead of its writes has its length.
    grown: ring::Notify,
    /// The store is in the cache's queue of those that have frames to give up.
    pub is_offered: Cell<bool>,
}

impl HoldsFrames for SegmentStore {
    fn release_clean_frames(&self, bytes: usize) -> bool {
        SegmentStore::release_clean_frames(self, bytes)
    }

    fn keep_clean_frames(&self, bytes: usize, memory: &Rc<CacheMemory>) -> (usize, bool) {
        // While it is being written to, its pass offers it again.
        let (kept, passed_on) =
            if self.writer.is_writing.get() { (0, 0) } else { self.tails.keep_clean(bytes, memory) };
        let has_more = passed_on >= bytes;
        self.writer.is_offered.set(has_more);
        (kept, has_more)
    }

    fn release_kept_frames(&self, bytes: usize) -> usize {
        self.tails.release_kept(bytes)
    }
}

impl SegmentStore {
    /// Writes everything that was appended before the call, and no more unless index files of before have to go first
    /// ([`SegmentStore::remove_old_indexes`]). One pass runs at a time: the caller sees to it.
    pub async fn write_out(self: &Rc<Self>) -> io::Result<()> {
        assert!(!self.writer.is_writing.replace(true), "one write pass at a time");
        let outcome = self.write_pass().await;
        self.writer.is_writing.set(false);
        outcome
    }

    async fn write_pass(self: &Rc<Self>) -> io::Result<()> {
        self.remove_old_indexes().await?;
        let jobs: SmallVec<[Job; 2]> =
            self.tails.borrow().iter().filter(|tail| tail.is_dirty()).map(Tail::job).collect();
        for job in jobs {
            let file = self.files.open(job.segment, job.create).await?;
            self.grow_ahead(&file, job.segment);
            let file_len = self.write_job(&file, &job).await?;
            if self.tails.with(job.segment, |tail| tail.on_written(&job, file_len)) == Some(true) {
                self.files.on_name_changed();
            }
        }
        self.tails.drop_finished();
        if !self.writer.is_offered.replace(true) {
            self.context.frames.on_clean(self);
        }
        Ok(())
    }

    /// Returns the file's length afterwards. When this ends no write is under way any more.
    async fn write_job(&self, file: &File, job: &Job) -> io::Result<u64> {
        let mut running = SmallVec::<[ring::Task<io::Result<u64>>; 8]>::new();
        for (place, write) in job.writes.iter().enumerate() {
            let head = if place == 0 { job.head } else { 0 };
            let (file, write) = (file.clone(), write.clone());
            running.push(ring::spawn(async move { run(write, &file, head).await }));
        }
        let written = farthest(running).await?;
        if job.sealed {
            self.has_grown(job.segment).await;
        }
        let file_len = self.tails.with(job.segment, |tail| tail.file_len).unwrap_or(0).max(written);
        if job.sealed && file_len > job.end {
            file.truncate(job.end).await?;
            return Ok(job.end);
        }
        Ok(file_len)
    }

    /// Makes the file of a busy log longer before its writes come to its end, so that they don't wait for the inode.
    /// Nobody waits for this either, and where it fails, also for want of space, the file grows by its writes.
    fn grow_ahead(self: &Rc<Self>, file: &File, segment: Segment) {
        let Some(Some((by, to))) = self.tails.with(segment, |tail| tail.growth()) else { return };
        if !allows_preallocation(&self.directory(), by) {
            return;
        }
        self.tails.with(segment, |tail| tail.is_growing = true);
        let (store, file) = (self.clone(), file.clone());
        ring::spawn_detached(async move {
            if let Err(error) = file.preallocate(to).await {
                debug!(directory = %store.directory().display(), "can't allocate ahead: {error}");
            }
            // Also when it failed half-way: at most that long, and not tried again before the end comes near.
            store.tails.with(segment, |tail| {
                tail.is_growing = false;
                tail.file_len = tail.file_len.max(to);
            });
            store.writer.grown.notify_all();
        });
    }

    /// Waits until nobody makes the segment's file longer any more.
    async fn has_grown(&self, segment: Segment) {
        while self.tails.with(segment, |tail| tail.is_growing) == Some(true) {
            self.writer.grown.wait().await;
        }
    }

    /// Waits until nobody makes the active file longer any more.
    pub async fn active_has_grown(&self) {
        self.has_grown(self.tails.active()).await;
    }

    /// Cuts the active file to its bytes, as an orderly stop leaves it. Everything must have been written.
    pub async fn trim(&self) -> io::Result<()> {
        self.active_has_grown().await;
        let cut = self.tails.with_active(|tail| {
            assert!(!tail.is_dirty(), "trimmed before it was written out");
            tail.file()
        });
        let ActiveFile { segment, end, file_len, create } = cut;
        let file = self.files.open(segment, create).await?;
        if file_len != end {
            file.truncate(end).await?;
        }
        self.tails.with(segment, |tail| tail.on_cut(&cut));
        Ok(())
    }

    /// Cuts the active file to its bytes, if it is longer and nothing waits to be written. Nobody may write meanwhile: the
    /// caller sees to it. Appends go on.
    pub async fn cut_padding(&self) -> io::Result<()> {
        if self.has_padding() { self.trim().await } else { Ok(()) }
    }

    /// Whether [`SegmentStore::cut_padding`] has something to do.
    pub fn has_padding(&self) -> bool {
        self.tails.with_active(Tail::has_padding)
    }

    /// Gives up frames whose bytes are all in the file, oldest first, until that frees so many bytes. Whether there may be
    /// more of them; if not, the next pass offers what it has written.
    pub fn release_clean_frames(&self, bytes: usize) -> bool {
        // While it is being written to, its pass offers it again.
        let has_more = !self.writer.is_writing.get() && self.tails.release_clean(bytes) >= bytes;
        self.writer.is_offered.set(has_more);
        has_more
    }
}

/// Returns the file's length as this write leaves it.
async fn run(write: Write, file: &File, head: usize) -> io::Result<u64> {
    let Write { position, slice } = write;
    let bytes = slice.as_ref();
    if head == 0 {
        file.write_slice(position, &slice).await?;
    } else {
        file.write_all_at(position, &with_head(file, position, head, bytes).await?).await?;
    }
    Ok(align_up(position + bytes.len() as u64, BLOCK_BYTES as u64))
}

/// The farthest end of these writes, or what the first of them failed with. None of them runs any more when this ends.
async fn farthest(running: SmallVec<[ring::Task<io::Result<u64>>; 8]>) -> io::Result<u64> {
    let mut end = Ok(0);
    for write in running {
        let one = write.await;
        end = end.and_then(|end: u64| one.map(|other| end.max(other)));
    }
    end
}

/// `bytes` with its first `head` ones taken from the file.
async fn with_head(file: &File, position: u64, head: usize, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let before = file.read(position, head).await?;
    if before.len() != head {
        let message = format!("wanted {head} bytes before position {}, found {}", position + head as u64, before.len());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    let mut merged = bytes.to_vec();
    merged[..head].copy_from_slice(&before);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::storage::segment_store::tests::on_executor;

    #[test]
    fn a_write_that_fails_is_not_told_before_its_siblings_have_ended() {
        on_executor("failing-write", |_| async {
            let (go_on, ended) = (ring::Notify::default(), Rc::new(Cell::new(false)));
            let failing = ring::spawn(async { Err(io::Error::other("the disk")) });
            let slow = {
                let (go_on, ended) = (go_on.clone(), ended.clone());
                ring::spawn(async move {
                    go_on.wait().await;
                    ended.set(true);
                    Ok(7)
                })
            };
            let told = ring::spawn({
                let ended = ended.clone();
                async move { (farthest(smallvec::smallvec![failing, slow]).await, ended.get()) }
            });
            for _ in 0..20 {
                ring::yield_now().await;
            }
            go_on.notify_all();
            let (outcome, had_ended) = told.await;
            assert!(outcome.is_err() && had_ended);
        });
    }
}
