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

mod batch_summary;
mod config;
mod leader_epoch_cache;
mod log;
mod producer_state;
mod segment;

pub use batch_summary::{AppendOrigin, BatchSummary, EndTransactionMarker, sequence_plus};
pub use config::{LogConfig, MessageTimestampType, TopicCompression};
pub use leader_epoch_cache::{EpochEndOffset, EpochEntry, LeaderEpochCache};
pub use log::{
    DeletedSegment, ListOffsetPlan, Location, Log, LogAppendError, OffsetOutOfRange, OpenedLog, Placement, ReadEnd,
    Roll, collect_aborted, list_offsets_timestamp,
};
pub use producer_state::{
    BATCHES_RETAINED, CompletedTransaction, ProducerBatch, ProducerCheck, ProducerError, ProducerSnapshotEntry,
    ProducerStateEntry, ProducerStateManager, TransactionRules, VerificationGuard,
};
pub use segment::{
    ActiveSegment, OffsetIndexEntry, SealedSegment, SegmentPosition, TimeIndexEntry, lookup_position,
};
