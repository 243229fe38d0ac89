//! What programs show of themselves.

use super::world;

/// Shows a value to the world's observers.
pub fn observe<T: 'static>(value: &T) {
    let (Some(world), Some(core)) = (world::try_world(), world::try_current()) else { return };
    if !core.process.has_ended() {
        world.trace.observe(value);
    }
}

/// What the caller has just computed takes so long on a real core.
pub fn spend_ns(ns: u64) {
    if let Some(core) = world::try_current() {
        core.spend(ns);
    }
}
