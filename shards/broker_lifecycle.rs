//! The broker's registration, heartbeats and controlled shutdown.

use std::rc::Rc;

use crate::shard::Shard;

/// Why the broker doesn't come up.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleFault {}

/// Registers, catches up, opens listeners.
pub async fn start(_shard: &Rc<Shard>) -> Result<(), LifecycleFault> {
    Ok(())
}

/// Hands leadership over.
pub async fn stop(_shard: &Rc<Shard>) {}
