//! The check of one batch, in steps.

use bytes::Bytes;
use ringlog_protocol::records::{
    BATCH_HEADER_LEN, BatchHeader, Compression, RecordSketch, RecordWalk, TimestampType, Unpacker,
};
use ringlog_types::{ErrorCode, TimestampMs, TopicPartition};

use super::envelope::{check_header, only_batch};
use super::faults::Faults;
use super::rewrite::{is_long, rewrite};
use super::{AppendOrigin, BatchRules, CheckedBatch, TopicCompression, ValidationError};

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckProgress {
    /// There is an outcome.
    Done,
    /// There is more to do, in further steps.
    More,
    /// What comes next takes milliseconds in one go, and only [`BatchCheck::run`] does it.
    Long,
}

/// The check of one batch. Every step gets the same [`Unpacker`], which nobody else uses until there is an outcome.
#[derive(Debug)]
pub struct BatchCheck {
    records: Bytes,
    topic_partition: TopicPartition,
    rules: BatchRules,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Walk(Box<Walk>),
    Rewrite { header: BatchHeader, target: Compression, unpacked_len: usize, max_timestamp: TimestampMs },
    Done(Result<CheckedBatch, ValidationError>),
}

/// A pass over the records.
#[derive(Debug)]
struct Walk {
    header: BatchHeader,
    source: Compression,
    target: Compression,
    records: RecordWalk,
    unread: usize,
    seen: Seen,
}

/// What the records seen so far say.
#[derive(Debug)]
struct Seen {
    max_timestamp: TimestampMs,
    is_numbered: bool,
    faults: Faults,
}

impl BatchCheck {
    /// A check of `records`, which must be one batch. Nothing is done yet.
    pub fn begin(records: Bytes, topic_partition: TopicPartition, rules: BatchRules) -> BatchCheck {
        BatchCheck { records, topic_partition, rules, stage: Stage::Begin }
    }

    /// Goes on until about `budget` bytes were unpacked, or something is next that takes long.
    pub fn step(&mut self, unpacker: &mut Unpacker, budget: usize) -> CheckProgress {
        self.advance(unpacker, budget, false)
    }

    /// Does all that is left.
    pub fn run(&mut self, unpacker: &mut Unpacker) {
        while self.advance(unpacker, usize::MAX, true) != CheckProgress::Done {}
    }

    /// The outcome.
    ///
    /// # Panics
    /// If there is none yet.
    pub fn finish(self) -> Result<CheckedBatch, ValidationError> {
        match self.stage {
            Stage::Done(outcome) => outcome,
            _ => panic!("the check goes on"),
        }
    }

    fn advance(&mut self, unpacker: &mut Unpacker, budget: usize, is_patient: bool) -> CheckProgress {
        let mut left = budget;
        loop {
            let next = match &mut self.stage {
                Stage::Done(_) => return CheckProgress::Done,
                Stage::Begin => self.look_at_header(unpacker),
                Stage::Walk(walk) => {
                    let batch_len = BATCH_HEADER_LEN + walk.payload_len();
                    let payload = &self.records[BATCH_HEADER_LEN..batch_len];
                    if !is_patient && unpacker.is_next_long(payload) {
                        return CheckProgress::Long;
                    }
                    if left == 0 {
                        return CheckProgress::More;
                    }
                    let before = unpacker.unpacked_len();
                    match walk.advance(payload, unpacker, &self.rules, &self.topic_partition) {
                        Ok(false) => {
                            left = left.saturating_sub(unpacker.unpacked_len() - before);
                            continue;
                        }
                        Ok(true) => walk.conclude(unpacker.unpacked_len(), self.records.clone(), &self.rules),
                        Err(fault) => Err(fault),
                    }
                }
                Stage::Rewrite { header, target, unpacked_len, max_timestamp } => {
                    if !is_patient && is_long(*target, *unpacked_len) {
                        return CheckProgress::Long;
                    }
                    let (header, target, max_timestamp) = (*header, *target, *max_timestamp);
                    self.rewrite(header, target, max_timestamp, unpacker)
                }
            };
            self.stage = next.unwrap_or_else(|fault| Stage::Done(Err(fault)));
        }
    }

