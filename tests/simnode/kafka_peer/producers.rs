//! Idempotent producers of a partition, as far as Kafka's leader looks at them: the last five batches of each.

use std::collections::{BTreeMap, VecDeque};

use ringlog_protocol::records::BatchHeader;
use ringlog_types::ErrorCode;

/// As many batches of a producer are known again.
const KEPT: usize = 5;

#[derive(Debug)]
struct Known {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Known>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Producers(BTreeMap<i64, Producer>);

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is appended.
    New,
    /// It is there already, from that offset on.
    Duplicate(i64),
    /// It is refused.
    Refused(ErrorCode),
}

impl Producers {
    /// Looks at a batch that a producer sends.
    pub fn judge(&self, batch: &BatchHeader) -> Judgement {
        let Some(producer) = self.0.get(&batch.producer_id.0).filter(|_| batch.has_producer_id()) else {
            return Judgement::New;
        };
        let epoch = batch.producer_epoch.0;
        if epoch < producer.epoch {
            return Judgement::Refused(ErrorCode::InvalidProducerEpoch);
        }
        if epoch > producer.epoch {
            return if batch.base_sequence == 0 {
                Judgement::New
            } else {
                Judgement::Refused(ErrorCode::OutOfOrderSequenceNumber)
            };
        }
        let is_same = |known: &&Known| {
            (known.first_sequence, known.last_sequence) == (batch.base_sequence, batch.last_sequence())
        };
        if let Some(known) = producer.batches.iter().find(is_same) {
            return Judgement::Duplicate(known.base_offset);
        }
        let last = producer.batches.back().map_or(-1, |known| known.last_sequence);
        let next = if last == i32::MAX { 0 } else { last + 1 };
        match batch.base_sequence == next {
            true => Judgement::New,
            false => Judgement::Refused(ErrorCode::OutOfOrderSequenceNumber),
        }
    }

    /// A batch was appended.
    pub fn on_appended(&mut self, batch: &BatchHeader) {
        if !batch.has_producer_id() {
            return;
        }
        let producer = self.0.entry(batch.producer_id.0).or_default();
        if producer.epoch != batch.producer_epoch.0 {
            producer.batches.clear();
            producer.epoch = batch.producer_epoch.0;
        }
        if producer.batches.len() == KEPT {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Known {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset.0,
        });
    }
}
