//! The files of a replica's log as a whole: what of them survives a power failure, retention, names, the orderly end.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::{FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, SegmentFile};
use ringlog_log::{DeletedSegment, Log, RetentionReason};
use ringlog_partition::{Role, Unserved};
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::{Offset, TimestampMs};
use tracing::{debug, info};

use super::Replica;
use crate::storage::log_read::StoredLog as _;

impl Replica {
    /// Where the log lies.
    pub fn directory(&self) -> PathBuf {
        self.store().directory()
    }

    /// Whether it lies there.
    pub fn is_in(&self, directory: &Path) -> bool {
        self.store().is_in(directory)
    }

    /// Its directory was renamed.
    pub fn set_directory(&self, directory: PathBuf) {
        self.store().set_directory(directory);
    }

    /// Its directory is about to be renamed, by who holds it still; those who read don't notice.
    pub fn begin_rename(&self) {
        self.store().begin_rename();
    }

    /// It has that name now, or kept the one it had.
    pub fn end_rename(&self, directory: PathBuf) {
        self.store().end_rename(directory);
    }

    /// Whether another log may have the names of its files by now, or soon.
    pub fn has_given_up_files(&self) -> bool {
        self.files.is_closed()
    }

    /// Waits until nobody works on the files of a replica that was closed, sees to it that nobody begins to, and lets go
    /// what is held of them.
    pub async fn give_up_files(&self) {
        self.quiesced().await;
        self.files.close().await;
        self.store().active_has_grown().await;
        let partition = self.partition.borrow();
        for segment in partition.log().sealed_segments() {
            self.store().forget(segment.base_offset);
        }
        self.store().forget(partition.log().active_segment().base_offset);
    }

    /// Trouble that passes is met again when the work comes round again; anything else takes the directory offline.
    pub fn on_file_trouble(&self, what: &str, error: &io::Error) {
        if ring::trouble(error) == Trouble::Fault {
            self.store().report_fault(self.log_dir(), what, error);
            self.close(Unserved::LogDirectoryFailed);
        } else {
            debug!(partition = %self.name, "{what}: {error}");
        }
    }

    /// Ends the segments that the topic's settings no longer keep. Their files go by [`Replica::retire_segment`].
    pub fn end_old_segments(&self) {
        let outcome = {
            let mut partition = self.partition.borrow_mut();
            if partition.role() == Role::Unassigned {
                return;
            }
            let high_watermark = partition.high_watermark();
            partition.log_mut().delete_old_segments(&self.config.borrow(), high_watermark, ring::now().wall)
        };
        if let Some(roll) = outcome.roll {
            self.store().roll(roll);
        }
        for (segment, reason) in outcome.deleted {
            let why = match reason {
                RetentionReason::Time => "retention.ms",
                RetentionReason::Size => "retention.bytes",
                RetentionReason::LogStart => "it lies below the log's start",
            };
            info!(partition = %self.name, segment = segment.base_offset.0, bytes = segment.size, "deleting a segment: {why}");
            self.retired.borrow_mut().push_back(segment);
        }
    }

    /// Renames the files of segments that are no part of the log any more to `*.deleted`, and hands those to `on_renamed`:
    /// of the segments that were ended now, and of those for which it failed before.
    pub async fn retire_segments(self: &Rc<Self>, on_renamed: impl Fn(PathBuf)) -> io::Result<()> {
        let Ok(_pass) = self.files.enter() else { return Ok(()) };
        let _files = self.files_turn.acquire(1).await;
        let Some(last) = self.retired.borrow().back().map(|last| last.base_offset) else { return Ok(()) };
        // Nobody writes to their files any more from here on.
        self.settled_below(last.plus(1)).await;
        if !self.partition.borrow().is_written() {
            return Ok(());
        }
        // The active segment, new and empty perhaps, alone tells where the log goes on.
        self.store().create_active_if_missing().await?;
        match self.persist_leader_epochs().await {
            // Too many epochs do no harm, and what goes now may make room for the others.
            Err(error) if ring::trouble(&error) != Trouble::Fault => debug!(partition = %self.name, "{error}"),
            outcome => outcome?,
        }
        loop {
            let next = self.retired.borrow().front().cloned();
            let Some(segment) = next else { return Ok(()) };
            self.retire(&segment).await?.into_iter().for_each(&on_renamed);
            self.retired.borrow_mut().pop_front();
        }
    }