    fn look_at_header(&self, unpacker: &mut Unpacker) -> Result<Stage, ValidationError> {
        let batch = only_batch(&self.records, &self.rules)?;
        let header = check_header(batch, &self.topic_partition, &self.rules)?;
        let source = header.compression().map_err(|fault| ValidationError::unreadable(&fault))?;
        let target = match self.rules.compression {
            // Control records stay as they were written.
            _ if header.is_control() && source == Compression::None => source,
            TopicCompression::Producer => source,
            TopicCompression::Codec { compression, .. } => compression,
        };
        if source == target && !self.rules.looks_inside && header_suffices(&header, source, &self.rules) {
            return Ok(kept(header, self.records.clone(), header.max_timestamp, &self.rules));
        }
        unpacker.begin(source, self.rules.unpacked_bytes_max);
        Ok(Stage::Walk(Box::new(Walk {
            header,
            source,
            target,
            records: RecordWalk::new(header.record_count),
            unread: 0,
            seen: Seen { max_timestamp: TimestampMs::NONE, is_numbered: true, faults: Faults::default() },
        })))
    }

    fn rewrite(
        &self,
        header: BatchHeader,
        target: Compression,
        max_timestamp: TimestampMs,
        unpacker: &mut Unpacker,
    ) -> Result<Stage, ValidationError> {
        let payload = &self.records[BATCH_HEADER_LEN..header.size_in_bytes()];
        let (header, payload) = rewrite(header, payload, target, &self.rules, unpacker)?;
        let size = header.size_in_bytes();
        if self.rules.origin != AppendOrigin::RaftLeader && size > self.rules.message_bytes_max {
            return Err(ValidationError::new(
                ErrorCode::MessageTooLarge,
                format!(
                    "Message batch size is {size} bytes in append to partition {} which exceeds the maximum configured \
                     size of {}.",
                    self.topic_partition, self.rules.message_bytes_max
                ),
            ));
        }
        Ok(Stage::Done(Ok(CheckedBatch {
            header,
            payload,
            is_rewritten: true,
            origin: self.rules.origin,
            timestamp_type: self.rules.timestamp_type,
            max_timestamp,
        })))
    }
}

impl Walk {
    fn payload_len(&self) -> usize {
        self.header.size_in_bytes() - BATCH_HEADER_LEN
    }

    /// Looks at the next piece; whether that was the end.
    fn advance(
        &mut self,
        payload: &[u8],
        unpacker: &mut Unpacker,
        rules: &BatchRules,
        topic_partition: &TopicPartition,
    ) -> Result<bool, ValidationError> {
        let Walk { header, seen, records, .. } = self;
        let is_partial = self.source == self.target && self.source != Compression::None;
        let piece = unpacker.next(payload, self.unread);
        let piece = piece.map_err(|fault| ValidationError::unreadable(&fault.into()))?;
        let Some(piece) = piece else {
            records.end(self.unread).map_err(|fault| ValidationError::unreadable(&fault))?;
            return Ok(true);
        };
        let looked_at = records.advance(piece, |record| seen.add(header, &record, is_partial, rules, topic_partition));
        self.unread = looked_at.map_err(|fault| ValidationError::unreadable(&fault))?;
        Ok(false)
    }

    fn conclude(&mut self, unpacked_len: usize, records: Bytes, rules: &BatchRules) -> Result<Stage, ValidationError> {
        let Walk { header, source, target, .. } = *self;
        let max_timestamp = self.seen.max_timestamp;
        std::mem::take(&mut self.seen.faults).into_result()?;
        // A coordinator's or controller's own batches are numbered right, and nobody else's can have gaps.
        let is_numbered = self.seen.is_numbered && header.last_offset_delta == header.record_count - 1;
        if source != target || (source == Compression::None && !is_numbered) {
            return Ok(Stage::Rewrite { header, target, unpacked_len, max_timestamp });
        }
        if !is_numbered {
            // Kafka fails when it would number anew what it has only skipped over.
            let message = "the offsets of compressed records aren't in sequence".to_owned();
            return Err(ValidationError::new(ErrorCode::UnknownServerError, message));
        }
        Ok(kept(header, records, max_timestamp, rules))
    }
}

