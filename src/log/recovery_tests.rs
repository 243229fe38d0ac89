use std::collections::BTreeMap;

use ringlog_protocol::records::set_base_offset_and_epoch;
use ringlog_types::Random;

use super::*;
use crate::test_batches::{PLAIN, Spec, marker_bytes, parse};
use crate::{Log, Roll};

const NOW: TimestampMs = TimestampMs(10_000);

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() }
}

/// A log and the files that a store would have written for it.
struct Disk {
    log: Log,
    segments: BTreeMap<Offset, Vec<u8>>,
    /// Offset and time index of sealed segments.
    indexes: BTreeMap<Offset, (Vec<u8>, Vec<u8>)>,
    snapshots: BTreeMap<Offset, Vec<ProducerSnapshotEntry>>,
    sequences: [i32; 3],
    /// End offset, segment and end position of every batch.
    batches: Vec<(Offset, Offset, usize)>,
}

impl Disk {
    fn new() -> Disk {
        let log = Log::new(Offset(0), NOW, 0);
        let segments = BTreeMap::from([(Offset(0), Vec::new())]);
        let (indexes, snapshots) = (BTreeMap::new(), BTreeMap::new());
        Disk { log, segments, indexes, snapshots, sequences: [0; 3], batches: Vec::new() }
    }

    fn append(&mut self, bytes: &[u8]) {
        let batch = parse(bytes);
        let placement = self.log.append(&[batch], &config(), NOW).unwrap();
        if let Some(roll) = placement.roll {
            self.roll(*roll);
        }
        let file = self.segments.entry(placement.segment_base_offset).or_default();
        assert_eq!(file.len(), placement.position as usize);
        file.extend_from_slice(bytes);
        self.batches.push((batch.header.next_offset(), placement.segment_base_offset, file.len()));
    }

    fn roll(&mut self, roll: Roll) {
        let base = roll.sealed.base_offset;
        self.indexes.insert(base, (roll.index.offsets.encode_from(0), roll.index.times.encode_from(0)));
        if let Some((offset, entries)) = roll.producer_snapshot {
            self.snapshots.insert(offset, entries);
        }
    }

    fn append_random(&mut self, random: &mut Random) {
        let offset = self.log.log_end_offset().0;
        let id = random.below(3) as usize;
        if random.below(4) == 0 {
            let mut bytes = marker_bytes(offset, (id as i64, 0), random.below(2) == 0, 0).to_vec();
            set_base_offset_and_epoch(&mut bytes, Offset(offset), LeaderEpoch((offset / 40) as i32));
            self.append(&bytes);
            return;
        }
        let count = 1 + random.below(3) as i64;
        let producer = (id as i64, 0, self.sequences[id]);
        self.sequences[id] += count as i32;
        let timestamp = 1000 + random.below(500) as i64;
        let spec = Spec {
            offset,
            count,
            timestamp,
            leader_epoch: (offset / 40) as i32,
            value_len: random.below(50) as usize,
            producer,
            transactional: true,
        };
        self.append(&spec.bytes());
    }

    fn input(&self, recovery_point: Offset) -> RecoveryInput {
        let on_disk = |(&base_offset, bytes): (&Offset, &Vec<u8>)| SegmentOnDisk {
            base_offset,
            size: bytes.len() as u32,
            last_modified: NOW,
            has_valid_indexes: true,
            has_transaction_index: false,
            newest: None,
        };
        RecoveryInput {
            segments: self.segments.iter().map(on_disk).collect(),
            newest_indexes: None,
            recovery_point,
            log_start_offset: Offset(0),
            clean_shutdown: false,
            snapshots: self.snapshots.keys().copied().collect(),
            leader_epochs: self.log.leader_epochs().entries().to_vec(),
            truncate_to: None,
        }
    }

    /// Runs the machine over the files, giving it `chunk` bytes at a time where that is enough.
    fn recover(&self, input: RecoveryInput, chunk: usize) -> Recovered {
        self.recover_as(input, chunk, Continuity::Rising)
    }

    fn recover_as(&self, input: RecoveryInput, chunk: usize, continuity: Continuity) -> Recovered {
        let mut recovery = Recovery::with_continuity(input, &config(), NOW, continuity);
        self.run(&mut recovery, chunk);
        recovery.finish()
    }

