//! The machine itself: public surface and dispatch. One file per subject beside it.

mod describe;
mod discovery;
mod epoch_requests;
mod fetch_client;
mod fetch_server;
mod leader;
mod membership;
mod observers;
mod parked;
mod poll;
mod proposals;
mod rebuilding;
mod refusal;
mod requests;
mod responses;
mod snapshots;
mod start;
mod state;
mod transitions;
mod votes;
mod wire;

use std::collections::BTreeSet;

use bytes::Bytes;
use ringlog_protocol::RequestBody;
use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random};

use self::fetch_server::Waiting;
pub use self::membership::KRaftVersionError;
pub use self::proposals::MAX_BATCH_LEN;
use self::rebuilding::Rebuilding;
use self::requests::Requests;
use self::state::{Download, KnownLeader, LogState, State};
use crate::config::RaftConfig;
use crate::control_history::ControlHistory;
use crate::effects::{Action, Effects, RoleChange};
use crate::epochs::LeaderEpochs;
use crate::event::Event;
use crate::quorum_state::{QuorumState, QuorumStateVersion};
use crate::snapshot_name::SnapshotId;
use crate::voters::{Endpoint, ReplicaKey, VoterSet};

/// What was found on disk at start.
#[derive(Debug, Clone)]
pub struct LoadedState {
    /// The `quorum-state` file, if there is one.
    pub quorum_state: Option<QuorumState>,
    /// Start of the log.
    pub log_start_offset: Offset,
    /// End of the log, after recovery; all of it counts as durable, so flush it first if the last stop was unclean.
    pub log_end_offset: Offset,
    /// Epochs of the log.
    pub epochs: LeaderEpochs,
    /// All complete snapshots, the bootstrap one included.
    pub snapshots: Vec<SnapshotId>,
    /// Control records of the latest snapshot and of the whole log after it.
    pub history: ControlHistory,
    /// Whether the rest is all that this node ever told others.
    pub memory: Memory,
}

/// What a node knows of its own past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// All that it told others.
    Whole,
    /// Records that it may have acknowledged are gone (damage that no torn write explains). Until it has all from a
    /// leader that is committed it neither votes nor stands: its log says nothing about what it once had.
    LostRecords,
    /// Nothing is there: the whole quorum is new, or this node's disk was replaced and records, vote and epoch are gone,
    /// on which others may count. This is as [`Memory::LostRecords`], but that it takes part in elections among
    /// candidates whose logs are as empty as its own; with the first one it knows that the quorum is new.
    Blank,
}

impl LoadedState {
    /// The newest snapshot, if the log doesn't hold what it covers: before [`Raft::new`] the log must be emptied to begin
    /// at its end. Happens when a node stopped between fetching a snapshot and emptying its log, or noting its epoch.
    /// Snapshots hold what is committed, so a log that parts from one before its end holds nothing that is from there on,
    /// whatever its epochs.
    pub fn log_must_restart_at(&self) -> Option<SnapshotId> {
        let latest = self.snapshots.iter().copied().max()?;
        let is_beyond = latest.end_offset > self.log_end_offset;
        let is_empty = self.log_start_offset == self.log_end_offset && latest.end_offset == self.log_end_offset;
        let epoch = if is_empty {
            // Those of the log before, if there are any.
            self.epochs.latest()
        } else if self.log_start_offset < latest.end_offset {
            self.epochs.epoch_of(latest.end_offset.plus(-1))
        } else {
            None
        };
        (is_beyond || epoch.is_some_and(|epoch| epoch != latest.epoch)).then_some(latest)
    }
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposed {
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Offset of its last record: committed once the high watermark is above.
    pub last_offset: Offset,
}

/// Why records were not taken. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node doesn't lead, or no longer in that epoch.
    #[error("not the leader of epoch {0}")]
    NotLeader(LeaderEpoch),
    /// The records don't fit into one batch of 8 MiB.
    #[error("{0} bytes of records don't fit into one batch")]
    TooLarge(usize),
    /// Too much is appended and not flushed; try again after the next high watermark.
    #[error("the metadata log can't keep up")]
    Overloaded,
}

