//! What must never be sent: a Kafka peer would exit. And what must be durable before it is said.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::messages::fetch_response::PartitionData;
use ringlog_protocol::messages::{FetchRequest, FetchResponse, FetchSnapshotResponse, VoteRequest, VoteResponse};
use ringlog_protocol::records::BatchIter;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_types::{ErrorCode, Uuid};

use super::elections::Asked;
use super::{Checker, Checks, Found, holds};
use crate::quorum::network::{CallId, Place};
use crate::quorum::shared::Shared;

/// What nodes were asked, to judge their answers.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// What fetches ask for.
    fetches: BTreeMap<(usize, CallId), Position>,
    /// Snapshot and position.
    chunks: BTreeMap<(usize, CallId), (i64, i32, i64)>,
    /// The highest high watermark that was told, by epoch.
    told: BTreeMap<i32, i64>,
    /// The last fetch of each node: answers to older ones are of no interest to it.
    last: BTreeMap<Place, Position>,
}

/// Epoch, offset and last fetched epoch of a fetch.
type Position = (i32, i64, i32);

/// Who leads, by an answer.
#[derive(Debug, Clone, Copy)]
struct Told {
    error: i16,
    leader: i32,
    epoch: i32,
    has_endpoint: bool,
}

/// What the only partition of an answer says of the leader; requests of two kinds are answered alike.
macro_rules! told_by {
    ($response:expr) => {
        $response.topics.first().and_then(|topic| topic.partitions.first()).map(|partition| Told {
            error: partition.error_code,
            leader: partition.leader_id,
            epoch: partition.leader_epoch,
            has_endpoint: $response.node_endpoints.iter().any(|it| it.node_id == partition.leader_id),
        })
    };
}

impl Checks {
    pub(super) fn check_request_sent(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        to: Place,
        request: &RequestBody,
    ) -> Found {
        holds!(Checker::Wire, to != node, "sends itself a {}", request.api_key().name());
        let epoch = match request {
            RequestBody::Vote(vote) => return self.check_vote_request(shared, node, vote),
            RequestBody::BeginQuorumEpoch(begin) => {
                let partition = &begin.topics[0].partitions[0];
                self.check_names_leader(partition.leader_id, partition.leader_epoch)?;
                holds!(Checker::Wire, !begin.leader_endpoints.is_empty(), "tells of itself without endpoints");
                partition.leader_epoch
            }
            RequestBody::EndQuorumEpoch(end) => {
                let partition = &end.topics[0].partitions[0];
                self.check_names_leader(partition.leader_id, partition.leader_epoch)?;
                partition.leader_epoch
            }
            RequestBody::Fetch(fetch) => return self.check_fetch_request(shared, node, fetch),
            RequestBody::FetchSnapshot(fetch) => {
                holds!(Checker::Wire, fetch.topics.len() == 1, "fetches a snapshot of no topic");
                let partition = &fetch.topics[0].partitions[0];
                let is_sound = partition.position >= 0 && partition.snapshot_id.end_offset > 0;
                holds!(Checker::Wire, is_sound, "fetches {:?} at {}", partition.snapshot_id, partition.position);
                partition.current_leader_epoch
            }
            _ => return Ok(()),
        };
        self.check_durable_epoch(shared, node, epoch).map(|_| ())
    }

    fn check_vote_request(&mut self, shared: &Rc<Shared>, node: usize, vote: &VoteRequest) -> Found {
        let it = &vote.topics[0].partitions[0];
        let is_possible = if it.pre_vote {
            it.last_offset_epoch <= it.replica_epoch
        } else {
            it.last_offset_epoch < it.replica_epoch
        };
        holds!(
            Checker::Wire,
            is_possible && it.last_offset >= 0 && it.last_offset_epoch >= 0,
            "asks for a vote in epoch {} with a log up to {} of epoch {}",
            it.replica_epoch,
            it.last_offset,
            it.last_offset_epoch
        );
        let view = &self.nodes[node];
        let candidate = (view.id, view.directory);
        if it.pre_vote {
            return self.check_durable_epoch(shared, node, it.replica_epoch).map(|_| ());
        }
        self.check_stands(node, it.replica_epoch)?;
        holds!(
            Checker::Durability,
            self.holds_durably(shared, node, it.last_offset),
            "asks for a vote in epoch {} with a log up to {}, which isn't all durable",
            it.replica_epoch,
            it.last_offset
        );
        self.check_vote(shared, node, it.replica_epoch, candidate)
    }

    fn check_fetch_request(&mut self, shared: &Rc<Shared>, node: usize, fetch: &FetchRequest) -> Found {
        let it = &fetch.topics[0].partitions[0];
        holds!(
            Checker::Wire,
            it.fetch_offset >= 0 && (0..=it.current_leader_epoch).contains(&it.last_fetched_epoch),
            "fetches in epoch {} at {} behind epoch {}",
            it.current_leader_epoch,
            it.fetch_offset,
            it.last_fetched_epoch
        );
        let last_epoch = self.nodes[node].log.last_epoch();
        holds!(
            Checker::Wire,
            it.last_fetched_epoch == last_epoch || !self.nodes[node].is_controller,
            "fetches behind epoch {}, its log ends with epoch {last_epoch}",
            it.last_fetched_epoch
        );
        self.wire.last.insert(node, (it.current_leader_epoch, it.fetch_offset, it.last_fetched_epoch));
        self.check_durable_epoch(shared, node, it.current_leader_epoch)?;
        self.check_acknowledgement(shared, node, it.fetch_offset)
    }

