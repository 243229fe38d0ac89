//! What follows from a history's events.

use std::collections::{BTreeMap, BTreeSet};

use super::events::Event;
use super::{Kind, Verdict};

/// What is known of one record.
#[derive(Debug, Default)]
struct Record {
    is_sent: bool,
    is_sent_again: bool,
    /// It was on its way when its producer gave another one up, and began anew with sequence numbers: who sends several
    /// batches at a time to a leader that changes can't be told of more than the last five, by Kafka's either.
    has_new_sequence: bool,
    is_acknowledged: bool,
    is_refused: bool,
    offsets: BTreeSet<i64>,
    acknowledged_at: Option<i64>,
}

/// What is known of one partition.
#[derive(Debug, Default)]
struct Partition<'a> {
    records: BTreeMap<&'a str, Record>,
    /// What each offset has, by the first who said so.
    versions: BTreeMap<i64, (&'a str, &'a str)>,
    /// What the final reader found.
    last_read: BTreeMap<i64, &'a str>,
    end: Option<i64>,
}

/// Where a reader is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// The next record has this offset.
    At(i64),
    /// Nobody told.
    Anywhere,
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Reader,
    Member(&'a str),
    Final,
}

/// Takes events in their order.
#[derive(Debug, Default)]
pub struct Judge<'a> {
    /// By producer: whether it is idempotent.
    producers: BTreeMap<&'a str, bool>,
    parts: BTreeMap<&'a str, Part<'a>>,
    partitions: BTreeMap<&'a str, Partition<'a>>,
    positions: BTreeMap<(&'a str, &'a str), Position>,
    /// By group and partition: the highest offset whose commit was acknowledged, and that may have been committed.
    commits: BTreeMap<(&'a str, &'a str), (i64, i64)>,
}

impl<'a> Judge<'a> {
    /// One more event.
    pub fn take(&mut self, process: &'a str, event: Event<'a>, verdict: &mut Verdict) {
        match event {
            Event::Remark => {}
            Event::Producer { is_idempotent } => drop(self.producers.insert(process, is_idempotent)),
            Event::Reader => drop(self.parts.insert(process, Part::Reader)),
            Event::Member(group) => drop(self.parts.insert(process, Part::Member(group))),
            Event::Final => drop(self.parts.insert(process, Part::Final)),
            Event::Sent(partition, name) => self.record(partition, name).is_sent = true,
            Event::SentAgain(partition, name) => self.record(partition, name).is_sent_again = true,
            Event::Acknowledged(partition, name, offset) => {
                verdict.acknowledged += 1;
                let record = self.record(partition, name);
                record.is_acknowledged = true;
                record.acknowledged_at = offset;
                if let Some(offset) = offset {
                    self.place(process, partition, offset, name, verdict);
                }
            }
            Event::Refused(partition, name) => {
                verdict.refused += 1;
                self.record(partition, name).is_refused = true;
            }
            Event::Unknown(partition, name) => {
                verdict.unknown += 1;
                let producer = producer_of(name);
                let records = self.partitions.entry(partition).or_default().records.iter_mut();
                let under_way = records.filter(|(name, record)| {
                    producer_of(name) == producer && record.is_sent && !record.is_acknowledged && !record.is_refused
                });
                under_way.for_each(|(_, record)| record.has_new_sequence = true);
            }
            Event::Sequence(partition, why) => verdict.add(Kind::Sequence, format!("{process} {partition}: {why}")),
            Event::Sought(partition, offset) => {
                let position = if offset < 0 { Position::Anywhere } else { Position::At(offset) };
                self.positions.insert((process, partition), position);
            }
            Event::Assigned(partition, offset) => self.assigned(process, partition, offset, verdict),
            Event::Committed(partition, offset, is_acknowledged) => {
                let Some(Part::Member(group)) = self.parts.get(process) else { return };
                let (acknowledged, tried) = self.commits.entry((group, partition)).or_default();
                *tried = (*tried).max(offset);
                if is_acknowledged {
                    *acknowledged = (*acknowledged).max(offset);
                }
            }
            Event::Polled(partition, records) => self.polled(process, partition, &records, verdict),
            Event::NotPolled(partition, why) => verdict.add(Kind::Unreadable, format!("{process} {partition}: {why}")),
            Event::End(partition, offset) => self.partitions.entry(partition).or_default().end = Some(offset),
        }
    }

    fn record(&mut self, partition: &'a str, name: &'a str) -> &mut Record {
        self.partitions.entry(partition).or_default().records.entry(name).or_default()
    }

    /// Somebody says that a record has an offset.
    fn place(&mut self, who: &'a str, partition: &'a str, offset: i64, name: &'a str, verdict: &mut Verdict) {
        self.record(partition, name).offsets.insert(offset);
        let known = self.partitions.entry(partition).or_default().versions.entry(offset).or_insert((name, who));
        if known.0 != name {
            let text = format!("{partition}@{offset} is {} by {} and {name} by {who}", known.0, known.1);
            verdict.add(Kind::Inconsistent, text);
        }
    }

    fn assigned(&mut self, process: &'a str, partition: &'a str, offset: i64, verdict: &mut Verdict) {
        if let (Some(Part::Member(group)), true) = (self.parts.get(process), offset >= 0) {
            let (acknowledged, tried) = self.commits.get(&(*group, partition)).copied().unwrap_or_default();
            if offset < acknowledged {
                let text = format!("{process} begins {partition} at {offset}, {acknowledged} was committed");
                verdict.add(Kind::CommitLost, text);
            }
            if offset > tried.max(0) {
                let text = format!("{process} begins {partition} at {offset}, at most {tried} was committed");
                verdict.add(Kind::Skipped, text);
            }
        }
        let position = if offset < 0 { Position::Anywhere } else { Position::At(offset) };
        self.positions.insert((process, partition), position);
    }

