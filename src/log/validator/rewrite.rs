//! Writes a batch anew: with the topic's codec, or with its records numbered.

use bytes::Bytes;
use ringlog_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchOptions, BatchRef, Compression, ProducerStamp, RecordIter,
    Unpacker,
};
use ringlog_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs};

use super::{BatchRules, TopicCompression, ValidationError};

/// Nanoseconds that packing a byte takes about, with the codec's default level.
fn packing_ns(target: Compression) -> usize {
    match target {
        Compression::None => 1,
        Compression::Snappy | Compression::Lz4 => 3,
        Compression::Zstd => 10,
        Compression::Gzip => 60,
    }
}

/// Whether this takes so long that a core with more to do lets a thread apart do it.
pub(super) fn is_long(target: Compression, unpacked_len: usize) -> bool {
    const LONG_NS: usize = 2_000_000;
    unpacked_len.saturating_mul(packing_ns(target)) > LONG_NS
}

/// The records, all of which were read before, in a new batch from offset 0 on.
pub(super) fn rewrite(
    header: BatchHeader,
    payload: &[u8],
    target: Compression,
    rules: &BatchRules,
    unpacker: &mut Unpacker,
) -> Result<(BatchHeader, Bytes), ValidationError> {
    // Kafka's writer of batches refuses what its reader takes.
    let fail = |message: String| Err(ValidationError::new(ErrorCode::UnknownServerError, message));
    if header.has_producer_id() && header.producer_epoch.0 == -1 {
        return fail("Invalid negative producer epoch".to_owned());
    }
    let source = header.compression().map_err(|fault| ValidationError::unreadable(&fault))?;
    let mut unpacked = Vec::new();
    unpacker.begin(source, rules.unpacked_bytes_max);
    unpacker.rest_into(payload, &mut unpacked).map_err(|fault| ValidationError::unreadable(&fault.into()))?;
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: Offset(0),
        partition_leader_epoch: LeaderEpoch::NONE,
        compression: target,
        compression_level: match rules.compression {
            TopicCompression::Codec { compression, level } if compression == target => level,
            _ => None,
        },
        log_append_time: None,
        producer: ProducerStamp {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        },
        is_transactional: header.is_transactional(),
        is_control: header.is_control(),
        delete_horizon: None,
    });
    for record in RecordIter::new(header, &unpacked) {
        let record = record.map_err(|fault| ValidationError::unreadable(&fault))?;
        if record.timestamp < TimestampMs::NONE {
            return fail(format!("Invalid negative timestamp {}", record.timestamp));
        }
        builder.append_at(builder.next_offset(), record.timestamp, record.key, record.value, record.headers);
    }
    drop(unpacked);
    let bytes = builder.build();
    let header = BatchRef::parse(&bytes).map_err(|fault| ValidationError::unreadable(&fault))?.header;
    Ok((header, bytes.slice(BATCH_HEADER_LEN..)))
}
