//! Changes of the voter set, one voter at a time (KIP-853): add, remove, update, joining by itself, and the step from
//! `kraft.version` 0 to 1.

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiVersionsRequest, ApiVersionsResponse, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse, UpdateRaftVoterRequest, UpdateRaftVoterResponse, add_raft_voter_request,
    update_raft_voter_request, update_raft_voter_response,
};
use ringlog_types::{ErrorCode, MonotonicMs, NodeId, Now, Offset, Uuid};

use super::Raft;
use super::fetch_server::Asker;
use super::refusal::{self, Kind, Refusal};
use super::requests::{Asked, Pending};
use super::state::State;
use super::wire::{self, LeaderInfo};
use crate::control_records::ControlRecord;
use crate::effects::{Destination, Effects};
use crate::voters::{Endpoint, Endpoints, ReplicaKey, VersionRange, Voter, VoterSet};

/// A newcomer must have fetched within this time.
const NEWCOMER_FETCH_MS: u64 = 3_600_000;
/// Listeners that one request may name.
const MAX_LISTENERS: usize = 64;

/// The change under way; there is one at most.
#[derive(Debug)]
pub(super) struct PendingChange {
    /// When the asker is told that it took too long. The record may be committed all the same.
    pub deadline: MonotonicMs,
    asker: Option<(Asker, Kind)>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The newcomer is asked which levels it speaks.
    AskingVersions { newcomer: Voter, ack_when_committed: bool },
    /// The Voters record at this offset waits for a majority.
    Committing { offset: Offset },
}

/// Why `kraft.version` can't be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KRaftVersionError {
    /// This node doesn't lead, or can't commit yet.
    #[error("this node is not the leader of the metadata quorum")]
    NotLeader,
    /// Only 0 to 1 is possible, never back.
    #[error("kraft.version can't be changed from {from} to {to}")]
    InvalidLevel {
        /// Finalized level.
        from: i16,
        /// Wanted level.
        to: i16,
    },
    /// A voter has not told of its directory and versions, or doesn't speak the level. The words are Kafka's.
    #[error("Invalid upgrade of kraft.version to KRAFT_VERSION_{level} because not all of the voters support it")]
    UnpreparedVoter {
        /// The wanted level.
        level: i16,
    },
}

fn endpoints<'a>(listeners: impl Iterator<Item = (&'a StrBytes, &'a StrBytes, u16)>) -> Endpoints {
    listeners
        .take(MAX_LISTENERS)
        .map(|(name, host, port)| (name.as_str().to_owned(), Endpoint { host: host.as_str().to_owned(), port }))
        .collect()
}

impl Raft {
    /// Checks that every change begins with, in Kafka's order.
    fn check_change(
        &self,
        kind: Kind,
        cluster_id: Option<&str>,
        id: i32,
        directory_id: Uuid,
    ) -> Result<ReplicaKey, Refusal> {
        if let Some(foreign) = cluster_id.filter(|_| self.is_foreign_cluster(cluster_id)) {
            return Err(refusal::foreign_cluster(foreign, &self.config.cluster_id));
        }
        self.check_leader(self.epoch.0)?;
        if id < 0 || directory_id.is_zero() {
            return Err(refusal::invalid_voter(kind));
        }
        Ok(ReplicaKey::from_wire(id, directory_id))
    }

    /// Checks that the voter set may be changed at all now.
    fn check_changeable(&self, kind: Kind) -> Result<(), Refusal> {
        let State::Leader(leader) = &self.state else { return Err(ErrorCode::NotLeaderOrFollower.into()) };
        if leader.change.is_some() {
            return Err(refusal::change_under_way());
        }
        let Some(high_watermark) = leader.high_watermark else { return Err(refusal::unknown_high_watermark()) };
        if self.kraft_version() == 0 {
            return Err(refusal::static_quorum(kind));
        }
        match self.history.voters_offset() {
            Some(offset) if offset >= high_watermark => Err(refusal::uncommitted_voters(offset, high_watermark)),
            _ => Ok(()),
        }
    }

    pub(super) fn on_add_voter(&mut self, from: &Asker, request: AddRaftVoterRequest, now: Now, fx: &mut Effects) {
        if let Err(refusal) = self.begin_add(from, &request, now, fx) {
            self.reply(from.token, add_response(Err(refusal)), fx);
        }
    }

