//! What a node asks its driver to do.

use bytes::Bytes;
use ringlog_metadata::image::{LoadError, Publication};
use ringlog_protocol::records::BatchError;
use ringlog_protocol::{DecodeError, RequestBody, ResponseBody};
use ringlog_raft::{Destination, Fault, QuorumState, ReadToken, ReplyToken, RequestToken, RoleChange, SnapshotId};
use ringlog_types::{LeaderEpoch, Offset};

use crate::snapshots::SnapshotJob;

/// One thing to do. Works are handed out one at a time and are done in that order; those that answer with an input may
/// run beside the following ones.
#[derive(Debug)]
pub enum Work {
    /// Make the state durable, then call [`QuorumNode::on_persisted`](crate::QuorumNode::on_persisted); nothing else is
    /// handed out before.
    Persist(QuorumState),
    /// Drop everything of the log at and above `to`, a batch's first offset.
    TruncateLog {
        /// The new end.
        to: Offset,
    },
    /// Append these whole batches at `base_offset`, the log's end.
    AppendLog {
        /// Offset of the first record.
        base_offset: Offset,
        /// Log end offset afterwards.
        end_offset: Offset,
        /// The batches.
        batches: Bytes,
    },
    /// Make all that was appended durable, beside; answer with [`Input::LogFlushed`](crate::Input::LogFlushed).
    FlushLog,
    /// Send a request to a peer; see [`ringlog_raft::Action::Send`].
    Send {
        /// To whom.
        to: Destination,
        /// For the answer.
        token: RequestToken,
        /// The request.
        request: Box<RequestBody>,
    },
    /// Answer a request.
    Reply {
        /// The request.
        token: ReplyToken,
        /// The answer.
        response: Box<ResponseBody>,
    },
    /// A request will get no answer from this node, which doesn't lead (any more): whoever asked is to look for the
    /// active controller.
    Refuse {
        /// The request.
        token: ReplyToken,
    },
    /// Read whole batches from `from` up to the log's end, about `max_bytes` and at least one; answer with
    /// [`Input::LogRead`](crate::Input::LogRead).
    ReadLog {
        /// For the answer.
        token: ReadToken,
        /// First offset.
        from: Offset,
        /// Soft limit.
        max_bytes: u32,
    },
    /// Read whole batches from `from` that begin below `to`, a reasonable amount and at least one; answer with
    /// [`Input::Committed`](crate::Input::Committed).
    ReadCommitted {
        /// First offset.
        from: Offset,
        /// The high watermark.
        to: Offset,
    },
    /// Read bytes of a snapshot's file; answer with [`Input::SnapshotRead`](crate::Input::SnapshotRead).
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
    /// Write bytes of a snapshot that is being fetched into its part file; position 0 begins it anew.
    WriteSnapshot {
        /// Which.
        id: SnapshotId,
        /// First byte.
        position: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The part file is complete: load it ([`crate::snapshot_load::SnapshotLoading`]) and fsync it, beside; answer with
    /// [`Input::SnapshotChecked`](crate::Input::SnapshotChecked). A damaged one is removed.
    CheckSnapshot {
        /// Which.
        id: SnapshotId,
    },
    /// The checked snapshot takes the log's place: rename the part file, sync the directory, then empty the log so that
    /// it starts and ends at the snapshot's end, in its epoch.
    AdoptSnapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Give up a snapshot that was being fetched: remove its part file.
    AbandonSnapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Write a snapshot of this node's image, beside; answer with
    /// [`Input::SnapshotCreated`](crate::Input::SnapshotCreated).
    CreateSnapshot(Box<SnapshotJob>),
    /// Let old snapshots go ([`crate::snapshots::next_to_delete`] says which), and the log before the oldest that
    /// stays, beside; answer with [`Input::LogStartAdvanced`](crate::Input::LogStartAdvanced) if that moved it.
    CleanSnapshots,
    /// Hand these images to everybody on this node, in order, then send the answers.
    Publish {
        /// The images.
        publications: Vec<Publication>,
        /// Answers that belong to what they contain.
        answers: Vec<(ReplyToken, ResponseBody)>,
    },
    /// Who leads, and whether this node does, has changed.
    Role(RoleChange),
    /// For the operator's eyes: the active controller gives up its leadership, because of a fault of this node.
    Renounced {
        /// Of the leadership.
        epoch: LeaderEpoch,
        /// Why.
        reason: String,
    },
    /// What had been lost is there again and durable: the directory's mark need no longer say so.
    Rebuilt,
    /// Going on would be wrong: stop the process.
    Halt(NodeFault),
}

/// Why a node must stop.
#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    /// Consensus is broken.
    #[error(transparent)]
    Raft(#[from] Fault),
    /// Committed records contradict each other.
    #[error("the metadata can't be replayed: {0}")]
    Replay(#[from] LoadError),
    /// A committed record of a kind or version that this release doesn't know, or a damaged one.
    #[error("the metadata record at offset {offset} can't be read: {source}")]
    Record {
        /// Where it is.
        offset: Offset,
        /// What is wrong.
        source: DecodeError,
    },
    /// Committed bytes that are no batch.
    #[error("the metadata log can't be read at offset {offset}: {source}")]
    Batch {
        /// Where.
        offset: Offset,
        /// What is wrong.
        source: BatchError,
    },
    /// Committed bytes are not there.
    #[error("the metadata log holds nothing at offset {0}, which is committed")]
    Missing(Offset),
}
