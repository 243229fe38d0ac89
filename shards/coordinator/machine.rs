//! What a coordinator is to its driver: a state that follows from the records of one partition.
//!
//! Groups are one; the transaction coordinator and that of share groups are to be others.

use bytes::Bytes;
use ringlog_coordinator::group::{Effects, GroupCoordinator, TransactionalProducer, WriteToken};
use ringlog_types::{ErrorCode, MonotonicMs, Now, ProducerId};

/// Decides, and does nothing itself: answers and records come out as [`Effects`].
pub trait CoordinatorMachine: 'static {
    /// What it is called in the log.
    const NAME: &'static str;

    /// Takes one record of the log while it loads; `producer` is that of a transactional batch. `Ok(Some(note))` when the
    /// record was skipped.
    fn replay_record(
        &mut self,
        key: Option<Bytes>,
        value: Option<Bytes>,
        producer: Option<TransactionalProducer>,
    ) -> Result<Option<String>, String>;

    /// Takes the end of a transaction while it loads.
    fn replay_end_transaction(&mut self, producer: ProducerId, is_commit: bool);

    /// All records have been replayed.
    fn finish_loading(&mut self, now: Now) -> Effects;

    /// A write is committed.
    fn on_written(&mut self, token: WriteToken, now: Now) -> Effects;

    /// A write never will be.
    fn on_write_failed(&mut self, token: WriteToken, error: ErrorCode, now: Now) -> Effects;

    /// A write takes too long, and may be committed yet.
    fn on_write_timed_out(&mut self, token: WriteToken, now: Now) -> Effects;

    /// Time has passed.
    fn on_tick(&mut self, now: Now) -> Effects;

    /// When [`CoordinatorMachine::on_tick`] is due.
    fn next_deadline(&self) -> Option<MonotonicMs>;

    /// It is over: the answers for those who wait.
    fn resign(self) -> Effects;
}

impl CoordinatorMachine for GroupCoordinator {
    const NAME: &'static str = "group coordinator";

    fn replay_record(
        &mut self,
        key: Option<Bytes>,
        value: Option<Bytes>,
        producer: Option<TransactionalProducer>,
    ) -> Result<Option<String>, String> {
        GroupCoordinator::replay_record(self, key, value, producer).map_err(|fault| fault.to_string())
    }

    fn replay_end_transaction(&mut self, producer: ProducerId, is_commit: bool) {
        GroupCoordinator::replay_end_transaction(self, producer, is_commit);
    }

    fn finish_loading(&mut self, now: Now) -> Effects {
        GroupCoordinator::finish_loading(self, now)
    }

    fn on_written(&mut self, token: WriteToken, now: Now) -> Effects {
        GroupCoordinator::on_written(self, token, now)
    }

    fn on_write_failed(&mut self, token: WriteToken, error: ErrorCode, now: Now) -> Effects {
        GroupCoordinator::on_write_failed(self, token, error, now)
    }

    fn on_write_timed_out(&mut self, token: WriteToken, now: Now) -> Effects {
        GroupCoordinator::on_write_timed_out(self, token, now)
    }

    fn on_tick(&mut self, now: Now) -> Effects {
        GroupCoordinator::on_tick(self, now)
    }

    fn next_deadline(&self) -> Option<MonotonicMs> {
        GroupCoordinator::next_deadline(self)
    }

    fn resign(self) -> Effects {
        GroupCoordinator::resign(self)
    }
}
