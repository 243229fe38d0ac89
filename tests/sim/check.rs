//! Compares what lies on the disk after a restart with what was promised. Draws no random numbers.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_log::names::{FileKind, FileState, SegmentFile};
use ringlog_log::producer_snapshot::decode_producer_snapshot;
use ringlog_log::{LogConfig, Recovered, RecoveryAction};
use ringlog_protocol::records::BatchIter;
use ringlog_types::Offset;

use crate::disk::{Crash, Disk};
use crate::index_rule::{Placed, check_offset_index, index_files};
use crate::ledger::{Entry, Ledger};
use crate::store::name;
use crate::{Violation, ensure};

/// The batches of each segment file.
pub(crate) type Segments = BTreeMap<Offset, Vec<Placed>>;

/// Reads all segments; bytes that are no batch are a violation.
pub(crate) fn read_segments(disk: &Disk) -> Result<Segments, Violation> {
    let mut segments = Segments::new();
    for file in disk.names().filter_map(SegmentFile::parse) {
        if file.kind != FileKind::Log || file.state != FileState::Live {
            continue;
        }
        let bytes = disk.read(&file.to_string()).unwrap_or_default();
        let mut position = 0;
        let mut placed = Vec::new();
        for batch in BatchIter::new(bytes) {
            let batch = batch.map_err(|fault| format!("{file} has no batch at {position}: {fault}"))?;
            batch.verify_crc().map_err(|fault| format!("{file}: batch at {position}: {fault}"))?;
            placed.push(Placed { position, header: batch.header, bytes: batch.bytes.to_vec() });
            position += batch.bytes.len() as u32;
        }
        segments.insert(file.offset, placed);
    }
    Ok(segments)
}

/// What recovery made of the log, kept for the checks.
pub(crate) struct Outcome {
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    pub high_watermark: Offset,
    pub epochs: Vec<(i32, i64)>,
    active: Offset,
    active_indexes: (Vec<u8>, Vec<u8>),
    active_is_rebuilt: bool,
    rebuilt: Vec<Offset>,
}

impl Outcome {
    pub(crate) fn of(recovered: &Recovered, high_watermark: Offset) -> Outcome {
        let log = &recovered.log;
        let active = log.active.base_offset;
        let rebuilt: Vec<Offset> = recovered
            .actions
            .iter()
            .filter_map(|action| match action {
                RecoveryAction::WriteIndexes { base_offset, .. } => Some(*base_offset),
                _ => None,
            })
            .collect();
        let index = &log.active.index;
        Outcome {
            log_start_offset: log.log_start_offset,
            log_end_offset: log.log_end_offset,
            high_watermark: high_watermark.max(log.log_start_offset).min(log.log_end_offset),
            epochs: log.leader_epochs.entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect(),
            active,
            active_indexes: (index.offsets.encode_from(0), index.times.encode_from(0)),
            active_is_rebuilt: rebuilt.contains(&active),
            rebuilt,
        }
    }
}

/// Everything that has to hold when a log was opened. Returns the base offsets of the batches that are left.
pub(crate) fn check_restart(
    disk: &Disk,
    ledger: &Ledger,
    outcome: &Outcome,
    crash: Option<Crash>,
    config: &LogConfig,
) -> Result<BTreeSet<Offset>, Violation> {
    let segments = read_segments(disk)?;
    check_batches(&segments, ledger, outcome, crash)?;
    let required = if crash == Some(Crash::PowerLoss) { ledger.flushed } else { ledger.acknowledged };
    let (start, end) = (outcome.log_start_offset, outcome.log_end_offset);
    ensure!(end.0 >= required, "the log ends at {end}, but all below {required} was promised to survive");
    ensure!(start.0 >= ledger.deleted, "the log starts at {start}, but all below {} is deleted", ledger.deleted);
    let largest_start = ledger.largest_start;
    ensure!(start.0 <= largest_start, "the log starts at {start}, though it never started above {largest_start}");
    let high_watermark = outcome.high_watermark;
    ensure!(high_watermark <= end, "the high watermark {high_watermark} is above the log's end {end}");
    check_epochs(&segments, ledger, outcome)?;
    check_indexes(disk, &segments, outcome, config)?;
    check_producer_snapshots(disk, &segments)?;
    Ok(segments.values().flatten().map(|batch| batch.header.base_offset).collect())
}

