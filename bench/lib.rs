//! What the benches of whole nodes share: tables of results, and what a process has used.

pub mod table;
pub mod usage;
