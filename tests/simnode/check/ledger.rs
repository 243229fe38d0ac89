//! A partition as clients know it: what was sent, what was acknowledged, what was read.

use std::collections::BTreeMap;

use super::Asked;
use super::starts::{RECORD_BYTES_MAX, Retention, Starts};

/// A record as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub at_ms: i64,
    /// Its value.
    pub value: Vec<u8>,
}

/// Names a record: who sent it, and its number among those that the same producer sent to the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName {
    /// The producer.
    pub producer: u32,
    /// From 0 on.
    pub number: u64,
}

/// What a producer may expect of the order of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nobody tells it what became of a batch before it sends the next one: what it sends on a second connection may
    /// overtake what it sent on the first.
    None,
    /// One batch after the other, each until it is answered; one that is sent again may be there twice, and late.
    UntilRetried,
    /// Batches have sequence numbers: always, and each once.
    Always,
}

#[derive(Debug)]
struct Sent {
    len: usize,
    at_ms: i64,
    /// How often it was sent.
    attempts: u32,
    promise: Order,
    /// It was acknowledged, without its offset.
    is_there: bool,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy)]
struct Known {
    name: RecordName,
    len: usize,
    at_ms: i64,
}

/// The largest value that anybody sends.
const VALUE_BYTES_MAX: u64 = 60_100;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Where the log may start, and must.
    pub starts: Starts,
    /// Records get their node's time and not their producer's.
    is_append_time: bool,
    sent: BTreeMap<RecordName, Sent>,
    /// What stands at an offset, as acknowledged.
    acknowledged: BTreeMap<i64, Known>,
    /// What was sent and is not known to be at an offset: all of it may be in the log.
    open_bytes: u64,
    /// When batches were acknowledged, by their first offset.
    batches: BTreeMap<i64, u64>,
    /// Whose record a reader saw: its bytes were what they have to be.
    seen: BTreeMap<i64, RecordName>,
    /// What was said on connections that are older than this is void: the power failed, and nothing had been promised
    /// for that case.
    void_before_ns: u64,
    /// Answers with offsets, in all.
    answers: u64,
    /// When the last of them came.
    answered_at_ns: u64,
}

/// The value of a record. It can be told from its bytes whose it is, and whether they are all right.
pub fn value_of(place: (usize, i32), name: RecordName, len: usize) -> Vec<u8> {
    let mut value = head_of(place, name).into_bytes();
    value.resize(len.max(value.len()), filler_of(name));
    value
}

/// The same as a comparison with [`value_of`], without making one.
fn is_value(value: &[u8], place: (usize, i32), name: RecordName, len: usize) -> bool {
    let (head, filler) = (head_of(place, name), filler_of(name));
    let filled = value.strip_prefix(head.as_bytes());
    // Without an end at the first difference it is compared many bytes at a time.
    let is_filler = |filled: &[u8]| filled.iter().fold(0, |different, byte| different | (byte ^ filler)) == 0;
    value.len() == len.max(head.len()) && filled.is_some_and(is_filler)
}

fn filler_of(name: RecordName) -> u8 {
    (name.number as u8).wrapping_mul(31).wrapping_add(name.producer as u8) | 0x80
}

fn head_of(place: (usize, i32), name: RecordName) -> String {
    format!("{}:{}:{}:{}:", place.0, place.1, name.producer, name.number)
}

/// Whose a value is, if it is one of this partition's.
fn name_of(place: (usize, i32), value: &[u8]) -> Option<RecordName> {
    let mut fields = value.split(|byte| *byte == b':').map(|field| std::str::from_utf8(field).ok());
    let mut next = || fields.next().flatten();
    let is_here = next()?.parse() == Ok(place.0) && next()?.parse() == Ok(place.1);
    let name = RecordName { producer: next()?.parse().ok()?, number: next()?.parse().ok()? };
    is_here.then_some(name)
}

fn show(place: (usize, i32), value: &[u8]) -> String {
    match name_of(place, value) {
        Some(RecordName { producer, number }) => format!("record {number} of producer {producer}"),
        None => format!("{:?}", String::from_utf8_lossy(&value[..value.len().min(40)])),
    }
}

impl Ledger {
    /// A partition of a topic with such settings.
    pub fn of(retention: Retention, is_append_time: bool) -> Ledger {
        Ledger { starts: Starts::of(retention), is_append_time, ..Ledger::default() }
    }

    /// A record is about to be sent for the first time.
    pub fn on_new(&mut self, name: RecordName, (len, at_ms): (usize, i64), promise: Order) {
        self.sent.insert(name, Sent { len, at_ms, attempts: 0, promise, is_there: false });
    }

    /// Records were deleted below a low watermark, as was said on a connection.
    pub fn on_deleted(&mut self, opened_at_ns: u64, now_ns: u64, low_watermark: i64) {
        if opened_at_ns >= self.void_before_ns {
            self.starts.on_deleted(now_ns, low_watermark);
        }
    }

