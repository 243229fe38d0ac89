//! What a subject file decides, before it is replayed.

use ringlog_protocol::ResponseBody;
use ringlog_protocol::metadata_records::RecordAndVersion;

use super::plan::Plan;

/// Records and the answer.
pub(crate) struct Outcome {
    pub(crate) records: Vec<RecordAndVersion>,
    pub(crate) is_atomic: bool,
    pub(crate) response: ResponseBody,
    pub(crate) kraft_version: Option<i16>,
    /// In the place of records, what is to be worked out batch by batch before the answer.
    pub(crate) plan: Plan,
}

impl Outcome {
    /// Records that must stand in one batch.
    pub(crate) fn atomic(records: Vec<RecordAndVersion>, response: impl Into<ResponseBody>) -> Outcome {
        Outcome { is_atomic: true, ..Outcome::split(records, response) }
    }

    /// Records that may be split over batches, as each stands for itself.
    pub(crate) fn split(records: Vec<RecordAndVersion>, response: impl Into<ResponseBody>) -> Outcome {
        let plan = Plan::default();
        Outcome { records, is_atomic: false, response: response.into(), kraft_version: None, plan }
    }

    /// A change that may concern many partitions.
    pub(crate) fn planned(plan: Plan, response: impl Into<ResponseBody>) -> Outcome {
        Outcome { plan, ..Outcome::split(Vec::new(), response) }
    }

    /// An answer that changes nothing.
    pub(crate) fn answer(response: impl Into<ResponseBody>) -> Outcome {
        Outcome::split(Vec::new(), response)
    }
}
