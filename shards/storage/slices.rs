//! Bytes of a log as they are found: in frames of its young end, or in buffers that the disk read into.

use bytes::Bytes;
use smallvec::SmallVec;

/// Slices that follow each other in a log.
pub type Slices = SmallVec<[Bytes; 4]>;
