//! Round trips and hostile bytes. What Kafka itself wrote is read in the crate's `tests/record_fixtures.rs`.
