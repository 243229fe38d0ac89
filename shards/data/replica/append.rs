//! What is appended on the leader: it gets its offsets and its place in memory ([`Replica::append`]), a task writes it out
//! ([`Replica::wake_writer`]), and it is acknowledged once it is where its producer wants it ([`Replica::acknowledged`]).

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::validator::{
    AppendOrigin, BatchRules, CheckedBatch, RecordFault, TopicCompression, ValidationError, check,
};
use ringlog_log::{Roll, TransactionRules};
use ringlog_partition::{AppendContext, AppendError, LeaderAppend, PreparedAppend, Role, Unserved};
use ringlog_protocol::records::Unpacker;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::{ErrorCode, LeaderEpoch, Now, Offset, TimestampMs};
use tracing::debug;

use super::{Awaited, Replica};
use crate::storage::disk_space::Writer;
use crate::storage::log_read::StoredLog as _;

/// How long a writer rests that found the disk full, or no descriptor.
const WRITE_RETRY_MS: u64 = 500;

/// What a Produce asks for, and what is known of it beside its records.
#[derive(Debug, Clone, Copy)]
pub struct AppendRules {
    /// Who writes.
    pub origin: AppendOrigin,
    /// -1 for all in-sync replicas, 1 for the leader, 0 for no answer.
    pub required_acks: i16,
    /// What is known of the batch's transaction.
    pub transaction: TransactionRules,
}

/// Records that have their place.
#[derive(Debug, Clone, Copy)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The offset after the last one.
    pub end_offset: Offset,
    /// The epoch in which they were appended.
    pub leader_epoch: LeaderEpoch,
    /// -1 with `CreateTime`.
    pub log_append_time: TimestampMs,
    /// The log's start at that moment.
    pub log_start_offset: Offset,
}

/// Why a partition's part of a Produce failed, as the response says it.
#[derive(Debug, Clone)]
pub struct ProduceFault {
    /// The error.
    pub code: ErrorCode,
    /// More about it.
    pub message: Option<String>,
    /// The records at fault.
    pub record_errors: Vec<RecordFault>,
    /// What the answer tells of the log all the same.
    pub told: Told,
}

/// What an answer with an error tells of the log.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// Where it starts.
    LogStart(Offset),
    /// Where the records lie, though they aren't acknowledged.
    Appended(Appended),
}

impl ProduceFault {
    const fn new(code: ErrorCode) -> ProduceFault {
        ProduceFault { code, message: None, record_errors: Vec::new(), told: Told::Nothing }
    }

    /// Why an append failed. Kafka tells the log's start with errors that it didn't expect at the log.
    fn of_append(error: AppendError, log_start_offset: Offset) -> ProduceFault {
        let mut fault = ProduceFault::new(error.error_code());
        fault.told = match fault.code {
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::KafkaStorageError
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::CorruptMessage => Told::Nothing,
            _ => Told::LogStart(log_start_offset),
        };
        if let AppendError::Invalid(invalid) = error {
            fault.message = invalid.response_message().map(str::to_owned);
            fault.record_errors = invalid.record_errors;
            if invalid.is_of_request {
                fault.told = Told::Nothing;
            }
        }
        fault
    }
}

impl ProduceFault {
    /// There is no room on the disk for now. Producers try again.
    fn disk_full() -> ProduceFault {
        let message = "The disk of the log directory is full.".to_owned();
        ProduceFault { message: Some(message), ..ProduceFault::new(ErrorCode::KafkaStorageError) }
    }
}

impl From<ErrorCode> for ProduceFault {
    fn from(code: ErrorCode) -> ProduceFault {
        ProduceFault::new(code)
    }
}

