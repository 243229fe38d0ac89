//! Drives the group coordinators of the `__consumer_offsets` partitions that live on this core.

/// The coordinators of one core.
#[derive(Default)]
pub struct Coordinators {}
