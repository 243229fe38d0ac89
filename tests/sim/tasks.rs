//! The tasks of a node that touch one log, as lists of steps. Between any two steps another task may run, or the node
//! may die.

use std::collections::VecDeque;

use ringlog_log::Roll;
use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::{FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, SegmentFile};
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_types::Offset;

use crate::bug::Bug;
use crate::disk::BLOCK_BYTES;
use crate::store::{Job, name};
use crate::world::World;
use crate::{Violation, ensure, trace};

/// Files that say where the log stands; each holds one number.
pub(crate) const LOG_START: &str = "log-start";
pub(crate) const RECOVERY_POINT: &str = "recovery-point";
pub(crate) const HIGH_WATERMARK: &str = "high-watermark";

/// Which task it is; of each there is at most one, except those that finish segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Writer,
    FinishSegment,
    Flush,
    Retention,
    Checkpoint,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub kind: Kind,
    pub steps: VecDeque<Step>,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Look what there is to write.
    StartPass,
    Create(Offset),
    Allocate(Offset, u64),
    StartWrites(Job),
    AwaitWrites(Vec<u64>),
    CutSealed(Offset, u64),
    JobDone(Offset, u64),
    PassDone,
    SyncStore,
    /// All changes of names up to this one.
    SyncNames(u64),
    Sync(String),
    /// All below is synced.
    Flushed(Offset),
    PersistEpochs,
    Durable(Offset),
    Put(String, Vec<u8>),
    RollDone(Offset),
    /// Cut the active segment's file, which is idle, to its bytes.
    CutPadding(Offset, u64),
    /// Wait until all before is written and sealed segments below are complete.
    Settled(Offset),
    CreateActive,
    Forget(Offset),
    Rename(String, String),
    Remove(String),
    /// Read the offsets and write the checkpoints: of the log's start only, or all.
    Checkpoint(bool),
    /// DeleteRecords is answered.
    Deleted(Offset),
}

impl World {
    pub(crate) fn has_task(&self, kind: Kind) -> bool {
        self.tasks.iter().any(|task| task.kind == kind)
    }

    pub(crate) fn spawn(&mut self, kind: Kind, steps: Vec<Step>) {
        self.tasks.push(Task { kind, steps: steps.into() });
    }

    pub(crate) fn wake_writer(&mut self) {
        if self.store.is_dirty() && !self.has_task(Kind::Writer) {
            self.spawn(Kind::Writer, vec![Step::StartPass]);
        }
    }

