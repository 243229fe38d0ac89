//! The cluster's metadata: image and delta, and the controller's decisions.
//!
//! * [`image`]: the immutable [`MetadataImage`], what replay of the committed metadata log gives, with [`MetadataDelta`]
//!   and [`MetadataLoader`] that build the next one. The same on every node.
//! * [`controller`]: the active controller as replicated state. A request gives records and a response; state changes
//!   only by replay of those records.
//! * [`features`]: `metadata.version`, the other features and what each level allows.
//! * [`bootstrap`]: the records that a formatted log directory starts with.
//!
//! No socket, file, clock or thread: `now` is a parameter, randomness is seeded, and the log is somebody else's.

pub mod bootstrap;
pub mod controller;
pub mod features;
pub mod image;
pub mod scram;

pub use controller::{Controller, ControllerConfig, ControllerResult, RequestContext};
pub use features::MetadataVersion;
pub use image::{MetadataChanges, MetadataDelta, MetadataImage, MetadataLoader, Provenance, ReplayError};
