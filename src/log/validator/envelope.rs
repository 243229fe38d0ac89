//! What is checked before records are looked at: that there is one batch, and what its header says.
//!
//! Kafka does it in three places, which differ in what their answers say: for the request as a whole
//! ([`holds_transaction`]), for each partition before its log is looked for ([`only_batch`]), and at the log
//! ([`check_header`]).

use ringlog_protocol::records::{BATCH_HEADER_LEN, BATCH_LENGTH_PREFIX_LEN, BatchHeader, Compression, MAGIC};
use ringlog_types::{ErrorCode, Offset, TopicPartition};

use super::{AppendOrigin, BatchRules, ValidationError};

/// The least length that any format's batch has, less the prefix.
const LENGTH_MIN: i32 = 14;
/// A batch up to its magic.
const MAGIC_END: usize = 17;
const ATTRIBUTES: usize = 21;
const ATTRIBUTES_END: usize = 23;
const TRANSACTIONAL_BIT: u8 = 1 << 4;

/// Records at which Kafka refuses a request as a whole, whatever else it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {}", message.as_deref().unwrap_or("the records can't be read"))]
pub struct RequestFault {
    /// The code for each partition.
    pub code: ErrorCode,
    /// The message for each partition.
    pub message: Option<String>,
}

/// Whether the first batch of these records belongs to a transaction.
pub fn holds_transaction(records: &[u8]) -> Result<bool, RequestFault> {
    let Some(batch) = next_batch(records)? else { return Ok(false) };
    Ok(batch[MAGIC_END - 1] == MAGIC as u8 && batch[ATTRIBUTES + 1] & TRANSACTIONAL_BIT != 0)
}

/// The batch at the start of `records`, of any format; `None` if it isn't all there.
fn next_batch(records: &[u8]) -> Result<Option<&[u8]>, RequestFault> {
    let Some(prefix) = records.first_chunk::<BATCH_LENGTH_PREFIX_LEN>() else { return Ok(None) };
    let [.., a, b, c, d] = *prefix;
    let length = i32::from_be_bytes([a, b, c, d]);
    let corrupt = |message| RequestFault { code: ErrorCode::CorruptMessage, message: Some(message) };
    if length < LENGTH_MIN {
        return Err(corrupt(format!("Record size {length} is less than the minimum record overhead ({LENGTH_MIN})")));
    }
    let Some(magic) = records.get(MAGIC_END - 1) else { return Ok(None) };
    let magic = *magic as i8;
    if !(0..=MAGIC).contains(&magic) {
        return Err(corrupt(format!("Invalid magic found in record: {magic}")));
    }
    // At such a length Kafka's arithmetic overflows.
    let size = length.checked_add(BATCH_LENGTH_PREFIX_LEN as i32).and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or(RequestFault { code: ErrorCode::UnknownServerError, message: None })?;
    Ok(records.get(..size))
}

/// Finds the batch at the start, and that no other follows it; bytes of an incomplete one are dropped.
pub(super) fn only_batch<'a>(records: &'a [u8], rules: &BatchRules) -> Result<&'a [u8], ValidationError> {
    let refuse = |code, message: &str| Err(ValidationError::of_request(code, message.to_owned()));
    let of_request = |fault: RequestFault| ValidationError::of_request(fault.code, fault.to_string());
    let Some(batch) = next_batch(records).map_err(of_request)? else {
        return refuse(ErrorCode::InvalidRecord, "Produce requests must have at least one record batch per partition");
    };
    if batch[MAGIC_END - 1] != MAGIC as u8 {
        return refuse(
            ErrorCode::InvalidRecord,
            "Produce requests are only allowed to contain record batches with magic version 2",
        );
    }
    if !rules.is_zstd_allowed && batch[ATTRIBUTES_END - 1] & 0x07 == Compression::Zstd.id() {
        return refuse(
            ErrorCode::UnsupportedCompressionType,
            "Produce requests below version 7 are not allowed to use ZStandard compression",
        );
    }
    if next_batch(&records[batch.len()..]).map_err(of_request)?.is_some() {
        return refuse(
            ErrorCode::InvalidRecord,
            "Produce requests are only allowed to contain exactly one record batch per partition",
        );
    }
    Ok(batch)
}

/// The header of a batch that is all there, if it may be appended as far as it alone can tell.
pub(super) fn check_header(
    batch: &[u8],
    topic_partition: &TopicPartition,
    rules: &BatchRules,
) -> Result<BatchHeader, ValidationError> {
    let corrupt = |message| ValidationError::new(ErrorCode::CorruptMessage, message);
    let Some(bytes) = batch.first_chunk::<BATCH_HEADER_LEN>() else {
        return Err(corrupt(format!("{} bytes are less than a header takes", batch.len())));
    };
    let header = BatchHeader::decode(bytes);
    if rules.origin == AppendOrigin::Client && header.base_offset != Offset(0) {
        return Err(ValidationError::invalid_record(format!(
            "The baseOffset of the record batch in the append to {topic_partition} should be 0, but it is {}",
            header.base_offset
        )));
    }
    if rules.origin != AppendOrigin::RaftLeader && batch.len() > rules.message_bytes_max {
        return Err(ValidationError::new(
            ErrorCode::MessageTooLarge,
            format!(
                "The record batch size in the append to {topic_partition} is {} bytes which exceeds the maximum configured \
                 value of {}).",
                batch.len(),
                rules.message_bytes_max
            ),
        ));
    }
    if crc32c::crc32c(&batch[ATTRIBUTES..]) != header.crc {
        return Err(corrupt(format!(
            "Record is corrupt (stored crc = {}) in topic partition {topic_partition}.",
            header.crc
        )));
    }
    header.compression().map_err(|fault| ValidationError::new(ErrorCode::UnknownServerError, fault.to_string()))?;
    if rules.origin == AppendOrigin::Client {
        check_clients_header(&header, topic_partition)?;
    }
    header.check().map_err(|fault| ValidationError::invalid_record(fault.to_string()))?;
    Ok(header)
}

/// What a client may say in a header.
fn check_clients_header(header: &BatchHeader, topic_partition: &TopicPartition) -> Result<(), ValidationError> {
    let count = header.record_count;
    if count <= 0 {
        return Err(ValidationError::invalid_record(format!(
            "Invalid reported count for record batch: {count} in topic partition {topic_partition}"
        )));
    }
    if header.last_offset_delta < 0 || header.last_offset_delta != count - 1 {
        return Err(ValidationError::invalid_record(format!(
            "Inconsistent batch offset range [{}, {}] and count of records {count} in topic partition {topic_partition}",
            header.base_offset,
            header.base_offset.0.wrapping_add(i64::from(header.last_offset_delta))
        )));
    }
    if header.is_control() {
        return Err(ValidationError::invalid_record(format!(
            "Clients are not allowed to write control records in topic partition {topic_partition}"
        )));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(ValidationError::invalid_record(format!(
            "Invalid sequence number {} in record batch with producerId {} in topic partition {topic_partition}",
            header.base_sequence, header.producer_id
        )));
    }
    Ok(())
}
