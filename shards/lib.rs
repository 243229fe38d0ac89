//! What runs on each core: connections, request handlers, segment files, the drivers of the controller and the
//! coordinators.
//!
//! A node is a set of pinned executors that share nothing but immutable values (`boot` starts them). What the parts of the
//! node keep on one core are its rooms ([`core::Room`]), each in a folder of its own; [`shard::Shard`] puts them together.
//! Cores talk by calls between rooms of the same type only ([`mesh`]). The machines that decide live in the `ringlog-*`
//! core crates; here is the linear async code that does what they decided. Nothing here knows glommio: `ringlog_ring` does.
//!
//! Follow a request: `net/connection` → `dispatch` → `data/produce` or `data/fetch` → `data/replica` →
//! `storage/segment_store`.

mod admin;
mod admit;
mod boot;
mod broker;
#[cfg(test)]
mod config_use_tests;
mod controller;
mod coordinator;
mod core;
mod data;
mod descriptors;
mod directories;
mod dispatch;
#[cfg(test)]
#[path = "../tests/data/fixtures.rs"]
mod fixtures;
mod flag;
mod format;
mod lasting;
mod log_dirs;
pub mod log_levels;
mod mesh;
mod metadata;
mod metrics;
mod net;
mod node;
mod placement;
mod rarely;
mod scatter;
#[cfg(test)]
mod served_tests;
mod shard;
mod stop;
mod storage;
#[cfg(test)]
mod test_metadata;

pub use boot::{RunningNode, StartFault, start};
pub use data::replica::LogCut;
pub use format::{DirectoryFormat, format_directory};
pub use metrics::Leftovers;
pub use placement::shard_of;
pub use ringlog_ring::{block_on, fs::now as files_now};
pub use stop::StopRequest;
