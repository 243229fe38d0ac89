//! A log directory by a reader of its own: after an orderly stop, what the files beside a log's segments say must be what
//! the segments say; before each start, however the node ended, what they vouch for must be there.

use std::collections::BTreeMap;

use super::producers::{self, LastBatch, OfProducer};

/// Looks into a directory.
pub struct Files<'a> {
    /// The names in a folder of it; "" is the directory itself.
    pub list: &'a dyn Fn(&str) -> Vec<String>,
    /// What a file holds.
    pub read: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// `log.index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// Whether a segment of this log may begin beyond the end of the one before: a power failure has taken what was there,
    /// and nothing was promised for that case. Kafka leaves such a log as it is, too.
    pub may_have_holes: &'a dyn Fn(&str) -> bool,
    /// Whether logs may be cut below what was flushed, as followers' are: the recovery point says nothing of the newest segment
    /// then, which each start looks at.
    pub may_be_cut: bool,
}

/// Where a partition's log starts and ends, and its high watermark.
pub type Range = (i64, i64, i64);

/// A batch, as its header has it.
struct Batch {
    position: u64,
    len: u64,
    base: i64,
    last: i64,
    epoch: i32,
    latest_ms: i64,
    is_control: bool,
    producer: Option<OfProducer>,
}

const HEADER_BYTES: usize = 61;
const CONTROL_BIT: i16 = 1 << 5;
const METADATA_LOG: &str = "__cluster_metadata-0";

/// Whether a folder is that of a partition's log, and not on its way to be another's or nobody's.
pub fn is_log(name: &str) -> bool {
    let has_number = name.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    has_number && name != METADATA_LOG
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}

/// The checksum of batches, a table of its own.
struct Crc32c([u32; 256]);

impl Crc32c {
    fn new() -> Crc32c {
        let entry = |byte: usize| {
            (0..8).fold(byte as u32, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
        };
        Crc32c(std::array::from_fn(entry))
    }

    fn of(&self, bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| self.0[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8)
    }
}

impl Files<'_> {
    /// What is wrong with it; otherwise the partitions that lie in it.
    pub fn check(&self) -> Result<BTreeMap<String, Range>, String> {
        let names = (self.list)("");
        if !names.iter().any(|name| name == ".kafka_cleanshutdown") {
            return Err("the node has stopped in order, and .kafka_cleanshutdown isn't there".to_owned());
        }
        let ends = self.checkpoint("recovery-point-offset-checkpoint")?;
        let watermarks = self.checkpoint("replication-offset-checkpoint")?;
        let starts = self.checkpoint("log-start-offset-checkpoint")?;
        let crc = Crc32c::new();
        let mut found = BTreeMap::new();
        // A folder whose making was cut short has neither a topic's id nor records yet.
        let is_made = |name: &&String| {
            let id = (self.read)(&format!("{name}/partition.metadata")).unwrap_or_default();
            !self.bases(name).is_empty() || String::from_utf8(id).is_ok_and(|text| text.contains("topic_id: "))
        };
        for name in names.iter().filter(|name| is_log(name)).filter(is_made) {
            let start = starts.get(name).copied();
            let (first, end) = self.check_log(name, start, &crc).map_err(|fault| format!("{name}: {fault}"))?;
            let start = start.unwrap_or(first);
            if start < first || start > end {
                return Err(format!("{name} is from {first} to {end}, and a checkpoint has it start at {start}"));
            }
            let (flushed, watermark) = (ends.get(name).copied(), watermarks.get(name).copied());
            let watermark = watermark.filter(|watermark| *watermark <= end);
            let Some(watermark) = watermark.filter(|_| flushed == Some(end)) else {
                return Err(format!("{name} ends at {end}, flushed to {flushed:?}, high watermark {watermark:?}"));
            };
            found.insert(name.clone(), (start, end, watermark));
        }
        // A replica that is being moved here is listed by its partition, as Kafka lists it.
        let is_there = |listed: &&String| {
            let is_moving = |name: &String| name.ends_with("-future") && name.starts_with(&format!("{listed}."));
            names.contains(listed) || names.iter().any(is_moving)
        };
        match ends.keys().chain(watermarks.keys()).chain(starts.keys()).find(|listed| !is_there(listed)) {
            Some(gone) => Err(format!("a checkpoint lists {gone}, which isn't there")),
            None => Ok(found),
        }
    }

