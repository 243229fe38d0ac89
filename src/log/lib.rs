//! One partition's log as data: formats of its files, where a batch goes, what a read covers, what recovery and retention do.
//!
//! The formats are Kafka's, byte for byte; `names` draws the directory, each other format module its file.

pub mod checkpoint;
pub mod clean_shutdown;
pub mod meta_properties;
pub mod names;
pub mod offset_index;
pub mod partition_metadata;
pub mod producer_snapshot;
pub mod segment_index;
pub mod time_index;
pub mod transaction_index;
pub mod validator;
