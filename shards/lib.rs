//! What runs on each core: connections, request handlers, segment files, the drivers of the controller and the
//! coordinators.
//!
//! A node is a set of pinned executors that share nothing but immutable values (`boot` starts them). [`shard::Shard`]
//! is what one core owns. Cores talk through [`mesh`] only. The machines that decide live in the `ringlog-*` core
//! crates; here is the linear async code that does what they decided. Nothing here knows glommio: `ringlog_ring` does.
//!
//! Follow a request: `connection` → `dispatch` → `produce` or `fetch` → `replica` → `segment_store`.

mod admin;
mod admission;
mod batch_checks;
mod boot;
mod broker_lifecycle;
#[cfg(test)]
mod config_use_tests;
mod connection;
mod connection_limits;
mod controller;
mod controller_api;
mod coordinator;
mod descriptors;
mod dispatch;
mod fetch;
mod fetch_room;
#[cfg(test)]
#[path = "../tests/data/fixtures.rs"]
mod fixtures;
mod flag;
mod format;
mod frames;
mod lasting;
mod listener;
pub mod log_levels;
mod log_manager;
mod log_read;
mod mesh;
mod metadata_publisher;
mod metrics;
mod open_files;
mod pace;
mod padding;
mod peer;
mod placement;
mod produce;
mod rarely;
mod read_ahead;
#[cfg(test)]
mod read_ahead_tests;
mod replica;
mod request_memory;
mod response_memory;
mod segment_store;
#[cfg(test)]
mod served_tests;
mod shard;
mod stop;
#[cfg(test)]
mod test_metadata;

pub use boot::{RunningNode, StartFault, start};
pub use format::{DirectoryFormat, format_directory};
pub use placement::shard_of;
pub use ringlog_ring::{block_on, fs::now as files_now};
pub use stop::StopRequest;