impl Replica {
    /// Whether there is memory for a batch of so many bytes, until the next `await`. To be asked before each
    /// [`Replica::append`].
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let config = self.config.borrow();
        let most = match config.compression {
            TopicCompression::Producer => bytes,
            // It may be written anew, and grow.
            TopicCompression::Codec { .. } => bytes.max(config.max_message_bytes as usize),
        };
        !self.holds_appends.get() && self.store().has_room_for(most)
    }

    /// Whether there is memory for a batch as it was checked; one that is refused takes none.
    pub fn has_room_for_checked(&self, checked: &Result<CheckedBatch, ValidationError>) -> bool {
        !self.holds_appends.get() && self.store().has_room_for(checked.as_ref().map_or(0, CheckedBatch::size_in_bytes))
    }

    /// Checks and appends a batch of the node's own.
    pub fn append_own(
        self: &Rc<Self>,
        records: &Bytes,
        rules: &AppendRules,
        unpacker: &mut Unpacker,
        now: Now,
    ) -> Result<Appended, ProduceFault> {
        let batch_rules = BatchRules::new(&self.config.borrow(), rules.origin, now.wall);
        self.append(check(records, &self.name, &batch_rules, unpacker), rules, now)
    }

    /// Gives records that were checked their offsets and their place in memory, and sees to it that they are written.
    ///
    /// Nothing is awaited here, so the order of calls is the order in the log.
    pub fn append(
        self: &Rc<Self>,
        checked: Result<CheckedBatch, ValidationError>,
        rules: &AppendRules,
        now: Now,
    ) -> Result<Appended, ProduceFault> {
        let config = self.config.borrow().clone();
        let writer = if rules.origin == AppendOrigin::Client { Writer::Client } else { Writer::Internal };
        let is_leader = self.partition.borrow().role() == Role::Leader;
        let bytes = checked.as_ref().map_or(0, CheckedBatch::size_in_bytes);
        if is_leader && bytes > 0 && !self.context.space.admits(self.log_dir(), bytes, writer, now.monotonic) {
            return Err(ProduceFault::disk_full());
        }
        let context = AppendContext {
            topic_partition: &self.name,
            config: &config,
            origin: rules.origin,
            required_acks: rules.required_acks,
            rules: rules.transaction,
            now,
        };
        let decided = self.partition.borrow_mut().leader_append(checked, &context);
        let decided = decided
            .map_err(|error| ProduceFault::of_append(error, self.partition.borrow().log().log_start_offset()))?;
        match decided {
            LeaderAppend::Append(prepared) => {
                let appended = Appended {
                    base_offset: prepared.base_offset,
                    end_offset: prepared.next_offset,
                    leader_epoch: prepared.leader_epoch,
                    log_append_time: prepared.log_append_time,
                    log_start_offset: prepared.log_start_offset,
                };
                self.place(*prepared);
                self.wake_writer();
                self.wake_fetches(Awaited::Appended);
                Ok(appended)
            }
            LeaderAppend::Duplicate(duplicate) => Ok(Appended {
                base_offset: duplicate.base_offset,
                end_offset: duplicate.next_offset,
                leader_epoch: self.partition.borrow().leader_epoch(),
                log_append_time: duplicate.log_append_time,
                log_start_offset: duplicate.log_start_offset,
            }),
        }
    }

    /// Copies a batch to its place: the header as it was decided, the payload as it came.
    fn place(&self, prepared: PreparedAppend) {
        if let Some(roll) = prepared.placement.roll {
            self.store().roll(roll);
        }
        let batch = &prepared.batch;
        self.store().append(u64::from(prepared.placement.position), &[&batch.header.encode(), &batch.payload]);
    }

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

    /// Whether the writer waits for better times: it writes nothing meanwhile.
    pub fn is_resting(&self) -> bool {
        self.is_resting.get()
    }

    /// Passes, one after the other, as long as there is something to write.
    pub(super) async fn write(self: Rc<Self>) {
        // The bytes may be out, and what has to be there with them not: nobody would come by for that alone.
        let mut is_unfinished = false;
        while (self.store().is_dirty() || is_unfinished) && self.partition.borrow().is_written() {
            if self.must_rest.take() && !self.rest().await {
                break;
            }
            match self.write_once().await {
                Ok(()) => drop(self.stuck.take()),
                Err(error) => self.on_trouble("writing failed", &error),
            }
            is_unfinished = self.must_rest.get();
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
            self.store().report_fault(self.log_dir(), what, error);
            self.close(Unserved::LogDirectoryFailed);
            return;
        }
        if !self.must_rest.replace(true) {
            debug!(partition = %self.name, "{what}: {error}");
        }
        if trouble == Trouble::Full && self.stuck.borrow().is_none() {
            *self.stuck.borrow_mut() = Some(self.context.space.begin_stuck(self.log_dir()));
        }
    }

    /// Waits until it is time to try again; `false` when there won't be another time.
    async fn rest(&self) -> bool {
        let space = &self.context.space;
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

    /// One pass: everything that was appended to the device, then the partition hears of it.
    async fn write_once(self: &Rc<Self>) -> io::Result<()> {
        let config = self.config.borrow().clone();
        // Others append while this waits. What the pass finds is what the partition is told of afterwards: nobody comes by
        // for records that are written already.
        self.store().remove_old_indexes().await?;
        let (end_offset, must_flush) = {
            let partition = self.partition.borrow();
            (partition.log().log_end_offset(), partition.log().must_flush(&config))
        };
        self.store().write_out().await?;
        for roll in self.store().take_finished() {
            ring::spawn_detached(self.clone().finish_segment(roll));
        }
        let now = ring::now();
        self.context.padding.on_written(self, now.monotonic);
        if must_flush {
            self.store().sync().await?;
            // What recovery doesn't look at any more must have its epochs.
            self.persist_leader_epochs().await?;
            self.partition.borrow_mut().log_mut().on_flushed(self.flushed_up_to(end_offset), now.wall);
        }
        let effects = self.partition.borrow_mut().on_durable(end_offset, &config, now.monotonic);
        self.apply(effects);
        Ok(())
    }

    /// A sealed segment gets its indexes; then its records need no recovery any more.
    async fn finish_segment(self: Rc<Self>, roll: Rc<Roll>) {
        let finished = match self.store().finish(&roll).await {
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
                self.store().put_back(roll.sealed.base_offset);
                self.on_trouble("sealing a segment failed", &fault);
                self.wake_writer();
            }
        }
        self.progress.notify_all();
    }

    /// Whether records up to `appended` are acknowledged, as [`ringlog_partition::Partition::acknowledged`] says. `None` as
    /// long as that is open: it may be another answer whenever this replica [`Replica::progressed`].
    pub fn acknowledged(&self, appended: &Appended, acks: i16) -> Option<Result<(), ErrorCode>> {
        let (partition, config) = (self.partition.borrow(), self.config.borrow());
        partition.acknowledged(appended.end_offset, appended.leader_epoch, acks, &config)
    }
}
