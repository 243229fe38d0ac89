//! What may be gone at the start of a log, and what must be.

use std::ops::Range;

/// What a topic's settings allow to be deleted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// `retention.bytes`.
    pub bytes: Option<u64>,
    /// `retention.ms`.
    pub ms: Option<i64>,
}

/// What a record takes in a log besides its value, at most: a batch of its own.
pub const RECORD_BYTES_MAX: u64 = 100;
/// How far apart clocks of hosts are.
const CLOCKS_MS: i64 = 100;

/// Starts of one log, as they were asked for and told.
#[derive(Debug, Default)]
pub struct Starts {
    /// What its topic allows.
    pub retention: Retention,
    /// Below this, somebody asked for all to be deleted.
    asked: i64,
    /// Low watermarks that were acknowledged, and when: both rise.
    firm: Vec<(u64, i64)>,
    /// Records below, as far as they are known, were found free to go: none is looked at twice.
    free: i64,
}

impl Starts {
    /// Of a topic with such settings.
    pub fn of(retention: Retention) -> Starts {
        Starts { retention, ..Starts::default() }
    }

    /// Somebody asks for everything below to be deleted.
    pub fn on_delete(&mut self, offset: i64) {
        self.asked = self.asked.max(offset);
    }

    /// Whether anybody asked for that.
    pub fn was_asked(&self) -> bool {
        self.asked > 0
    }

    /// That was done.
    pub fn on_deleted(&mut self, now_ns: u64, low_watermark: i64) {
        if self.firm.last().is_none_or(|(_, firm)| *firm < low_watermark) {
            self.firm.push((now_ns, low_watermark));
        }
    }

    /// A record is known now.
    pub fn on_known(&mut self, offset: i64) {
        self.free = self.free.min(offset);
    }

    /// Nothing that was acknowledged holds any more.
    pub fn on_loss(&mut self) {
        self.firm.clear();
    }

    /// The log starts there or above, for who asks at that time.
    pub fn least(&self, sent_at_ns: u64) -> i64 {
        self.firm.iter().rev().find(|(at_ns, _)| *at_ns <= sent_at_ns).map_or(0, |(_, firm)| *firm)
    }

    /// Below this, records may be gone whatever their time is. The log's records end at `end`, for readers: `open_bytes` more
    /// may follow; `len_of` knows the value's length at an offset, or the largest there may be.
    fn free_below(&self, end: i64, open_bytes: u64, len_of: impl Fn(i64) -> u64) -> i64 {
        let Some(most) = self.retention.bytes else { return self.asked };
        let (mut bytes, mut offset) = (open_bytes, end);
        while offset > self.asked && bytes < most {
            offset -= 1;
            bytes += len_of(offset) + RECORD_BYTES_MAX;
        }
        if bytes < most { self.asked } else { offset }
    }

    /// Whether a log may start at an offset. `times` tells those of records that were acknowledged, with their offsets.
    pub fn check<Times: Iterator<Item = (i64, i64)>>(
        &mut self,
        (start, end): (i64, i64),
        now_ms: i64,
        open_bytes: u64,
        len_of: impl Fn(i64) -> u64,
        times: impl FnOnce(Range<i64>) -> Times,
    ) -> Result<(), String> {
        if start <= self.asked.max(self.free) {
            return Ok(());
        }
        let free = self.free_below(end, open_bytes, len_of).max(self.free);
        let is_old = |at_ms: i64| self.retention.ms.is_some_and(|ms| now_ms - at_ms + CLOCKS_MS >= ms);
        match times(free.min(start)..start).find(|(_, at_ms)| !is_old(*at_ms)) {
            Some((offset, at_ms)) => Err(format!(
                "the log starts at {start}; the record at {offset}, {} ms old, may not be gone: {:?}, deleted below {}",
                now_ms - at_ms,
                self.retention,
                self.asked
            )),
            None => {
                self.free = start;
                Ok(())
            }
        }
    }
}