/// The consensus machine of one node.
#[derive(Debug)]
pub struct Raft {
    config: RaftConfig,
    random: Random,
    epoch: LeaderEpoch,
    leader: Option<KnownLeader>,
    voted: Option<ReplicaKey>,
    /// Never falls, whatever leaders say.
    high_watermark: Option<Offset>,
    state: State,
    log: LogState,
    history: ControlHistory,
    /// Epoch, leader and vote as the file has them.
    persisted: (LeaderEpoch, Option<NodeId>, Option<ReplicaKey>),
    requests: Requests,
    waiting: Waiting,
    announced: Option<RoleChange>,
    /// A fetched snapshot that the driver is putting in the place of log and state.
    installing: Option<SnapshotId>,
    /// One that was broken off when its leader wasn't followed any more; it goes on when it is followed again and still
    /// names this snapshot.
    paused_download: Option<Download>,
    /// See [`Memory`].
    rebuilding: Option<Rebuilding>,
    /// It began as [`Memory::Blank`], and is still so.
    is_blank: bool,
    /// The epoch whose leader's process is gone, as far as we can tell; `None` again once it answers a fetch.
    suspected: Option<LeaderEpoch>,
    /// Voters that said, in this epoch, that they know of no leader either.
    leaderless: BTreeSet<NodeId>,
    /// The highest high watermark that a leader told, which may lie beyond our log.
    told_high_watermark: Option<Offset>,
    is_shutting_down: bool,
    /// This node resigned for its shutdown and no successor has shown yet.
    is_handing_over: bool,
    deadline: Option<MonotonicMs>,
}

impl Raft {
    /// Takes in one event.
    pub fn step(&mut self, event: Event, now: Now) -> Effects {
        let mut fx = Effects::default();
        self.on_event(event, now, &mut fx);
        self.finish(now, &mut fx);
        fx
    }

    /// Appends records (framed payloads, one per record, keys null) as one atomic unit within one batch, if this node
    /// leads in `epoch`. Their offsets are final, but they may be lost until the high watermark passes them.
    /// `records` must not be empty.
    pub fn propose(
        &mut self,
        epoch: LeaderEpoch,
        records: &[Bytes],
        now: Now,
    ) -> Result<(Proposed, Effects), ProposeError> {
        let mut fx = Effects::default();
        let proposed = self.append_proposal(epoch, records, now, &mut fx)?;
        self.finish(now, &mut fx);
        Ok((proposed, fx))
    }

    fn on_event(&mut self, event: Event, now: Now, fx: &mut Effects) {
        match event {
            Event::Tick => {}
            Event::Request { token, listener, api_version, request } => {
                let asked = fetch_server::Asker { token, listener, api_version };
                self.on_request(asked, request, now, fx);
            }
            Event::Response { token, result } => self.on_response(token, result, now, fx),
            Event::LogFlushed => self.on_flushed(now, fx),
            Event::LogRead { token, result } => self.on_log_read(token, result, fx),
            Event::SnapshotRead { token, result } => self.on_snapshot_read(token, result, fx),
            Event::SnapshotInstalled { id, result } => self.on_snapshot_installed(id, result, now, fx),
            Event::SnapshotCreated { id } => {
                self.log.snapshots.insert(id);
            }
            Event::LogStartAdvanced { log_start_offset } => self.on_log_start_advanced(log_start_offset),
            Event::Resign { epoch } => {
                if epoch == self.epoch && self.is_leader() {
                    self.resign(now, fx);
                }
            }
            Event::ShutDown => self.on_shut_down(now, fx),
        }
    }

    fn on_request(&mut self, from: fetch_server::Asker, request: RequestBody, now: Now, fx: &mut Effects) {
        match request {
            RequestBody::Vote(request) => self.on_vote_request(&from, &request, now, fx),
            RequestBody::BeginQuorumEpoch(request) => self.on_begin_request(&from, &request, now, fx),
            RequestBody::EndQuorumEpoch(request) => self.on_end_request(&from, &request, now, fx),
            RequestBody::Fetch(request) => self.on_fetch_request(from, &request, now, fx),
            RequestBody::FetchSnapshot(request) => self.on_snapshot_request(from, &request, now, fx),
            RequestBody::DescribeQuorum(request) => self.on_describe_request(&from, &request, now, fx),
            RequestBody::AddRaftVoter(request) => self.on_add_voter(&from, request, now, fx),
            RequestBody::RemoveRaftVoter(request) => self.on_remove_voter(&from, &request, now, fx),
            RequestBody::UpdateRaftVoter(request) => self.on_update_voter(&from, &request, now, fx),
            other => panic!("{} is no request of the metadata quorum", other.api_key().name()),
        }
    }

