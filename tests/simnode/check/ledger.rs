//! A partition as clients know it: what was sent, what was acknowledged, what was read.

use std::collections::BTreeMap;

/// A record as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its offset.
    pub offset: i64,
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
    /// How often it was sent.
    attempts: u32,
    promise: Order,
    /// It was acknowledged, without its offset.
    is_there: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: BTreeMap<RecordName, Sent>,
    /// What stands at an offset, as acknowledged.
    acknowledged: BTreeMap<i64, RecordName>,
    /// What a reader saw, by a hash of its bytes.
    seen: BTreeMap<i64, u64>,
    /// What was said on connections that are older than this is void: the power failed, and nothing had been promised
    /// for that case.
    void_before_ns: u64,
    /// Answers with offsets, in all.
    answers: u64,
}

/// The value of a record. It can be told from its bytes whose it is, and whether they are all right.
pub fn value_of(place: (usize, i32), name: RecordName, len: usize) -> Vec<u8> {
    let mut value = head_of(place, name).into_bytes();
    let filler = (name.number as u8).wrapping_mul(31).wrapping_add(name.producer as u8);
    value.resize(len.max(value.len()), filler | 0x80);
    value
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

fn hash_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Ledger {
    /// A record is about to be sent for the first time.
    pub fn on_new(&mut self, name: RecordName, len: usize, promise: Order) {
        self.sent.insert(name, Sent { len, attempts: 0, promise, is_there: false });
    }

    /// It is sent, perhaps again.
    pub fn on_attempt(&mut self, name: RecordName) {
        if let Some(sent) = self.sent.get_mut(&name) {
            sent.attempts += 1;
        }
    }

    /// A batch was acknowledged on a connection: its first record and how many there are.
    pub fn on_acknowledged(
        &mut self,
        opened_at_ns: u64,
        first: RecordName,
        count: u64,
        base_offset: Option<i64>,
    ) -> Result<(), String> {
        self.answers += 1;
        if opened_at_ns < self.void_before_ns {
            return Ok(());
        }
        for place in 0..count {
            let name = RecordName { number: first.number + place, ..first };
            let Some(base_offset) = base_offset else {
                self.sent.get_mut(&name).into_iter().for_each(|sent| sent.is_there = true);
                continue;
            };
            let offset = base_offset + place as i64;
            if let Some(other) = self.acknowledged.insert(offset, name).filter(|other| *other != name) {
                return Err(format!("{name:?} and {other:?} were both acknowledged at {offset}"));
            }
        }
        Ok(())
    }

    /// A reader got these on a connection, one after the other. `next` is the offset that it asked for. Returns where it
    /// goes on.
    pub fn on_read(
        &mut self,
        place: (usize, i32),
        opened_at_ns: u64,
        next: i64,
        records: &[Read],
    ) -> Result<i64, String> {
        let mut next = next;
        for read in records {
            let who = show(place, &read.value);
            if read.offset != next {
                return Err(format!("{who} is at {}, and {next} was due", read.offset));
            }
            next = read.offset + 1;
            self.check_value(place, read)?;
            if opened_at_ns < self.void_before_ns {
                continue;
            }
            let hash = hash_of(&read.value);
            if self.seen.insert(read.offset, hash).is_some_and(|before| before != hash) {
                return Err(format!("{who} is at {}, where a reader saw something else", read.offset));
            }
            if let Some(name) = self.acknowledged.get(&read.offset)
                && Some(*name) != name_of(place, &read.value)
            {
                return Err(format!("{who} is at {}, where {name:?} was acknowledged", read.offset));
            }
        }
        Ok(next)
    }

    fn check_value(&self, place: (usize, i32), read: &Read) -> Result<RecordName, String> {
        let nobody = || format!("nobody sent what is at {}: {}", read.offset, show(place, &read.value));
        let name = name_of(place, &read.value).ok_or_else(nobody)?;
        let sent = self.sent.get(&name).ok_or_else(nobody)?;
        match read.value == value_of(place, name, sent.len) {
            true => Ok(name),
            false => Err(format!("{} at {} has changed", show(place, &read.value), read.offset)),
        }
    }

    /// The power of the partition's only replica failed, and nothing was promised for that case.
    pub fn on_loss(&mut self, now_ns: u64) {
        self.void_before_ns = now_ns;
        self.acknowledged.clear();
        self.seen.clear();
        self.sent.values_mut().for_each(|sent| sent.is_there = false);
    }

    /// Whether something may be gone.
    pub fn may_have_lost(&self) -> bool {
        self.void_before_ns > 0
    }

    /// How many answers there were.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Up to where a reader can get, for what was acknowledged.
    pub fn end(&self) -> i64 {
        self.acknowledged.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    /// What is wrong with all that a reader found in the partition: what was acknowledged is there at its offset, what
    /// was seen still is, nothing is there that wasn't sent, nothing twice, and all of it in the order of its producer,
    /// as far as producers can ask for that.
    pub fn check(&self, place: (usize, i32), found: &[Read]) -> Result<(), String> {
        let mut last: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
        let mut there: BTreeMap<RecordName, i64> = BTreeMap::new();
        for read in found {
            let name = self.check_value(place, read)?;
            let sent = &self.sent[&name];
            if sent.promise == Order::UntilRetried && sent.attempts > 1 {
                continue;
            }
            let who = show(place, &read.value);
            if let Some(offset) = there.insert(name, read.offset) {
                return Err(format!("{who} is at {offset} and at {}", read.offset));
            }
            if sent.promise == Order::None {
                continue;
            }
            match last.insert(name.producer, (name.number, read.offset)) {
                Some((number, offset)) if number > name.number => {
                    return Err(format!("{who} is at {}, after its record {number} at {offset}", read.offset));
                }
                _ => {}
            }
        }
        let by_offset: BTreeMap<i64, &Read> = found.iter().map(|read| (read.offset, read)).collect();
        for (offset, name) in &self.acknowledged {
            match by_offset.get(offset) {
                Some(read) if name_of(place, &read.value) == Some(*name) => {}
                Some(read) => {
                    let other = show(place, &read.value);
                    return Err(format!("{name:?} was acknowledged at {offset}, where {other} is"));
                }
                None => return Err(format!("{name:?} was acknowledged at {offset} and isn't there")),
            }
        }
        for (offset, hash) in &self.seen {
            if by_offset.get(offset).is_none_or(|read| hash_of(&read.value) != *hash) {
                return Err(format!("what a reader saw at {offset} isn't there any more"));
            }
        }
        match self.sent.iter().find(|(name, sent)| sent.is_there && !there.contains_key(name)) {
            Some((name, _)) => Err(format!("{name:?} was said to be there and isn't")),
            None => Ok(()),
        }
    }
}
