//! Why a batch isn't appended, in Kafka's codes and words.

use ringlog_protocol::records::{BatchError, DecompressError};
use ringlog_types::ErrorCode;

/// Record errors that a [`ValidationError`] lists at most.
pub const RECORD_ERRORS_MAX: usize = 1000;
/// How many are shown in the message.
const RECORD_ERRORS_SHOWN: usize = 3;

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
    /// Whether Kafka finds this before it looks for the log: then its answer doesn't tell the log's start.
    pub is_of_request: bool,
}

impl ValidationError {
    pub(super) fn new(code: ErrorCode, message: String) -> ValidationError {
        ValidationError { code, message, record_errors: Vec::new(), is_of_request: false }
    }

    pub(super) fn invalid_record(message: String) -> ValidationError {
        ValidationError::new(ErrorCode::InvalidRecord, message)
    }

    pub(super) fn of_request(code: ErrorCode, message: String) -> ValidationError {
        ValidationError { is_of_request: true, ..ValidationError::new(code, message) }
    }

    /// Records that can't be read at all.
    pub(super) fn unreadable(fault: &BatchError) -> ValidationError {
        let code = match fault {
            BatchError::Decompress(DecompressError::TooLarge { .. }) => ErrorCode::MessageTooLarge,
            BatchError::Decompress(DecompressError::Corrupt(_)) => ErrorCode::UnknownServerError,
            _ => ErrorCode::InvalidRecord,
        };
        ValidationError::new(code, fault.to_string())
    }

    /// The `error_message` of the produce response: Kafka sets it only where it lists records.
    pub fn response_message(&self) -> Option<&str> {
        (!self.record_errors.is_empty()).then_some(self.message.as_str())
    }
}

/// The single records that a batch is refused for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    listed: Vec<RecordFault>,
    count: usize,
    is_timestamp_invalid: bool,
}

impl Faults {
    /// `message` is written only if it will be listed.
    pub(super) fn add(&mut self, code: ErrorCode, batch_index: i32, message: impl FnOnce() -> String) {
        self.count += 1;
        self.is_timestamp_invalid |= code == ErrorCode::InvalidTimestamp;
        if self.listed.len() < RECORD_ERRORS_MAX {
            self.listed.push(RecordFault { batch_index, message: message() });
        }
    }

    pub(super) fn into_result(self) -> Result<(), ValidationError> {
        if self.count == 0 {
            return Ok(());
        }
        let (code, message) = if self.is_timestamp_invalid {
            let message = "One or more records have been rejected due to invalid timestamp".to_owned();
            (ErrorCode::InvalidTimestamp, message)
        } else {
            (ErrorCode::InvalidRecord, self.summary())
        };
        Err(ValidationError { record_errors: self.listed, ..ValidationError::new(code, message) })
    }

    fn summary(&self) -> String {
        let shown = self.listed.iter().take(RECORD_ERRORS_SHOWN);
        let shown: Vec<_> = shown
            .map(|fault| format!("RecordError(batchIndex={}, message='{}')", fault.batch_index, fault.message))
            .collect();
        format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three \
             errors at most: [{}]",
            self.count,
            shown.join(", ")
        )
    }
}
