//! Produce and DeleteRecords: what leaders here are asked to change.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use ringlog_protocol::messages::produce_response::{LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse};
use ringlog_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, ProduceRequest, ProduceResponse};
use ringlog_protocol::records::BatchRef;
use ringlog_protocol::{Records, StrBytes};
use ringlog_ring::{self as ring, timeout_ms};
use ringlog_types::{ErrorCode, Uuid};

use super::disk::Key;
use super::fetch::{leader_of, unknown};
use super::leading::Appended;
use super::peer::Peer;

/// From this version on a Produce names topics by id.
const TOPIC_ID_VERSION: i16 = 13;

/// What became of a partition's batch, and in which epoch.
type Outcome = Result<(Appended, i32), ErrorCode>;
/// Those of a topic, by partition.
type Outcomes = Vec<(i32, Outcome)>;

/// Appends, and waits for others where the producer wants that. Nothing is answered to who wants no answer.
pub async fn produce(peer: &Rc<Peer>, request: ProduceRequest, version: i16) -> Option<ProduceResponse> {
    let deadline_ms = Peer::now_ms() + u64::try_from(request.timeout_ms).unwrap_or(0);
    let mut topics: Vec<(Uuid, StrBytes, Outcomes)> = Vec::new();
    for topic in request.topic_data {
        let topic_id = match version >= TOPIC_ID_VERSION {
            true => topic.topic_id,
            false => peer.image.borrow().topics.id(&topic.name).unwrap_or(Uuid::ZERO),
        };
        let mut outcomes = Outcomes::new();
        for part in topic.partition_data {
            let records = part.records.map(Records::into_contiguous).unwrap_or_default();
            outcomes.push((part.index, append(peer, (topic_id, part.index), &records, request.acks)));
        }
        topics.push((topic_id, topic.name, outcomes));
    }
    peer.on_progress();
    if request.acks == 0 {
        return None;
    }
    let mut response = ProduceResponse::default();
    for (topic_id, name, outcomes) in topics {
        let mut partition_responses = Vec::new();
        for (index, outcome) in outcomes {
            let outcome = match outcome {
                Ok(appended) if request.acks == -1 => {
                    acknowledged(peer, (topic_id, index), appended, deadline_ms).await
                }
                outcome => outcome,
            };
            partition_responses.push(answer(peer, (topic_id, index), outcome, version));
        }
        response.responses.push(TopicProduceResponse { topic_id, name, partition_responses });
    }
    Some(response)
}

fn append(peer: &Peer, key: Key, records: &Bytes, acks: i16) -> Outcome {
    let Some(replica) = peer.replica(key) else { return Err(unknown(peer, key)) };
    let batch = BatchRef::parse(records).map_err(|_| ErrorCode::CorruptMessage)?;
    if batch.bytes.len() != records.len() || batch.verify_crc().is_err() {
        return Err(ErrorCode::CorruptMessage);
    }
    let mut replica = replica.borrow_mut();
    let appended = replica.append(&batch, acks, ring::now().wall.0)?;
    replica.advance(&peer.brokers.borrow(), Peer::now_ms());
    Ok((appended, replica.leader_epoch))
}

/// Waits until all in sync have it.
async fn acknowledged(peer: &Peer, key: Key, (appended, epoch): (Appended, i32), deadline_ms: u64) -> Outcome {
    loop {
        let replica = peer.replica(key).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let (leads, is_committed, lacks_in_sync) = {
            let replica = replica.borrow();
            let leads = replica.leads() && replica.leader_epoch == epoch;
            (leads, replica.high_watermark() >= appended.end, replica.lacks_in_sync())
        };
        if !leads {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if is_committed {
            return if lacks_in_sync { Err(ErrorCode::NotEnoughReplicasAfterAppend) } else { Ok((appended, epoch)) };
        }
        let left_ms = deadline_ms.saturating_sub(Peer::now_ms());
        if left_ms == 0 {
            return Err(ErrorCode::RequestTimedOut);
        }
        let _ = timeout_ms(left_ms, peer.progress.wait()).await;
    }
}

fn answer(peer: &Peer, key: Key, outcome: Outcome, version: i16) -> PartitionProduceResponse {
    let response = PartitionProduceResponse { index: key.1, ..PartitionProduceResponse::default() };
    match outcome {
        Ok((appended, _)) => PartitionProduceResponse {
            base_offset: appended.base,
            log_append_time_ms: appended.append_time_ms,
            log_start_offset: peer.replica(key).map_or(-1, |replica| replica.borrow().log.borrow().start()),
            ..response
        },
        Err(error) => {
            let current_leader = leader_of(peer, key, error).filter(|_| version >= 10);
            let current_leader =
                current_leader.map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch });
            PartitionProduceResponse {
                error_code: error.code(),
                base_offset: -1,
                current_leader: current_leader.unwrap_or_default(),
                ..response
            }
        }
    }
}

/// Moves the starts of logs, and waits until all that are alive have followed.
pub async fn delete_records(peer: &Rc<Peer>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let deadline_ms = Peer::now_ms() + u64::try_from(request.timeout_ms).unwrap_or(0);
    let mut response = DeleteRecordsResponse::default();
    for topic in request.topics {
        let topic_id = peer.image.borrow().topics.id(&topic.name).unwrap_or(Uuid::ZERO);
        let mut partitions = Vec::new();
        for part in topic.partitions {
            let key = (topic_id, part.partition_index);
            let deleted = delete_below(peer, key, part.offset, deadline_ms).await;
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: part.partition_index,
                low_watermark: deleted.unwrap_or(-1),
                error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
            });
        }
        response.topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    response
}

async fn delete_below(peer: &Rc<Peer>, key: Key, offset: i64, deadline_ms: u64) -> Result<i64, ErrorCode> {
    // Topics are named here, and not known by an id.
    let replica = peer.replica(key).ok_or_else(|| match unknown(peer, key) {
        ErrorCode::UnknownTopicId => ErrorCode::UnknownTopicOrPartition,
        error => error,
    });
    let start = replica?.borrow_mut().delete_below(offset)?;
    peer.on_progress();
    loop {
        let replica = peer.replica(key).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if !replica.borrow().leads() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let low_watermark = replica.borrow().low_watermark(&peer.brokers.borrow());
        if low_watermark >= start {
            return Ok(low_watermark);
        }
        let left_ms = deadline_ms.saturating_sub(Peer::now_ms());
        if left_ms == 0 {
            return Err(ErrorCode::RequestTimedOut);
        }
        let _ = timeout_ms(left_ms, peer.progress.wait()).await;
    }
}
