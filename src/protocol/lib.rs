//! Kafka's messages, record schemas and record batches: bytes in, values out, and back.

pub mod records;
