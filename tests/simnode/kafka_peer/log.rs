//! A replica's log, as it lies in the page cache of a host: what was written is there after the process was killed. Nothing
//! is ever synced, as Kafka leaves that to the system.

use bytes::{Bytes, BytesMut};
use ringlog_protocol::records::{BatchHeader, BatchRef, Scratch, TimestampType, set_base_offset_and_epoch};

use super::epochs::Epochs;
use super::producers::Producers;
use crate::check::replicas::Batches;

/// The largest batch, unpacked.
const UNPACKED_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

/// See the module's text.
#[derive(Debug)]
pub struct Log {
    /// The partition's name, as its folder has it.
    pub name: String,
    batches: Vec<Batch>,
    start: i64,
    end: i64,
    /// Its leader epochs.
    pub epochs: Epochs,
    /// Its idempotent producers.
    pub producers: Producers,
    /// The high watermark as it was saved last: the process that comes next begins with it.
    pub saved_high_watermark: i64,
}

/// A time and where it is.
pub type TimeAndOffset = (i64, i64);

impl Log {
    /// Empty.
    pub fn new(name: String) -> Log {
        Log {
            name,
            batches: Vec::new(),
            start: 0,
            end: 0,
            epochs: Epochs::default(),
            producers: Producers::default(),
            saved_high_watermark: 0,
        }
    }

    /// Where it starts.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Where it ends.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Appends a batch as it came from a leader, which must follow what is there.
    pub fn append_as_it_is(&mut self, header: BatchHeader, bytes: Bytes) {
        self.epochs.assign(header.partition_leader_epoch.0, header.base_offset.0);
        self.producers.on_appended(&header);
        self.end = header.next_offset().0;
        self.batches.push(Batch { header, bytes });
    }

    /// Appends a batch of a producer in an epoch; its base offset. With `append_time_ms` the time of its records is that.
    pub fn append_as_leader(&mut self, batch: &BatchRef<'_>, epoch: i32, append_time_ms: Option<i64>) -> i64 {
        let mut bytes = BytesMut::from(batch.bytes);
        let base = self.end;
        set_base_offset_and_epoch(&mut bytes, base.into(), epoch.into());
        if let Some(now_ms) = append_time_ms {
            ringlog_protocol::records::set_log_append_time(&mut bytes, ringlog_types::TimestampMs(now_ms));
        }
        let Ok(header) = BatchHeader::parse(&bytes) else { return base };
        self.append_as_it_is(header, bytes.freeze());
        base
    }

    /// Cuts off what is at `to` or behind it.
    pub fn truncate(&mut self, to: i64) {
        // An epoch that began at the end, and in which nothing was appended, goes in any case: the next one would be compared
        // with it again.
        self.epochs.truncate_from_end(to);
        if to >= self.end {
            return;
        }
        self.batches.retain(|batch| batch.header.next_offset().0 <= to);
        self.end = to;
        self.start = self.start.min(to);
        self.saved_high_watermark = self.saved_high_watermark.min(to);
        self.producers = Producers::default();
        self.batches.iter().for_each(|batch| self.producers.on_appended(&batch.header));
    }

    /// Nothing of it is left, and it begins anew.
    pub fn restart_at(&mut self, start: i64) {
        self.batches.clear();
        (self.start, self.end, self.saved_high_watermark) = (start, start, start);
        self.epochs.clear();
        self.producers = Producers::default();
    }

    /// What is below `start` isn't read any more. Its segments stay until somebody looks for what may be deleted.
    pub fn advance_start(&mut self, start: i64) {
        if start > self.start {
            self.start = start;
            self.epochs.truncate_from_start(start);
        }
    }

    /// Bytes from the batch on that holds `from`, of those below `limit`: `most` of them, so that the last batch may be
    /// cut off. A first batch that is longer comes whole where `is_whole` says so.
    pub fn read(&self, from: i64, limit: i64, most: usize, is_whole: bool) -> Bytes {
        let first = self.batches.partition_point(|batch| batch.header.next_offset().0 <= from);
        let mut found = BytesMut::new();
        for batch in self.batches[first..].iter().take_while(|batch| batch.header.next_offset().0 <= limit) {
            let room = most.saturating_sub(found.len());
            if found.is_empty() && batch.bytes.len() > room {
                return if is_whole { batch.bytes.clone() } else { Bytes::new() };
            }
            found.extend_from_slice(&batch.bytes[..room.min(batch.bytes.len())]);
            if room <= batch.bytes.len() {
                break;
            }
        }
        found.freeze()
    }

    /// The first record that isn't older than `at_ms`.
    pub fn first_at(&self, at_ms: i64) -> Option<TimeAndOffset> {
        let is_late =
            |batch: &&Batch| batch.header.max_timestamp.0 >= at_ms && batch.header.next_offset().0 > self.start;
        self.batches.iter().filter(is_late).find_map(|batch| {
            let found = |time: i64, offset: i64| time >= at_ms && offset >= self.start;
            find(batch, found)
        })
    }

    /// The first of the latest records.
    pub fn latest(&self) -> Option<TimeAndOffset> {
        let live = self.batches.iter().filter(|batch| batch.header.next_offset().0 > self.start);
        let latest_ms = live.clone().map(|batch| batch.header.max_timestamp.0).max()?;
        let batch = live.into_iter().find(|batch| batch.header.max_timestamp.0 == latest_ms)?;
        match batch.header.timestamp_type() {
            TimestampType::LogAppendTime => Some((latest_ms, batch.header.last_offset().0)),
            TimestampType::CreateTime => find(batch, |time, _| time == latest_ms),
        }
    }

    /// All of it, for who compares replicas.
    pub fn batches(&self) -> Batches {
        self.batches.iter().map(|batch| (batch.header.base_offset.0, batch.bytes.to_vec())).collect()
    }
}

fn find(batch: &Batch, is_it: impl Fn(i64, i64) -> bool) -> Option<TimeAndOffset> {
    let mut scratch = Scratch::new(UNPACKED_BYTES_MAX);
    let whole = BatchRef::parse(&batch.bytes).ok()?;
    let records = whole.records(&mut scratch).ok()?;
    let mut records = records.filter_map(Result::ok).map(|record| (record.timestamp.0, record.offset.0));
    records.find(|(time, offset)| is_it(*time, *offset))
}
