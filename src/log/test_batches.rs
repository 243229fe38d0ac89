//! Batches for this crate's tests.

use bytes::Bytes;
use ringlog_protocol::records::{
    BatchBuilder, BatchOptions, BatchRef, EndTransactionMarker, ProducerStamp, end_transaction_batch,
};
use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use crate::LogBatch;

/// What a test batch is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) offset: i64,
    pub(crate) count: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) timestamp: i64,
    pub(crate) value_len: usize,
    pub(crate) producer: (i64, i16, i32),
    pub(crate) transactional: bool,
}

pub(crate) const PLAIN: Spec = Spec {
    offset: 0,
    count: 1,
    leader_epoch: 0,
    timestamp: 1000,
    value_len: 10,
    producer: (-1, -1, -1),
    transactional: false,
};

impl Spec {
    pub(crate) fn bytes(&self) -> Bytes {
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(self.offset),
            partition_leader_epoch: LeaderEpoch(self.leader_epoch),
            producer: ProducerStamp {
                producer_id: ProducerId(producer_id),
                producer_epoch: ProducerEpoch(producer_epoch),
                base_sequence,
            },
            is_transactional: self.transactional,
            ..BatchOptions::default()
        });
        let value = vec![7; self.value_len];
        for _ in 0..self.count {
            builder.append(TimestampMs(self.timestamp), Some(b"k"), Some(&value), &[]);
        }
        builder.build()
    }

    pub(crate) fn batch(&self) -> LogBatch {
        parse(&self.bytes())
    }
}

pub(crate) fn parse(bytes: &[u8]) -> LogBatch {
    LogBatch::of(&BatchRef::parse(bytes).unwrap()).unwrap()
}

/// A marker of coordinator epoch `coordinator_epoch`.
pub(crate) fn marker_bytes(offset: i64, producer: (i64, i16), is_commit: bool, coordinator_epoch: i32) -> Bytes {
    end_transaction_batch(
        Offset(offset),
        LeaderEpoch(0),
        TimestampMs(1000),
        ProducerId(producer.0),
        ProducerEpoch(producer.1),
        EndTransactionMarker { is_commit, coordinator_epoch },
    )
}

pub(crate) fn marker(offset: i64, producer: (i64, i16), is_commit: bool, coordinator_epoch: i32) -> LogBatch {
    parse(&marker_bytes(offset, producer, is_commit, coordinator_epoch))
}