    /// The one leader of the epoch, or nobody.
    fn check_names_leader(&self, leader: i32, epoch: i32) -> Found {
        if leader < 0 {
            return Ok(());
        }
        let known = self.elections.leaders.get(&epoch);
        holds!(Checker::Wire, known == Some(&leader), "names {leader} the leader of epoch {epoch}, which is {known:?}");
        Ok(())
    }

    pub(super) fn note_request(&mut self, shared: &Rc<Shared>, node: usize, call: CallId, request: &RequestBody) {
        match request {
            RequestBody::Vote(vote) => {
                let it = &vote.topics[0].partitions[0];
                let asked = Asked {
                    candidate: (it.replica_id, it.replica_directory_id),
                    epoch: it.replica_epoch,
                    is_pre_vote: it.pre_vote,
                    log: (it.last_offset_epoch, it.last_offset),
                };
                self.elections.asked.insert((node, call), asked);
            }
            RequestBody::Fetch(fetch) => {
                let it = &fetch.topics[0].partitions[0];
                self.note_heard(shared, node, call.place, it.replica_directory_id, it.current_leader_epoch);
                let position = (it.current_leader_epoch, it.fetch_offset, it.last_fetched_epoch);
                self.wire.fetches.insert((node, call), position);
            }
            RequestBody::FetchSnapshot(fetch) => {
                let it = &fetch.topics[0].partitions[0];
                self.note_heard(shared, node, call.place, it.replica_directory_id, it.current_leader_epoch);
                let asked = (it.snapshot_id.end_offset, it.snapshot_id.epoch, it.position);
                self.wire.chunks.insert((node, call), asked);
            }
            RequestBody::UpdateRaftVoter(update) => {
                self.note_heard(shared, node, call.place, update.voter_directory_id, update.current_leader_epoch);
            }
            _ => {}
        }
    }

    /// The sender's disk may have been replaced since.
    fn note_heard(&mut self, shared: &Rc<Shared>, node: usize, from: Place, directory: Uuid, epoch: i32) {
        let Some(from) = self.nodes.get(from).map(|view| (view.id, directory)) else { return };
        let view = &mut self.nodes[node];
        if view.leads.is_some_and(|(led, _)| led == epoch) {
            view.heard.insert(from, shared.now());
        }
    }

    pub(super) fn check_response_sent(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        call: CallId,
        response: &ResponseBody,
    ) -> Found {
        match response {
            ResponseBody::Vote(it) => {
                let asked = self.elections.asked.get(&(node, call)).copied();
                self.check_top_level(it.error_code, "Vote")?;
                self.check_vote_response(shared, node, it, asked)
            }
            ResponseBody::BeginQuorumEpoch(it) => {
                self.check_top_level(it.error_code, "BeginQuorumEpoch")?;
                told_by!(it).map_or(Ok(()), |told| self.check_told(shared, node, told))
            }
            ResponseBody::EndQuorumEpoch(it) => {
                self.check_top_level(it.error_code, "EndQuorumEpoch")?;
                told_by!(it).map_or(Ok(()), |told| self.check_told(shared, node, told))
            }
            ResponseBody::Fetch(it) => {
                let offset = self.wire.fetches.get(&(node, call)).copied();
                self.check_top_level(it.error_code, "Fetch")?;
                self.check_fetch_response(shared, node, call, it, offset)
            }
            ResponseBody::FetchSnapshot(it) => {
                let asked = self.wire.chunks.get(&(node, call)).copied();
                self.check_top_level(it.error_code, "FetchSnapshot")?;
                self.check_chunk(shared, node, it, asked)
            }
            other => self.check_promise(shared, node, call, other),
        }
    }

    fn check_top_level(&self, error: i16, what: &str) -> Found {
        let is_fatal = error == ErrorCode::ClusterAuthorizationFailed.code();
        holds!(Checker::Wire, !is_fatal, "answers a {what} with error {error}, of which Kafka dies");
        Ok(())
    }

    fn check_told(&mut self, shared: &Rc<Shared>, node: usize, told: Told) -> Found {
        let is_fatal = told.error == ErrorCode::InvalidRequest.code();
        holds!(Checker::Wire, !is_fatal, "answers with INVALID_REQUEST, of which Kafka dies");
        self.check_names_leader(told.leader, told.epoch)?;
        holds!(
            Checker::Wire,
            told.leader < 0 || told.has_endpoint,
            "names leader {} of epoch {} without an endpoint",
            told.leader,
            told.epoch
        );
        self.check_durable_epoch(shared, node, told.epoch).map(|_| ())
    }

