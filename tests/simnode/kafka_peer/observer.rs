//! Learns the metadata as brokers do: an observer of the quorum, which fetches its log from whoever leads it, or a snapshot where
//! the log begins behind what it has (KIP-595, KIP-630).

use std::io;
use std::rc::Rc;

use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use ringlog_protocol::messages::fetch_response::PartitionData;
use ringlog_protocol::messages::fetch_snapshot_request::{PartitionSnapshot, SnapshotId, TopicSnapshot};
use ringlog_protocol::messages::{ApiVersionsRequest, FetchRequest, FetchSnapshotRequest};
use ringlog_protocol::{Records, StrBytes};
use ringlog_ring::{sim, sleep_ms};
use ringlog_types::{CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, ErrorCode};

use super::answers::cluster_id;
use super::peer::Peer;
use crate::client::connection::{CallFault, Connection};

/// `controller.quorum.request.timeout.ms`.
const REQUEST_MS: u64 = 2_000;
/// `controller.quorum.retry.backoff.ms`.
const BACKOFF_MS: u64 = 20;
/// As long as a leader may keep a fetch.
const WAIT_MS: i32 = 500;
/// As much as is asked for at a time.
const BYTES: i32 = 8 << 20;

/// Runs to the end of the process.
pub async fn run(peer: Rc<Peer>) {
    loop {
        if let Err(fault) = follow(&peer).await {
            peer.judge("the quorum", &fault);
            // Any of the voters knows who leads.
            peer.disk.metadata.borrow_mut().leader = None;
        }
        sleep_ms(BACKOFF_MS).await;
    }
}

/// Fetches from one node as long as it leads.
async fn follow(peer: &Rc<Peer>) -> Result<(), CallFault> {
    let known = peer.disk.metadata.borrow().leader;
    let voters: Vec<i32> = peer.settings.controllers.keys().copied().collect();
    let node = known.unwrap_or_else(|| voters[sim::draw(voters.len() as u64) as usize]);
    let address = *peer.settings.controllers.get(&node).ok_or(CallFault::Connection(io::ErrorKind::NotFound.into()))?;
    let client_id = format!("raft-client-{}", peer.id());
    let mut connection = Connection::open_as(address, &client_id).await?;
    connection.call(&ApiVersionsRequest::default(), REQUEST_MS).await?;
    loop {
        let answer = connection.call(&fetch_request(peer), REQUEST_MS).await?;
        if answer.error_code != 0 {
            return Err(CallFault::Connection(io::ErrorKind::Other.into()));
        }
        let data = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let data = data.ok_or_else(|| CallFault::Nonsense("a fetch without the partition".to_owned()))?;
        sim::control().note(|| {
            let (end, high_watermark, error) =
                (peer.disk.metadata.borrow().end(), data.high_watermark, data.error_code);
            format!(
                "fetched metadata at {end:?}, committed to {high_watermark}, error {error}, {:?}",
                data.current_leader
            )
        });
        if !on_leader(peer, node, &data) {
            return Ok(());
        }
        match ErrorCode::from_code(data.error_code).unwrap_or(ErrorCode::UnknownServerError) {
            ErrorCode::None => take_in(peer, &mut connection, data).await?,
            ErrorCode::FencedLeaderEpoch | ErrorCode::UnknownLeaderEpoch => sleep_ms(BACKOFF_MS).await,
            _ => return Err(CallFault::Connection(io::ErrorKind::Other.into())),
        }
    }
}