    fn run(&self, recovery: &mut Recovery, chunk: usize) {
        for _ in 0..100_000 {
            match recovery.step() {
                RecoveryStep::LoadSnapshot { offset } => {
                    recovery.on_snapshot(self.snapshots.get(&offset).map(Vec::as_slice));
                }
                RecoveryStep::Read { segment_base_offset, position, min_length } => {
                    let file = &self.segments[&segment_base_offset][position as usize..];
                    recovery.on_bytes(&file[..file.len().min(chunk.max(min_length as usize))]);
                }
                RecoveryStep::Done => return,
            }
        }
        panic!("recovery does not end");
    }
}

fn assert_same(recovered: &Recovered, log: &Log, context: &str) {
    let found = &recovered.log;
    assert_eq!(found.log_end_offset, log.log_end_offset(), "{context}");
    assert_eq!(found.active.base_offset, log.active_segment().base_offset, "{context}");
    assert_eq!(found.active.size, log.active_segment().size, "{context}");
    assert_eq!(found.active.first_batch_timestamp, log.active_segment().first_batch_timestamp, "{context}");
    assert_eq!(found.active.index.max_timestamp(), log.active_segment().index.max_timestamp(), "{context}");
    assert_eq!(found.leader_epochs.entries(), log.leader_epochs().entries(), "{context}");
    assert_eq!(found.producers.snapshot(), log.producers().snapshot(), "{context}");
    assert_eq!(found.sealed.len(), log.sealed_segments().len(), "{context}");
}

#[test]
fn an_empty_directory_gets_a_segment_at_the_log_start() {
    let mut disk = Disk::new();
    disk.segments.clear();
    let input = RecoveryInput { log_start_offset: Offset(7), ..disk.input(Offset(0)) };
    let recovered = disk.recover(input, 10);
    assert_eq!((recovered.log.log_end_offset, recovered.log.active.base_offset), (Offset(7), Offset(7)));
    assert!(matches!(recovered.actions[..], [RecoveryAction::CreateSegment { base_offset: Offset(7) }]));
}

#[test]
fn after_a_kill_everything_is_rebuilt_and_torn_tails_are_cut() {
    for seed in 0..60 {
        let mut random = Random::from_seed(seed);
        let mut disk = Disk::new();
        for _ in 0..random.below(80) {
            disk.append_random(&mut random);
        }
        let intact = disk.log.clone();
        let recovery_point = Offset(random.below(intact.log_end_offset().0 as u64 + 1) as i64);
        let chunk = 1 + random.below(2000) as usize;
        let tail = match random.below(4) {
            0 => Vec::new(),
            1 => vec![0; 1 + random.below(4096) as usize],
            2 => {
                let torn = Spec { offset: intact.log_end_offset().0, ..PLAIN }.bytes();
                torn[..1 + random.below(torn.len() as u64 - 1) as usize].to_vec()
            }
            _ => {
                let mut corrupt = Spec { offset: intact.log_end_offset().0, ..PLAIN }.bytes().to_vec();
                let at = 21 + random.below(corrupt.len() as u64 - 21) as usize;
                corrupt[at] ^= 0x10;
                corrupt
            }
        };
        disk.segments.values_mut().last().unwrap().extend_from_slice(&tail);
        let recovered = disk.recover(disk.input(recovery_point), chunk);
        assert_same(&recovered, &intact, &format!("seed {seed}"));
        assert_eq!(recovered.truncated_bytes, tail.len() as u64);
        assert!(recovered.log.recovery_point <= intact.log_end_offset());
        assert!(!recovered.is_corrupt_below_recovery_point);
        for action in &recovered.actions {
            if let RecoveryAction::WriteIndexes { base_offset, index, .. } = action
                && let Some((offsets, times)) = disk.indexes.get(base_offset)
            {
                assert_eq!((&index.offsets.encode_from(0), &index.times.encode_from(0)), (offsets, times));
            }
        }
    }
}