    /// What a start finds, however the node ended before. What the marker and the recovery points vouch for no start looks
    /// at again: it must be there, and right.
    pub fn check_vouched(&self) -> Result<(), String> {
        let names = (self.list)("");
        if names.iter().any(|name| name == ".kafka_cleanshutdown") {
            return self.check().map(drop).map_err(|fault| format!("the marker is there, and {fault}"));
        }
        let starts = self.checkpoint("log-start-offset-checkpoint")?;
        let crc = Crc32c::new();
        for (name, recovery_point) in self.checkpoint("recovery-point-offset-checkpoint")? {
            if names.contains(&name) {
                let start = starts.get(&name).copied().unwrap_or(0);
                self.check_flushed(&name, start, recovery_point, &crc)
                    .map_err(|fault| format!("{name} is said to be flushed to {recovery_point}, and {fault}"))?;
            }
        }
        Ok(())
    }

    /// A snapshot of the metadata that has its name is whole; nothing is to rot.
    pub fn check_snapshots(&self) -> Result<(), String> {
        let crc = Crc32c::new();
        let names = (self.list)(METADATA_LOG);
        for name in names.iter().filter(|name| name.ends_with(".checkpoint")) {
            let bytes = (self.read)(&format!("{METADATA_LOG}/{name}")).unwrap_or_default();
            let batches = batches(&bytes, 0, &crc).map_err(|fault| format!("snapshot {name}: {fault}"))?;
            if batches.last().is_none_or(|last| !last.is_control) {
                return Err(format!("snapshot {name} has no footer"));
            }
        }
        Ok(())
    }

    /// One log, up to its recovery point.
    fn check_flushed(&self, log: &str, start: i64, recovery_point: i64, crc: &Crc32c) -> Result<(), String> {
        let bases = self.bases(log);
        let epochs = self.epochs(log)?;
        // Where a log starts is saved now and then, and epochs go at once with what was deleted.
        let start = start.max(epochs.first().map_or(start, |(_, begun)| *begun));
        let mut next = bases.first().copied().unwrap_or(0);
        for (place, base) in bases.iter().enumerate().filter(|(_, base)| **base < recovery_point) {
            if *base < next || (*base > next && !(self.may_have_holes)(log)) {
                return Err(format!("segment {base} follows, and {next} was due"));
            }
            let is_newest = place + 1 == bases.len();
            if is_newest && self.may_be_cut {
                return Ok(());
            }
            let path = |kind: &str| format!("{log}/{base:020}.{kind}");
            let bytes = (self.read)(&path("log")).unwrap_or_default();
            let (batches, fault) = batches_until(&bytes, *base, crc);
            next = batches.last().map_or(*base, |batch| batch.last + 1);
            if let Some(fault) = fault.filter(|_| next < recovery_point) {
                return Err(format!("segment {base}: {fault}"));
            }
            let flushed = batches.iter().filter(|batch| batch.last < recovery_point);
            check_epochs(flushed.filter(|batch| batch.last >= start), start, &epochs)?;
            // Those of segments that weren't sealed then are made anew.
            if bases.get(place + 1).is_some_and(|following| *following <= recovery_point) {
                if let Some(index) = (self.read)(&path("index")) {
                    self.check_index(*base, &batches, &index, bytes.len() as u64, true)?;
                }
                check_times(*base, &batches, (self.read)(&path("timeindex")).as_deref(), true)?;
            }
        }
        if next < recovery_point { Err(format!("it ends at {next}")) } else { Ok(()) }
    }

    fn bases(&self, log: &str) -> Vec<i64> {
        let names = (self.list)(log);
        let mut bases: Vec<i64> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
        bases.sort_unstable();
        bases
    }

    /// Offsets by partition, as one of the directory's checkpoints has them.
    fn checkpoint(&self, name: &str) -> Result<BTreeMap<String, i64>, String> {
        let rows = self.rows(name)?;
        let row = |row: &Vec<String>| match row.as_slice() {
            [topic, partition, offset] => Some((format!("{topic}-{partition}"), offset.parse().ok()?)),
            _ => None,
        };
        rows.iter().map(|it| row(it).ok_or_else(|| format!("{name} has a row {it:?}"))).collect()
    }

    /// The rows of a text file with a version and a count; one that was never written has none.
    fn rows(&self, name: &str) -> Result<Vec<Vec<String>>, String> {
        let text =
            String::from_utf8((self.read)(name).unwrap_or_default()).map_err(|_| format!("{name} is no text"))?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let lines: Vec<&str> = text.lines().collect();
        let rows: Vec<Vec<String>> =
            lines.iter().skip(2).map(|line| line.split(' ').map(str::to_owned).collect()).collect();
        match lines.first() == Some(&"0") && lines.get(1).and_then(|count| count.parse().ok()) == Some(rows.len()) {
            true => Ok(rows),
            false => Err(format!("{name} says {text:?}")),
        }
    }

