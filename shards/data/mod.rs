//! Records: what Produce and Fetch do, and the replicas that they do it with.

pub mod batch_checks;
pub mod fetch;
mod fetch_room;
pub mod produce;
pub mod replica;