    fn begin_add(
        &mut self,
        from: &Asker,
        request: &AddRaftVoterRequest,
        now: Now,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let (cluster_id, directory_id) = (request.cluster_id.as_deref(), request.voter_directory_id);
        let key = self.check_change(Kind::Add, cluster_id, request.voter_id, directory_id)?;
        let endpoints = endpoints(request.listeners.iter().map(|l| (&l.name, &l.host, l.port)));
        let Some(endpoint) = endpoints.get(&self.config.default_listener).cloned() else {
            return Err(refusal::missing_endpoint(&endpoints, &self.config.default_listener));
        };
        self.check_changeable(Kind::Add)?;
        if self.voters().get(key.id).is_some() {
            return Err(refusal::duplicate_voter(key, self.voters()));
        }
        let to = Destination { node_id: Some(key.id), endpoint };
        let versions = ApiVersionsRequest {
            client_software_name: StrBytes::from_static("ringlog"),
            client_software_version: StrBytes::from_static(env!("CARGO_PKG_VERSION")),
        };
        if !self.send(to, Asked::ApiVersions { newcomer: key }, versions, now, fx) {
            return Err(refusal::unreachable(key));
        }
        let newcomer = Voter { key, endpoints, kraft_version: VersionRange::STATIC };
        let stage = Stage::AskingVersions { newcomer, ack_when_committed: request.ack_when_committed };
        self.set_change(Some((from.clone(), Kind::Add)), stage, now);
        Ok(())
    }

    fn set_change(&mut self, asker: Option<(Asker, Kind)>, stage: Stage, now: Now) {
        let deadline = now.monotonic.plus_ms(self.config.request_timeout_ms);
        if let State::Leader(leader) = &mut self.state {
            leader.change = Some(PendingChange { deadline, asker, stage });
        }
    }

    /// What that newcomer speaks; `None`: it gave no answer.
    pub(super) fn on_newcomer_versions(
        &mut self,
        key: ReplicaKey,
        response: Option<&ApiVersionsResponse>,
        now: Now,
        fx: &mut Effects,
    ) {
        let State::Leader(leader) = &mut self.state else { return };
        let is_asking = |change: &PendingChange| matches!(&change.stage, Stage::AskingVersions { newcomer, .. } if newcomer.key == key);
        if !leader.change.as_ref().is_some_and(is_asking) {
            return;
        }
        let Some(PendingChange { asker, stage: Stage::AskingVersions { newcomer, ack_when_committed }, .. }) =
            leader.change.take()
        else {
            return;
        };
        match self.admit(newcomer, response, now) {
            Ok(voters) => {
                let asker = if ack_when_committed {
                    asker
                } else {
                    if let Some((asker, _)) = asker {
                        self.reply(asker.token, add_response(Ok(())), fx);
                    }
                    None
                };
                self.write_voters(voters, asker, now, fx);
            }
            Err(refusal) => {
                if let Some((asker, _)) = asker {
                    self.reply(asker.token, add_response(Err(refusal)), fx);
                }
            }
        }
    }

    /// The voter set with the newcomer, if it is ready to vote.
    fn admit(
        &self,
        mut newcomer: Voter,
        response: Option<&ApiVersionsResponse>,
        now: Now,
    ) -> Result<VoterSet, Refusal> {
        let key = newcomer.key;
        let error = response.map_or(ErrorCode::BrokerNotAvailable, |response| {
            ErrorCode::from_code(response.error_code).unwrap_or(ErrorCode::UnknownServerError)
        });
        let response = response.filter(|_| error.is_none()).ok_or_else(|| refusal::unknown_versions(error))?;
        let range = response.supported_features.iter().find(|feature| &*feature.name == "kraft.version");
        let range = range.map(|feature| VersionRange { min: feature.min_version, max: feature.max_version });
        let finalized = self.kraft_version();
        newcomer.kraft_version = range
            .filter(|range| range.contains(finalized))
            .ok_or_else(|| refusal::unsuitable_version(key, range, finalized))?;
        let State::Leader(leader) = &self.state else { return Err(ErrorCode::NotLeaderOrFollower.into()) };
        let is_ready = leader.observers.get(&key).is_some_and(|progress| {
            progress.last_caught_up != ringlog_types::TimestampMs::NONE
                && progress.last_fetch.is_some_and(|at| now.monotonic.since_ms(at.monotonic) < NEWCOMER_FETCH_MS)
        });
        if !is_ready {
            return Err(refusal::lagging(key));
        }
        self.voters().with(newcomer).ok_or_else(|| refusal::duplicate_voter(key, self.voters()))
    }