    /// One log: the base offset of its first segment, and its end.
    fn check_log(&self, log: &str, start: Option<i64>, crc: &Crc32c) -> Result<(i64, i64), String> {
        let bases = self.bases(log);
        // One that was made, and that nobody claimed after the next start, is empty still.
        let Some(first) = bases.first().copied() else { return Ok((0, 0)) };
        let epochs = self.epochs(log)?;
        let mut next = first;
        let mut of_producers = Vec::new();
        for (place, base) in bases.iter().enumerate() {
            if *base < next || (*base > next && !(self.may_have_holes)(log)) {
                return Err(format!("segment {base} follows, and {next} was due"));
            }
            let path = |kind: &str| format!("{log}/{base:020}.{kind}");
            let bytes = (self.read)(&path("log")).unwrap_or_default();
            let batches = batches(&bytes, *base, crc).map_err(|fault| format!("segment {base}: {fault}"))?;
            // Epochs of what was deleted are gone.
            let start = start.unwrap_or(first);
            check_epochs(batches.iter().filter(|batch| batch.last >= start), start, &epochs)?;
            let is_sealed = place + 1 < bases.len();
            let index = (self.read)(&path("index"));
            let times = (self.read)(&path("timeindex"));
            if is_sealed && (index.is_none() || times.is_none()) {
                return Err(format!("segment {base} has no indexes"));
            }
            self.check_index(*base, &batches, &index.unwrap_or_default(), bytes.len() as u64, is_sealed)?;
            check_times(*base, &batches, times.as_deref(), is_sealed)?;
            next = batches.last().map_or(*base, |batch| batch.last + 1);
            of_producers.extend(batches.iter().filter_map(|batch| batch.producer));
        }
        let snapshot = |name: String| {
            let offset = name.strip_suffix(".snapshot")?.parse().ok()?;
            Some((offset, (self.read)(&format!("{log}/{name}"))?))
        };
        let snapshots: Vec<(i64, Vec<u8>)> = (self.list)(log).into_iter().filter_map(snapshot).collect();
        producers::check(&snapshots, &of_producers, start.unwrap_or(first), next)?;
        match epochs.iter().find(|(_, start)| *start > next) {
            Some(beyond) => Err(format!("it ends at {next}, and its epochs have {beyond:?}")),
            None => Ok((first, next)),
        }
    }

    fn epochs(&self, log: &str) -> Result<Vec<(i32, i64)>, String> {
        let rows = self.rows(&format!("{log}/leader-epoch-checkpoint"))?;
        let row = |row: &Vec<String>| match row.as_slice() {
            [epoch, start] => Some((epoch.parse().ok()?, start.parse().ok()?)),
            _ => None,
        };
        let epochs: Option<Vec<(i32, i64)>> = rows.iter().map(row).collect();
        let epochs = epochs.ok_or_else(|| format!("its epochs are {rows:?}"))?;
        match epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1) {
            true => Ok(epochs),
            false => Err(format!("its epochs don't rise: {epochs:?}")),
        }
    }

    fn check_index(&self, base: i64, batches: &[Batch], index: &[u8], len: u64, is_sealed: bool) -> Result<(), String> {
        let mut last_position = None;
        let longest = batches.iter().map(|batch| batch.len).max().unwrap_or(0);
        // A segment that was opened again counts from there on; few are opened that often.
        let widest = 8 * (self.index_interval_bytes + 2 * longest);
        if !index.len().is_multiple_of(8) {
            return Err(format!("the index of {base} has {} bytes", index.len()));
        }
        for entry in index.chunks_exact(8) {
            let offset = base + i64::from(i32::from_be_bytes(number(entry, 0)));
            let position = u64::from(u32::from_be_bytes(number(entry, 4)));
            let batch = batches.binary_search_by_key(&position, |batch| batch.position).ok();
            let batch = batch.filter(|place| batches[*place].last == offset);
            if batch.is_none() || last_position.is_some_and(|last| last >= position) {
                return Err(format!("the index of {base} has {offset} at {position}, after {last_position:?}"));
            }
            if position - last_position.unwrap_or(0) > widest {
                return Err(format!("the index of {base} has {position} right after {last_position:?}"));
            }
            last_position = Some(position);
        }
        match is_sealed && len - last_position.unwrap_or(0) > widest {
            true => Err(format!("the index of {base} ends at {last_position:?} of {len}")),
            false => Ok(()),
        }
    }
}

