//! A node's log directories: which there are, the logs in them, and the files that say what state they are in.
//!
//! Life of a directory:
//! 1. [`check_and_lock`], before any executor runs: it is formatted, ours and nobody else's.
//! 2. [`open`] on every shard: each finds the logs that live on it (`scan`), recovers them where the last stop was no
//!    orderly one (`recover`), and keeps them until the metadata claims them ([`LogDirs::claim_all`]).
//! 3. While it serves: `background` (retention, flushes, expiry of producers, removal of what was deleted) runs as one
//!    task per shard; shard 0 also writes the `checkpoints` of the whole node.
//! 4. [`close_all`]: every log is written out with its indexes, then the checkpoints, then `.kafka_cleanshutdown`.
//!
//! What a crash leaves at any moment is made good by 2. The rules that this rests on:
//! * a recovery point never passes bytes, or index files of a sealed segment, that aren't on the device;
//! * index files of the active segment are only trusted together with the clean-shutdown marker, which is removed
//!   before anything else is touched and written after everything else is on the device;
//! * a checkpoint never names an offset for a log that is gone once another log may take its name.
//!
//! A replica that is to lie in another directory gets a second log there (`relocation`), which is filled beside (`mover`) and takes
//! the first one's place.
//!
//! An I/O error takes its directory offline until the next start ([`LogDirs::fail`]), but for a full disk (`space`) and a
//! lack of descriptors, which pass.

mod background;
mod check;
mod checkpoint_rounds;
mod checkpoints;
mod claim;
mod close;
mod cordon;
mod deletion;
mod describe;
mod fault;
mod leftovers;
mod mover;
mod moves;
mod names;
mod offline;
mod open;
mod recover;
mod relocation;
mod removal;
mod removals;
mod room;
mod scan;

#[cfg(test)]
pub(crate) mod tests;

pub use check::check_and_lock;
pub use claim::Claim;
pub use close::close_all;
pub use describe::{DirectoryDescription, LogDescription};
pub use fault::LogDirFault;
pub use moves::WantedAssignments;
pub use open::open;
pub use room::LogDirs;
