//! Checks what is to be appended, and says how it must be stored. Kafka's `LogValidator` and the checks before it.
//!
//! [`validate`] is the leader's side: one batch from a producer, a coordinator or the metadata quorum's leader.
//! [`check_replicated`] is the follower's: batches that a leader has checked and stored already.
//!
//! # Where this differs from Kafka
//!
//! * **Compressed batches that stay compressed aren't unpacked** where the header can answer every question: the topic
//!   isn't compacted, its codec is the batch's (`compression.type=producer` or the same), and base and largest timestamp
//!   of the header are in range. Kafka unpacks each one. So a producer whose header lies gets further here: malformed
//!   records behind a right CRC are stored and fail in consumers (and in the cleaner, if the topic is made compacted
//!   later), a largest timestamp that is none stays in the header and in the time index, and single records with a
//!   timestamp out of range get in when base and largest are in range. Clients that write correct batches see no
//!   difference, and the broker saves the unpacking. Where `message.timestamp.before.max.ms` is set, records can be too
//!   old without the header showing it, so batches are unpacked.
//! * Uncompressed batches whose records aren't numbered 0, 1, 2... are numbered anew; Kafka stores them as they are.
//! * An unknown codec is UNSUPPORTED_COMPRESSION_TYPE and records that can't be unpacked are INVALID_RECORD, where Kafka
//!   fails with UNKNOWN_SERVER_ERROR. Records that unpack to more than the caller's limit are MESSAGE_TOO_LARGE, at which
//!   the Java producer splits its batch; Kafka has no limit.
//! * At most [`RECORD_ERRORS_MAX`] record errors are listed.

mod records;
mod replicated;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use ringlog_protocol::records::{
    BATCH_HEADER_LEN, BATCH_LENGTH_PREFIX_LEN, BatchError, BatchHeader, BatchRef, Compression, Scratch, TimestampType,
};
use ringlog_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs, TopicPartition};

pub use replicated::{ReplicatedBatches, ReplicationError, check_replicated};

/// Record errors that a [`ValidationError`] lists at most.
pub const RECORD_ERRORS_MAX: usize = 1000;

/// A topic's `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicCompression {
    /// `producer`: as the batch came.
    Producer,
    /// This codec (`uncompressed` is [`Compression::None`]) with the level of `compression.*.level`.
    Codec {
        /// The codec.
        compression: Compression,
        /// Its level; `None` is the default.
        level: Option<i32>,
    },
}

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer, which isn't trusted.
    Client,
    /// A group, transaction or share coordinator, which may write control records.
    Coordinator,
    /// The leader of the metadata quorum, which sets the epoch of its batches itself and may write any size.
    RaftLeader,
}

/// What the batch is checked against.
#[derive(Debug, Clone, Copy)]
pub struct ValidationContext<'a> {
    /// For messages.
    pub topic_partition: &'a TopicPartition,
    /// Who appends.
    pub origin: AppendOrigin,
    /// Whether the request's version knows zstd (Produce 7 on).
    pub is_zstd_allowed: bool,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `max.message.bytes`.
    pub message_bytes_max: usize,
    /// `segment.bytes`.
    pub segment_bytes_max: usize,
    /// Whether `cleanup.policy` has `compact`: then records need keys.
    pub is_compacted: bool,
    /// The time of the append.
    pub now: TimestampMs,
    /// The offset that the first record gets: the log's end.
    pub base_offset: Offset,
    /// The epoch of this leader.
    pub leader_epoch: LeaderEpoch,
}

/// A batch as it must be stored: its header, then its records, which are a slice of the input unless they had to be
/// written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedBatch {
    /// Offsets, epoch, timestamps and CRC are final.
    pub header: BatchHeader,
    /// What follows the header.
    pub payload: Bytes,
    /// Whether the records were written anew: unpacked, packed with the topic's codec, or numbered.
    pub is_rewritten: bool,
}

