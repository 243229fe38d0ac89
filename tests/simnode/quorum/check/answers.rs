//! What must never be said: a Kafka node would exit, or go on with something that isn't so.

use ringlog_protocol::messages::FetchSnapshotResponse;
use ringlog_protocol::{RequestBody, ResponseBody};

use super::{Checks, Found, ensure};

/// INVALID_REQUEST.
const INVALID_REQUEST: i16 = 42;
/// UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// CLUSTER_AUTHORIZATION_FAILED.
const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;

/// Who leads, by an answer.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Of the whole answer, and of its partition.
    errors: [i16; 2],
    leader: i32,
    epoch: i32,
    has_endpoint: bool,
}

/// What the only partition of an answer says of the leader; requests of several kinds are answered alike.
macro_rules! told {
    ($response:expr, $partition:expr $(, $leader:ident)?) => {
        $partition.map(|it| Told {
            errors: [$response.error_code, it.error_code],
            leader: it$(.$leader)?.leader_id,
            epoch: it$(.$leader)?.leader_epoch,
            has_endpoint: $response.node_endpoints.iter().any(|of| of.node_id == it$(.$leader)?.leader_id),
        })
    };
}

macro_rules! only_partition {
    ($topics:expr) => {
        $topics.first().and_then(|topic| topic.partitions.first())
    };
}

impl Checks {
    /// A node answers what nodes of the quorum ask each other.
    pub(super) fn check_told(&mut self, node: usize, asked: &RequestBody, answer: &ResponseBody) -> Found {
        let told = match answer {
            ResponseBody::Vote(it) => told!(it, only_partition!(it.topics)),
            ResponseBody::BeginQuorumEpoch(it) => told!(it, only_partition!(it.topics)),
            ResponseBody::EndQuorumEpoch(it) => told!(it, only_partition!(it.topics)),
            ResponseBody::Fetch(it) => told!(it, only_partition!(it.responses), current_leader),
            ResponseBody::FetchSnapshot(it) => {
                check_chunk(asked, it)?;
                told!(it, only_partition!(it.topics), current_leader)
            }
            _ => None,
        };
        let Some(told) = told else { return Ok(()) };
        for error in told.errors {
            let is_fatal = [INVALID_REQUEST, CLUSTER_AUTHORIZATION_FAILED].contains(&error);
            ensure!(!is_fatal, "answers a {} with error {error}, of which Kafka dies", asked.api_key().name());
        }
        // Whoever is asked for a snapshot that it doesn't have says nothing more.
        if told.errors[0] != 0 || told.errors[1] == UNKNOWN_TOPIC_OR_PARTITION || told.epoch <= 0 {
            return Ok(());
        }
        self.check_durable_epoch(node, told.epoch)?;
        if told.leader < 0 {
            return Ok(());
        }
        ensure!(told.has_endpoint, "names leader {} of epoch {} without an endpoint", told.leader, told.epoch);
        if told.leader == self.nodes[node].id {
            return self.note_leader(node, told.epoch);
        }
        let known = self.elections.leaders.get(&told.epoch);
        ensure!(
            known == Some(&told.leader),
            "names {} the leader of epoch {}, which is {known:?}",
            told.leader,
            told.epoch
        );
        Ok(())
    }

    /// A piece of a snapshot came to a node.
    pub(super) fn note_chunk(&mut self, node: usize, answer: &ResponseBody) {
        let ResponseBody::FetchSnapshot(answer) = answer else { return };
        let Some(it) = only_partition!(answer.topics).filter(|it| answer.error_code == 0 && it.error_code == 0) else {
            return;
        };
        let len = it.unaligned_records.clone().map_or(0, |records| records.into_contiguous().len());
        self.nodes[node].chunk = Some((it.snapshot_id.end_offset, [it.position, it.position + len as i64]));
    }

    /// It asks for the next one, or for the same once more, or begins anew.
    pub(super) fn check_chunk_asked(&mut self, node: usize, end: i64, position: i64) -> Found {
        ensure!(position >= 0 && end > 0, "fetches a snapshot of {end} at {position}");
        let Some((_, positions)) = self.nodes[node].chunk.filter(|(of, _)| *of == end) else { return Ok(()) };
        ensure!(
            position == 0 || positions.contains(&position),
            "fetches a snapshot of {end} at {position}, it has got the piece from {} to {}",
            positions[0],
            positions[1]
        );
        Ok(())
    }
}

/// What is sent of a snapshot is what was asked for.
fn check_chunk(asked: &RequestBody, answer: &FetchSnapshotResponse) -> Found {
    let RequestBody::FetchSnapshot(asked) = asked else { return Ok(()) };
    let (Some(asked), Some(it)) = (only_partition!(asked.topics), only_partition!(answer.topics)) else {
        return Ok(());
    };
    ensure!(it.unaligned_records.is_some(), "answers a FetchSnapshot with null records");
    let sent = (it.snapshot_id.end_offset, it.snapshot_id.epoch, it.position);
    let wanted = (asked.snapshot_id.end_offset, asked.snapshot_id.epoch, asked.position);
    ensure!(it.error_code != 0 || sent == wanted, "sends {sent:?} of a snapshot, asked for was {wanted:?}");
    Ok(())
}
