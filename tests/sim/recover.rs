//! Opens a log from the disk by `ringlog_log::Recovery`, and closes it in order, as `shards/log_dirs/` does.

use std::collections::BTreeSet;

use ringlog_log::checkpoint::{format_leader_epoch_checkpoint, parse_leader_epoch_checkpoint};
use ringlog_log::names::{FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, SegmentFile};
use ringlog_log::offset_index::OffsetIndex;
use ringlog_log::producer_snapshot::{decode_producer_snapshot, encode_producer_snapshot};
use ringlog_log::time_index::TimeIndex;
use ringlog_log::transaction_index::TransactionIndex;
use ringlog_log::{
    LoadedIndexes, Log, LogConfig, ProducerStateManager, Recovered, Recovery, RecoveryAction, RecoveryInput,
    RecoveryStep, SegmentOnDisk,
};
use ringlog_partition::Partition;
use ringlog_types::{Offset, Random, TimestampMs};

use crate::bug::Bug;
use crate::check::Outcome;
use crate::disk::{Crash, Disk};
use crate::store::{Store, name};
use crate::tasks::{HIGH_WATERMARK, LOG_START, RECOVERY_POINT};
use crate::{Violation, trace};

const CLEAN_SHUTDOWN: &str = "clean-shutdown";

/// A log that is ready.
pub(crate) struct Opened {
    pub store: Store,
    pub log: Log,
    /// As checkpointed.
    pub high_watermark: Offset,
    /// Of the producer snapshot that was used, 0 for none.
    pub snapshot: Offset,
    pub outcome: Outcome,
}

/// How opening went.
enum Open {
    Done(Box<Opened>),
    /// The node died meanwhile.
    Crashed(Crash),
}

/// Opens the log after a crash (none: after an orderly stop), also if the node dies over it. Returns the worst crash.
pub(crate) fn open(
    disk: &mut Disk,
    config: &LogConfig,
    now: TimestampMs,
    random: &mut Random,
    bug: Option<Bug>,
    crash: Option<Crash>,
) -> Result<(Opened, Option<Crash>), Violation> {
    let mut next = crash;
    let mut worst = crash;
    loop {
        if let Some(crash) = next {
            trace::note(|| format!("--- {crash:?}"));
            disk.crash(crash, random);
            if worst != Some(Crash::PowerLoss) {
                worst = next;
            }
        }
        match open_once(disk, config, now, random, bug)? {
            Open::Done(opened) => return Ok((*opened, worst)),
            Open::Crashed(crash) => next = Some(crash),
        }
    }
}

/// Opens the log and makes good what a crash left of it.
fn open_once(
    disk: &mut Disk,
    config: &LogConfig,
    now: TimestampMs,
    random: &mut Random,
    bug: Option<Bug>,
) -> Result<Open, Violation> {
    settle(disk);
    let is_clean = disk.read(CLEAN_SHUTDOWN).is_some();
    disk.remove(CLEAN_SHUTDOWN);
    disk.sync_names();
    let input = scan(disk, is_clean, now);
    let has_segments = !input.segments.is_empty();
    let mut recovery = Recovery::new(input, config, now);
    let snapshot = feed(disk, &mut recovery, random)?;
    let mut recovered = recovery.finish();
    if let Some(crash) = perform(disk, &recovered, random, bug) {
        return Ok(Open::Crashed(crash));
    }
    if recovered.log.leader_epochs.take_dirty() && bug != Some(Bug::ForgetEpochs) {
        let text = format_leader_epoch_checkpoint(recovered.log.leader_epochs.entries());
        disk.put(LEADER_EPOCH_CHECKPOINT_FILE, text.into_bytes());
    }
    if bug == Some(Bug::ForgetProducers) {
        recovered.log.producers = ProducerStateManager::new(recovered.log.log_end_offset);
    }
    let created = recovered.actions.iter().any(|action| matches!(action, RecoveryAction::CreateSegment { .. }));
    let high_watermark = number(disk, HIGH_WATERMARK);
    let outcome = Outcome::of(&recovered, high_watermark);
    let log = Log::open(recovered.log, now);
    let (base_offset, size) = (log.active_segment().base_offset, u64::from(log.active_segment().size));
    if bug != Some(Bug::KeepStaleIndexes) {
        // They are in memory. Left here, they would look whole once the segment is sealed again.
        disk.remove(&name(base_offset, FileKind::OffsetIndex));
        disk.remove(&name(base_offset, FileKind::TimeIndex));
    }
    let mut store = Store::new(base_offset, size, (!created).then_some(size));
    if created && (has_segments || log.log_end_offset() > Offset(0)) {
        disk.create(&name(base_offset, FileKind::Log));
        disk.sync_names();
        store.active().create = false;
    }
    Ok(Open::Done(Box::new(Opened { store, log, high_watermark, snapshot, outcome })))
}

