//! Group coordination as replicated state: a request decides which records to write and what to answer, and an answer
//! leaves only when its records are written.
//!
//! Runs on the shard that leads a partition of `__consumer_offsets`; its view is that partition's groups. It knows
//! neither sockets nor logs nor clocks: time, randomness and the topics that exist are passed in.

pub mod group;