    /// Appends the new set, which takes effect at once, and waits for its commit.
    fn write_voters(&mut self, voters: VoterSet, asker: Option<(Asker, Kind)>, now: Now, fx: &mut Effects) {
        self.append_control(vec![ControlRecord::Voters(voters)], now, fx);
        let offset = self.log.end.plus(-1);
        self.set_change(asker, Stage::Committing { offset }, now);
        self.update_high_watermark(now, fx);
    }

    pub(super) fn on_remove_voter(
        &mut self,
        from: &Asker,
        request: &RemoveRaftVoterRequest,
        now: Now,
        fx: &mut Effects,
    ) {
        match self.check_removal(request) {
            Ok(voters) => self.write_voters(voters, Some((from.clone(), Kind::Remove)), now, fx),
            Err(refusal) => self.reply(from.token, remove_response(Err(refusal)), fx),
        }
    }

    /// The voter set without the one that goes.
    fn check_removal(&self, request: &RemoveRaftVoterRequest) -> Result<VoterSet, Refusal> {
        let (cluster_id, directory_id) = (request.cluster_id.as_deref(), request.voter_directory_id);
        let key = self.check_change(Kind::Remove, cluster_id, request.voter_id, directory_id)?;
        self.check_changeable(Kind::Remove)?;
        self.voters().without(key).ok_or_else(|| refusal::unknown_voter(key, self.voters()))
    }

    pub(super) fn on_update_voter(
        &mut self,
        from: &Asker,
        request: &UpdateRaftVoterRequest,
        now: Now,
        fx: &mut Effects,
    ) {
        let (own_id, check_quorum_ms) = (self.config.node_id, self.check_quorum_ms());
        let checked = self.check_update(request);
        if let (Ok(_), State::Leader(leader)) = (&checked, &mut self.state) {
            let key = ReplicaKey::from_wire(request.voter_id, request.voter_directory_id);
            leader.on_heard(key, own_id, now.monotonic, check_quorum_ms);
        }
        match checked {
            Ok(Some(voters)) => self.write_voters(voters, Some((from.clone(), Kind::Update)), now, fx),
            Ok(None) => {
                if self.kraft_version() == 0 {
                    self.remember_voter(request);
                }
                self.reply_update(from, ErrorCode::None, fx);
            }
            Err(error) => self.reply_update(from, error, fx),
        }
    }

    /// The new voter set, or `None` if none has to be written.
    fn check_update(&self, request: &UpdateRaftVoterRequest) -> Result<Option<VoterSet>, ErrorCode> {
        if self.is_foreign_cluster(request.cluster_id.as_deref()) {
            return Err(ErrorCode::InconsistentClusterId);
        }
        self.check_leader(request.current_leader_epoch)?;
        let voter = updated_voter(request);
        let is_valid = voter.key.id.0 >= 0
            && voter.key.directory_id.is_some()
            && voter.endpoints.contains_key(&self.config.default_listener)
            && voter.kraft_version.contains(self.kraft_version());
        if !is_valid {
            return Err(ErrorCode::InvalidRequest);
        }
        if self.kraft_version() == 0 {
            return if self.voters().get(voter.key.id).is_some() { Ok(None) } else { Err(ErrorCode::VoterNotFound) };
        }
        self.check_changeable(Kind::Update).map_err(|refusal| refusal.code)?;
        if !self.voters().is_voter(voter.key) {
            return Err(ErrorCode::VoterNotFound);
        }
        Ok(self.voters().updated(voter).filter(|voters| voters != self.voters()))
    }

    fn remember_voter(&mut self, request: &UpdateRaftVoterRequest) {
        if let State::Leader(leader) = &mut self.state {
            leader.reported_voters.insert(NodeId(request.voter_id), updated_voter(request));
        }
    }

    fn reply_update(&self, to: &Asker, error: ErrorCode, fx: &mut Effects) {
        let response = update_response(&self.leader_info(&to.listener), error);
        self.reply(to.token, response, fx);
    }

    pub(super) fn reply_change(&self, change: PendingChange, error: ErrorCode, fx: &mut Effects) {
        let Some((asker, kind)) = change.asker else { return };
        let outcome = if error.is_none() { Ok(()) } else { Err(error.into()) };
        match kind {
            Kind::Add => self.reply(asker.token, add_response(outcome), fx),
            Kind::Remove => self.reply(asker.token, remove_response(outcome), fx),
            Kind::Update => self.reply_update(&asker, error, fx),
        }
    }

