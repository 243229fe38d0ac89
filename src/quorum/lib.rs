//! One node of the metadata quorum, without its disk and its network: consensus, the controller, the image.
//!
//! [`QuorumNode`] ties the cores together: what raft commits becomes the image that is published; what the controller
//! decides is proposed to raft and answered when it is committed; snapshots are taken of the image and put in its place.
//! A controller votes and may become active; a broker's node only follows. One input goes in, [`Work`] comes out, to be
//! carried out in its order:
//!
//! ```text
//! let mut node = QuorumNode::new(config, loaded, random, now);
//! loop {                                                   // the driver
//!     while let Some(work) = node.next_work() {
//!         carry_out(work).await;                           // Work::Persist: then node.on_persisted()
//!     }
//!     node.step(next_input(until: node.next_deadline()).await, now());
//! }
//! ```
//!
//! It runs on the controller's core, and has no files, sockets, clock or async, so that tests can put it into any
//! situation. [`start`] decides what to make of the files that a node finds.

pub mod durable_mark;
mod node;
mod request;
pub mod snapshot_load;
pub mod snapshots;
pub mod start;
mod work;

pub use node::{Input, QuorumConfig, QuorumNode};
pub use request::{ANONYMOUS, ControllerRequest, is_raft};
pub use snapshot_load::LoadedSnapshot;
pub use start::LoadedNode;
pub use work::{NodeFault, Work};
