//! The metadata quorum on whole nodes: controllers, and brokers that follow it, whose elections, logs, snapshots and images
//! are checked from outside. [`plan`] says what a run is like, [`run`] plays it, [`clients`] keep the controllers busy,
//! [`nemesis`] does harm; [`check`] knows what may be, from what [`wire`] and [`disk_log`] read.

pub mod check;
pub mod clients;
pub mod disk_log;
pub mod nemesis;
pub mod plan;
mod requests;
pub mod run;
pub mod wire;