    /// One step of some task.
    pub(crate) fn run_some_task(&mut self) -> Result<(), Violation> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        let index = self.schedule.below(self.tasks.len() as u64) as usize;
        let Some(step) = self.tasks[index].steps.pop_front() else { return Ok(()) };
        trace::note(|| format!("{:?}: {}", self.tasks[index].kind, brief(&step)));
        let more = self.run_step(step)?;
        for step in more.into_iter().rev() {
            self.tasks[index].steps.push_front(step);
        }
        if self.tasks[index].steps.is_empty() {
            self.tasks.remove(index);
        }
        Ok(())
    }

    fn run_step(&mut self, step: Step) -> Result<Vec<Step>, Violation> {
        match step {
            Step::StartPass => return Ok(self.start_pass()),
            Step::Create(base) => self.disk.create(&log(base)),
            Step::Allocate(base, to) => {
                if self.disk.read(&log(base)).is_some_and(|bytes| (bytes.len() as u64) < to) {
                    self.disk.set_len(&log(base), to);
                }
            }
            Step::StartWrites(job) => return Ok(vec![Step::AwaitWrites(self.start_writes(job))]),
            Step::AwaitWrites(mut writes) => {
                let next = self.disk_random.below(writes.len() as u64) as usize;
                self.disk.finish_write(writes.swap_remove(next));
                if !writes.is_empty() {
                    return Ok(vec![Step::AwaitWrites(writes)]);
                }
            }
            Step::CutSealed(base, end) => {
                if self.disk.read(&log(base)).is_some_and(|bytes| bytes.len() as u64 > end) {
                    self.disk.set_len(&log(base), end);
                }
            }
            Step::CutPadding(base, end) => {
                self.disk.set_len(&log(base), end);
                if let Some(tail) = self.store.tail(base) {
                    tail.file_len = end;
                }
            }
            Step::JobDone(base, end) => self.on_job_done(base, end),
            Step::PassDone => self.finish_segments(),
            Step::SyncStore => return Ok(self.sync_store()),
            Step::SyncNames(changed) => {
                self.disk.sync_names();
                self.store.names_synced = changed.max(self.store.names_synced);
            }
            Step::Sync(file) => {
                ensure!(self.disk.read(&file).is_some(), "{file} is to be synced and isn't there");
                self.disk.sync(&file);
            }
            Step::Flushed(end) => self.on_flushed(end),
            Step::PersistEpochs => self.persist_epochs(),
            Step::Durable(end) => return self.on_durable(end),
            Step::Put(file, bytes) => self.disk.put(&file, bytes),
            Step::RollDone(base) => {
                self.store.finished(base);
                let active = self.partition.log().active_segment().base_offset;
                let up_to = self.store.flushed_up_to(active);
                self.partition.log_mut().on_flushed(up_to, self.now.wall);
            }
            Step::Settled(below) => {
                self.wake_writer();
                let is_open = self.store.unfinished_from().is_some_and(|unfinished| unfinished < below);
                if is_open || self.has_task(Kind::Writer) {
                    return Ok(vec![Step::Settled(below)]);
                }
            }
            Step::CreateActive => {
                let base = self.store.active().base_offset;
                self.disk.create(&log(base));
                self.disk.sync_names();
                self.store.active().create = false;
            }
            Step::Forget(base) => self.store.forget(base),
            Step::Rename(from, to) => self.disk.rename(&from, &to),
            Step::Remove(file) => self.disk.remove(&file),
            Step::Checkpoint(all) => return Ok(self.checkpoint(all)),
            Step::Deleted(offset) => self.ledger.deleted = self.ledger.deleted.max(offset.0),
        }
        Ok(Vec::new())
    }

    fn start_pass(&mut self) -> Vec<Step> {
        let log_end_offset = self.partition.log().log_end_offset();
        let must_flush = self.partition.log().must_flush(&self.config);
        let mut steps = Vec::new();
        if self.bug == Some(Bug::AcknowledgeBeforeWrite) {
            steps.push(Step::Durable(log_end_offset));
        }
        for job in self.store.jobs(&mut self.work) {
            let (base, end, sealed) = (job.base_offset, job.end, job.sealed);
            if job.create {
                steps.push(Step::Create(base));
            }
            steps.extend(job.allocate_to.map(|to| Step::Allocate(base, to)));
            if !job.bytes.is_empty() {
                steps.push(Step::StartWrites(job));
            }
            if sealed {
                steps.push(Step::CutSealed(base, end));
            }
            steps.push(Step::JobDone(base, end));
        }
        steps.push(Step::PassDone);
        steps.push(Step::PersistEpochs);
        if must_flush {
            if self.bug != Some(Bug::AcknowledgeBeforeSync) {
                steps.push(Step::SyncStore);
            }
            steps.push(Step::Flushed(log_end_offset));
        }
        steps.push(Step::Durable(log_end_offset));
        steps
    }

    /// In up to four pieces at the same time.
    fn start_writes(&mut self, mut job: Job) -> Vec<u64> {
        let file = log(job.base_offset);
        if job.head > 0 && self.bug != Some(Bug::ForgetHead) {
            let from = job.from as usize;
            let before = self.disk.read(&file).and_then(|bytes| bytes.get(from..from + job.head));
            job.bytes[..job.head].copy_from_slice(before.expect("the file has what was written"));
        }
        let blocks = job.bytes.len() as u64 / BLOCK_BYTES;
        let piece = (blocks / (1 + self.disk_random.below(4)) * BLOCK_BYTES).max(BLOCK_BYTES);
        let pieces = job.bytes.chunks(piece as usize).enumerate();
        pieces.map(|(i, bytes)| self.disk.start_write(&file, job.from + i as u64 * piece, bytes.to_vec())).collect()
    }

    fn on_job_done(&mut self, base: Offset, end: u64) {
        let file_len = self.disk.read(&log(base)).map_or(0, <[u8]>::len) as u64;
        let Some(tail) = self.store.tail(base) else { return };
        let was_created = std::mem::replace(&mut tail.create, false);
        tail.written = end;
        tail.file_len = file_len;
        self.store.names_changed += u64::from(was_created);
    }

    fn finish_segments(&mut self) {
        for roll in self.store.take_finished() {
            self.stats.rolls += 1;
            let steps = finish_segment(&roll, self.bug == Some(Bug::SealWithoutSync));
            self.spawn(Kind::FinishSegment, steps);
        }
    }

    fn sync_store(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let changed = self.store.names_changed;
        if self.store.names_synced < changed && self.bug != Some(Bug::ForgetNameSync) {
            steps.push(Step::SyncNames(changed));
        }
        steps.extend(self.store.unsynced_segments().into_iter().map(|base| Step::Sync(log(base))));
        steps
    }

    fn on_flushed(&mut self, end: Offset) {
        let up_to = self.store.flushed_up_to(end);
        self.partition.log_mut().on_flushed(up_to, self.now.wall);
        // The epochs and the acknowledgement are still to come, but the bytes are safe.
        self.ledger.on_flushed(end);
    }

    fn persist_epochs(&mut self) {
        let epochs = self.partition.log_mut().leader_epochs_mut();
        if epochs.take_dirty() && self.bug != Some(Bug::ForgetEpochs) {
            let text = format_leader_epoch_checkpoint(epochs.entries());
            trace::note(|| format!("leader epochs: {}", text.replace('\n', " ")));
            self.disk.put(LEADER_EPOCH_CHECKPOINT_FILE, text.into_bytes());
        }
    }

    fn on_durable(&mut self, end: Offset) -> Result<Vec<Step>, Violation> {
        let before = self.partition.high_watermark();
        self.partition.on_durable(end, &self.config, self.now.monotonic);
        let (high_watermark, log_end) = (self.partition.high_watermark(), self.partition.log().log_end_offset());
        ensure!(before <= high_watermark, "the high watermark fell from {before} to {high_watermark}");
        ensure!(high_watermark <= log_end, "the high watermark {high_watermark} is above the log's end {log_end}");
        let durable = self.partition.durable_end_offset();
        self.ledger.on_acknowledged(durable);
        if self.config.flush_messages == 1 {
            self.ledger.on_flushed(durable);
        }
        Ok(if self.store.is_dirty() { vec![Step::StartPass] } else { Vec::new() })
    }

    fn checkpoint(&mut self, all: bool) -> Vec<Step> {
        let log = self.partition.log();
        let number = |offset: Offset| offset.0.to_be_bytes().to_vec();
        let start = log.log_start_offset_to_checkpoint().map(number).unwrap_or_default();
        let mut steps = vec![Step::Put(LOG_START.to_owned(), start)];
        if all {
            steps.push(Step::Put(RECOVERY_POINT.to_owned(), number(log.recovery_point())));
            steps.push(Step::Put(HIGH_WATERMARK.to_owned(), number(self.partition.high_watermark())));
        }
        steps
    }

    /// The check of retention, which comes round at times.
    pub(crate) fn start_retention(&mut self) {
        let high_watermark = self.partition.high_watermark();
        let outcome = self.partition.log_mut().delete_old_segments(&self.config, high_watermark, self.now.wall);
        self.ledger.largest_start = self.partition.log().log_start_offset().0.max(self.ledger.largest_start);
        let has_rolled = outcome.roll.is_some();
        if let Some(roll) = outcome.roll {
            self.store.roll(*roll);
        }
        let Some((last, _)) = outcome.deleted.last() else { return };
        let mut steps = vec![Step::Settled(last.base_offset.plus(1))];
        if has_rolled {
            steps.push(Step::CreateActive);
        }
        steps.push(Step::PersistEpochs);
        let mut removals = Vec::new();
        for (segment, _) in &outcome.deleted {
            steps.push(Step::Forget(segment.base_offset));
            for kind in FileKind::ALL {
                let live = SegmentFile::live(segment.base_offset, kind);
                let deleted = SegmentFile { state: FileState::Deleted, ..live }.to_string();
                steps.push(Step::Rename(live.to_string(), deleted.clone()));
                removals.push(Step::Remove(deleted));
            }
        }
        steps.append(&mut removals);
        self.spawn(Kind::Retention, steps);
    }

    /// DeleteRecords up to an offset that is committed.
    pub(crate) fn start_delete_records(&mut self) -> Result<(), Violation> {
        let log = self.partition.log();
        let (start, high_watermark) = (log.log_start_offset(), self.partition.high_watermark());
        let offset = start.plus(self.work.below((high_watermark.0 - start.0) as u64 + 1) as i64);
        let deleted = self.partition.delete_records(offset, &self.config);
        ensure!(deleted == Ok(offset), "DeleteRecords of {offset} is refused: {deleted:?}");
        self.ledger.largest_start = self.partition.log().log_start_offset().0.max(self.ledger.largest_start);
        let mut steps = vec![Step::PersistEpochs, Step::Checkpoint(false)];
        let answer = if self.bug == Some(Bug::AnswerDeleteRecordsEarly) { 0 } else { steps.len() };
        steps.insert(answer, Step::Deleted(offset));
        self.spawn(Kind::Checkpoint, steps);
        Ok(())
    }
}

fn log(base_offset: Offset) -> String {
    name(base_offset, FileKind::Log)
}

/// A sealed segment gets its indexes.
fn finish_segment(roll: &Roll, without_sync: bool) -> Vec<Step> {
    let base = roll.sealed.base_offset;
    let mut steps = Vec::new();
    if !without_sync {
        steps.push(Step::Sync(log(base)));
    }
    if let Some((offset, producers)) = &roll.producer_snapshot {
        steps.push(Step::Put(name(*offset, FileKind::ProducerSnapshot), encode_producer_snapshot(producers)));
    }
    steps.push(Step::Put(name(base, FileKind::OffsetIndex), roll.index.offsets.encode_from(0)));
    steps.push(Step::Put(name(base, FileKind::TimeIndex), roll.index.times.encode_from(0)));
    steps.push(Step::PersistEpochs);
    steps.push(Step::RollDone(base));
    steps
}

fn brief(step: &Step) -> String {
    match step {
        Step::Put(file, bytes) => format!("put {file}, {} bytes", bytes.len()),
        Step::StartWrites(job) => {
            format!("write {} bytes at {} of {}, {} from before", job.bytes.len(), job.from, job.base_offset, job.head)
        }
        other => format!("{other:?}"),
    }
}
