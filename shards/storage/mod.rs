//! The bytes of logs, young in memory and for good in files. Knows neither requests nor what a partition's role is.

pub mod cache_memory;
pub mod context;
pub mod disk_faults;
pub mod disk_space;
pub mod frames;
mod generations;
pub mod log_read;
pub mod log_recovery;
pub mod memory_limit;
pub mod open_files;
pub mod padding;
pub mod read_ahead;
#[cfg(test)]
mod read_ahead_tests;
pub mod read_cache;
pub mod segment_store;
pub mod slices;
