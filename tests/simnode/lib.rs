//! Whole nodes in a simulated world: the production `shards` on the simulated back end of `ringlog_ring`, started as the
//! command starts them, reached over simulated sockets with the real protocol only, and hit by what hits nodes: kills,
//! power failures, cuts, slow and failing disks.
//!
//! One seed decides a run ([`plan`]): the nodes ([`cluster`], [`node`]), what goes wrong ([`nemesis`]), and what clients
//! do ([`client`]). [`check`] knows what they were told. [`run`] plays it. Built with `--cfg ringlog_sim`; without it this
//! crate is empty.
#![cfg(ringlog_sim)]

pub mod check;
pub mod client;
pub mod cluster;
mod kafka_peer;
pub mod nemesis;
pub mod node;
pub mod plan;
pub mod quorum;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod story;
pub mod weather;
pub mod workload;
