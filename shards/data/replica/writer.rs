//! The task that writes out what was appended, and what of the log survives a power failure.

use std::io;
use std::rc::Rc;

use ringlog_log::Roll;
use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::LEADER_EPOCH_CHECKPOINT_FILE;
use ringlog_partition::Unserved;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::Offset;
use tracing::debug;

use super::Replica;

/// How long a writer rests that found the disk full, or no descriptor.
const WRITE_RETRY_MS: u64 = 500;

impl Replica {
    /// Sees to it that what was appended gets written. While one pass writes, further appends gather for the next.
    pub fn wake_writer(self: &Rc<Self>) {
        if !self.writer_runs.replace(true) {
            ring::spawn_detached(self.clone().write());
        }
    }

    /// Waits until nothing is left to write, or nothing can be written for now.
    pub async fn written_out(&self) {
        while self.writer_runs.get() && !self.is_resting.get() {
            self.progress.wait().await;
        }
    }

    /// Cuts what lies behind the last record in the active file, unless it is being written.
    pub async fn cut_padding(self: &Rc<Self>) -> io::Result<()> {
        if self.writer_runs.replace(true) {
            return Ok(());
        }
        let outcome = if self.partition.borrow().is_written() { self.store.cut_padding().await } else { Ok(()) };
        // What came meanwhile.
        self.clone().write().await;
        outcome
    }

    /// Whether the writer waits for better times: it writes nothing meanwhile.
    pub fn is_resting(&self) -> bool {
        self.is_resting.get()
    }

    async fn write(self: Rc<Self>) {
        while self.store.is_dirty() && self.partition.borrow().is_written() {
            if self.must_rest.take() && !self.rest().await {
                break;
            }
            let end_offset = self.partition.borrow().log().log_end_offset();
            match self.write_once(end_offset).await {
                Ok(()) => drop(self.stuck.take()),
                Err(error) => self.on_trouble("writing failed", &error),
            }
        }
        self.stuck.take();
        self.writer_runs.set(false);
        self.progress.notify_all();
    }

    /// What is to be made of an error in this replica's files. A full disk, or too few descriptors, lets the writer rest;
    /// anything else takes the directory offline.
    fn on_trouble(&self, what: &str, error: &io::Error) {
        let trouble = ring::trouble(error);
        if trouble == Trouble::Fault {
            self.store.report_fault(self.log_dir, what, error);
            self.close(Unserved::LogDirectoryFailed);
            return;
        }
        if !self.must_rest.replace(true) {
            debug!(partition = %self.name, "{what}: {error}");
        }
        if trouble == Trouble::Full && self.stuck.borrow().is_none() {
            *self.stuck.borrow_mut() = Some(self.store.space().begin_stuck(self.log_dir));
        }
    }

    /// Waits until it is time to try again; `false` when there won't be another time.
    async fn rest(&self) -> bool {
        let space = self.store.space();
        if space.has_given_up() {
            return false;
        }
        self.is_resting.set(true);
        self.progress.notify_all();
        ring::sleep_ms(WRITE_RETRY_MS).await;
        self.is_resting.set(false);
        !space.has_given_up()
    }

    /// Whether the disk is full and takes nothing of what was appended.
    pub fn is_stuck(&self) -> bool {
        self.stuck.borrow().is_some()
    }

    /// One pass: everything before `end_offset` to the device, then the partition hears of it.
    async fn write_once(self: &Rc<Self>, end_offset: Offset) -> io::Result<()> {
        let config = self.config.borrow().clone();
        let must_flush = self.partition.borrow().log().must_flush(&config);
        self.store.write_out().await?;
        for roll in self.store.take_finished() {
            ring::spawn_detached(self.clone().finish_segment(roll));
        }
        // What recovery doesn't look at any more must have its epochs.
        self.persist_leader_epochs().await?;
        let now = ring::now();
        self.store.context().padding.on_written(self, now.monotonic);
        if must_flush {
            self.store.sync().await?;
            self.partition.borrow_mut().log_mut().on_flushed(self.flushed_up_to(end_offset), now.wall);
        }
        let effects = self.partition.borrow_mut().on_durable(end_offset, &config, now.monotonic);
        self.apply(effects);
        Ok(())
    }

