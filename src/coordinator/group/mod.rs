//! Consumer groups: membership by the classic protocol and committed offsets (KIP-62, 345, 394, 814, 848's records).
//!
//! One [`GroupCoordinator`] holds the groups of one partition of `__consumer_offsets`. How a driver uses it:
//!
//! 1. On becoming leader: [`GroupCoordinator::new`], [`GroupCoordinator::replay_record`] for every data record and
//!    [`GroupCoordinator::replay_end_transaction`] for every control record from the log's start, then
//!    [`GroupCoordinator::finish_loading`]. Until then requests get [`error_response`] with
//!    `COORDINATOR_LOAD_IN_PROGRESS`, on other nodes with `NOT_COORDINATOR`.
//! 2. A request goes to [`GroupCoordinator::handle`]. A request that names several groups is first cut by partition
//!    with [`split`], its answers are put together with [`merge`].
//! 3. Every call returns [`Effects`]: answers to send now, and writes to append (acks=all) in the given order. When a
//!    write is below the high watermark [`GroupCoordinator::on_written`] is called with its token, in append order;
//!    when it was not appended [`GroupCoordinator::on_write_failed`].
//! 4. [`GroupCoordinator::on_tick`] is called when [`GroupCoordinator::next_deadline`] is reached.
//! 5. On losing leadership: [`GroupCoordinator::resign`] answers everybody who waits.
//!
//! Offsets change only when their record is written, so a fetch reads what is committed and a failed write needs no
//! undoing. Membership is session state, as in Kafka: it lives in memory, and what outlasts a move is the
//! `GroupMetadata` record that is written before the answers to SyncGroup.

mod admin;
mod api;
mod classic;
mod commit;
mod config;
mod coordinator;
mod expiry;
mod fanout;
mod fetch;
mod membership;
mod offsets;
mod rebalance;
mod records;
mod requests;
mod shared;
mod state;
mod subscription;
mod timer;

pub use api::{Effects, LogRecord, RequestContext, Token, TopicView, TransactionalProducer, Write, WriteToken};
pub use config::GroupConfig;
pub use coordinator::GroupCoordinator;
pub use fanout::{Asked, Route, error_response, finish, merge, partition_of_group, split};
pub use records::ReplayError;
