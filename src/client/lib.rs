//! A small blocking Kafka client for the command line tools, the tests and the load generator.
//!
//! One thread, one socket per node, no background work: what is not called does not happen. [`Client`] routes requests
//! (metadata, leaders, coordinators, the active controller); [`Connection`] is one socket, also for pipelining frames that were encoded
//! before; [`Producer`] and [`Consumer`] stand on them.
//!
//! It is the one crate under `src/` that opens sockets and reads the clock. It knows nothing of Ringlog: anything that
//! speaks Kafka's protocol may be at the other end.
#![allow(clippy::disallowed_methods, reason = "a blocking client has sockets, so it needs the clock for its timeouts")]

mod admin;
mod bootstrap;
mod client;
mod connection;
mod consumer;
mod error;
mod group;
mod group_offsets;
mod metadata;
mod options;
mod patience;
mod producer;
mod versions;

#[cfg(test)]
mod tests;

pub use admin::Target;
pub use bootstrap::{Bootstrap, Role};
pub use client::{Client, CoordinatorType};
pub use connection::Connection;
pub use consumer::{
    AutoOffsetReset, ConsumedHeader, ConsumedRecord, Consumer, ConsumerOptions, StartOffset, Subscription,
};
pub use error::ClientError;
pub use metadata::{Broker, Metadata, Partition, Topic};
pub use options::ClientOptions;
pub use producer::{Delivery, NewRecord, Producer, ProducerOptions, RecordSizes, murmur2, partition_of_key};
pub use versions::NodeVersions;
