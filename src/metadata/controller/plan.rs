//! Changes that may touch every partition of the cluster, worked out in portions.
//!
//! When a broker goes or comes, a record is due for each of its partitions; with a million of them that takes seconds.
//! Such a change need not be one atomic batch, so it is planned first (which partitions, which change) and worked out
//! batch by batch, with time for the consensus in between. Nothing else is decided meanwhile.

use std::collections::VecDeque;

use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_types::{NodeId, TopicIdPartition};

use super::leadership::LeadershipChange;
use super::state::ActiveController;

/// Records to be written, in order; those of partitions are not worked out yet.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    steps: VecDeque<Step>,
    /// The broker whose controlled shutdown begins with this: it ends when all others know the last record.
    pub(crate) shutting_down: Option<NodeId>,
}

#[derive(Debug)]
enum Step {
    Record(RecordAndVersion),
    Partitions(VecDeque<TopicIdPartition>, LeadershipChange),
}

impl Plan {
    /// Plans ready records.
    pub(crate) fn of(records: Vec<RecordAndVersion>) -> Plan {
        Plan { steps: records.into_iter().map(Step::Record).collect(), shutting_down: None }
    }

    /// Adds a record.
    pub(crate) fn record(&mut self, record: RecordAndVersion) {
        self.steps.push_back(Step::Record(record));
    }

    /// Adds what `change` means for these partitions.
    pub(crate) fn partitions(&mut self, ids: impl IntoIterator<Item = TopicIdPartition>, change: LeadershipChange) {
        self.steps.push_back(Step::Partitions(ids.into_iter().collect(), change));
    }

    /// Whether everything is worked out.
    pub(crate) fn is_done(&self) -> bool {
        self.steps.is_empty()
    }
}

impl ActiveController {
    /// Works out the next part of a plan: up to `limit` records, or partitions that need none. All of them are judged by
    /// the state as it is now, so a small plan is the same as one decision.
    pub(crate) fn work_out(&self, plan: &mut Plan, limit: usize) -> Vec<RecordAndVersion> {
        let mut records = Vec::new();
        let mut left = limit;
        while left > 0 {
            match plan.steps.pop_front() {
                None => break,
                Some(Step::Record(record)) => {
                    records.push(record);
                    left -= 1;
                }
                Some(Step::Partitions(mut ids, change)) => {
                    let count = ids.len().min(left);
                    self.update_leadership(ids.drain(..count), change, &mut records);
                    left -= count;
                    if !ids.is_empty() {
                        plan.steps.push_front(Step::Partitions(ids, change));
                    }
                }
            }
        }
        records
    }
}
