//! What a subject file decides, before it is replayed.

use ringlog_protocol::ResponseBody;
use ringlog_protocol::metadata_records::RecordAndVersion;

use super::plan::Plan;

/// Records and the answer.
pub(crate) struct Outcome {
    pub(crate) records: Vec<RecordAndVersion>,
    pub(crate) is_atomic: bool,
    pub(crate) kraft_version: Option<i16>,
    /// The answer, and in the place of records what is to be worked out portion by portion before it.
    pub(crate) plan: Plan,
}

impl Outcome {
    /// Records that must stand in one batch.
    pub(crate) fn atomic(records: Vec<RecordAndVersion>, response: impl Into<ResponseBody>) -> Outcome {
        Outcome { is_atomic: true, ..Outcome::split(records, response) }
    }

    /// Records that may be split over batches, as each stands for itself.
    pub(crate) fn split(records: Vec<RecordAndVersion>, response: impl Into<ResponseBody>) -> Outcome {
        Outcome { records, ..Outcome::planned(Plan::default(), response) }
    }

    /// A change that may concern many partitions.
    pub(crate) fn planned(plan: Plan, response: impl Into<ResponseBody>) -> Outcome {
        Outcome::asked(plan.answered(response.into()))
    }

    /// A change that may concern many partitions, each of which has its place in the answer.
    pub(crate) fn asked(plan: Plan) -> Outcome {
        Outcome { records: Vec::new(), is_atomic: false, kraft_version: None, plan }
    }

    /// An answer that changes nothing.
    pub(crate) fn answer(response: impl Into<ResponseBody>) -> Outcome {
        Outcome::split(Vec::new(), response)
    }
}
