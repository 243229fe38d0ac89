//! The metadata logs of several nodes, compared by bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ringlog_protocol::records::BatchIter;

/// The batches of a metadata log by base offset.
#[derive(Debug, Default)]
pub struct MetadataLog {
    batches: BTreeMap<i64, Batch>,
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
        let mut batches = BTreeMap::new();
        for segment in segments(folder)? {
            let bytes = match fs::read(&segment) {
                Ok(bytes) => bytes,
                // A running node removes segments that a snapshot covers.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| segment.display().to_string()),
            };
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
        let log = MetadataLog { batches };
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
        self.batches.values().next_back().map_or(0, |batch| batch.next_offset)
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

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}
