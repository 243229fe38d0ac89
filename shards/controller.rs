//! The controller's core: drives raft and the metadata machine.

use std::rc::Rc;

use crate::shard::Shard;

/// The controller as its core holds it.
pub struct ControllerHandle {}

/// Why the controller doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum ControllerFault {}

/// Loads the metadata log and joins the quorum.
pub async fn start(_shard: &Rc<Shard>) -> Result<(), ControllerFault> {
    Ok(())
}

/// Stops in order.
pub async fn stop(_shard: Rc<Shard>) {}
