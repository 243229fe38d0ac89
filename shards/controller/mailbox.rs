//! What the controller's task is told: requests, and what ran beside it.

use std::cell::Cell;
use std::rc::Rc;

use ringlog_protocol::ResponseBody;
use ringlog_quorum::{ControllerRequest, Input, LoadedSnapshot};
use ringlog_raft::SnapshotId;
use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, NodeId, Offset};

use super::metadata_log::SnapshotInfo;
use super::metadata_log_error::MetadataLogError;

/// What the mailbox takes.
pub enum Command {
    /// A request, and where its answer goes.
    Request(Box<ControllerRequest>, Reply),
    /// Nothing listens any more where a broker did, in this life of it.
    BrokerGone(NodeId, BrokerEpoch),
    /// Stop in order; the sender is dropped when that is done.
    Stop(ring::OneshotSender<()>),
}

/// Where an answer goes. Dropped: this node isn't the one to ask.
pub struct Reply {
    /// The answer's way.
    pub sender: ring::OneshotSender<ResponseBody>,
    /// Set when the request is taken: from then on it is done, or can't be.
    pub is_begun: Rc<Cell<bool>>,
}

/// What ran beside the task and comes back.
pub enum Finished {
    /// Something that the node waits for.
    Input(Box<Input>),
    /// A flush, begun in that generation of the log.
    Flushed(u64, Result<(), MetadataLogError>),
    /// A broker's copy of the log is in its file.
    WrittenOut(Result<(), MetadataLogError>),
    /// A fetched snapshot was looked at.
    Checked(SnapshotId, Option<(Box<LoadedSnapshot>, SnapshotInfo)>),
    /// Old snapshots were looked for; the log's start, if it moved.
    Cleaned(Result<Option<Offset>, MetadataLogError>),
    /// Bytes can't be read that must be there.
    Fault(MetadataLogError),
}

/// The mailboxes of the task.
pub struct Inboxes {
    /// Requests to the controller.
    pub controller: ring::LocalReceiver<Command>,
    /// Requests to raft.
    pub raft: ring::LocalReceiver<(Box<ControllerRequest>, Reply)>,
}
