//! What the benches of whole nodes share: the sides that are compared, tables of results, and what a process has used.

pub mod flow;
pub mod load;
pub mod sides;
pub mod table;
pub mod usage;
