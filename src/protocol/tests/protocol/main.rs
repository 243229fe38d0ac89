//! The message layer from outside: against Kafka's bytes, another implementation, damaged and random input.

mod common;
mod cross_check;
mod frames;
mod records;
mod vectors;
