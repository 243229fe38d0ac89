//! DeleteRecords: moves the start of partitions' logs up (KIP-107).

use std::rc::Rc;

use ringlog_partition::{Role, Standing, Unserved};
use ringlog_protocol::messages::delete_records_request::DeleteRecordsRequest;
use ringlog_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, MonotonicMs, Offset, PartitionIndex, TopicIdPartition, is_internal_topic};

use super::shown::united_by;
use crate::data::by_home::{self, HasReplicas as _, Part};
use crate::data::replica::Replica;
use crate::log_dirs::LogDirs;
use crate::net::request::RequestContext;

/// Up to where to delete, and until when to wait for followers.
type Question = (Offset, MonotonicMs);
/// The low watermark: the smallest log start of the live replicas.
type Outcome = Result<Offset, ErrorCode>;

/// Answers DeleteRecords, when live followers have moved their log starts too.
pub async fn handle(
    dirs: &Rc<LogDirs>,
    _context: &RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let deadline = ring::now().monotonic.plus_ms(timeout_ms);
    let request = united(request);
    let image = dirs.replicas().metadata().image();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut parts = Vec::new();
    for topic in &request.topics {
        let known = image.topics.by_name(&topic.name);
        for partition in &topic.partitions {
            let index = PartitionIndex(partition.partition_index);
            let known = known.filter(|topic| topic.partitions.contains_key(&index));
            outcomes.push(match known {
                Some(_) if is_internal_topic(&topic.name) => Err(ErrorCode::InvalidTopicException),
                Some(topic) => {
                    let id = TopicIdPartition { topic_id: topic.id, partition: index };
                    parts.push(Part { place: outcomes.len(), id, ask: (Offset(partition.offset), deadline) });
                    Err(ErrorCode::NotLeaderOrFollower)
                }
                None => Err(ErrorCode::UnknownTopicOrPartition),
            });
        }
    }
    for (place, outcome) in by_home::run(dirs, parts, delete).await {
        outcomes[place] = outcome;
    }
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let answers = topic.partitions.iter().zip(outcomes.by_ref());
        let partitions = answers.map(|(partition, outcome)| DeleteRecordsPartitionResult {
            partition_index: partition.partition_index,
            low_watermark: outcome.unwrap_or(Offset::NONE).0,
            error_code: outcome.err().map_or(0, ErrorCode::code),
        });
        DeleteRecordsTopicResult { partitions: partitions.collect(), name: topic.name }
    });
    DeleteRecordsResponse { topics: topics.collect(), ..Default::default() }
}

/// Of a partition that is named more than once the last mention counts.
fn united(mut request: DeleteRecordsRequest) -> DeleteRecordsRequest {
    request.topics = united_by(
        request.topics,
        |topic| topic.name.clone(),
        |known, again| {
            known.partitions.extend(again.partitions);
        },
    );
    request.topics.retain(|topic| !topic.partitions.is_empty());
    for topic in &mut request.topics {
        let partitions = std::mem::take(&mut topic.partitions);
        topic.partitions = united_by(partitions, |partition| partition.partition_index, |known, again| *known = again);
    }
    request
}

/// On the home core.
async fn delete(dirs: Rc<LogDirs>, replica: Result<Rc<Replica>, Unserved>, (offset, deadline): Question) -> Outcome {
    let replica = replica.map_err(Unserved::error_code)?;
    let (target, epoch) = replica.delete_records(offset).map_err(|error| error.error_code())?;
    dirs.after_log_start_moved(&replica).await;
    loop {
        let low_watermark = {
            let Standing { role, leader_epoch, unserved } = replica.standing();
            if let Some(why) = unserved {
                return Err(why.error_code());
            }
            if role != Role::Leader || leader_epoch != epoch {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            let image = dirs.replicas().metadata().image();
            replica.low_watermark(|node| image.cluster.broker(node).is_some_and(|broker| !broker.is_fenced))
        };
        if low_watermark >= target {
            return Ok(low_watermark);
        }
        let left_ms = deadline.since_ms(ring::now().monotonic);
        if left_ms == 0 || ring::timeout_ms(left_ms, replica.progressed()).await.is_err() {
            return Err(ErrorCode::RequestTimedOut);
        }
    }
}
