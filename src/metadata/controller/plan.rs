//! Changes that may touch every partition of the cluster, worked out in portions.
//!
//! When a broker goes or comes, a record is due for each of its partitions; with a million of them that takes seconds. So
//! does a request that names them all. Such a change is planned first (which partitions, which change) and worked out
//! portion by portion, with time for the consensus in between. Nothing else is decided meanwhile.

use std::collections::VecDeque;
use std::fmt::Debug;

use ringlog_protocol::ResponseBody;
use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_types::{NodeId, TopicIdPartition};

use super::error::ApiError;
use super::leadership::LeadershipChange;
use super::limits;
use super::state::ActiveController;

/// Records to be written, in order; those of partitions are not worked out yet.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    steps: VecDeque<Step>,
    /// What is answered at the end, as far as it is known.
    pub(crate) answer: Option<ResponseBody>,
    /// The broker whose controlled shutdown begins with this: it ends when all others know the last record.
    pub(crate) shutting_down: Option<NodeId>,
}

#[derive(Debug)]
enum Step {
    Record(RecordAndVersion),
    Partitions(VecDeque<TopicIdPartition>, LeadershipChange),
    Asked(Box<dyn Asked>),
}

/// A request that may name, or mean, any number of partitions.
pub(crate) trait Asked: Debug {
    /// Decides about at most `limit` more of them. How many there were: fewer than the limit are the last.
    fn decide(&mut self, state: &ActiveController, limit: usize, portion: &mut Portion) -> usize;

    /// Once all is decided: what follows from it all, and the answer.
    fn end(self: Box<Self>, plan: &mut Plan) -> ResponseBody;
}

/// What is written next.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    pub(crate) records: Vec<RecordAndVersion>,
    /// They must stand in one batch. Only of a plan that has written nothing before and has nothing to write after.
    pub(crate) is_atomic: bool,
}

impl Plan {
    /// Plans ready records.
    pub(crate) fn of(records: Vec<RecordAndVersion>) -> Plan {
        Plan { steps: records.into_iter().map(Step::Record).collect(), ..Plan::default() }
    }

    /// Plans what a request asks.
    pub(crate) fn asked(asked: impl Asked + 'static) -> Plan {
        Plan { steps: VecDeque::from([Step::Asked(Box::new(asked))]), ..Plan::default() }
    }

    /// Adds a record.
    pub(crate) fn record(&mut self, record: RecordAndVersion) {
        self.steps.push_back(Step::Record(record));
    }

    /// Adds what `change` means for these partitions.
    pub(crate) fn partitions(&mut self, ids: impl IntoIterator<Item = TopicIdPartition>, change: LeadershipChange) {
        self.steps.push_back(Step::Partitions(ids.into_iter().collect(), change));
    }

    /// Adds what is answered at the end.
    pub(crate) fn answered(mut self, answer: ResponseBody) -> Plan {
        self.answer = Some(answer);
        self
    }

    /// Whether everything is worked out.
    pub(crate) fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the log takes the records that are ready.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let ready = self.steps.iter().filter_map(|step| match step {
            Step::Record(record) => Some(record),
            _ => None,
        });
        limits::check(ready.collect::<Vec<_>>().into_iter(), false)
    }
}

impl ActiveController {
    /// Works out the next part of a plan: up to `limit` records, or partitions that need none. All of them are judged by
    /// the state as it is now, so a small plan is the same as one decision.
    pub(crate) fn work_out(&self, plan: &mut Plan, limit: usize) -> Portion {
        let mut portion = Portion::default();
        let mut left = limit;
        while left > 0 && !portion.is_atomic {
            match plan.steps.pop_front() {
                None => break,
                Some(Step::Record(record)) => {
                    portion.records.push(record);
                    left -= 1;
                }
                Some(Step::Partitions(mut ids, change)) => {
                    let count = ids.len().min(left);
                    self.update_leadership(ids.drain(..count), change, &mut portion.records);
                    left -= count;
                    if !ids.is_empty() {
                        plan.steps.push_front(Step::Partitions(ids, change));
                    }
                }
                Some(Step::Asked(mut asked)) => {
                    let count = asked.decide(self, left, &mut portion);
                    if count < left {
                        plan.answer = Some(asked.end(plan));
                    } else {
                        plan.steps.push_front(Step::Asked(asked));
                    }
                    left -= count.min(left);
                }
            }
        }
        portion
    }
}
