//! What the driver tells the machine.

use bytes::Bytes;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_types::Offset;

use crate::control_history::ControlHistory;
use crate::snapshot_name::SnapshotId;

/// Names a request that the driver passed in; comes back once, with the answer, in
/// [`Action::Reply`](crate::Action::Reply). Chosen by the driver, unique among open requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// Names a request that the machine sends; comes back at most once in [`Event::Response`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// Names a read of log or snapshot bytes; comes back exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadToken(pub u64);

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// Time passed; due at [`Raft::next_deadline`](crate::Raft::next_deadline), harmless at any time.
    Tick,
    /// A peer asks: Vote, BeginQuorumEpoch, EndQuorumEpoch, Fetch (of the metadata topic), FetchSnapshot,
    /// DescribeQuorum, AddRaftVoter, RemoveRaftVoter or UpdateRaftVoter. Other requests are a programmer's error.
    Request {
        /// For the answer.
        token: ReplyToken,
        /// Name of the listener that it came in by: answers name endpoints of that listener.
        listener: String,
        /// Version of the request.
        api_version: i16,
        /// The request.
        request: RequestBody,
    },
    /// The answer to one of our requests, or why there is none.
    Response {
        /// Token of the request.
        token: RequestToken,
        /// The answer.
        result: Result<ResponseBody, SendError>,
    },
    /// What had been appended before the open [`Action::FlushLog`](crate::Action::FlushLog) is on stable storage.
    LogFlushed,
    /// Answers [`Action::ReadLog`](crate::Action::ReadLog).
    LogRead {
        /// Token of the read.
        token: ReadToken,
        /// Whole batches from the offset on, at least one; a failure makes the peer ask again.
        result: Result<Vec<Bytes>, ReadFailed>,
    },
    /// Answers [`Action::ReadSnapshot`](crate::Action::ReadSnapshot).
    SnapshotRead {
        /// Token of the read.
        token: ReadToken,
        /// A chunk of the file.
        result: Result<SnapshotChunk, SnapshotReadError>,
    },
    /// Answers [`Action::FinishSnapshot`](crate::Action::FinishSnapshot).
    SnapshotInstalled {
        /// Which.
        id: SnapshotId,
        /// The control records of the installed snapshot, over the static configuration; a failure (damaged file)
        /// makes the machine fetch the snapshot again.
        result: Result<Box<ControlHistory>, ReadFailed>,
    },
    /// This node wrote a snapshot of its own state.
    SnapshotCreated {
        /// Which; its end offset is at most the high watermark.
        id: SnapshotId,
    },
    /// Old snapshots and log segments were deleted.
    LogStartAdvanced {
        /// New start of the log: the end offset of the oldest snapshot that is left.
        log_start_offset: Offset,
    },
    /// This node wants to give up leadership of that epoch (a failure in the controller above). Ignored if it isn't
    /// the leader of that epoch.
    Resign {
        /// The epoch.
        epoch: ringlog_types::LeaderEpoch,
    },
    /// This node is about to stop: a leader resigns and hands over. The driver goes on stepping until
    /// [`Raft::may_shut_down`](crate::Raft::may_shut_down) or its own limit (Kafka's: 5 s).
    ShutDown,
}

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Not connected, connection lost, or not answered in time.
    Disconnected,
    /// Nothing listens at the destination: the host is there and refuses the connection, so the process is gone.
    Refused,
    /// The peer doesn't speak a version in which the request can be said (such as PreVote, Vote v2).
    UnsupportedVersion,
    /// The bytes of the answer don't decode.
    Malformed,
}

/// Bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadFailed;

/// Part of a snapshot's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Length of the whole file, in bytes.
    pub size: u64,
    /// Bytes from the position that was asked for; may be fewer than asked for, but not none.
    pub bytes: Bytes,
}

/// Why a snapshot can't be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotReadError {
    /// No such file (any more).
    NotFound,
    /// The position is not inside of the file.
    PositionOutOfRange,
}
