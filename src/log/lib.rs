//! One partition's log as data: formats of its files, where a batch goes, what a read covers, what recovery and retention do.
//!
//! The formats are Kafka's, byte for byte; `names` draws the directory, each other format module its file. [`Log`] is
//! the bookkeeping over them: it touches no file, the segment store asks it, does the I/O and reports back.

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

mod config;
mod leader_epoch_cache;
mod list_offsets;
mod log;
mod log_batch;
mod producer_state;
mod recovery;
mod retention;
mod segment;
#[cfg(test)]
mod test_batches;

pub use config::LogConfig;
pub use leader_epoch_cache::{EpochEndOffset, LeaderEpochCache};
pub use log::{
    DeletedSegment, ListOffsetPlan, Location, Log, LogAppendError, OffsetOutOfRange, OpenedLog, Placement, ReadEnd,
    Roll, list_offsets_timestamp,
};
pub use log_batch::LogBatch;
pub use producer_state::{
    BATCHES_RETAINED, CompletedTransaction, ProducerBatch, ProducerCheck, ProducerError, ProducerStateEntry,
    ProducerStateManager, TransactionRules, VerificationGuard,
};
pub use recovery::{
    Continuity, LoadedIndexes, Recovered, Recovery, RecoveryAction, RecoveryInput, RecoveryStep, SegmentOnDisk,
    TruncationPlan,
};
pub use retention::{RetentionOutcome, RetentionReason};
pub use segment::{ActiveSegment, SealedSegment, SegmentPosition};
