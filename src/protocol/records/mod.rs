//! Record batches of magic 2, the unit that Kafka sends, stores and replicates.
//!
//! Reading is by view: [`BatchIter`] walks concatenated batches, [`BatchRef`] is one of them, [`RecordRef`] one record in
//! it; none of them copies, and only a compressed batch needs a [`Scratch`] buffer, which has a limit. [`BatchBuilder`]
//! writes a batch as the Java client does. The patch helpers change what a leader may change in a stored batch.
//!
//! Every byte may come from a peer: nothing here panics on input, and each number is checked before it is used.

mod batch;
mod builder;
mod compression;
mod control;
mod header;
mod record;
#[cfg(test)]
mod tests;
mod unpack;
pub mod varint;
mod walk;

pub use batch::{BatchIter, BatchRef, Scratch};
pub use builder::{BatchBuilder, BatchOptions, ProducerStamp, value_record_len};
pub use compression::{Compression, DecompressError};
pub use control::{ControlRecordType, EndTransactionMarker, control_batch, end_transaction_batch};
pub use header::{
    BATCH_HEADER_LEN, BATCH_LENGTH_PREFIX_LEN, BatchError, BatchHeader, MAGIC, TimestampType,
    set_base_offset_and_epoch, set_log_append_time, set_max_timestamp,
};
pub use record::{RecordError, RecordHeader, RecordHeaders, RecordIter, RecordRef};
pub use unpack::{UNREAD_MAX, Unpacker};
pub use walk::{RecordSketch, RecordWalk};

/// The sequence number `count` after `sequence`: it wraps from 2147483647 to 0 (KIP-98).
#[inline]
pub fn sequence_plus(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}
