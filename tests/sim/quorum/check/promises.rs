//! What clients were told: it is committed before it is said.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::ResponseBody;
use ringlog_types::{ErrorCode, Uuid};

use super::{Checker, Checks, Found, holds};
use crate::quorum::network::CallId;
use crate::quorum::shared::Shared;

/// What was promised.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// Topics whose creation was acknowledged, by name as it was then.
    pub(super) topics: BTreeMap<Uuid, String>,
    /// Blocks of producer ids that were given out: first and length.
    producer_ids: BTreeMap<i64, i32>,
}

impl Checks {
    /// An answer of the controller leaves a node.
    pub(super) fn check_promise(
        &mut self,
        _shared: &Rc<Shared>,
        _node: usize,
        _call: CallId,
        response: &ResponseBody,
    ) -> Found {
        match response {
            ResponseBody::CreateTopics(it) => {
                for topic in it.topics.iter().filter(|topic| topic.error_code == 0 && !topic.topic_id.is_zero()) {
                    let is_there = self.model.history.topics.contains(&topic.topic_id);
                    holds!(
                        Checker::Promises,
                        is_there,
                        "says that topic {:?} is created, which isn't committed",
                        topic.name
                    );
                    self.promises.topics.insert(topic.topic_id, topic.name.to_string());
                }
            }
            ResponseBody::DeleteTopics(it) => {
                for topic in it.responses.iter().filter(|topic| topic.error_code == 0) {
                    let is_there = self.model.topics.contains_key(&topic.topic_id);
                    holds!(Checker::Promises, !is_there, "says that topic {:?} is deleted, which is there", topic.name);
                }
            }
            ResponseBody::BrokerRegistration(it) if it.error_code == 0 => {
                let is_there = self.model.history.registrations.contains_key(&it.broker_epoch);
                holds!(Checker::Promises, is_there, "gives a broker epoch {}, which isn't committed", it.broker_epoch);
            }
            ResponseBody::AllocateProducerIds(it) if it.error_code == 0 => {
                let (first, len) = (it.producer_id_start, it.producer_id_len);
                let end = first + i64::from(len);
                let next = self.model.next_producer_id;
                holds!(
                    Checker::Promises,
                    end <= next,
                    "gives out producer ids to {end}, committed are those to {next}"
                );
                let before = self.promises.producer_ids.range(..end).next_back();
                let is_free = before.is_none_or(|(start, len)| start + i64::from(*len) <= first);
                holds!(Checker::Promises, is_free, "gives out producer ids from {first} on twice");
                self.promises.producer_ids.insert(first, len);
            }
            ResponseBody::AlterPartition(it) if it.error_code == 0 => {
                for topic in &it.topics {
                    let Some(known) = self.model.topics.get(&topic.topic_id) else { continue };
                    for asked in topic.partitions.iter().filter(|asked| asked.error_code == ErrorCode::None.code()) {
                        let Some(partition) = known.partitions.get(&asked.partition_index) else { continue };
                        holds!(
                            Checker::Promises,
                            partition.partition_epoch >= asked.partition_epoch,
                            "tells partition epoch {} of {}-{}, committed is {}",
                            asked.partition_epoch,
                            known.name,
                            asked.partition_index,
                            partition.partition_epoch
                        );
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
