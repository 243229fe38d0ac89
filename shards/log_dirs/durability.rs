//! What of a log survives a power failure, as its replica sees to it.

use std::io;
use std::rc::Rc;

use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::LEADER_EPOCH_CHECKPOINT_FILE;
use ringlog_ring as ring;
use ringlog_types::Offset;

use crate::data::replica::Replica;

impl Replica {
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
    pub(super) async fn settled_below(self: &Rc<Self>, offset: Offset) {
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
    pub(super) async fn quiesced(&self) {
        loop {
            self.written_out().await;
            if !self.store.is_finishing() {
                return;
            }
            self.progress.wait().await;
        }
    }

    /// Waits until nobody works on the files of a replica that was marked offline, and sees to it that nobody begins to.
    pub(super) async fn files_given_up(&self) {
        self.quiesced().await;
        self.files.close().await;
        self.store.active_has_grown().await;
    }
}
