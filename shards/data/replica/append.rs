//! What is appended on the leader: it gets its offsets and its place in memory, and is acknowledged once it is where its
//! producer wants it.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::TransactionRules;
use ringlog_log::validator::{
    AppendOrigin, BatchRules, CheckedBatch, RecordFault, TopicCompression, ValidationError, check,
};
use ringlog_partition::{AppendContext, AppendError, LeaderAppend, PreparedAppend, Role};
use ringlog_protocol::records::Unpacker;
use ringlog_types::{ErrorCode, LeaderEpoch, Now, Offset, TimestampMs};

use super::Replica;
use crate::storage::disk_space::Writer;

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
        self.store.has_room_for(most)
    }

    /// Whether there is memory for a batch as it was checked; one that is refused takes none.
    pub fn has_room_for_checked(&self, checked: &Result<CheckedBatch, ValidationError>) -> bool {
        self.store.has_room_for(checked.as_ref().map_or(0, CheckedBatch::size_in_bytes))
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
        if is_leader && bytes > 0 && !self.store.space().admits(self.log_dir, bytes, writer, now.monotonic) {
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
            self.store.roll(roll);
        }
        let batch = &prepared.batch;
        self.store.append(u64::from(prepared.placement.position), &[&batch.header.encode(), &batch.payload]);
    }

    /// Whether records up to `appended` are acknowledged: durable here for acks 0 and 1, committed for acks -1. `None`
    /// as long as that is open.
    pub fn acknowledged(&self, appended: &Appended, acks: i16) -> Option<Result<(), ErrorCode>> {
        let partition = self.partition.borrow();
        let unserved = partition.unserved();
        if let Some(why) = unserved.filter(|why| !why.is_still_written()) {
            return Some(Err(why.error_code()));
        }
        if partition.role() != Role::Leader || partition.leader_epoch() != appended.leader_epoch {
            return Some(Err(ErrorCode::NotLeaderOrFollower));
        }
        let is_durable = partition.durable_end_offset() >= appended.end_offset;
        if acks != -1 {
            return is_durable.then_some(Ok(()));
        }
        if partition.high_watermark() < appended.end_offset {
            // A node that stops writes what it took, and doesn't wait for others.
            return unserved.filter(|_| is_durable).map(|why| Err(why.error_code()));
        }
        let is_enough = partition.has_enough_in_sync(&self.config.borrow());
        Some(if is_enough { Ok(()) } else { Err(ErrorCode::NotEnoughReplicasAfterAppend) })
    }
}
