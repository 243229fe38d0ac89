//! The checks that look at each record, and the writing anew of a batch.

use bytes::Bytes;
use ringlog_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchError, BatchOptions, BatchRef, Compression, DecompressError, ProducerStamp,
    RecordRef, Scratch, TimestampType,
};
use ringlog_types::{ErrorCode, Offset, TimestampMs};

use super::{
    RECORD_ERRORS_MAX, RecordFault, TopicCompression, ValidatedBatch, ValidationContext, ValidationError,
    is_timestamp_in_range, stamped,
};

/// Looks at every record of a batch whose envelope was checked.
pub(super) fn validate_records(
    records: &Bytes,
    batch: &BatchRef<'_>,
    target: Compression,
    context: &ValidationContext<'_>,
    scratch: &mut Scratch,
) -> Result<ValidatedBatch, ValidationError> {
    let iter = batch.records(scratch).map_err(|fault| unreadable(&fault))?;
    let source = batch.header.compression().expect("the codec was checked");
    let mut faults = Faults::default();
    let mut max_timestamp = TimestampMs::NONE;
    let mut is_numbered = true;
    for (index, record) in (0i32..).zip(iter.clone()) {
        let record = record.map_err(|fault| unreadable(&fault))?;
        if let Some((code, message)) = record_fault(batch, &record, context) {
            faults.add(code, index, message);
            continue;
        }
        max_timestamp = max_timestamp.max(record.timestamp);
        is_numbered &= record.offset == batch.header.base_offset.plus(i64::from(index));
    }
    faults.into_result()?;
    // A coordinator's or controller's own batches are numbered right, and nobody else's can have gaps.
    let is_complete = batch.header.last_offset_delta == batch.header.record_count - 1;
    if source == target && is_numbered && is_complete {
        let payload = records.slice(BATCH_HEADER_LEN..batch.bytes.len());
        return Ok(stamped(batch.header, payload, max_timestamp, context));
    }
    rewrite(batch, iter.filter_map(Result::ok), target, context)
}

/// Writes the records into a new batch, numbered from the context's base offset.
fn rewrite<'a>(
    batch: &BatchRef<'_>,
    records: impl Iterator<Item = RecordRef<'a>>,
    target: Compression,
    context: &ValidationContext<'_>,
) -> Result<ValidatedBatch, ValidationError> {
    let header = &batch.header;
    let level = match context.compression {
        TopicCompression::Codec { compression, level } if compression == target => level,
        _ => None,
    };
    let log_append_time = (context.timestamp_type == TimestampType::LogAppendTime).then_some(context.now);
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: context.base_offset,
        partition_leader_epoch: context.leader_epoch,
        compression: target,
        compression_level: level,
        log_append_time,
        producer: ProducerStamp {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        },
        is_transactional: header.is_transactional(),
        is_control: header.is_control(),
        delete_horizon: None,
    });
    for record in records {
        let next: Offset = builder.next_offset();
        builder.append_at(next, record.timestamp, record.key, record.value, record.headers);
    }
    let bytes = builder.build();
    let header = BatchRef::parse(&bytes).map_err(|fault| unreadable(&fault))?.header;
    Ok(ValidatedBatch { header, payload: bytes.slice(BATCH_HEADER_LEN..), is_rewritten: true })
}

/// What is wrong with a record that can be read.
fn record_fault(
    batch: &BatchRef<'_>,
    record: &RecordRef<'_>,
    context: &ValidationContext<'_>,
) -> Option<(ErrorCode, String)> {
    if context.is_compacted && record.key.is_none() {
        let partition = context.topic_partition;
        let message = format!("Compacted topic cannot accept message without key in topic partition {partition}");
        return Some((ErrorCode::InvalidRecord, message));
    }
    if context.timestamp_type == TimestampType::CreateTime && record.timestamp != TimestampMs::NONE {
        if is_timestamp_in_range(record.timestamp, context) {
            return None;
        }
        let (earliest, latest) = (
            context.now.0.wrapping_sub(context.timestamp_before_max_ms),
            context.now.0.wrapping_add(context.timestamp_after_max_ms),
        );
        let message = format!(
            "Timestamp {} of message with offset {} is out of range. The timestamp should be within [{earliest}, {latest}]",
            record.timestamp, record.offset
        );
        return Some((ErrorCode::InvalidTimestamp, message));
    }
    if batch.header.timestamp_type() == TimestampType::LogAppendTime {
        let message = format!(
            "Invalid timestamp type in message DefaultRecord(offset={}, timestamp={}, key={} bytes, value={} bytes). \
             Producer should not set timestamp type to LogAppendTime.",
            record.offset,
            record.timestamp,
            record.key.map_or(0, <[u8]>::len),
            record.value.map_or(0, <[u8]>::len)
        );
        return Some((ErrorCode::InvalidTimestamp, message));
    }
    None
}

/// Records that can't be read at all.
fn unreadable(fault: &BatchError) -> ValidationError {
    let code = match fault {
        BatchError::Decompress(DecompressError::TooLarge { .. }) => ErrorCode::MessageTooLarge,
        _ => ErrorCode::InvalidRecord,
    };
    ValidationError::new(code, fault.to_string())
}

/// The single records that a batch is refused for.
#[derive(Default)]
struct Faults {
    listed: Vec<RecordFault>,
    count: usize,
    is_timestamp_invalid: bool,
}

impl Faults {
    fn add(&mut self, code: ErrorCode, batch_index: i32, message: String) {
        self.count += 1;
        self.is_timestamp_invalid |= code == ErrorCode::InvalidTimestamp;
        if self.listed.len() < RECORD_ERRORS_MAX {
            self.listed.push(RecordFault { batch_index, message });
        }
    }

    fn into_result(self) -> Result<(), ValidationError> {
        if self.count == 0 {
            return Ok(());
        }
        if self.is_timestamp_invalid {
            return Err(ValidationError {
                code: ErrorCode::InvalidTimestamp,
                message: "One or more records have been rejected due to invalid timestamp".to_owned(),
                record_errors: self.listed,
            });
        }
        let shown = self.listed.iter().take(3);
        let shown: Vec<_> = shown
            .map(|fault| format!("RecordError(batchIndex={}, message='{}')", fault.batch_index, fault.message))
            .collect();
        let message = format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three \
             errors at most: [{}]",
            self.count,
            shown.join(", ")
        );
        Err(ValidationError { code: ErrorCode::InvalidRecord, message, record_errors: self.listed })
    }
}