    /// Can be done again when it failed half-way.
    async fn retire(&self, segment: &DeletedSegment) -> io::Result<Vec<PathBuf>> {
        self.store().forget(segment.base_offset);
        let (directory, offset) = (self.store().directory(), segment.base_offset);
        ring::fs::run_again(async move |fs| {
            let mut renamed = Vec::new();
            for kind in FileKind::ALL {
                let live = SegmentFile::live(offset, kind);
                let deleted = directory.join(SegmentFile { state: FileState::Deleted, ..live }.to_string());
                match fs.rename(&directory.join(live.to_string()), &deleted).await {
                    Ok(()) => renamed.push(deleted),
                    // Not there, or renamed by an attempt that failed later.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        if fs.exists(&deleted).await? {
                            renamed.push(deleted);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(renamed)
        })
        .await
    }

    /// Writes `leader-epoch-checkpoint` if the epochs changed. To be called before the recovery point moves, and when the
    /// log is cut at either end: what recovery reads tells it the epochs itself, so that a change of leaders, of
    /// thousands of partitions at once perhaps, writes nothing. Nothing is written for a replica whose files were given
    /// up: another may have their names.
    pub async fn persist_leader_epochs(&self) -> io::Result<()> {
        let Ok(_pass) = self.files.enter() else { return Ok(()) };
        let _turn = self.epochs_turn.acquire(1).await;
        self.write_leader_epochs().await
    }

    /// For who holds their turn.
    pub(super) async fn write_leader_epochs(&self) -> io::Result<()> {
        let text = {
            let mut partition = self.partition.borrow_mut();
            let epochs = partition.log_mut().leader_epochs_mut();
            if !epochs.take_dirty() {
                return Ok(());
            }
            format_leader_epoch_checkpoint(epochs.entries())
        };
        let written =
            ring::fs::write_atomically(self.store().path(LEADER_EPOCH_CHECKPOINT_FILE), text.into_bytes()).await;
        if written.is_err() {
            self.partition.borrow_mut().log_mut().leader_epochs_mut().set_dirty();
        }
        written
    }

    /// Makes everything that is durable survive a power failure, and moves the recovery point.
    pub async fn flush(&self) -> io::Result<()> {
        let Ok(_pass) = self.files.enter() else { return Ok(()) };
        let _files = self.files_turn.acquire(1).await;
        let end_offset = self.partition.borrow().durable_end_offset();
        self.store().sync().await?;
        self.persist_leader_epochs().await?;
        let up_to = self.flushed_up_to(end_offset);
        self.partition.borrow_mut().log_mut().on_flushed(up_to, ring::now().wall);
        Ok(())
    }

    /// [`Replica::flush`], if `flush.ms` says that it is time.
    pub async fn flush_if_due(&self, now: TimestampMs) -> io::Result<()> {
        let is_due = {
            let partition = self.partition.borrow();
            partition.role() != Role::Unassigned && partition.log().flush_is_due(&self.config.borrow(), now)
        };
        if is_due { self.flush().await } else { Ok(()) }
    }

    /// How far the recovery point may go when everything below `end_offset` is synced: not past a sealed segment whose
    /// indexes aren't written, since older ones may lie there under the same names.
    pub fn flushed_up_to(&self, end_offset: Offset) -> Offset {
        self.store().unfinished_from().map_or(end_offset, |unfinished| unfinished.min(end_offset))
    }

    /// Waits until everything appended before is written, and every sealed segment below `offset` has its indexes. Ends
    /// early when nothing more is written, or nothing can be for now: in any case nobody writes to files of sealed
    /// segments below `offset` then.
    pub async fn settled_below(self: &Rc<Self>, offset: Offset) {
        self.wake_writer();
        loop {
            self.written_out().await;
            let is_open = self.store().unfinished_from().is_some_and(|unfinished| unfinished < offset);
            let is_over = !self.partition.borrow().is_written() || self.is_resting();
            if !is_open || is_over && !self.store().is_finishing() {
                return;
            }
            self.progress.wait().await;
        }
    }

    /// Waits until the writer, and who seals segments, are done with the files or can't go on.
    pub async fn quiesced(&self) {
        loop {
            self.written_out().await;
            if !self.store().is_finishing() {
                return;
            }
            self.progress.wait().await;
        }
    }

    /// Cuts what lies behind the last record in the active file, unless it is being written.
    pub async fn cut_padding(self: &Rc<Self>) -> io::Result<()> {
        if self.writer_runs.replace(true) {
            return Ok(());
        }
        let outcome = if self.partition.borrow().is_written() { self.store().cut_padding().await } else { Ok(()) };
        // What came meanwhile.
        self.clone().write().await;
        outcome
    }

    /// Leaves the active file as an orderly stop does, once everything is in the files; what lies beside it then is made by
    /// `end_files`. `None` when something can't be written.
    pub async fn end<R>(self: &Rc<Self>, end_files: impl FnOnce(&mut Log) -> R) -> io::Result<Option<R>> {
        self.settled_below(Offset(i64::MAX)).await;
        self.quiesced().await;
        if self.store().is_dirty() || self.store().unfinished_from().is_some() {
            return Ok(None);
        }
        let _turn = self.epochs_turn.acquire(1).await;
        let files = end_files(self.partition.borrow_mut().log_mut());
        self.store().trim().await?;
        Ok(Some(files))
    }

    /// Everything that is in the files is on the device.
    pub fn on_all_flushed(&self, now: TimestampMs) {
        let mut partition = self.partition.borrow_mut();
        let end_offset = partition.log().log_end_offset();
        partition.log_mut().on_flushed(end_offset, now);
    }

    /// Gives up frames whose bytes are in the files.
    #[cfg(test)]
    pub fn release_clean_frames(&self) {
        self.store().release_clean_frames(usize::MAX);
    }
}
