//! The metadata logs of several nodes, compared by bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::records::{BatchIter, BatchRef, Scratch};

/// The key of a snapshot's first record: version 0 of a control record's key, of type 3.
const SNAPSHOT_HEADER: [u8; 4] = [0, 0, 0, 3];

/// The batches of a metadata log by base offset.
#[derive(Debug, Default)]
pub struct MetadataLog {
    batches: BTreeMap<i64, Batch>,
    /// Where the last segment begins, by its name.
    last_segment: i64,
}

#[derive(Debug, PartialEq, Eq)]
struct Batch {
    next_offset: i64,
    epoch: i32,
    bytes: Vec<u8>,
}

impl MetadataLog {
    /// Reads the segments in a folder. What is being written at the end right now is left out.
    pub fn read(folder: &Path) -> Result<MetadataLog> {
        let (mut batches, mut last_segment) = (BTreeMap::new(), 0);
        for segment in segments(folder)? {
            let bytes = match fs::read(&segment) {
                Ok(bytes) => bytes,
                // A running node removes segments that a snapshot covers.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| segment.display().to_string()),
            };
            last_segment = segment.file_stem().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(last_segment);
            for batch in BatchIter::new(&bytes) {
                let Ok(batch) = batch else { break };
                let (base, next_offset) = (batch.header.base_offset.0, batch.header.next_offset().0);
                if batch.verify_crc().is_err() {
                    break;
                }
                let epoch = batch.header.partition_leader_epoch.0;
                let before = batches.insert(base, Batch { next_offset, epoch, bytes: batch.bytes.to_vec() });
                ensure!(before.is_none(), "{}: two batches at offset {base}", segment.display());
            }
        }
        let log = MetadataLog { batches, last_segment };
        log.check_order().with_context(|| folder.display().to_string())?;
        Ok(log)
    }

    /// Offsets follow each other, and epochs never fall.
    fn check_order(&self) -> Result<()> {
        let mut before: Option<&Batch> = None;
        for (base, batch) in &self.batches {
            if let Some(before) = before {
                ensure!(before.next_offset == *base, "a hole from {} to {base}", before.next_offset);
                ensure!(before.epoch <= batch.epoch, "epoch {} after {} at {base}", batch.epoch, before.epoch);
            }
            before = Some(batch);
        }
        Ok(())
    }

    /// The first offset that it has.
    pub fn start(&self) -> Option<i64> {
        self.batches.keys().next().copied()
    }

    /// The offset after its last.
    pub fn end(&self) -> i64 {
        self.batches.values().next_back().map_or(self.last_segment, |batch| batch.next_offset)
    }

    /// All records but those of control batches, as they follow each other.
    pub fn records(&self) -> Result<Vec<MetadataRecord>> {
        let mut scratch = Scratch::new(1 << 24);
        let mut records = Vec::new();
        for batch in self.batches.values() {
            let batch = BatchRef::parse(&batch.bytes)?;
            if batch.header.is_control() {
                continue;
            }
            for record in batch.records(&mut scratch)? {
                let value = record?.value.context("a record without a value")?;
                records.push(MetadataRecord::decode_framed(Bytes::copy_from_slice(value))?.0);
            }
        }
        Ok(records)
    }

    /// The bytes of all batches.
    pub fn size(&self) -> usize {
        self.batches.values().map(|batch| batch.bytes.len()).sum()
    }
}

/// Below `end` all logs hold the same bytes, as far as two of them reach back. How many batches were compared.
pub fn compare(logs: &[(i32, MetadataLog)], end: i64) -> Result<usize> {
    let mut compared = 0;
    let (first, one) = logs.first().context("a log")?;
    for (id, log) in logs {
        ensure!(log.end() >= end, "node {id}'s log ends at {}, not at {end} or later", log.end());
    }
    for (other, another) in &logs[1..] {
        let start = one.start().unwrap_or(0).max(another.start().unwrap_or(0));
        ensure!(start < end, "the logs of {first} and {other} have nothing in common below {end}");
        let from = |log: &MetadataLog| log.batches.range(start..end).map(|(base, _)| *base).collect::<Vec<_>>();
        let (bases, other_bases) = (from(one), from(another));
        if bases != other_bases {
            let base = bases.iter().zip(&other_bases).find(|(one, another)| one != another);
            bail!("batches of {first} and {other} don't begin at the same offsets: {base:?}");
        }
        for base in bases {
            let (one, another) = (&one.batches[&base], &another.batches[&base]);
            ensure!(one == another, "{first} and {other} differ at offset {base}: {one:?}\n{another:?}");
            compared += 1;
        }
    }
    Ok(compared)
}

/// Copies a segment of a running node as far as it holds whole batches: what comes behind is being written, or is room for
/// more.
pub fn copy_whole(segment: &Path, folder: &Path) -> Result<PathBuf> {
    let mut bytes = fs::read(segment)?;
    let mut batches = BatchIter::new(&bytes);
    while let Some(Ok(batch)) = batches.next() {
        if batch.verify_crc().is_err() {
            break;
        }
    }
    let length = batches.position();
    bytes.truncate(length);
    let copy = folder.join(segment.file_name().context("a file has a name")?);
    fs::write(&copy, bytes)?;
    Ok(copy)
}

/// The segment files of a log, oldest first.
pub fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    files(folder, "log")
}

/// The snapshots in a metadata log's folder, oldest first, without the one that only names the first voters.
pub fn snapshots(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut snapshots = files(folder, "checkpoint")?;
    snapshots.retain(|snapshot| snapshot_end(snapshot).is_some_and(|end| end > 0));
    Ok(snapshots)
}

