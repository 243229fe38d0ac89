//! Whole metadata quorums: controllers, observers, brokers and administrators in one thread and one virtual time.
//!
//! ```text
//!   clients ──► network: packets that are late, lost, doubled, cut off ◄──────────┐
//!                  │                                                              │
//!                  ▼ one per host                                                 │ peers
//!   process:  driver ──► QuorumNode (raft, controller, image: production) ──► Work┤
//!                ▲                                                                ▼
//!             finished ◄── metadata_log, snapshot_files ──► segment_store ──► device (crate::disk)
//!
//!   nemesis: crashes, power, pauses, cuts, slow, failing and full disks, rot, wiped disks, new addresses, clocks
//!   check:   sees packets, work, publications and disks, and shares no code with what it checks
//! ```
//!
//! `driver`, `loading`, `metadata_log`, `recovery`, `snapshot_files` and `peers` go the steps of their namesakes in
//! `shards/controller`, and `segment_store` those of `shards/storage/segment_store.rs`, on `ring`, a small executor whose tasks
//! wait for the device and for time; a process may die at each of their steps. `plan` draws from the seed what a run is
//! like, `scenarios` says how it goes: trouble, then everything is mended and has to work again.

mod check;
mod clients;
mod device;
mod driver;
mod host;
mod loading;
mod metadata_log;
mod nemesis;
mod network;
mod peers;
mod plan;
mod recovery;
mod reply;
mod ring;
mod scenarios;
mod segment_store;
mod shared;
mod snapshot_files;
mod time;
mod world;

pub(crate) use plan::Kind;
pub(crate) use scenarios::run;