#[test]
fn damage_inside_cuts_there_and_drops_later_segments() {
    let mut random = Random::from_seed(1);
    let mut disk = Disk::new();
    for _ in 0..80 {
        disk.append_random(&mut random);
    }
    let at = disk.batches.len() / 2;
    let (end, segment, position) = disk.batches[at];
    let (_, next_segment, next_position) = disk.batches[at + 1];
    let damaged = if next_segment == segment { next_position - 1 } else { 30 };
    disk.segments.get_mut(&next_segment).unwrap()[damaged] ^= 1;
    let recovered = disk.recover(disk.input(Offset(0)), 300);
    assert_eq!(recovered.log.log_end_offset, end.max(next_segment));
    if next_segment == segment {
        assert_eq!(recovered.log.active.size as usize, position);
    }
    let deleted = recovered.actions.iter().filter(|a| matches!(a, RecoveryAction::DeleteSegment { .. })).count();
    assert_eq!(deleted, disk.segments.keys().filter(|base| **base > next_segment).count());
    let stale =
        recovered.actions.iter().filter(|a| matches!(a, RecoveryAction::DeleteSnapshot { offset } if *offset > end));
    assert_eq!(stale.count(), disk.snapshots.keys().filter(|offset| **offset > end).count());
}

/// Base offset, segment and position of every batch.
fn starts(disk: &Disk) -> Vec<(Offset, Offset, usize)> {
    let mut starts = Vec::new();
    let (mut base, mut last) = (Offset(0), (Offset(0), 0));
    for (end, segment, position) in &disk.batches {
        let start = if *segment == last.0 { last.1 } else { 0 };
        starts.push((base, *segment, start));
        (base, last) = (*end, (*segment, *position));
    }
    starts
}

#[test]
fn a_log_without_gaps_is_cut_where_offsets_or_epochs_are_damaged() {
    let mut random = Random::from_seed(5);
    let mut disk = Disk::new();
    for _ in 0..80 {
        disk.append_random(&mut random);
    }
    let whole = disk.recover_as(disk.input(Offset(0)), 300, Continuity::Contiguous);
    assert_same(&whole, &disk.log, "an undamaged log");
    // Base offset, length and leader epoch lie before what the checksum covers.
    for (base, segment, start) in starts(&disk) {
        for (byte, bit) in (0..16).flat_map(|byte| [(byte, 0), (byte, 5)]) {
            disk.segments.get_mut(&segment).unwrap()[start + byte] ^= 1 << bit;
            let input = disk.input(Offset(0));
            let recovered = disk.recover_as(input, 300, Continuity::Contiguous);
            assert_eq!(recovered.log.log_end_offset, base, "bit {bit} of byte {byte} of the batch at {base}");
            disk.segments.get_mut(&segment).unwrap()[start + byte] ^= 1 << bit;
        }
    }
}

#[test]
fn epochs_that_were_forgotten_are_learned_from_the_batches() {
    let mut random = Random::from_seed(7);
    let mut disk = Disk::new();
    for _ in 0..80 {
        disk.append_random(&mut random);
    }
    let all = disk.log.leader_epochs().entries().to_vec();
    assert!(all.len() > 2);
    let mut input = disk.input(Offset(0));
    // A snapshot lies there, say; but nothing has been deleted below it.
    input.leader_epochs.remove(0);
    input.leader_epochs[0].start_offset.0 += 5;
    let known = input.leader_epochs[0];
    let recovered = disk.recover_as(input.clone(), 300, Continuity::Contiguous);
    assert_eq!(recovered.log.log_end_offset, disk.log.log_end_offset());
    assert_eq!(recovered.log.leader_epochs.entries(), all);
    // The epochs of those batches are bounded by what is known.
    let (base, segment, start) = starts(&disk).into_iter().rfind(|(base, ..)| *base < known.start_offset).unwrap();
    disk.segments.get_mut(&segment).unwrap()[start + 14] ^= 2;
    let recovered = disk.recover_as(input, 300, Continuity::Contiguous);
    assert_eq!(recovered.log.log_end_offset, base);
}

#[test]
fn a_batch_of_an_epoch_that_never_was_is_cut_off() {
    let mut random = Random::from_seed(8);
    let mut disk = Disk::new();
    for _ in 0..80 {
        disk.append_random(&mut random);
    }
    let newest = disk.log.leader_epochs().latest_epoch();
    let (base, segment, start) = *starts(&disk).last().unwrap();
    disk.segments.get_mut(&segment).unwrap()[start + 14] ^= 2;
    let recover = |newest| {
        // The file is damaged, too.
        let input = RecoveryInput { leader_epochs: Vec::new(), ..disk.input(Offset(0)) };
        let mut recovery =
            Recovery::with_continuity(input, &config(), NOW, Continuity::Contiguous).with_newest_epoch(newest);
        disk.run(&mut recovery, 300);
        recovery.finish().log.log_end_offset
    };
    assert_eq!(recover(None), disk.log.log_end_offset());
    assert_eq!(recover(newest), base);
}