/// The offset that a snapshot ends at, by its name.
pub fn snapshot_end(snapshot: &Path) -> Option<i64> {
    snapshot.file_stem()?.to_str()?.split_once('-')?.0.parse().ok()
}

/// What a snapshot holds, told in an order that doesn't depend on who wrote it: Kafka keeps much in maps whose order is
/// another in each process.
fn content(snapshot: &Path, has_time: bool) -> Result<Vec<String>> {
    let bytes = fs::read(snapshot)?;
    let mut scratch = Scratch::new(1 << 24);
    let mut content = Vec::new();
    for batch in BatchIter::new(&bytes) {
        let batch = batch?;
        batch.verify_crc()?;
        for record in batch.records(&mut scratch)? {
            let record = record?;
            let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
            let is_header = batch.header.is_control() && record.key == Some(&SNAPSHOT_HEADER);
            content.push(match batch.header.is_control() {
                true if is_header && !has_time => "a header".to_owned(),
                true => format!("{:?} {value:?}", record.key),
                false => told(MetadataRecord::decode_framed(value)?),
            });
        }
    }
    content.sort();
    Ok(content)
}

fn told((mut record, version): (MetadataRecord, i16)) -> String {
    match &mut record {
        MetadataRecord::RegisterBroker(record) => {
            record.features.sort_by(|one, other| one.name.cmp(&other.name));
            record.end_points.sort_by(|one, other| one.name.cmp(&other.name));
        }
        MetadataRecord::RegisterController(record) => {
            record.features.sort_by(|one, other| one.name.cmp(&other.name));
            record.end_points.sort_by(|one, other| one.name.cmp(&other.name));
        }
        _ => {}
    }
    format!("version {version} of {record:?}")
}

/// The snapshots of a node.
#[derive(Debug)]
pub struct Snapshots {
    /// The node.
    pub id: i32,
    /// Where they are.
    pub folder: PathBuf,
    /// The node may lead. A leader of Kafka takes the time of its last record from a buffer that it has given back, in
    /// which a later batch may be by then: nothing can be said of it.
    pub may_lead: bool,
}

/// Snapshots of several nodes that end at the same offset hold the same. How many of the first node's were compared.
pub fn compare_snapshots(first: &Snapshots, others: &[Snapshots]) -> Result<usize> {
    let mut compared = 0;
    for snapshot in snapshots(&first.folder)? {
        let name = snapshot.file_name().context("a file has a name")?;
        for node in others {
            let other = node.folder.join(name);
            if !other.is_file() {
                continue;
            }
            let has_time = !first.may_lead && !node.may_lead;
            let (one, another) = (content(&snapshot, has_time)?, content(&other, has_time)?);
            let different = || one.iter().zip(&another).find(|(one, another)| one != another);
            ensure!(
                one == another,
                "snapshots {name:?} of {} and {} differ, with {} and {} records: {:?}",
                first.id,
                node.id,
                one.len(),
                another.len(),
                different()
            );
            compared += 1;
        }
    }
    Ok(compared)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use anyhow::Result;
    use ringlog_protocol::records::{BatchBuilder, BatchOptions};
    use ringlog_types::{LeaderEpoch, Offset, TimestampMs};

    use super::{MetadataLog, compare, copy_whole};
    use crate::paths;

    /// A log of batches of one record, given by offset, epoch and value, with some zeros behind.
    fn log(batches: &[(i64, i32, &str)]) -> Result<MetadataLog> {
        let folder = paths::scratch("metadata-log")?;
        let mut bytes = Vec::new();
        for (offset, epoch, value) in batches {
            let options = BatchOptions {
                base_offset: Offset(*offset),
                partition_leader_epoch: LeaderEpoch(*epoch),
                ..BatchOptions::default()
            };
            let mut batch = BatchBuilder::new(options);
            batch.append(TimestampMs(0), None, Some(value.as_bytes()), &[]);
            bytes.extend_from_slice(&batch.build());
        }
        let whole = bytes.len();
        bytes.extend_from_slice(&[0; 100]);
        let segment = folder.join("00000000000000000000.log");
        std::fs::write(&segment, bytes)?;
        let log = MetadataLog::read(&folder);
        let copies = folder.join("copies");
        std::fs::create_dir(&copies)?;
        assert_eq!(copy_whole(&segment, &copies)?.metadata()?.len(), whole as u64);
        std::fs::remove_dir_all(&folder)?;
        log
    }

    #[test]
    fn differences_are_found() -> Result<()> {
        let good = [(5, 1, "a"), (6, 1, "b"), (7, 3, "c")];
        let against =
            |other: &[(i64, i32, &str)], end| -> Result<usize> { compare(&[(1, log(&good)?), (2, log(other)?)], end) };
        assert_eq!(against(&good, 8)?, 3);
        assert_eq!(against(&good[1..], 8)?, 2);
        assert_eq!(against(&[(5, 1, "a"), (6, 1, "b"), (7, 2, "other")], 7)?, 2);
        assert!(against(&[(5, 1, "a"), (6, 1, "b"), (7, 2, "c")], 8).is_err(), "another epoch");
        assert!(against(&[(5, 1, "a"), (6, 1, "x"), (7, 3, "c")], 8).is_err(), "another value");
        assert!(against(&good[..2], 8).is_err(), "too short");
        assert!(against(&[(5, 1, "a"), (7, 3, "c")], 8).is_err(), "a hole");
        assert!(against(&[(5, 3, "a"), (6, 1, "b"), (7, 3, "c")], 8).is_err(), "an epoch that falls");
        assert!(against(&[(8, 3, "d")], 8).is_err(), "nothing in common");
        Ok(())
    }
}