fn number(disk: &Disk, file: &str) -> Offset {
    let bytes = disk.read(file).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(Offset(0), |bytes| Offset(i64::from_be_bytes(bytes)))
}

fn files(disk: &Disk) -> Vec<SegmentFile> {
    disk.names().filter_map(SegmentFile::parse).collect()
}

/// What was to be deleted goes, and indexes without their log.
fn settle(disk: &mut Disk) {
    let all = files(disk);
    let has_log = |offset: Offset| {
        all.iter().any(|f| f.kind == FileKind::Log && f.state == FileState::Live && f.offset == offset)
    };
    for file in &all {
        let is_index = !matches!(file.kind, FileKind::Log | FileKind::ProducerSnapshot);
        if file.state == FileState::Deleted || (is_index && !has_log(file.offset)) {
            disk.remove(&file.to_string());
        }
    }
}

fn scan(disk: &Disk, is_clean: bool, now: TimestampMs) -> RecoveryInput {
    let all = files(disk);
    let of_kind = |kind: FileKind| all.iter().filter(move |file| file.kind == kind).map(|file| file.offset);
    let mut segments: Vec<SegmentOnDisk> = of_kind(FileKind::Log).map(|base| segment(disk, base, now)).collect();
    segments.sort_unstable_by_key(|segment| segment.base_offset);
    let mut snapshots: Vec<Offset> = of_kind(FileKind::ProducerSnapshot).collect();
    snapshots.sort_unstable();
    let newest_indexes = segments.last_mut().and_then(|newest| {
        newest.newest = None;
        newest.has_valid_indexes = false;
        is_clean.then(|| load_indexes(disk, newest.base_offset))?
    });
    let epochs = disk.read(LEADER_EPOCH_CHECKPOINT_FILE);
    RecoveryInput {
        segments,
        newest_indexes,
        recovery_point: number(disk, RECOVERY_POINT),
        log_start_offset: number(disk, LOG_START),
        clean_shutdown: is_clean,
        snapshots,
        leader_epochs: epochs.map(|text| parse_leader_epoch_checkpoint(text).expect("whole")).unwrap_or_default(),
        truncate_to: None,
    }
}

fn segment(disk: &Disk, base_offset: Offset, now: TimestampMs) -> SegmentOnDisk {
    let offsets = disk.read(&name(base_offset, FileKind::OffsetIndex));
    let times =
        disk.read(&name(base_offset, FileKind::TimeIndex)).and_then(|bytes| TimeIndex::load(base_offset, bytes).ok());
    let has_valid_indexes = offsets.is_some_and(|bytes| bytes.len().is_multiple_of(8)) && times.is_some();
    SegmentOnDisk {
        base_offset,
        size: disk.read(&name(base_offset, FileKind::Log)).map_or(0, <[u8]>::len) as u32,
        last_modified: now,
        has_valid_indexes,
        has_transaction_index: false,
        newest: times.filter(|times| !times.is_empty()).map(|times| times.last()),
    }
}

fn load_indexes(disk: &Disk, base_offset: Offset) -> Option<LoadedIndexes> {
    let offsets = OffsetIndex::load(base_offset, disk.read(&name(base_offset, FileKind::OffsetIndex))?).ok()?;
    let times = TimeIndex::load(base_offset, disk.read(&name(base_offset, FileKind::TimeIndex))?).ok()?;
    Some(LoadedIndexes { offsets, times, transactions: TransactionIndex::new() })
}

/// Gives the machine what it asks for, in pieces of random size; returns the offset of the snapshot that it used.
fn feed(disk: &Disk, recovery: &mut Recovery, random: &mut Random) -> Result<Offset, Violation> {
    let mut used = Offset(0);
    let piece = 1 + random.below(20_000) as usize;
    for _ in 0..100_000 {
        match recovery.step() {
            RecoveryStep::Done => return Ok(used),
            RecoveryStep::LoadSnapshot { offset } => {
                let bytes = disk.read(&name(offset, FileKind::ProducerSnapshot)).unwrap_or_default();
                let entries = decode_producer_snapshot(bytes).ok();
                if entries.is_some() {
                    used = offset;
                }
                recovery.on_snapshot(entries.as_deref());
            }
            RecoveryStep::Read { segment_base_offset, position, min_length } => {
                let file = disk.read(&name(segment_base_offset, FileKind::Log)).unwrap_or_default();
                let rest = file.get(position as usize..).unwrap_or_default();
                recovery.on_bytes(&rest[..rest.len().min(piece.max(min_length as usize))]);
            }
        }
    }
    Err("recovery doesn't end".to_owned())
}