    /// A node said where the log starts and ends.
    pub fn on_start(&mut self, asked: Asked, (start, end): (i64, i64), now_ms: i64) -> Result<(), String> {
        if asked.opened_at_ns < self.void_before_ns {
            return Ok(());
        }
        let least = self.starts.least(asked.sent_at_ns);
        if start < least {
            return Err(format!("the log starts at {start}, and was deleted below {least}"));
        }
        let known = &self.acknowledged;
        let len_of = |offset: i64| known.get(&offset).map_or(VALUE_BYTES_MAX, |known| known.len as u64);
        let times = |range| known.range(range).map(|(offset, known)| (*offset, known.at_ms));
        self.starts.check((start, end), now_ms, self.open_bytes, len_of, times)
    }

    /// A node said that the first record that isn't older than `at_ms` is at an offset, with a time; -1 for none. The
    /// log started at `start` or below then.
    pub fn on_time(
        &self,
        asked: Asked,
        at_ms: i64,
        (offset, found_ms): (i64, i64),
        start: i64,
        known_end: i64,
    ) -> Result<(), String> {
        if self.is_append_time || asked.opened_at_ns < self.void_before_ns {
            return Ok(());
        }
        let time = |offset: i64| self.acknowledged.get(&offset).map(|known| known.at_ms);
        if let Some(its_ms) = time(offset).filter(|its_ms| *its_ms != found_ms || found_ms < at_ms) {
            return Err(format!("asked for {at_ms}, {offset} is said to be of {found_ms}, and is of {its_ms}"));
        }
        // Only the first segment that has such a time is searched, as in Kafka: where records of it were deleted, what
        // follows may be missed.
        if self.starts.was_asked() {
            return Ok(());
        }
        let end = if offset < 0 { known_end } else { offset.min(known_end) };
        let mut known = self.acknowledged.range(start..end.max(start));
        match known.find(|(_, known)| known.at_ms >= at_ms) {
            Some((missed, known)) => {
                Err(format!("asked for {at_ms}, {offset} is told, and {missed} is of {}", known.at_ms))
            }
            None => Ok(()),
        }
    }

    /// A node said that no record is later than the one at an offset; -1 when readers can't get to the latest yet, as in
    /// Kafka. The log started at `start` or below then, and held
    /// what was acknowledged below `known_end`.
    pub fn on_latest_time(
        &self,
        asked: Asked,
        (offset, found_ms): (i64, i64),
        start: i64,
        known_end: i64,
    ) -> Result<(), String> {
        if self.is_append_time || asked.opened_at_ns < self.void_before_ns || offset < 0 {
            return Ok(());
        }
        let time = |offset: i64| self.acknowledged.get(&offset).map(|known| known.at_ms);
        let mut known = self.acknowledged.range(start..known_end.max(start));
        match known.find(|(_, known)| known.at_ms > found_ms) {
            Some((later, known)) => {
                Err(format!("{offset} of {found_ms} is said to be the latest; {later} is {}", known.at_ms))
            }
            None if time(offset).is_some_and(|its_ms| its_ms != found_ms) => {
                Err(format!("the latest, {offset}, is said to be of {found_ms}, and is of {:?}", time(offset)))
            }
            None => Ok(()),
        }
    }

    /// It is sent, perhaps again.
    pub fn on_attempt(&mut self, name: RecordName) {
        if let Some(sent) = self.sent.get_mut(&name) {
            sent.attempts += 1;
            self.open_bytes += sent.len as u64 + RECORD_BYTES_MAX;
        }
    }

    /// A batch was acknowledged on a connection: its first record and how many there are.
    pub fn on_acknowledged(
        &mut self,
        now_ns: u64,
        opened_at_ns: u64,
        first: RecordName,
        count: u64,
        base_offset: Option<i64>,
    ) -> Result<(), String> {
        self.answers += 1;
        self.answered_at_ns = now_ns;
        if opened_at_ns < self.void_before_ns {
            return Ok(());
        }
        if let Some(base_offset) = base_offset {
            self.batches.entry(base_offset).or_insert(now_ns);
        }
        for place in 0..count {
            let name = RecordName { number: first.number + place, ..first };
            let sent = self.sent.get_mut(&name).ok_or_else(|| format!("{name:?} was never sent"))?;
            let Some(base_offset) = base_offset else {
                sent.is_there = true;
                continue;
            };
            let offset = base_offset + place as i64;
            let known = Known { name, len: sent.len, at_ms: sent.at_ms };
            self.open_bytes = self.open_bytes.saturating_sub(sent.len as u64 + RECORD_BYTES_MAX);
            if let Some(other) = self.acknowledged.insert(offset, known).filter(|other| other.name != name) {
                return Err(format!("{name:?} and {:?} were both acknowledged at {offset}", other.name));
            }
            self.starts.on_known(offset);
        }
        Ok(())
    }