    pub(super) fn poll_change(&mut self, now: Now, fx: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.change.as_ref().is_some_and(|change| change.deadline <= now.monotonic)
            && let Some(change) = leader.change.take()
        {
            self.reply_change(change, ErrorCode::RequestTimedOut, fx);
        }
    }

    /// The high watermark rose to `high_watermark`.
    pub(super) fn on_committed(&mut self, high_watermark: Offset, _now: Now, fx: &mut Effects) {
        let me = self.key();
        let is_out =
            !self.voters().is_voter(me) && self.history.voters_offset().is_some_and(|offset| offset < high_watermark);
        let State::Leader(leader) = &mut self.state else { return };
        leader.must_resign |= is_out;
        let is_done =
            |change: &PendingChange| matches!(change.stage, Stage::Committing { offset } if offset < high_watermark);
        if leader.change.as_ref().is_some_and(is_done)
            && let Some(change) = leader.change.take()
        {
            self.reply_change(change, ErrorCode::None, fx);
        }
    }

    /// As follower: looks now and then whether our entry in the voter set is right, or whether to join.
    pub(super) fn poll_membership(&mut self, now: Now, fx: &mut Effects) {
        let State::Follower(follower) = &self.state else { return };
        if !self.config.is_controller || follower.membership_check_at > now.monotonic {
            return;
        }
        let has_updated = follower.has_updated;
        let is_wrong = if self.is_voter() {
            let own = self.voters().get(self.config.node_id);
            let is_outdated = self.kraft_version() > 0 && own != Some(&self.own_voter());
            is_outdated || self.kraft_version() == 0 && !has_updated
        } else {
            self.config.auto_join && self.kraft_version() > 0
        };
        let leader = self.leader.as_ref();
        let to = leader.and_then(|leader| wire::leader_destination(leader, &self.config.default_listener));
        let is_sent = match to {
            Some(to) if is_wrong && !self.config.endpoints.is_empty() => self.send_membership(to, now, fx),
            _ => true,
        };
        if is_sent && let State::Follower(follower) = &mut self.state {
            follower.membership_check_at = now.monotonic.plus_ms(self.config.fetch_timeout_ms);
        }
    }

    fn send_membership(&mut self, to: Destination, now: Now, fx: &mut Effects) -> bool {
        let cluster_id = Some(StrBytes::copy_from(&self.config.cluster_id));
        let (voter_id, voter_directory_id) = (self.config.node_id.0, self.config.directory_id);
        if self.is_voter() {
            let listener = |(name, e): (&String, &Endpoint)| update_raft_voter_request::Listener {
                name: StrBytes::copy_from(name),
                host: StrBytes::copy_from(&e.host),
                port: e.port,
            };
            let request = UpdateRaftVoterRequest {
                cluster_id,
                current_leader_epoch: self.epoch.0,
                voter_id,
                voter_directory_id,
                listeners: self.config.endpoints.iter().map(listener).collect(),
                kraft_version_feature: update_raft_voter_request::KRaftVersionFeature {
                    min_supported_version: VersionRange::SUPPORTED.min,
                    max_supported_version: VersionRange::SUPPORTED.max,
                },
            };
            return self.send(to, Asked::UpdateVoter, request, now, fx);
        }
        if let Some(old) = self.voters().get(self.config.node_id).map(|voter| voter.key) {
            let voter_directory_id = old.wire_directory_id();
            let request = RemoveRaftVoterRequest { cluster_id, voter_id, voter_directory_id };
            return self.send(to, Asked::RemoveVoter, request, now, fx);
        }
        let listener = |(name, e): (&String, &Endpoint)| add_raft_voter_request::Listener {
            name: StrBytes::copy_from(name),
            host: StrBytes::copy_from(&e.host),
            port: e.port,
        };
        let request = AddRaftVoterRequest {
            cluster_id,
            timeout_ms: i32::try_from(self.config.request_timeout_ms).unwrap_or(i32::MAX),
            voter_id,
            voter_directory_id,
            listeners: self.config.endpoints.iter().map(listener).collect(),
            ack_when_committed: false,
        };
        self.send(to, Asked::AddVoter, request, now, fx)
    }

