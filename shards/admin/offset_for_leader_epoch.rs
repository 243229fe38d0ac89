//! OffsetForLeaderEpoch: where an epoch ends in the leader's log (KIP-101, KIP-320).

use std::rc::Rc;

use ringlog_log::EpochEndOffset as Found;
use ringlog_partition::Unserved;
use ringlog_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderEpochRequest;
use ringlog_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use ringlog_types::{ErrorCode, LeaderEpoch, PartitionIndex, TopicIdPartition};

use crate::data::DataPlane;
use crate::data::by_home::{self, Part};
use crate::data::replica::Replica;
use crate::net::request::RequestContext;

/// The epoch asked about, and the leader epoch that the asker knows.
type Question = (LeaderEpoch, Option<LeaderEpoch>);

/// Answers OffsetForLeaderEpoch.
pub async fn handle(
    plane: &Rc<DataPlane>,
    _context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = plane.metadata.image();
    let mut outcomes = Vec::new();
    let mut parts = Vec::new();
    for topic in &request.topics {
        let known = image.topics.by_name(&topic.topic);
        for partition in &topic.partitions {
            let index = PartitionIndex(partition.partition);
            if let Some(topic) = known.filter(|topic| topic.partitions.contains_key(&index)) {
                let current = LeaderEpoch(partition.current_leader_epoch);
                let ask = (LeaderEpoch(partition.leader_epoch), (current != LeaderEpoch::NONE).then_some(current));
                let id = TopicIdPartition { topic_id: topic.id, partition: index };
                parts.push(Part { place: outcomes.len(), id, ask });
            }
            outcomes.push(Err(ErrorCode::UnknownTopicOrPartition));
        }
    }
    for (place, outcome) in by_home::run(plane, parts, answer).await {
        outcomes[place] = outcome;
    }
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let answers = topic.partitions.iter().zip(outcomes.by_ref());
        let partitions = answers.map(|(partition, outcome)| end_offset(partition.partition, outcome)).collect();
        OffsetForLeaderTopicResult { topic: topic.topic, partitions }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

/// On the home core.
async fn answer(
    _plane: Rc<DataPlane>,
    replica: Result<Rc<Replica>, Unserved>,
    (epoch, current): Question,
) -> Result<Found, ErrorCode> {
    let replica = replica.map_err(Unserved::error_code)?;
    replica.offset_for_leader_epoch(epoch, current).map_err(|error| error.error_code())
}

fn end_offset(partition: i32, outcome: Result<Found, ErrorCode>) -> EpochEndOffset {
    match outcome {
        Ok(found) => EpochEndOffset {
            partition,
            leader_epoch: found.epoch.0,
            end_offset: found.end_offset.0,
            ..Default::default()
        },
        Err(error) => EpochEndOffset { partition, error_code: error.code(), ..Default::default() },
    }
}
