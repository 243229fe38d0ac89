//! Idempotent producers: numbered batches, up to five on their way, each sent again after a restart that came before its
//! answer did.

use std::collections::VecDeque;

use bytes::Bytes;
use ringlog_protocol::records::{BatchBuilder, BatchOptions, ProducerStamp};
use ringlog_types::{Offset, ProducerEpoch, ProducerId, Random, TimestampMs};

use crate::ledger::BatchKey;

/// As `max.in.flight.requests.per.connection` allows with idempotence.
const IN_FLIGHT_MAX: usize = 5;

/// A batch that its producer hasn't heard of yet.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub key: BatchKey,
    pub batch: Bytes,
    /// As the node answered; the answer leaves when this is acknowledged.
    pub end_offset: Offset,
}

/// A producer.
#[derive(Debug)]
pub(crate) struct Producer {
    pub id: i64,
    epoch: i16,
    next_sequence: i32,
    pub in_flight: VecDeque<Sent>,
    /// To be sent again, in order, before anything new.
    pub retries: VecDeque<Sent>,
    /// A power loss took records of it: the node may find its sequence out of order.
    pub has_gap: bool,
}

impl Producer {
    pub(crate) fn new(id: i64) -> Producer {
        let (in_flight, retries) = Default::default();
        Producer { id, epoch: 0, next_sequence: 0, in_flight, retries, has_gap: false }
    }

    /// The next batch to send, if one may be.
    pub(crate) fn next(&mut self, random: &mut Random, now: TimestampMs) -> Option<Sent> {
        if let Some(retry) = self.retries.pop_front() {
            return Some(retry);
        }
        if self.in_flight.len() == IN_FLIGHT_MAX {
            return None;
        }
        let count = 1 + random.below(3) as i32;
        let key = (self.id, self.epoch, self.next_sequence);
        self.next_sequence += count;
        Some(Sent { key, batch: batch(Some(key), count, random, now), end_offset: Offset::NONE })
    }

    /// Answers arrive for what lies below `acknowledged`, as far as the network brings them.
    pub(crate) fn hear(&mut self, acknowledged: Offset) {
        while self.in_flight.front().is_some_and(|sent| sent.end_offset <= acknowledged) {
            self.in_flight.pop_front();
        }
    }

    /// The node went away: everything unanswered is sent again.
    pub(crate) fn on_restart(&mut self) {
        let mut again = std::mem::take(&mut self.in_flight);
        again.append(&mut self.retries);
        self.retries = again;
    }

    /// The node lost records of this producer: a new epoch starts at sequence 0.
    pub(crate) fn start_anew(&mut self) {
        self.epoch += 1;
        self.next_sequence = 0;
        self.in_flight.clear();
        self.retries.clear();
        self.has_gap = false;
    }
}

/// A batch with values of random bytes.
pub(crate) fn batch(key: Option<BatchKey>, count: i32, random: &mut Random, now: TimestampMs) -> Bytes {
    let producer = key.map_or(ProducerStamp::NONE, |(id, epoch, base_sequence)| ProducerStamp {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence,
    });
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for _ in 0..count {
        let timestamp = TimestampMs(now.0 - random.below(50) as i64);
        let len = if random.below(10) == 0 { 3000 } else { random.below(300) };
        let seed = random.next_u64().to_be_bytes();
        let value: Vec<u8> = seed.iter().copied().cycle().take(8 + len as usize).collect();
        builder.append(timestamp, Some(b"key"), Some(&value), &[]);
    }
    builder.build()
}