    pub(super) fn on_update_response(
        &mut self,
        pending: &Pending,
        response: &UpdateRaftVoterResponse,
        now: Now,
        fx: &mut Effects,
    ) {
        let told = &response.current_leader;
        let endpoint = u16::try_from(told.port)
            .ok()
            .filter(|_| !told.host.is_empty())
            .map(|port| Endpoint { host: told.host.as_str().to_owned(), port });
        if let Some(leader) = LeaderInfo::read(told.leader_id, told.leader_epoch, endpoint) {
            self.common_answer(response.error_code, &leader, now, fx);
        }
        let is_final =
            [ErrorCode::None, ErrorCode::UnsupportedVersion].map(ErrorCode::code).contains(&response.error_code);
        if let State::Follower(follower) = &mut self.state
            && pending.epoch == self.epoch
        {
            follower.has_updated |= is_final;
        }
    }

    /// Whether [`Raft::upgrade_kraft_version`] can raise `kraft.version` to that level now.
    pub fn may_upgrade_kraft_version(&self, level: i16) -> Result<(), KRaftVersionError> {
        self.voters_of_level(level).map(|_| ())
    }

    /// The voter set to be written with a level; `None` if the level is that already.
    fn voters_of_level(&self, level: i16) -> Result<Option<VoterSet>, KRaftVersionError> {
        let from = self.kraft_version();
        let State::Leader(leader) = &self.state else { return Err(KRaftVersionError::NotLeader) };
        if leader.high_watermark.is_none() {
            return Err(KRaftVersionError::NotLeader);
        }
        if level == from {
            return Ok(None);
        }
        if level != 1 {
            return Err(KRaftVersionError::InvalidLevel { from, to: level });
        }
        let mut voters = Vec::new();
        for voter in self.voters().iter() {
            let id = voter.key.id;
            let reported = if id == self.config.node_id {
                Some(self.own_voter())
            } else {
                leader.reported_voters.get(&id).cloned()
            };
            voters.push(
                reported
                    .filter(|voter| voter.kraft_version.contains(level) && voter.key.directory_id.is_some())
                    .ok_or(KRaftVersionError::UnpreparedVoter { level })?,
            );
        }
        Ok(Some(VoterSet::new(voters).expect("a voter set's ids are distinct")))
    }

    /// Raises `kraft.version` (UpdateFeatures): from then on the voters stand in the log. The offset to wait for, or
    /// `None` if the level is that already.
    pub fn upgrade_kraft_version(
        &mut self,
        level: i16,
        now: Now,
    ) -> Result<(Option<Offset>, Effects), KRaftVersionError> {
        let mut fx = Effects::default();
        let Some(voters) = self.voters_of_level(level)? else { return Ok((None, fx)) };
        let records = vec![ControlRecord::KRaftVersion(level), ControlRecord::Voters(voters)];
        self.append_control(records, now, &mut fx);
        let offset = self.log.end.plus(-1);
        self.finish(now, &mut fx);
        Ok((Some(offset), fx))
    }
}

fn updated_voter(request: &UpdateRaftVoterRequest) -> Voter {
    let range = &request.kraft_version_feature;
    Voter {
        key: ReplicaKey::from_wire(request.voter_id, request.voter_directory_id),
        endpoints: endpoints(request.listeners.iter().map(|l| (&l.name, &l.host, l.port))),
        kraft_version: VersionRange { min: range.min_supported_version, max: range.max_supported_version },
    }
}

fn code_and_text(outcome: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (0, None),
        Err(Refusal { code, text }) => (code.code(), Some(text.into())),
    }
}

fn add_response(outcome: Result<(), Refusal>) -> AddRaftVoterResponse {
    let (error_code, error_message) = code_and_text(outcome);
    AddRaftVoterResponse { error_code, error_message, ..AddRaftVoterResponse::default() }
}

fn remove_response(outcome: Result<(), Refusal>) -> RemoveRaftVoterResponse {
    let (error_code, error_message) = code_and_text(outcome);
    RemoveRaftVoterResponse { error_code, error_message, ..RemoveRaftVoterResponse::default() }
}

fn update_response(leader: &LeaderInfo, error: ErrorCode) -> UpdateRaftVoterResponse {
    UpdateRaftVoterResponse {
        throttle_time_ms: 0,
        error_code: error.code(),
        current_leader: update_raft_voter_response::CurrentLeader {
            leader_id: leader.id(),
            leader_epoch: leader.epoch.0,
            host: leader.endpoint.as_ref().map_or_else(StrBytes::default, |e| StrBytes::copy_from(&e.host)),
            port: leader.endpoint.as_ref().map_or(0, |e| i32::from(e.port)),
        },
    }
}
