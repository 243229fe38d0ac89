//! What a subject file decides, before it is replayed.

use ringlog_protocol::ResponseBody;
use ringlog_protocol::metadata_records::RecordAndVersion;

/// Records and the answer.
pub(crate) struct Outcome {
    pub(crate) records: Vec<RecordAndVersion>,
    pub(crate) is_atomic: bool,
    pub(crate) response: ResponseBody,
    pub(crate) kraft_version: Option<i16>,
}

impl Outcome {
    /// Records that must stand in one batch.
    pub(crate) fn atomic(records: Vec<RecordAndVersion>, response: impl Into<ResponseBody>) -> Outcome {
        Outcome { records, is_atomic: true, response: response.into(), kraft_version: None }
    }

    /// Records that may be split over batches, as each stands for itself.
    pub(crate) fn split(records: Vec<RecordAndVersion>, response: impl Into<ResponseBody>) -> Outcome {
        Outcome { records, is_atomic: false, response: response.into(), kraft_version: None }
    }

    /// An answer that changes nothing.
    pub(crate) fn answer(response: impl Into<ResponseBody>) -> Outcome {
        Outcome::split(Vec::new(), response)
    }
}
