//! What one decision may come to: the only place that looks, before anything of it is replayed. What is decided here is
//! never refused by the log.

use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_protocol::records::{BATCH_HEADER_LEN, value_record_len};
use ringlog_types::ErrorCode;

use super::MAX_RECORDS_PER_OPERATION;
use super::error::ApiError;

/// A batch of the metadata log is at most this long, in bytes, as Kafka has it.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Refuses records that can't be written: too many or too large to stand in one batch if they must, or one that no batch
/// can hold. Kafka's controller renounces its leadership over the size, as every other one would do with the same
/// request; the error is what its log says.
pub(crate) fn check<'a>(
    records: impl ExactSizeIterator<Item = &'a RecordAndVersion>,
    is_atomic: bool,
) -> Result<(), ApiError> {
    if is_atomic && records.len() > MAX_RECORDS_PER_OPERATION {
        return Err(ApiError::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation."));
    }
    let mut size = BATCH_HEADER_LEN;
    for (index, record) in records.enumerate() {
        let len = record.framed_len();
        let len = len.map_err(|fault| ApiError::new(ErrorCode::UnknownServerError, fault.to_string()))?;
        // Those that may be split are judged one by one.
        size = if is_atomic {
            size + value_record_len(index as i32, len)
        } else {
            BATCH_HEADER_LEN + value_record_len(0, len)
        };
        if !is_atomic && size > MAX_BATCH_BYTES {
            return Err(too_large(size));
        }
    }
    if size > MAX_BATCH_BYTES { Err(too_large(size)) } else { Ok(()) }
}

fn too_large(size: usize) -> ApiError {
    let text =
        format!("The total record(s) size of {size} exceeds the maximum allowed batch size of {MAX_BATCH_BYTES}");
    ApiError::new(ErrorCode::RecordListTooLarge, text)
}