/// Batches of a log that starts here must be of the epochs that the file beside it has for them.
fn check_epochs<'a>(batches: impl Iterator<Item = &'a Batch>, start: i64, epochs: &[(i32, i64)]) -> Result<(), String> {
    for batch in batches {
        let at = batch.base.max(start);
        let epoch = epochs.iter().rev().find(|(_, begun)| *begun <= at).map(|(epoch, _)| *epoch);
        if epoch != Some(batch.epoch) {
            let found = batch.epoch;
            return Err(format!("a batch at {} is of epoch {found}; {epoch:?} by {epochs:?}", batch.base));
        }
    }
    Ok(())
}

/// The batches of a segment, which is nothing but whole ones.
fn batches(bytes: &[u8], base: i64, crc: &Crc32c) -> Result<Vec<Batch>, String> {
    match batches_until(bytes, base, crc) {
        (batches, None) => Ok(batches),
        (_, Some(fault)) => Err(fault),
    }
}

/// The batches of a segment up to what isn't one, and what is wrong there.
fn batches_until(bytes: &[u8], base: i64, crc: &Crc32c) -> (Vec<Batch>, Option<String>) {
    let (mut batches, mut at, mut next) = (Vec::new(), 0, base);
    while at < bytes.len() {
        match batch(bytes, at, next, crc) {
            Ok(batch) => {
                (at, next) = (at + batch.len as usize, batch.last + 1);
                batches.push(batch);
            }
            Err(fault) => return (batches, Some(fault)),
        }
    }
    (batches, None)
}

/// The batch at a position, which has to begin with an offset.
fn batch(bytes: &[u8], at: usize, next: i64, crc: &Crc32c) -> Result<Batch, String> {
    let rest = &bytes[at..];
    if rest.len() < HEADER_BYTES {
        return Err(format!("{} bytes after its last batch", rest.len()));
    }
    let len = 12 + usize::try_from(i32::from_be_bytes(number(rest, 8))).unwrap_or(0);
    let found = i64::from_be_bytes(number(rest, 0));
    if len < HEADER_BYTES || len > rest.len() {
        return Err(format!("a batch at {found} of {len} bytes, and {} are there", rest.len()));
    }
    if crc.of(&rest[21..len]) != u32::from_be_bytes(number(rest, 17)) {
        return Err(format!("the batch at {found} is damaged"));
    }
    let delta = i32::from_be_bytes(number(rest, 23));
    let last = found + i64::from(delta);
    if found != next || last < found {
        return Err(format!("a batch from {found} to {last} follows, and {next} was due"));
    }
    let latest_ms = i64::from_be_bytes(number(rest, 35));
    let producer = i64::from_be_bytes(number(rest, 43));
    let of_producer = LastBatch {
        epoch: i16::from_be_bytes(number(rest, 51)),
        last_sequence: i32::from_be_bytes(number(rest, 53)) + delta,
        last,
        delta,
        latest_ms,
    };
    Ok(Batch {
        position: at as u64,
        len: len as u64,
        base: found,
        last,
        epoch: i32::from_be_bytes(number(rest, 12)),
        latest_ms,
        producer: (producer >= 0).then_some((producer, of_producer)),
        is_control: i16::from_be_bytes(number(rest, 21)) & CONTROL_BIT != 0,
    })
}

fn check_times(base: i64, batches: &[Batch], times: Option<&[u8]>, is_sealed: bool) -> Result<(), String> {
    let Some(times) = times else { return Ok(()) };
    if !times.len().is_multiple_of(12) {
        return Err(format!("the time index of {base} has {} bytes", times.len()));
    }
    let mut last = (-1, base - 1);
    let (mut before, mut latest_ms) = (batches.iter().peekable(), None);
    for entry in times.chunks_exact(12) {
        let at_ms = i64::from_be_bytes(number(entry, 0));
        let offset = base + i64::from(i32::from_be_bytes(number(entry, 8)));
        while let Some(batch) = before.next_if(|batch| batch.last <= offset) {
            latest_ms = latest_ms.max(Some(batch.latest_ms));
        }
        let its = batches.binary_search_by_key(&offset, |batch| batch.last).ok();
        let is_its = its.is_some_and(|place| batches[place].latest_ms == at_ms);
        if at_ms <= last.0 || offset < last.1 || latest_ms != Some(at_ms) || !is_its {
            return Err(format!(
                "the time index of {base} has {at_ms} at {offset}, after {last:?}; {latest_ms:?} is right"
            ));
        }
        last = (at_ms, offset);
    }
    let latest_ms = batches.iter().map(|batch| batch.latest_ms).max();
    match is_sealed && latest_ms.is_some_and(|latest_ms| latest_ms != last.0) {
        true => Err(format!("the time index of {base} ends with {}, and {latest_ms:?} is there", last.0)),
        false => Ok(()),
    }
}
