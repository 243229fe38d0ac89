//! The cores under a simulated disk, clock and schedule: one seed is one run, and repeats it.
//!
//! ```text
//!   producers ──► Partition ──► store: tails, passes ──► Disk: sectors, names, what is synced
//!   (clients)     (production)  (as shards/ does it,     (kill: writes in flight are torn;
//!      │                         one step at a time)      power loss: what isn't synced is lost in part)
//!      ▼                                                       │ crash
//!   Ledger: what was promised ◄──── check ◄──── Recovery ◄─────┘
//!                                  (this crate)  (production)
//! ```
//!
//! `ringlog_partition`, `ringlog_log` and `ringlog_coordinator` are the production crates. What stands between them and
//! the disk in a node (`shards/storage/segment_store.rs`, `shards/data/replica.rs`, `shards/log_dirs/`) is async code, and is
//! mirrored here by `store`, `tasks`, `world` and `recover` with the same steps in the same order; a random schedule
//! picks which task makes its next step, and a crash may come between any two. [`Bug`] breaks that order on purpose, to
//! see that the checkers find it.
//!
//! The module `quorum` does the same with whole metadata quorums, over a network. `hunt` runs seeds of all scenarios;
//! `mutants/` lists mistakes in the production crates that it must find (`cargo xtask sim --mutants`).
//!
//! Random numbers come in separate streams for schedule, disk and workload; checkers draw none.

mod bug;
mod check;
mod client;
mod disk;
mod groups;
mod index_rule;
mod ledger;
mod quorum;
mod recover;
mod runner;
mod store;
mod tasks;
mod trace;
mod world;

pub use bug::Bug;
pub use runner::{Failure, Scenario, Stats, run, run_aloud};

/// What a checker found, in a sentence.
pub type Violation = String;

/// Ends with a violation unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use ensure;