    /// The end of every step: what is due, what must be durable first, who leads.
    fn finish(&mut self, now: Now, fx: &mut Effects) {
        self.poll(now, fx);
        let durable = (self.epoch, self.leader_id(), self.voted);
        if durable != self.persisted {
            self.persisted = durable;
            fx.persist(self.quorum_state());
        }
        let role = RoleChange {
            epoch: self.epoch,
            leader_id: self.leader_id(),
            is_leader: self.is_leader(),
            is_standing: matches!(self.state, State::Prospective(_) | State::Candidate(_)),
        };
        if self.announced != Some(role) {
            self.announced = Some(role);
            fx.push(Action::Role(role));
        }
    }

    fn quorum_state(&self) -> QuorumState {
        let version = if self.kraft_version() == 0 {
            QuorumStateVersion::V0 { voter_ids: self.voters().iter().map(|voter| voter.key.id).collect() }
        } else {
            QuorumStateVersion::V1
        };
        QuorumState { epoch: self.epoch, leader_id: self.leader_id(), voted: self.voted, version }
    }

    /// When [`Event::Tick`] is due next; `None`: not before another event.
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        self.deadline
    }

    /// The current epoch.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The leader of the current epoch, if known (may be this node, also for a while after it resigned).
    pub fn leader_id(&self) -> Option<NodeId> {
        self.leader.as_ref().map(|leader| leader.id)
    }

    /// Whether this node leads and takes proposals.
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// Offset that the next proposed record gets: the log's end plus what lingers.
    pub fn next_offset(&self) -> Offset {
        match &self.state {
            State::Leader(leader) => leader
                .open_batch
                .as_ref()
                .map_or(self.log.end, |open| open.first_offset.plus(open.records.len() as i64)),
            _ => self.log.end,
        }
    }

    /// Bytes that are appended and not yet durable.
    pub fn unflushed_bytes(&self) -> usize {
        self.log.unflushed_bytes
    }

    /// End of the log, unflushed records included.
    pub fn log_end_offset(&self) -> Offset {
        self.log.end
    }

    /// Start of the log.
    pub fn log_start_offset(&self) -> Offset {
        self.log.start
    }

    /// First offset that isn't known to be committed; `None`: unknown so far.
    pub fn high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    /// The highest high watermark that a leader told this node; may lie beyond its log, which is then catching up.
    pub fn told_high_watermark(&self) -> Option<Offset> {
        self.told_high_watermark.max(self.high_watermark)
    }

    /// Whether this node has lost records and doesn't vote until it has them again.
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilding.is_some()
    }

    /// The voters as of the log's end, uncommitted change included.
    pub fn voters(&self) -> &VoterSet {
        self.history.voters()
    }

    /// Level of `kraft.version` as of the log's end.
    pub fn kraft_version(&self) -> i16 {
        self.history.kraft_version()
    }

    /// Voters and `kraft.version` as of any offset, for writing a snapshot.
    pub fn history(&self) -> &ControlHistory {
        &self.history
    }

    /// Who this node is.
    pub fn key(&self) -> ReplicaKey {
        self.config.key()
    }

    /// Whether this node votes.
    pub fn is_voter(&self) -> bool {
        self.config.is_controller && self.voters().is_voter(self.key())
    }

    /// Where the leader's controller listens, for forwarding; `None`: unknown.
    pub fn leader_endpoint(&self) -> Option<&Endpoint> {
        self.leader.as_ref()?.endpoints.get(&self.config.default_listener)
    }

    /// After [`Event::ShutDown`]: whether a successor is known (or leadership was not ours), so that the process may
    /// end.
    pub fn may_shut_down(&self) -> bool {
        self.is_shutting_down && !self.is_handing_over
    }

    fn last_epoch_and_end(&self) -> (LeaderEpoch, Offset) {
        (self.log.last_epoch(), self.log.end)
    }

    fn is_fresh(&self, last_epoch: i32, last_offset: i64) -> bool {
        (LeaderEpoch(last_epoch), Offset(last_offset)) >= self.last_epoch_and_end()
    }
}