/// The files hold a stretch of the ledger, byte for byte and without a gap, which covers the log.
///
/// Only a power loss may leave a gap, where a sealed segment that wasn't flushed ends early. As in Kafka, recovery can't
/// tell it from what compaction leaves.
fn check_batches(
    segments: &Segments,
    ledger: &Ledger,
    outcome: &Outcome,
    crash: Option<Crash>,
) -> Result<(), Violation> {
    let on_disk: Vec<&Placed> = segments.values().flatten().collect();
    for (base_offset, batches) in segments {
        let first = batches.first().map_or(*base_offset, |batch| batch.header.base_offset);
        ensure!(first >= *base_offset, "segment {base_offset} begins with offset {first}");
    }
    let (start, end) = (outcome.log_start_offset, outcome.log_end_offset);
    let may_be_lost = |entry: &Entry| crash == Some(Crash::PowerLoss) && entry.base_offset.0 >= ledger.flushed;
    let Some(first) = on_disk.first() else {
        let mut held = ledger.entries.iter().filter(|entry| entry.end_offset > start && entry.base_offset < end);
        let is_gap = start < end && held.all(may_be_lost);
        ensure!(start == end || is_gap, "no batch is left, but the log has {start} to {end}");
        return Ok(());
    };
    let from = first.header.base_offset;
    let skipped = ledger.entries.partition_point(|entry| entry.base_offset < from);
    for entry in ledger.entries[..skipped].iter().rev().take_while(|entry| entry.end_offset > start) {
        ensure!(may_be_lost(entry), "the log starts at {start}, but {} is missing before {from}", entry.base_offset);
    }
    let mut entries = ledger.entries[skipped..].iter();
    for batch in &on_disk {
        let base = batch.header.base_offset;
        let entry = loop {
            let Some(entry) = entries.next() else {
                return Err(format!("a batch of offset {base} is there that nobody appended"));
            };
            if entry.base_offset >= base {
                break entry;
            }
            ensure!(may_be_lost(entry), "the batch of offset {} is missing, {base} is there", entry.base_offset);
        };
        ensure!(entry.base_offset == base, "the batch of offset {base} is none that was appended");
        ensure!(entry.bytes[..] == batch.bytes[..], "the batch of offset {base} has other bytes than were appended");
    }
    let last = on_disk.last().map_or(start, |batch| batch.header.next_offset());
    let is_empty_segment = outcome.active == end && last < end;
    ensure!(last == end || is_empty_segment, "the bytes end at {last}, the log at {end}");
    for entry in entries.take_while(|entry| entry.base_offset < end) {
        ensure!(may_be_lost(entry), "the batch of offset {} is missing before the end {end}", entry.base_offset);
    }
    Ok(())
}

fn check_epochs(segments: &Segments, ledger: &Ledger, outcome: &Outcome) -> Result<(), Violation> {
    let rise = outcome.epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    ensure!(rise, "leader epochs don't rise: {:?}", outcome.epochs);
    // As in Kafka, a crash may forget that the log's start had moved, but not what that took from the epochs.
    let from = ledger.largest_start.max(outcome.log_start_offset.0);
    let mut last = -1;
    for Placed { header, .. } in segments.values().flatten() {
        let (offset, epoch) = (header.base_offset, header.partition_leader_epoch.0);
        ensure!(epoch >= last, "epoch {epoch} at offset {offset} follows {last}");
        last = epoch;
        if header.last_offset().0 < from {
            continue;
        }
        let asked = offset.0.max(from);
        let known = outcome.epochs.iter().rfind(|(_, start)| *start <= asked).map(|(epoch, _)| *epoch);
        ensure!(
            known == Some(epoch),
            "offset {asked} is of epoch {epoch}, the cache says {known:?}: {:?}",
            outcome.epochs
        );
    }
    Ok(())
}

fn check_indexes(disk: &Disk, segments: &Segments, outcome: &Outcome, config: &LogConfig) -> Result<(), Violation> {
    let interval = config.index_interval_bytes;
    for (base, batches) in segments {
        if *base == outcome.active {
            if outcome.active_is_rebuilt {
                let same = outcome.active_indexes == index_files(*base, batches, interval, false);
                ensure!(same, "the indexes of the active segment {base} don't follow the rule");
            }
            check_offset_index(*base, &outcome.active_indexes.0, batches)?;
            continue;
        }
        let offsets = disk.read(&name(*base, FileKind::OffsetIndex));
        let times = disk.read(&name(*base, FileKind::TimeIndex));
        let (Some(offsets), Some(times)) = (offsets, times) else {
            return Err(format!("segment {base} has no index"));
        };
        check_offset_index(*base, offsets, batches)?;
        let wanted = index_files(*base, batches, interval, true);
        if outcome.rebuilt.contains(base) {
            ensure!(offsets == wanted.0 && times == wanted.1, "the rebuilt indexes of {base} don't follow the rule");
        }
        let last = |index: &[u8]| index.last_chunk::<12>().copied();
        ensure!(last(times) == last(&wanted.1), "the time index of {base} doesn't end with its largest timestamp");
    }
    Ok(())
}

/// No producer snapshot speaks of a batch that isn't there: whoever opens the log from it would take that batch, when it
/// is sent again, for one that the log has.
fn check_producer_snapshots(disk: &Disk, segments: &Segments) -> Result<(), Violation> {
    let batches = || segments.values().flatten().map(|batch| &batch.header);
    let Some(first) = batches().map(|header| header.base_offset).min() else { return Ok(()) };
    for file in disk.names().filter_map(SegmentFile::parse) {
        if file.kind != FileKind::ProducerSnapshot || file.state != FileState::Live {
            continue;
        }
        let bytes = disk.read(&file.to_string()).unwrap_or_default();
        let entries = decode_producer_snapshot(bytes).map_err(|fault| format!("{file}: {fault}"))?;
        for entry in entries.iter().filter(|entry| entry.last_offset >= first) {
            let is_there = batches()
                .any(|header| header.last_offset() == entry.last_offset && header.producer_id == entry.producer_id);
            ensure!(is_there, "{file} says that producer {} wrote {}", entry.producer_id, entry.last_offset);
        }
    }
    Ok(())
}