    fn check_vote_response(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        response: &VoteResponse,
        asked: Option<Asked>,
    ) -> Found {
        let Some(partition) = response.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(()) };
        let told = Told {
            error: partition.error_code,
            leader: partition.leader_id,
            epoch: partition.leader_epoch,
            has_endpoint: response.node_endpoints.iter().any(|e| e.node_id == partition.leader_id),
        };
        self.check_told(shared, node, told)?;
        match asked {
            Some(asked) if partition.vote_granted => {
                holds!(
                    Checker::Elections,
                    asked.epoch == partition.leader_epoch,
                    "grants a vote for epoch {} in epoch {}",
                    asked.epoch,
                    partition.leader_epoch
                );
                self.check_grant(shared, node, asked)
            }
            _ => Ok(()),
        }
    }

    fn check_fetch_response(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        call: CallId,
        response: &FetchResponse,
        asked: Option<Position>,
    ) -> Found {
        let Some(partition) = response.responses.first().and_then(|topic| topic.partitions.first()) else {
            return Ok(());
        };
        let epoch = partition.current_leader.leader_epoch;
        let told = Told {
            error: partition.error_code,
            leader: partition.current_leader.leader_id,
            epoch,
            has_endpoint: response.node_endpoints.iter().any(|e| e.node_id == partition.current_leader.leader_id),
        };
        self.check_told(shared, node, told)?;
        if partition.error_code != 0 {
            return Ok(());
        }
        self.check_told_high_watermark(node, partition.high_watermark, epoch)?;
        let diverging = &partition.diverging_epoch;
        let follower = self.nodes.get(call.place).filter(|view| view.life == call.incarnation && view.epoch == epoch);
        let is_awaited = self.wire.last.get(&call.place).is_some_and(|last| Some(*last) == asked);
        if diverging.epoch >= 0 && is_awaited {
            let known = follower.map_or(-1, |view| view.high_watermark);
            let was_rebuilding = follower.is_some_and(|view| view.is_rebuilding || view.is_damaged);
            holds!(
                Checker::Wire,
                diverging.end_offset >= known || was_rebuilding,
                "sends n{} back to {}, below its high watermark {known}",
                call.place,
                diverging.end_offset
            );
        }
        self.check_records(node, partition, asked.map(|(_, offset, _)| offset))
    }

    /// Never falls in an epoch, nor from one to the next, and is never a guess.
    fn check_told_high_watermark(&mut self, node: usize, high_watermark: i64, epoch: i32) -> Found {
        if high_watermark < 0 {
            return Ok(());
        }
        // What the step that answers has committed counts only once all of its records are appended.
        let own = self.nodes[node].to_commit.map_or(-1, |commit| commit.end);
        let committed = self.committed.end().max(own);
        holds!(
            Checker::Wire,
            high_watermark <= committed,
            "tells a high watermark of {high_watermark}, but {committed} is committed"
        );
        let before = self.wire.told.range(..=epoch).map(|(_, told)| *told).max().unwrap_or(0);
        holds!(
            Checker::Wire,
            high_watermark >= before || self.nodes[node].is_damaged,
            "tells a high watermark of {high_watermark} in epoch {epoch}, after {before} was told"
        );
        self.wire.told.insert(epoch, high_watermark);
        Ok(())
    }

    fn check_records(&self, node: usize, partition: &PartitionData, asked: Option<i64>) -> Found {
        let Some(records) = partition.records.clone().filter(|records| !records.is_empty()) else { return Ok(()) };
        if self.nodes[node].is_damaged {
            return Ok(());
        }
        let bytes = records.into_contiguous();
        let mut next = asked.unwrap_or(-1);
        for batch in BatchIter::new(&bytes) {
            let sound = batch.ok().filter(|batch| batch.verify_crc().is_ok());
            let Some(batch) = sound else { return Err((Checker::Wire, format!("sends damaged records at {next}"))) };
            let base = batch.header.base_offset.0;
            holds!(Checker::Wire, base == next || next < 0, "sends a batch of offset {base} in the place of {next}");
            next = batch.header.next_offset().0;
        }
        Ok(())
    }

    fn check_chunk(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        response: &FetchSnapshotResponse,
        asked: Option<(i64, i32, i64)>,
    ) -> Found {
        let Some(partition) = response.topics.first().and_then(|topic| topic.partitions.first()) else {
            return Ok(());
        };
        let told = Told {
            error: partition.error_code,
            leader: partition.current_leader.leader_id,
            epoch: partition.current_leader.leader_epoch,
            has_endpoint: (response.node_endpoints.iter()).any(|e| e.node_id == partition.current_leader.leader_id),
        };
        if partition.error_code != ErrorCode::UnknownTopicOrPartition.code() {
            self.check_told(shared, node, told)?;
        }
        holds!(Checker::Wire, partition.unaligned_records.is_some(), "answers a FetchSnapshot with null records");
        if partition.error_code == 0 {
            let sent = (partition.snapshot_id.end_offset, partition.snapshot_id.epoch, partition.position);
            holds!(Checker::Wire, Some(sent) == asked, "sends {sent:?} of a snapshot, asked for was {asked:?}");
        }
        Ok(())
    }
}
