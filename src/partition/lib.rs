//! One replica of a partition: offsets, epochs, in-sync replicas, producers, reads and the requests that wait on them.
//!
//! Runs on the shard that owns the partition; the view is that of this one replica. It does no I/O: an append is
//! prepared here, written by the segment store, and reported back with [`Partition::on_durable`]. A record is visible
//! to all but followers, and acknowledged, only after that: the log's end counts what has offsets, the durable end what is on the device.
//! Appends may be in flight together; they become durable in order. A failed write ends the replica.

mod append;
mod fetch_session;
mod in_sync;
mod leader_fetch;
mod offsets;
mod partition;
mod preferred;
mod read;
mod replica;
mod replicated;
mod replication_quota;
mod unserved;

pub use append::{AppendContext, AppendError, DuplicateAppend, LeaderAppend, PreparedAppend};
pub use fetch_session::{
    FetchContext, FetchSessionCache, FetchSessionCacheLimits, FinishedFetch, ForgottenPartition, PartitionResult,
    SessionError, SessionPartition, SessionRequest, SessionTopic,
};
pub use in_sync::{AlterPartitionOutcome, AlterPartitionProposal, InSyncReplicas};
pub use leader_fetch::{FetchPosition, FollowerThrottle, LeaderFetch, NextFetch, backoff_ms};
pub use offsets::{DeleteRecordsError, ListOffsetsRequest, OffsetError, Truncation};
pub use partition::{Effects, FollowerState, LeaderState, Partition, PartitionLimits, RecoveryState, Role, Standing};
pub use read::{IsolationLevel, ReadError, ReadInfo, ReadPlan, ReadRequest, Reader};
pub use replica::{FollowerFetch, RemoteReplica};
pub use replicated::{FollowerAppend, FollowerAppendError};
pub use replication_quota::{QuotaWindows, ReplicationQuota, UNLIMITED};
pub use unserved::Unserved;
