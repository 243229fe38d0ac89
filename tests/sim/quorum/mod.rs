//! Whole metadata quorums.

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