#[test]
fn a_log_without_gaps_ends_where_a_segment_is_short() {
    let mut random = Random::from_seed(6);
    let mut disk = Disk::new();
    for _ in 0..80 {
        disk.append_random(&mut random);
    }
    let starts = starts(&disk);
    let last_of_first = starts.iter().rfind(|(_, segment, _)| *segment == Offset(0)).unwrap();
    // The device kept the next segment, but not the last batch of this one: no batch is torn.
    disk.segments.get_mut(&Offset(0)).unwrap().truncate(last_of_first.2);
    let recovered = disk.recover_as(disk.input(Offset(0)), 300, Continuity::Contiguous);
    assert_eq!(recovered.log.log_end_offset, last_of_first.0);
    let deleted = recovered.actions.iter().filter(|a| matches!(a, RecoveryAction::DeleteSegment { .. })).count();
    assert_eq!(deleted, disk.segments.len() - 1);
}

#[test]
fn an_unusable_snapshot_is_deleted_and_producers_are_replayed() {
    let mut random = Random::from_seed(2);
    let mut disk = Disk::new();
    for _ in 0..80 {
        disk.append_random(&mut random);
    }
    assert!(disk.snapshots.len() > 2);
    let input = disk.input(disk.log.log_end_offset());
    let newest = *disk.snapshots.keys().next_back().unwrap();
    disk.snapshots.clear();
    let recovered = disk.recover(input, 500);
    assert_same(&recovered, &disk.log, "replayed from the start");
    assert!(
        recovered.actions.iter().any(|a| matches!(a, RecoveryAction::DeleteSnapshot { offset } if *offset == newest))
    );
    assert!(recovered.actions.iter().any(|a| matches!(a, RecoveryAction::WriteSnapshot { .. })));
}

/// Retention took segments, and a power failure brought back what it liked of them; or records were deleted.
#[test]
fn a_snapshot_behind_which_records_are_missing_says_nothing() {
    let mut random = Random::from_seed(4);
    let mut disk = Disk::new();
    for _ in 0..120 {
        disk.append_random(&mut random);
    }
    let bases: Vec<Offset> = disk.segments.keys().copied().collect();
    let end = disk.log.log_end_offset();
    let within = Offset(bases[4].0 + 1);
    // By where the log starts, and the first segment that is there: which snapshot is used, if it alone is there.
    let cases = [
        (Offset(0), 0, vec![1, 2, 3, 4]),
        (Offset(0), 3, vec![3, 4]),
        (bases[3], 3, vec![3, 4]),
        (bases[3], 1, vec![3, 4]),
        (within, 1, vec![]),
        (end, 2, vec![]),
    ];
    for (log_start_offset, first, used) in cases {
        let there = |snapshots: &[Offset]| {
            let segments = disk.segments.range(bases[first]..).map(|(base, bytes)| (*base, bytes.clone())).collect();
            let kept = |offset: &Offset| Some((*offset, disk.snapshots.get(offset)?.clone()));
            let snapshots = snapshots.iter().filter_map(kept).collect();
            let (log, indexes, batches) = (disk.log.clone(), disk.indexes.clone(), Vec::new());
            let disk = Disk { log, segments, indexes, snapshots, sequences: [0; 3], batches };
            let input = RecoveryInput { log_start_offset, ..disk.input(bases[4]) };
            disk.recover(input, 500).log.producers.snapshot()
        };
        let (without, all) = (there(&[]), disk.log.producers().snapshot());
        for (number, snapshot) in bases.iter().enumerate().take(5).skip(1) {
            let wanted = if used.contains(&number) { &all } else { &without };
            let found = there(&[*snapshot]);
            assert_eq!(found, *wanted, "start {log_start_offset:?}, first segment {first}, snapshot {number}");
        }
    }
}