/// A batch whose records stay as they are.
fn kept(header: BatchHeader, records: Bytes, max_timestamp: TimestampMs, rules: &BatchRules) -> Stage {
    Stage::Done(Ok(CheckedBatch {
        header,
        payload: records.slice(BATCH_HEADER_LEN..header.size_in_bytes()),
        is_rewritten: false,
        origin: rules.origin,
        timestamp_type: rules.timestamp_type,
        max_timestamp,
    }))
}

impl Seen {
    fn add(
        &mut self,
        header: &BatchHeader,
        record: &RecordSketch,
        is_partial: bool,
        rules: &BatchRules,
        topic_partition: &TopicPartition,
    ) {
        let is_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        let timestamp = match is_append_time {
            true => header.max_timestamp,
            false => TimestampMs(header.base_timestamp.0.wrapping_add(record.timestamp_delta)),
        };
        self.is_numbered &= record.offset_delta == record.index;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        if rules.is_compacted && record.key_len.is_none() {
            return self.faults.add(ErrorCode::InvalidRecord, record.index, || {
                format!("Compacted topic cannot accept message without key in topic partition {topic_partition}")
            });
        }
        let offset = header.base_offset.0.wrapping_add(i64::from(record.offset_delta));
        if rules.timestamp_type == TimestampType::CreateTime && timestamp != TimestampMs::NONE {
            if !is_timestamp_in_range(timestamp, rules) {
                self.faults.add(ErrorCode::InvalidTimestamp, record.index, || {
                    let earliest = rules.now.0.wrapping_sub(rules.timestamp_before_max_ms);
                    let latest = rules.now.0.wrapping_add(rules.timestamp_after_max_ms);
                    format!(
                        "Timestamp {timestamp} of message with offset {offset} is out of range. The timestamp should be \
                         within [{earliest}, {latest}]"
                    )
                });
            }
        } else if is_append_time {
            self.faults.add(ErrorCode::InvalidTimestamp, record.index, || {
                format!(
                    "Invalid timestamp type in message {}DefaultRecord(offset={offset}, timestamp={timestamp}, key={} \
                     bytes, value={} bytes). Producer should not set timestamp type to LogAppendTime.",
                    if is_partial { "Partial" } else { "" },
                    record.key_len.unwrap_or(0),
                    record.value_len.unwrap_or(0)
                )
            });
        }
    }
}

/// Whether a compressed batch needn't be unpacked when what its header says is believed.
fn header_suffices(header: &BatchHeader, source: Compression, rules: &BatchRules) -> bool {
    if source == Compression::None || rules.is_compacted || header.timestamp_type() != TimestampType::CreateTime {
        return false;
    }
    // The flag gives the base timestamp another meaning, and only the cleaner sets it.
    if header.delete_horizon().is_some() {
        return false;
    }
    let in_range = |timestamp| timestamp == TimestampMs::NONE || is_timestamp_in_range(timestamp, rules);
    rules.timestamp_type == TimestampType::LogAppendTime
        // Records can be too old without the header showing it.
        || (rules.timestamp_before_max_ms == i64::MAX
            && in_range(header.base_timestamp)
            && in_range(header.max_timestamp))
}

/// Whether a record's own timestamp is near enough to the present. Kafka's arithmetic wraps, and so refuses what is more
/// than 63 bits away.
fn is_timestamp_in_range(timestamp: TimestampMs, rules: &BatchRules) -> bool {
    let age_ms = rules.now.0.wrapping_sub(timestamp.0);
    age_ms <= rules.timestamp_before_max_ms && age_ms.wrapping_neg() <= rules.timestamp_after_max_ms
}