    /// A reader got these on a connection, one after the other. `next` is the offset that it asked for. Returns where it
    /// goes on.
    pub fn on_read(&mut self, place: (usize, i32), asked: Asked, next: i64, records: &[Read]) -> Result<i64, String> {
        let opened_at_ns = asked.opened_at_ns;
        let least = self.starts.least(asked.sent_at_ns);
        if next < least && !records.is_empty() && opened_at_ns >= self.void_before_ns {
            return Err(format!("records are read at {next}, and were deleted below {least}"));
        }
        let mut next = next;
        for read in records {
            let who = || show(place, &read.value);
            // Behind what is lost for good a reader goes on.
            if read.offset < next || (read.offset > next && !self.may_have_lost()) {
                return Err(format!("{} is at {}, and {next} was due", who(), read.offset));
            }
            next = read.offset + 1;
            let name = self.check_value(place, read)?;
            if opened_at_ns < self.void_before_ns {
                continue;
            }
            if self.seen.insert(read.offset, name).is_some_and(|before| before != name) {
                return Err(format!("{} is at {}, where a reader saw something else", who(), read.offset));
            }
            if let Some(known) = self.acknowledged.get(&read.offset).filter(|known| known.name != name) {
                return Err(format!("{} is at {}, where {:?} was acknowledged", who(), read.offset, known.name));
            }
        }
        Ok(next)
    }

    fn check_value(&self, place: (usize, i32), read: &Read) -> Result<RecordName, String> {
        let nobody = || format!("nobody sent what is at {}: {}", read.offset, show(place, &read.value));
        let name = name_of(place, &read.value).ok_or_else(nobody)?;
        let sent = self.sent.get(&name).ok_or_else(nobody)?;
        if read.at_ms != sent.at_ms && !self.is_append_time {
            let (found, was) = (read.at_ms, sent.at_ms);
            return Err(format!("{} at {} is of {found}, and was of {was}", show(place, &read.value), read.offset));
        }
        match is_value(&read.value, place, name, sent.len) {
            true => Ok(name),
            false => Err(format!("{} at {} has changed", show(place, &read.value), read.offset)),
        }
    }

    /// Since when a reader that is at `position` has had something to read for certain.
    pub fn acknowledged_from(&self, position: i64) -> Option<u64> {
        self.batches.range(position..).next().map(|(_, at_ns)| *at_ns)
    }

    /// The power of the partition's only replica failed, or another that knows less leads it now, and nothing was promised
    /// for that case: what was said on connections that are older than `before_ns` is void.
    pub fn on_loss(&mut self, before_ns: u64) {
        self.void_before_ns = before_ns;
        self.acknowledged.clear();
        self.batches.clear();
        self.seen.clear();
        self.starts.on_loss();
        self.sent.values_mut().for_each(|sent| sent.is_there = false);
    }

    /// Whether something may be gone.
    pub fn may_have_lost(&self) -> bool {
        self.void_before_ns > 0
    }

    /// When the last answer came.
    pub fn answered_at_ns(&self) -> u64 {
        self.answered_at_ns
    }

    /// How many answers there were.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Up to where a reader can get, for what was acknowledged.
    pub fn end(&self) -> i64 {
        self.acknowledged.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    /// What is wrong with all that a reader found in the partition, from its `start` on: what was acknowledged is there at its offset, what
    /// was seen still is, nothing is there that wasn't sent, nothing twice, and all of it in the order of its producer,
    /// as far as producers can ask for that.
    pub fn check(&self, place: (usize, i32), start: i64, found: &[Read]) -> Result<(), String> {
        let mut last: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
        let mut there: BTreeMap<RecordName, i64> = BTreeMap::new();
        let at = |offset: i64| found.binary_search_by_key(&offset, |read| read.offset).ok().map(|index| &found[index]);
        for read in found {
            let name = self.check_value(place, read)?;
            let sent = &self.sent[&name];
            if sent.promise == Order::UntilRetried && sent.attempts > 1 {
                continue;
            }
            let who = || show(place, &read.value);
            if let Some(offset) = there.insert(name, read.offset) {
                return Err(format!("{} is at {offset} and at {}", who(), read.offset));
            }
            if sent.promise == Order::None {
                continue;
            }
            match last.insert(name.producer, (name.number, read.offset)) {
                Some((number, offset)) if number > name.number => {
                    return Err(format!("{} is at {}, after its record {number} at {offset}", who(), read.offset));
                }
                _ => {}
            }
        }
        for (offset, known) in self.acknowledged.range(start..) {
            match at(*offset).map(|read| name_of(place, &read.value)) {
                Some(name) if name == Some(known.name) => {}
                Some(other) => {
                    return Err(format!("{:?} was acknowledged at {offset}, where {other:?} is", known.name));
                }
                None => return Err(format!("{:?} was acknowledged at {offset} and isn't there", known.name)),
            }
        }
        for (offset, name) in self.seen.range(start..) {
            if at(*offset).is_none_or(|read| name_of(place, &read.value) != Some(*name)) {
                return Err(format!("what a reader saw at {offset} isn't there any more"));
            }
        }
        let is_whole = start == 0;
        match self.sent.iter().find(|(name, sent)| is_whole && sent.is_there && !there.contains_key(name)) {
            Some((name, _)) => Err(format!("{name:?} was said to be there and isn't")),
            None => Ok(()),
        }
    }
}