fn fetch_request(peer: &Peer) -> FetchRequest {
    let metadata = peer.disk.metadata.borrow();
    let (end, last_epoch) = metadata.end();
    let partition = FetchPartition {
        partition: 0,
        current_leader_epoch: metadata.epoch,
        fetch_offset: end,
        last_fetched_epoch: last_epoch,
        // The size of the whole request counts.
        partition_max_bytes: 0,
        replica_directory_id: peer.settings.directory_id,
        high_watermark: metadata.applied_offset() + 1,
        ..FetchPartition::default()
    };
    let topic =
        FetchTopic { topic_id: CLUSTER_METADATA_TOPIC_ID, partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest {
        cluster_id: Some(cluster_id()),
        replica_state: ReplicaState { replica_id: peer.id(), replica_epoch: -1 },
        max_wait_ms: WAIT_MS,
        min_bytes: 0,
        max_bytes: BYTES,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

/// What an answer says of who leads. Says whether that is still the node that was asked.
fn on_leader(peer: &Peer, node: i32, data: &PartitionData) -> bool {
    let (leader, epoch) = (data.current_leader.leader_id, data.current_leader.leader_epoch);
    let mut metadata = peer.disk.metadata.borrow_mut();
    if epoch > metadata.epoch || (epoch == metadata.epoch && metadata.leader.is_none()) {
        metadata.epoch = epoch;
        metadata.leader = Some(leader).filter(|leader| *leader >= 0);
    }
    metadata.leader == Some(node)
}

async fn take_in(peer: &Rc<Peer>, connection: &mut Connection, data: PartitionData) -> Result<(), CallFault> {
    if data.snapshot_id.end_offset >= 0 {
        let id = (data.snapshot_id.end_offset, data.snapshot_id.epoch);
        let file = fetch_snapshot(peer, connection, id).await?;
        let loaded = peer.disk.metadata.borrow_mut().load_snapshot(id, &file);
        loaded.map_err(|fault| CallFault::Nonsense(format!("snapshot {id:?}: {fault}")))?;
        peer.on_image();
        return Ok(());
    }
    let is_new = {
        let mut metadata = peer.disk.metadata.borrow_mut();
        if data.diverging_epoch.end_offset >= 0 {
            metadata.truncate(data.diverging_epoch.end_offset).map_err(CallFault::Nonsense)?;
        }
        let records = data.records.map(Records::into_contiguous).unwrap_or_default();
        metadata.append(&records).map_err(CallFault::Nonsense)?;
        let end = metadata.end().0;
        metadata.commit(data.high_watermark.min(end)).map_err(CallFault::Nonsense)?
    };
    if is_new {
        peer.on_image();
    }
    Ok(())
}

async fn fetch_snapshot(
    peer: &Peer,
    connection: &mut Connection,
    (end_offset, epoch): (i64, i32),
) -> Result<Vec<u8>, CallFault> {
    let mut file: Vec<u8> = Vec::new();
    loop {
        let partition = PartitionSnapshot {
            partition: 0,
            current_leader_epoch: peer.disk.metadata.borrow().epoch,
            snapshot_id: SnapshotId { end_offset, epoch },
            position: file.len() as i64,
            replica_directory_id: peer.settings.directory_id,
        };
        let topic = TopicSnapshot { name: StrBytes::from(CLUSTER_METADATA_TOPIC), partitions: vec![partition] };
        let request = FetchSnapshotRequest {
            cluster_id: Some(cluster_id()),
            replica_id: peer.id(),
            max_bytes: BYTES,
            topics: vec![topic],
        };
        let answer = connection.call(&request, REQUEST_MS).await?;
        let part = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let part = part.filter(|part| answer.error_code == 0 && part.error_code == 0);
        // It may be gone, or somebody else leads.
        let part = part.ok_or(CallFault::Connection(io::ErrorKind::Other.into()))?;
        let bytes = part.unaligned_records.map(Records::into_contiguous).unwrap_or_default();
        if part.position != file.len() as i64 || (bytes.is_empty() && part.size > part.position) {
            return Err(CallFault::Nonsense(format!("a snapshot of {} goes on at {}", part.size, part.position)));
        }
        file.extend_from_slice(&bytes);
        if file.len() as i64 >= part.size {
            return Ok(file);
        }
    }
}
