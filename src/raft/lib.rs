//! KRaft's consensus as a state machine: one event in, effects out.
//!
//! The machine of one node (voter or observer) of the metadata quorum: elections (KIP-595, KIP-853, KIP-996), pull
//! replication, high watermark, snapshots (KIP-630), voter changes. It runs on the controller's core, sees this node
//! only, does no I/O and holds no log bytes; the driver carries out its [`Effects`] in order.
//!
//! ```text
//! let mut raft = Raft::new(config, loaded, random, now);
//! loop {                                            // the driver
//!     let effects = raft.step(event, now);          // or raft.propose(..)
//!     match effects.into_step() {
//!         Step::PersistFirst(first) => { write(first.quorum_state).await; run(first.persisted()) }
//!         Step::Ready(actions) => run(actions),
//!     }
//!     sleep until raft.next_deadline(), then Event::Tick
//! }
//! ```

pub mod config;
pub mod control_history;
pub mod control_records;
mod effects;
pub mod epochs;
mod event;
mod machine;
pub mod quorum_state;
pub mod refusals;
pub mod snapshot;
pub mod snapshot_name;
pub mod voters;

pub use config::RaftConfig;
pub use control_history::ControlHistory;
pub use effects::{Action, Destination, Effects, Fault, PersistFirst, RoleChange, Step};
pub use epochs::{EpochStart, LeaderEpochs};
pub use event::{Event, ReadFailed, ReadToken, ReplyToken, RequestToken, SendError, SnapshotChunk, SnapshotReadError};
pub use machine::{KRaftVersionError, LoadedState, MAX_BATCH_LEN, Memory, ProposeError, Proposed, Raft};
pub use quorum_state::{QuorumState, QuorumStateVersion};
pub use snapshot_name::{SnapshotFile, SnapshotId};
pub use voters::{Endpoint, Endpoints, ReplicaKey, VersionRange, Voter, VoterSet};