    /// A sealed segment gets its indexes; then its records need no recovery any more.
    async fn finish_segment(self: Rc<Self>, roll: Rc<Roll>) {
        let finished = match self.store.finish(&roll).await {
            // Recovery begins behind this segment from now on, and must find its epochs.
            Ok(()) => self.persist_leader_epochs().await,
            failed => failed,
        };
        match finished {
            Ok(()) => {
                let mut partition = self.partition.borrow_mut();
                let active = partition.log().active_segment().base_offset;
                partition.log_mut().on_flushed(self.flushed_up_to(active), ring::now().wall);
            }
            Err(fault) => {
                // If it may be tried again, then by the writer, which comes by when it has rested.
                self.store.put_back(roll.sealed.base_offset);
                self.on_trouble("sealing a segment failed", &fault);
                self.wake_writer();
            }
        }
        self.progress.notify_all();
    }

    /// How far the recovery point may go when everything below `end_offset` is synced: not past a sealed segment whose
    /// indexes aren't written, since older ones may lie there under the same names.
    pub fn flushed_up_to(&self, end_offset: Offset) -> Offset {
        self.store.unfinished_from().map_or(end_offset, |unfinished| unfinished.min(end_offset))
    }

    /// Writes `leader-epoch-checkpoint` if the epochs changed. Call it after a change of epoch; appends do it before they
    /// are acknowledged. Nothing is written for a replica whose files were given up: another may have their names.
    pub async fn persist_leader_epochs(&self) -> io::Result<()> {
        let Ok(_pass) = self.files.enter() else { return Ok(()) };
        let _turn = self.epochs_turn.acquire(1).await;
        let text = {
            let mut partition = self.partition.borrow_mut();
            let epochs = partition.log_mut().leader_epochs_mut();
            if !epochs.take_dirty() {
                return Ok(());
            }
            format_leader_epoch_checkpoint(epochs.entries())
        };
        let written =
            ring::fs::write_atomically(self.store.path(LEADER_EPOCH_CHECKPOINT_FILE), text.into_bytes()).await;
        if written.is_err() {
            self.partition.borrow_mut().log_mut().leader_epochs_mut().set_dirty();
        }
        written
    }

    /// Makes everything that is durable survive a power failure, and moves the recovery point.
    pub async fn flush(&self) -> io::Result<()> {
        let Ok(_pass) = self.files.enter() else { return Ok(()) };
        let end_offset = self.partition.borrow().durable_end_offset();
        self.store.sync().await?;
        self.persist_leader_epochs().await?;
        let up_to = self.flushed_up_to(end_offset);
        self.partition.borrow_mut().log_mut().on_flushed(up_to, ring::now().wall);
        Ok(())
    }

    /// Waits until everything appended before is written, and every sealed segment below `offset` has its indexes. Ends
    /// early when nothing more is written, or nothing can be for now: in any case nobody writes to files of sealed
    /// segments below `offset` then.
    pub async fn settled_below(self: &Rc<Self>, offset: Offset) {
        self.wake_writer();
        loop {
            self.written_out().await;
            let is_open = self.store.unfinished_from().is_some_and(|unfinished| unfinished < offset);
            let is_over = !self.partition.borrow().is_written() || self.is_resting();
            if !is_open || is_over && !self.store.is_finishing() {
                return;
            }
            self.progress.wait().await;
        }
    }

    /// Waits until the writer, and who seals segments, are done with the files or can't go on.
    pub async fn quiesced(&self) {
        loop {
            self.written_out().await;
            if !self.store.is_finishing() {
                return;
            }
            self.progress.wait().await;
        }
    }
}