/// Does what recovery decided: whole segments go first, the last one foremost. The node may die in between.
fn perform(disk: &mut Disk, recovered: &Recovered, random: &mut Random, bug: Option<Bug>) -> Option<Crash> {
    let dies = |random: &mut Random| {
        let crash = if random.below(3) == 0 { Crash::PowerLoss } else { Crash::Kill };
        (random.below(40) == 0).then_some(crash)
    };
    let active = recovered.log.active.base_offset;
    let base_of = |action: &RecoveryAction| match action {
        RecoveryAction::DeleteSegment { base_offset } => Some(*base_offset),
        _ => None,
    };
    let deleted: BTreeSet<Offset> = recovered.actions.iter().filter_map(base_of).collect();
    let deletions = deleted.iter().rev().map(|base_offset| RecoveryAction::DeleteSegment { base_offset: *base_offset });
    let others = recovered.actions.iter().filter(|action| base_of(action).is_none()).cloned();
    for action in deletions.chain(others) {
        match &action {
            RecoveryAction::DeleteSegment { base_offset } => {
                for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
                    disk.remove(&name(*base_offset, kind));
                }
                disk.sync_names();
            }
            // It was cut before it turned out that nothing of the log is left.
            RecoveryAction::TruncateSegment { base_offset, .. } | RecoveryAction::WriteIndexes { base_offset, .. }
                if deleted.contains(base_offset) => {}
            RecoveryAction::TruncateSegment { .. } if bug == Some(Bug::KeepTornTail) => {}
            RecoveryAction::TruncateSegment { base_offset, size } => {
                let file = name(*base_offset, FileKind::Log);
                disk.set_len(&file, u64::from(*size));
                disk.sync(&file);
            }
            RecoveryAction::WriteIndexes { base_offset, index, .. } => {
                // What was read may only be in a cache; from here on the recovery point may pass it.
                if bug != Some(Bug::TrustReadBytes) {
                    disk.sync(&name(*base_offset, FileKind::Log));
                }
                if *base_offset != active && bug != Some(Bug::ForgetIndexes) {
                    disk.put(&name(*base_offset, FileKind::OffsetIndex), index.offsets.encode_from(0));
                    disk.put(&name(*base_offset, FileKind::TimeIndex), index.times.encode_from(0));
                }
            }
            RecoveryAction::CreateSegment { .. } => {}
            RecoveryAction::DeleteSnapshot { offset } => disk.remove(&name(*offset, FileKind::ProducerSnapshot)),
            RecoveryAction::WriteSnapshot { offset, entries } => {
                disk.put(&name(*offset, FileKind::ProducerSnapshot), encode_producer_snapshot(entries));
            }
        }
        if let Some(crash) = dies(random) {
            return Some(crash);
        }
    }
    disk.sync_names();
    None
}

/// Leaves the directory as an orderly stop does. Everything has been written.
pub(crate) fn close(disk: &mut Disk, store: &mut Store, partition: &mut Partition, now: TimestampMs) {
    let end = partition.log().log_end_offset();
    let epochs = partition.log_mut().leader_epochs_mut();
    if epochs.take_dirty() {
        let text = format_leader_epoch_checkpoint(epochs.entries());
        disk.put(LEADER_EPOCH_CHECKPOINT_FILE, text.into_bytes());
    }
    let tail = store.active();
    let file = name(tail.base_offset, FileKind::Log);
    disk.create(&file);
    disk.set_len(&file, tail.end());
    let snapshot = partition.log_mut().producers_mut().take_snapshot();
    if let Some((offset, producers)) = snapshot.filter(|(offset, _)| *offset > Offset(0)) {
        disk.put(&name(offset, FileKind::ProducerSnapshot), encode_producer_snapshot(&producers));
    }
    let active = partition.log_mut().active_segment_mut();
    active.index.on_close();
    disk.put(&name(active.base_offset, FileKind::OffsetIndex), active.index.offsets.encode_from(0));
    disk.put(&name(active.base_offset, FileKind::TimeIndex), active.index.times.encode_from(0));
    disk.sync_all();
    partition.log_mut().on_flushed(end, now);
    let log = partition.log();
    let number = |offset: Offset| offset.0.to_be_bytes().to_vec();
    disk.put(LOG_START, log.log_start_offset_to_checkpoint().map(number).unwrap_or_default());
    disk.put(RECOVERY_POINT, number(log.recovery_point()));
    disk.put(HIGH_WATERMARK, number(partition.high_watermark()));
    disk.put(CLEAN_SHUTDOWN, Vec::new());
}