    fn polled(&mut self, process: &'a str, partition: &'a str, records: &[(i64, &'a str)], verdict: &mut Verdict) {
        verdict.read += records.len();
        let mut position = self.positions.get(&(process, partition)).copied().unwrap_or(Position::Anywhere);
        for (offset, name) in records {
            if let Position::At(expected) = position
                && expected != *offset
            {
                let kind = if *offset < expected { Kind::WentBack } else { Kind::Skipped };
                verdict.add(kind, format!("{process} was at {expected} of {partition}, and got {offset}={name}"));
            }
            position = Position::At(offset + 1);
            self.place(process, partition, *offset, name, verdict);
            if self.parts.get(process) == Some(&Part::Final) {
                self.partitions.entry(partition).or_default().last_read.insert(*offset, name);
            }
        }
        self.positions.insert((process, partition), position);
    }

    /// What has to be so at the end.
    pub fn conclude(self, verdict: &mut Verdict) {
        for (name, partition) in &self.partitions {
            partition.conclude_records(name, &self.producers, verdict);
            partition.conclude_order(name, &self.producers, verdict);
            if partition.end.is_some() {
                partition.conclude_end(name, verdict);
            }
        }
        self.conclude_readers(verdict);
    }

    /// Everybody got to the end: a group as a whole.
    fn conclude_readers(&self, verdict: &mut Verdict) {
        let mut reached: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for ((process, partition), position) in &self.positions {
            let who = match self.parts.get(process) {
                Some(Part::Member(group)) => group,
                Some(Part::Reader | Part::Final) => process,
                None => continue,
            };
            let Position::At(offset) = position else { continue };
            let known = reached.entry((who, partition)).or_insert(*offset);
            *known = (*known).max(*offset);
        }
        for ((who, partition), offset) in reached {
            let end = self.partitions.get(partition).and_then(|partition| partition.end);
            if let Some(end) = end
                && offset < end
            {
                verdict.add(Kind::Unseen, format!("{who} got to {offset} of {partition}, which ends at {end}"));
            }
        }
    }
}

impl<'a> Partition<'a> {
    fn conclude_records(&self, place: &str, producers: &BTreeMap<&'a str, bool>, verdict: &mut Verdict) {
        for (name, record) in &self.records {
            let is_idempotent = producers.get(producer_of(name)).copied().unwrap_or(true);
            if record.offsets.len() > 1 {
                if record.has_new_sequence || (!is_idempotent && record.is_sent_again) {
                    verdict.doubled_by_sending_again += 1;
                } else {
                    verdict.add(Kind::Duplicate, format!("{place}: {name} is at {:?}", record.offsets));
                }
            }
            if record.is_refused && !record.offsets.is_empty() {
                verdict.add(Kind::RefusedAndThere, format!("{place}: {name} is at {:?}", record.offsets));
            }
        }
    }

    /// An idempotent producer's numbers go up with the offsets. The same one twice is another matter.
    fn conclude_order(&self, place: &str, producers: &BTreeMap<&'a str, bool>, verdict: &mut Verdict) {
        let mut last: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
        for (offset, (name, _)) in &self.versions {
            let producer = producer_of(name);
            if producers.get(producer) != Some(&true) {
                continue;
            }
            let Some(number) = name.rsplit(':').next().and_then(|number| number.parse::<u64>().ok()) else { continue };
            let is_copy = self.records.get(name).is_some_and(|record| {
                record.has_new_sequence && record.offsets.first().is_some_and(|first| first < offset)
            });
            if is_copy {
                continue;
            }
            if let Some((before, at)) = last.get(producer)
                && *before > number
            {
                verdict.add(Kind::Reordered, format!("{place}: {producer}:{before} at {at}, {name} at {offset}"));
            }
            last.insert(producer, (number, *offset));
        }
    }

    /// All that was acknowledged or read is where it was.
    fn conclude_end(&self, place: &str, verdict: &mut Verdict) {
        // Before the end, one process may have told what it read and another not yet what it sent.
        for (name, record) in self.records.iter().filter(|(_, record)| !record.is_sent) {
            verdict.add(Kind::Unheard, format!("{place}: nobody sent {name}, at {:?}", record.offsets));
        }
        let there: BTreeSet<&str> = self.last_read.values().copied().collect();
        for (name, record) in self.records.iter().filter(|(_, record)| record.is_acknowledged) {
            match record.acknowledged_at {
                Some(at) => match self.last_read.get(&at) {
                    Some(found) if found == name => {}
                    Some(found) => verdict.add(
                        Kind::Changed,
                        format!("{place}@{at}: {name} was acknowledged, {found} is there in the end"),
                    ),
                    None => verdict.add(Kind::Lost, format!("{place}@{at}: {name} was acknowledged")),
                },
                None if there.contains(name) => {}
                None => verdict.add(Kind::Lost, format!("{place}: {name} was acknowledged")),
            }
        }
        for (offset, (name, who)) in &self.versions {
            match self.last_read.get(offset) {
                Some(found) if found == name => {}
                Some(found) => {
                    let text = format!("{place}@{offset}: {name} by {who}, {found} in the end");
                    verdict.add(Kind::Changed, text);
                }
                None => verdict.add(Kind::Lost, format!("{place}@{offset}: {name}, which {who} knows of")),
            }
        }
    }
}

fn producer_of(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(producer, _)| producer)
}
