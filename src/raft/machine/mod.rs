//! The machine itself: public surface and dispatch.

use bytes::Bytes;
use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random};

use crate::config::RaftConfig;
use crate::control_history::ControlHistory;
use crate::effects::Effects;
use crate::epochs::LeaderEpochs;
use crate::event::Event;
use crate::quorum_state::QuorumState;
use crate::snapshot_name::SnapshotId;
use crate::voters::{ReplicaKey, VoterSet};

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
pub struct Raft {}

impl Raft {
    /// The machine as it starts from `loaded`, and its first effects. `config` must name a bootstrap server or
    /// `loaded` a voter.
    pub fn new(config: RaftConfig, loaded: LoadedState, random: Random, now: Now) -> (Raft, Effects);

    /// Takes in one event.
    pub fn step(&mut self, event: Event, now: Now) -> Effects;

    /// Appends records (framed payloads, one per record, keys null) as one atomic unit within one batch, if this node
    /// leads in `epoch`. Their offsets are final, but they may be lost until the high watermark passes them.
    /// `records` must not be empty.
    pub fn propose(&mut self, epoch: LeaderEpoch, records: &[Bytes], now: Now) -> Result<(Proposed, Effects), ProposeError>;

    /// When [`Event::Tick`] is due next; `None`: not before another event.
    pub fn next_deadline(&self) -> Option<MonotonicMs>;

    /// The current epoch.
    pub fn epoch(&self) -> LeaderEpoch;
    /// The leader of the current epoch, if known (may be this node).
    pub fn leader_id(&self) -> Option<NodeId>;
    /// Whether this node leads and takes proposals.
    pub fn is_leader(&self) -> bool;
    /// Offset that the next proposed record gets; the log's end plus what lingers.
    pub fn next_offset(&self) -> Offset;
    /// End of the log.
    pub fn log_end_offset(&self) -> Offset;
    /// First offset that isn't known to be committed; `None`: unknown so far.
    pub fn high_watermark(&self) -> Option<Offset>;
    /// The voters as of the log's end, uncommitted change included.
    pub fn voters(&self) -> &VoterSet;
    /// Level of `kraft.version` as of the log's end.
    pub fn kraft_version(&self) -> i16;
    /// Voters and `kraft.version` as of any offset, for writing a snapshot.
    pub fn history(&self) -> &ControlHistory;
    /// Who this node is.
    pub fn key(&self) -> ReplicaKey;
    /// Where the leader listens for `listener`, for forwarding (`None`: unknown).
    pub fn leader_endpoint(&self) -> Option<&crate::voters::Endpoint>;
    /// After [`Event::ShutDown`]: whether leadership is handed over (or was not ours), so that the process may end.
    pub fn may_shut_down(&self) -> bool;
}