/// A power failure takes the end of a sealed segment that wasn't flushed yet; the snapshot of a later one was.
#[test]
fn snapshots_of_what_was_not_flushed_are_not_kept() {
    let mut random = Random::from_seed(3);
    let mut disk = Disk::new();
    for _ in 0..80 {
        disk.append_random(&mut random);
    }
    let bases: Vec<Offset> = disk.segments.keys().copied().collect();
    let torn = bases[2];
    let (.., end_of_first_batch) = *disk.batches.iter().find(|(_, segment, _)| *segment == torn).unwrap();
    disk.segments.get_mut(&torn).unwrap().truncate(end_of_first_batch);
    let recovered = disk.recover(disk.input(torn), 300);
    assert_eq!(recovered.log.log_end_offset, disk.log.log_end_offset(), "what follows can't be told from compaction");
    let mut kept = disk.snapshots.clone();
    for action in recovered.actions {
        match action {
            RecoveryAction::DeleteSnapshot { offset } => drop(kept.remove(&offset)),
            RecoveryAction::WriteSnapshot { offset, entries } => drop(kept.insert(offset, entries)),
            _ => {}
        }
    }
    let (end, entries) = kept.pop_last().unwrap();
    assert_eq!((end, entries), (recovered.log.log_end_offset, recovered.log.producers.snapshot()));
    assert!(kept.keys().all(|offset| *offset <= torn), "{:?}", kept.keys());
}

#[test]
fn an_orderly_stop_reads_only_the_tail() {
    for seed in 0..30 {
        let mut random = Random::from_seed(seed);
        let mut disk = Disk::new();
        for _ in 0..random.below(60) {
            disk.append_random(&mut random);
        }
        let intact = disk.log.clone();
        let mut closed = intact.clone();
        closed.active_segment_mut().index.on_close();
        let index = &closed.active_segment().index;
        let newest_indexes = LoadedIndexes {
            offsets: index.offsets.clone(),
            times: index.times.clone(),
            transactions: closed.active_segment().transaction_index.clone(),
        };
        if let Some((offset, entries)) = closed.producers_mut().take_snapshot() {
            disk.snapshots.insert(offset, entries);
        }
        let input = RecoveryInput {
            newest_indexes: Some(newest_indexes),
            clean_shutdown: true,
            ..disk.input(intact.log_end_offset())
        };
        // Older segments are not even looked at.
        let newest = *disk.segments.keys().next_back().unwrap();
        for (base, bytes) in &mut disk.segments {
            if *base != newest {
                bytes.fill(0xff);
            }
        }
        let recovered = disk.recover(input, 100);
        assert_same(&recovered, &intact, &format!("seed {seed}"));
        assert_eq!(recovered.log.recovery_point, intact.log_end_offset());
        assert!(!recovered.actions.iter().any(|a| !matches!(a, RecoveryAction::DeleteSnapshot { .. })));
        let aborted = closed.active_segment().transaction_index.entries();
        assert_eq!(recovered.log.active.transaction_index.entries(), aborted);
    }
}

#[test]
fn truncation_gives_the_log_as_it_was_at_that_offset() {
    for seed in 0..60 {
        let mut random = Random::from_seed(seed);
        let mut disk = Disk::new();
        let mut history = vec![disk.log.clone()];
        for _ in 0..60 {
            disk.append_random(&mut random);
            history.push(disk.log.clone());
        }
        let offset = Offset(random.below(disk.log.log_end_offset().0 as u64) as i64);
        let snapshots = disk.snapshots.keys().copied().collect();
        let TruncationPlan::Rebuild(input) = disk.log.plan_truncation(offset, snapshots) else { panic!("no plan") };
        let recovered = disk.recover(*input, 700);
        let expected = history.iter().rev().find(|log| log.log_end_offset() <= offset).unwrap();
        assert_eq!(recovered.log.log_end_offset, expected.log_end_offset(), "seed {seed}");
        assert_eq!(recovered.log.producers.snapshot(), expected.producers().snapshot(), "seed {seed}");
        assert_eq!(recovered.log.leader_epochs.entries(), expected.leader_epochs().entries(), "seed {seed}");
        let log = Log::open(recovered.log, NOW);
        assert!(log.recovery_point() <= log.log_end_offset());
        assert!(matches!(log.plan_truncation(log.log_end_offset(), Vec::new()), TruncationPlan::Nothing));
    }
}

#[test]
fn a_log_start_above_all_records_starts_anew() {
    let mut random = Random::from_seed(3);
    let mut disk = Disk::new();
    for _ in 0..20 {
        disk.append_random(&mut random);
    }
    let input = RecoveryInput { log_start_offset: Offset(5000), ..disk.input(Offset(0)) };
    let recovered = disk.recover(input, 1000);
    assert_eq!((recovered.log.log_start_offset, recovered.log.log_end_offset), (Offset(5000), Offset(5000)));
    assert!(recovered.actions.iter().any(|a| matches!(a, RecoveryAction::CreateSegment { base_offset: Offset(5000) })));
}