impl ValidatedBatch {
    /// Bytes of the whole batch.
    pub fn size_in_bytes(&self) -> usize {
        self.header.size_in_bytes()
    }

    /// Moves the batch to another place: neither is covered by the CRC.
    pub fn assign(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = leader_epoch;
    }

    /// The append time to answer with: that of the batch with LogAppendTime, else -1.
    pub fn log_append_time(&self) -> TimestampMs {
        match self.header.timestamp_type() {
            TimestampType::LogAppendTime => self.header.max_timestamp,
            TimestampType::CreateTime => TimestampMs::NONE,
        }
    }

    /// Header and records in one piece: copies them.
    pub fn to_contiguous(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_in_bytes());
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.payload);
        out.freeze()
    }
}

/// What is wrong with one record of a refused batch (`BatchIndexAndErrorMessage` in Produce 8 on).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFault {
    /// The record's place in the batch, from 0.
    pub batch_index: i32,
    /// Why it was refused.
    pub message: String,
}

/// Why a batch isn't appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ValidationError {
    /// What the client gets.
    pub code: ErrorCode,
    /// For the log; the client gets it only with record errors, see [`Self::response_message`].
    pub message: String,
    /// The records at fault, where single ones are; [`RECORD_ERRORS_MAX`] at most.
    pub record_errors: Vec<RecordFault>,
}

impl ValidationError {
    fn new(code: ErrorCode, message: String) -> ValidationError {
        ValidationError { code, message, record_errors: Vec::new() }
    }

    fn invalid_record(message: String) -> ValidationError {
        ValidationError::new(ErrorCode::InvalidRecord, message)
    }

    /// The `error_message` of the produce response: Kafka sets it only where it lists records.
    pub fn response_message(&self) -> Option<&str> {
        (!self.record_errors.is_empty()).then_some(self.message.as_str())
    }
}

/// Checks the records of an append, which must be exactly one batch; bytes of an incomplete one after it are dropped.
///
/// Compressed records that must be looked at are unpacked into `scratch`, whose limit counts.
pub fn validate(
    records: &Bytes,
    context: &ValidationContext<'_>,
    scratch: &mut Scratch,
) -> Result<ValidatedBatch, ValidationError> {
    let batch = only_batch(records, context)?;
    check_envelope(&batch, context)?;
    check_batch(&batch.header, context)?;
    let source = batch.header.compression().expect("the codec was checked");
    let target = match context.compression {
        // Control records stay as they were written.
        _ if batch.header.is_control() && source == Compression::None => source,
        TopicCompression::Producer => source,
        TopicCompression::Codec { compression, .. } => compression,
    };
    let validated = if source == target && header_suffices(&batch.header, source, context) {
        let payload = records.slice(BATCH_HEADER_LEN..batch.bytes.len());
        stamped(batch.header, payload, batch.header.max_timestamp, context)
    } else {
        records::validate_records(records, &batch, target, context, scratch)?
    };
    check_stored_size(&validated, context)?;
    Ok(validated)
}

/// Finds the batch at the start, and that no other follows it.
fn only_batch<'a>(records: &'a Bytes, context: &ValidationContext<'_>) -> Result<BatchRef<'a>, ValidationError> {
    let batch = match BatchRef::parse(records) {
        Ok(batch) => batch,
        Err(fault) => return Err(unusable(records, &fault, context)),
    };
    let rest = &records[batch.bytes.len()..];
    match BatchRef::parse(rest) {
        Err(BatchError::Incomplete { .. }) => Ok(batch),
        Err(BatchError::InvalidLength(_) | BatchError::UnsupportedMagic(_)) if rest.len() < 17 => Ok(batch),
        Err(fault @ BatchError::InvalidLength(_)) => {
            Err(ValidationError::new(ErrorCode::CorruptMessage, fault.to_string()))
        }
        _ => Err(ValidationError::invalid_record(
            "Produce requests are only allowed to contain exactly one record batch per partition".to_owned(),
        )),
    }
}

