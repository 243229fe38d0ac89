//! What the machine tells the driver to do.

use bytes::Bytes;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_types::{LeaderEpoch, NodeId, Offset};

use crate::event::{ReadToken, ReplyToken, RequestToken};
use crate::quorum_state::QuorumState;
use crate::snapshot_name::SnapshotId;
use crate::voters::Endpoint;

/// The outcome of one event: perhaps a state that must be durable first, then actions.
///
/// The only way to the actions is [`Effects::into_step`], so that none of them can be done before the state is durable.
/// A driver may step the machine again before the actions of earlier steps are done, as long as it does the
/// steps' work in their order.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    persist_first: Option<QuorumState>,
    actions: Vec<Action>,
}

/// How to carry out [`Effects`].
#[derive(Debug)]
pub enum Step {
    /// Nothing to persist: do the actions in order.
    Ready(Vec<Action>),
    /// Make the state durable, then call [`PersistFirst::persisted`].
    PersistFirst(PersistFirst),
}

/// A state that must be on stable storage before anything else of its step happens.
#[derive(Debug)]
pub struct PersistFirst {
    /// The new content of the `quorum-state` file.
    pub quorum_state: QuorumState,
    actions: Vec<Action>,
}

impl PersistFirst {
    /// To be called once `quorum_state` is durable: the actions, to be done in order.
    pub fn persisted(self) -> Vec<Action> {
        self.actions
    }
}

impl Effects {
    /// What to do.
    pub fn into_step(self) -> Step {
        match self.persist_first {
            Some(quorum_state) => Step::PersistFirst(PersistFirst { quorum_state, actions: self.actions }),
            None => Step::Ready(self.actions),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.persist_first.is_none() && self.actions.is_empty()
    }

    pub(crate) fn persist(&mut self, state: QuorumState) {
        self.persist_first = Some(state);
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// Something to do, in the order given.
#[derive(Debug)]
pub enum Action {
    /// Drop everything of the log at and above `to`. Always lies on a batch boundary.
    TruncateLog {
        /// New log end offset.
        to: Offset,
    },
    /// Append these whole batches, whose offsets and epochs are final. Durability is asked for by `FlushLog`.
    AppendLog {
        /// Offset of the first record: the log's end.
        base_offset: Offset,
        /// Log end offset afterwards.
        end_offset: Offset,
        /// The batches.
        batches: Bytes,
    },
    /// Make everything that was appended before this durable and answer with
    /// [`Event::LogFlushed`](crate::Event::LogFlushed). Later actions need not wait for it. One is open at a time: what
    /// is appended meanwhile shares the next one.
    FlushLog,
    /// Send a request; the answer or the failure comes back as [`Event::Response`](crate::Event::Response). One is
    /// awaited per destination. If an earlier one to the same destination is still unanswered, it was given up (it
    /// took too long, or this node's state changed): drop that connection and use a new one, since a peer that holds a
    /// fetch would hold up what is sent after it.
    Send {
        /// To whom.
        to: Destination,
        /// For the answer.
        token: RequestToken,
        /// The request, to be encoded at the newest version that both sides speak.
        request: Box<RequestBody>,
    },
    /// Answer a request.
    Reply {
        /// The token it came with.
        token: ReplyToken,
        /// The answer, to be encoded at the request's version.
        response: Box<ResponseBody>,
    },
    /// Read whole batches from `from` (a batch boundary) up to the log's end, at most `max_bytes` but at least one
    /// batch; answer with [`Event::LogRead`](crate::Event::LogRead).
    ReadLog {
        /// For the answer.
        token: ReadToken,
        /// First offset.
        from: Offset,
        /// Soft limit.
        max_bytes: u32,
    },
    /// Read bytes of a snapshot's file; answer with [`Event::SnapshotRead`](crate::Event::SnapshotRead).
    ReadSnapshot {
        /// For the answer.
        token: ReadToken,
        /// Which.
        id: SnapshotId,
        /// First byte.
        position: u64,
        /// Limit.
        max_bytes: u32,
    },
    /// Write bytes of a snapshot that is being fetched into its `.checkpoint.part` file; position 0 begins it anew.
    WriteSnapshot {
        /// Which.
        id: SnapshotId,
        /// First byte.
        position: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The snapshot is complete: check it ([`crate::snapshot::read`] finds the footer), fsync, rename; empty the log
    /// so that it starts and ends at the snapshot's end, in its epoch; reload the state above from it; answer with
    /// [`Event::SnapshotInstalled`](crate::Event::SnapshotInstalled).
    FinishSnapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Give up a snapshot that was being fetched: remove its part file.
    AbandonSnapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Records below this offset are committed and may be applied. Only rises.
    HighWatermark(Offset),
    /// The log holds again whatever this node may have acknowledged before it lost a part
    /// ([`Memory`](crate::Memory)), and that is durable, or it turned out that nothing was lost: it votes.
    Rebuilt,
    /// This node's role or the known leader changed.
    Role(RoleChange),
    /// Safety is gone (committed data would have to be dropped, for one): stop the process.
    Fatal(Fault),
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The node's id; `None` for a bootstrap server, whose id isn't known.
    pub node_id: Option<NodeId>,
    /// Where it listens.
    pub endpoint: Endpoint,
}

/// Who leads, and whether that is us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The leader, if one is known.
    pub leader_id: Option<NodeId>,
    /// Whether this node leads and may be proposed to. The first proposal comes after the epoch's control batch,
    /// which has been appended before.
    pub is_leader: bool,
    /// Whether this node asks the others for their votes, or whether they would give them.
    pub is_standing: bool,
}

/// Why the node must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The leader's log lacks records that were committed.
    #[error(
        "the leader of epoch {epoch} asks to truncate the metadata log to {to}, below the high watermark {high_watermark}"
    )]
    TruncationBelowHighWatermark {
        /// Where to.
        to: Offset,
        /// What was committed.
        high_watermark: Offset,
        /// Whose.
        epoch: LeaderEpoch,
    },
}
