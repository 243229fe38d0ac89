//! The bytes of logs, young in memory and for good in files. Knows neither requests nor what a partition's role is.

pub mod frames;
pub mod log_read;
pub mod log_recovery;
pub mod open_files;
pub mod padding;
pub mod read_ahead;
#[cfg(test)]
mod read_ahead_tests;
pub mod segment_store;