/// The error for bytes that don't even start with a batch.
fn unusable(records: &[u8], fault: &BatchError, context: &ValidationContext<'_>) -> ValidationError {
    let invalid = |message: String| ValidationError::invalid_record(message);
    match fault {
        BatchError::Incomplete { .. } => {
            invalid("Produce requests must have at least one record batch per partition".to_owned())
        }
        BatchError::UnsupportedMagic(0 | 1) => {
            invalid("Produce requests are only allowed to contain record batches with magic version 2".to_owned())
        }
        // What the header says may only be told from noise by its checksum.
        BatchError::InvalidRecordCount(count) if is_crc_right(records) => invalid(format!(
            "Invalid reported count for record batch: {count} in topic partition {}",
            context.topic_partition
        )),
        BatchError::InvalidOffsets { base_offset, last_offset_delta } if is_crc_right(records) => invalid(format!(
            "Batch has an invalid offset range: [{base_offset}, {}] in topic partition {}",
            base_offset.wrapping_add(i64::from(*last_offset_delta)),
            context.topic_partition
        )),
        fault => ValidationError::new(ErrorCode::CorruptMessage, fault.to_string()),
    }
}

/// Whether bytes whose header doesn't parse still match their checksum.
fn is_crc_right(records: &[u8]) -> bool {
    let length = records.get(8..12).and_then(|field| field.first_chunk()).map(|field| i32::from_be_bytes(*field));
    let size = length.and_then(|length| usize::try_from(length).ok()).map(|length| length + BATCH_LENGTH_PREFIX_LEN);
    let batch = size.and_then(|size| records.get(..size)).filter(|batch| batch.len() >= BATCH_HEADER_LEN);
    batch.is_some_and(|batch| crc32c::crc32c(&batch[21..]).to_be_bytes() == batch[17..21])
}

/// The checks that come before the records are looked at: epoch, base offset, size, CRC, codec.
fn check_envelope(batch: &BatchRef<'_>, context: &ValidationContext<'_>) -> Result<(), ValidationError> {
    let (header, partition) = (&batch.header, context.topic_partition);
    if context.origin == AppendOrigin::RaftLeader && header.partition_leader_epoch != context.leader_epoch {
        return Err(ValidationError::invalid_record(format!(
            "Append from Raft leader did not set the batch epoch correctly, expected {} but the batch has {}",
            context.leader_epoch, header.partition_leader_epoch
        )));
    }
    if context.origin == AppendOrigin::Client && header.base_offset != Offset(0) {
        return Err(ValidationError::invalid_record(format!(
            "The baseOffset of the record batch in the append to {partition} should be 0, but it is {}",
            header.base_offset
        )));
    }
    let size = header.size_in_bytes();
    if context.origin != AppendOrigin::RaftLeader && size > context.message_bytes_max {
        return Err(ValidationError::new(
            ErrorCode::MessageTooLarge,
            format!(
                "The record batch size in the append to {partition} is {size} bytes which exceeds the maximum configured \
                 value of {}).",
                context.message_bytes_max
            ),
        ));
    }
    if batch.verify_crc().is_err() {
        let message = format!("Record is corrupt (stored crc = {}) in topic partition {partition}.", header.crc);
        return Err(ValidationError::new(ErrorCode::CorruptMessage, message));
    }
    match header.compression() {
        Ok(Compression::Zstd) if !context.is_zstd_allowed => Err(ValidationError::new(
            ErrorCode::UnsupportedCompressionType,
            "Produce requests below version 7 are not allowed to use ZStandard compression".to_owned(),
        )),
        Ok(_) => Ok(()),
        Err(fault) => Err(ValidationError::new(ErrorCode::UnsupportedCompressionType, fault.to_string())),
    }
}

/// What a client may say in a header.
fn check_batch(header: &BatchHeader, context: &ValidationContext<'_>) -> Result<(), ValidationError> {
    if context.origin != AppendOrigin::Client {
        return Ok(());
    }
    let (partition, count) = (context.topic_partition, header.record_count);
    if count <= 0 {
        return Err(ValidationError::invalid_record(format!(
            "Invalid reported count for record batch: {count} in topic partition {partition}"
        )));
    }
    if header.last_offset_delta != count - 1 {
        return Err(ValidationError::invalid_record(format!(
            "Inconsistent batch offset range [{}, {}] and count of records {count} in topic partition {partition}",
            header.base_offset,
            header.last_offset()
        )));
    }
    if header.is_control() {
        return Err(ValidationError::invalid_record(format!(
            "Clients are not allowed to write control records in topic partition {partition}"
        )));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(ValidationError::invalid_record(format!(
            "Invalid sequence number {} in record batch with producerId {} in topic partition {partition}",
            header.base_sequence, header.producer_id
        )));
    }
    Ok(())
}

/// Whether compressed records needn't be unpacked: no question is left that the header doesn't answer.
fn header_suffices(header: &BatchHeader, source: Compression, context: &ValidationContext<'_>) -> bool {
    if source == Compression::None || context.is_compacted || header.timestamp_type() != TimestampType::CreateTime {
        return false;
    }
    // The flag gives the base timestamp another meaning, and only the cleaner sets it.
    if header.delete_horizon().is_some() {
        return false;
    }
    let in_range = |timestamp| timestamp == TimestampMs::NONE || is_timestamp_in_range(timestamp, context);
    context.timestamp_type == TimestampType::LogAppendTime
        || (context.timestamp_before_max_ms == i64::MAX
            && in_range(header.base_timestamp)
            && in_range(header.max_timestamp))
}

/// Whether a record's own timestamp is near enough to the present.
fn is_timestamp_in_range(timestamp: TimestampMs, context: &ValidationContext<'_>) -> bool {
    let age_ms = context.now.0.saturating_sub(timestamp.0);
    age_ms <= context.timestamp_before_max_ms && age_ms.saturating_neg() <= context.timestamp_after_max_ms
}

/// Puts offsets, epoch and timestamps into the header of a batch whose records stay as they are.
fn stamped(
    mut header: BatchHeader,
    payload: Bytes,
    max_timestamp: TimestampMs,
    context: &ValidationContext<'_>,
) -> ValidatedBatch {
    header.base_offset = context.base_offset;
    header.partition_leader_epoch = context.leader_epoch;
    let max_timestamp = match context.timestamp_type {
        TimestampType::CreateTime => max_timestamp,
        TimestampType::LogAppendTime => context.now,
    };
    if (header.timestamp_type(), header.max_timestamp) != (context.timestamp_type, max_timestamp) {
        header.set_max_timestamp(context.timestamp_type, max_timestamp);
    }
    ValidatedBatch { header, payload, is_rewritten: false }
}

/// A batch that was written anew may have grown, and none may be larger than a segment.
fn check_stored_size(validated: &ValidatedBatch, context: &ValidationContext<'_>) -> Result<(), ValidationError> {
    let (size, partition) = (validated.size_in_bytes(), context.topic_partition);
    if validated.is_rewritten && context.origin != AppendOrigin::RaftLeader && size > context.message_bytes_max {
        return Err(ValidationError::new(
            ErrorCode::MessageTooLarge,
            format!(
                "Message batch size is {size} bytes in append to partition {partition} which exceeds the maximum \
                 configured size of {}.",
                context.message_bytes_max
            ),
        ));
    }
    if size > context.segment_bytes_max {
        return Err(ValidationError::new(
            ErrorCode::RecordListTooLarge,
            format!(
                "Message batch size is {size} bytes in append to partition {partition}, which exceeds the maximum \
                 configured segment size of {}.",
                context.segment_bytes_max
            ),
        ));
    }
    Ok(())
}
