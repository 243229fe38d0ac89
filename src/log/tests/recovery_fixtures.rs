//! Opens the partition directories that Apache Kafka 4.3.1 wrote, after an orderly stop and after a kill.

#[path = "../../../tests/data/fixtures.rs"]
mod fixtures;

use std::collections::{BTreeMap, BTreeSet};

use fixtures::load;
use ringlog_log::checkpoint::{parse_leader_epoch_checkpoint, parse_offset_checkpoint};
use ringlog_log::names::*;
use ringlog_log::offset_index::OffsetIndex;
use ringlog_log::producer_snapshot::{ProducerSnapshotEntry, decode_producer_snapshot};
use ringlog_log::time_index::TimeIndex;
use ringlog_log::transaction_index::TransactionIndex;
use ringlog_log::{
    LoadedIndexes, LogConfig, Recovered, Recovery, RecoveryAction, RecoveryInput, RecoveryStep, SegmentOnDisk,
};
use ringlog_types::{Offset, TimestampMs};

const NOW: TimestampMs = TimestampMs(1_795_500_000_000);

/// One partition's files by name.
struct Directory {
    name: String,
    files: BTreeMap<String, Vec<u8>>,
}

fn directories(fixture: &str) -> (Vec<Directory>, BTreeMap<String, Vec<u8>>) {
    let mut found: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    let mut top = BTreeMap::new();
    for (path, bytes) in load(fixture) {
        match path.rsplit_once('/') {
            Some((directory, file)) => {
                found.entry(directory.to_owned()).or_default().insert(file.to_owned(), bytes);
            }
            None => {
                top.insert(path, bytes);
            }
        }
    }
    let directories = found.into_iter().map(|(name, files)| Directory { name, files });
    (directories.filter(|d| !d.name.ends_with("-delete") && !d.name.starts_with("__cluster")).collect(), top)
}

impl Directory {
    fn of_kind(&self, kind: FileKind) -> Vec<Offset> {
        let live = self.files.keys().filter_map(|name| SegmentFile::parse(name));
        live.filter(|file| *file == SegmentFile::live(file.offset, kind)).map(|file| file.offset).collect()
    }

    fn bytes(&self, offset: Offset, kind: FileKind) -> &[u8] {
        self.files.get(&SegmentFile::live(offset, kind).to_string()).map_or(&[], Vec::as_slice)
    }

    fn snapshot(&self, offset: Offset) -> Vec<ProducerSnapshotEntry> {
        decode_producer_snapshot(self.bytes(offset, FileKind::ProducerSnapshot)).unwrap()
    }

    fn loaded_indexes(&self, base: Offset) -> LoadedIndexes {
        LoadedIndexes {
            offsets: OffsetIndex::load(base, self.bytes(base, FileKind::OffsetIndex)).unwrap(),
            times: TimeIndex::load(base, self.bytes(base, FileKind::TimeIndex)).unwrap(),
            transactions: TransactionIndex::load(base, self.bytes(base, FileKind::TransactionIndex)).unwrap(),
        }
    }

    fn input(&self, recovery_point: Offset, clean_shutdown: bool) -> RecoveryInput {
        let bases = self.of_kind(FileKind::Log);
        let segment = |&base_offset: &Offset| SegmentOnDisk {
            base_offset,
            size: self.bytes(base_offset, FileKind::Log).len() as u32,
            last_modified: NOW,
            has_valid_indexes: true,
            has_transaction_index: !self.bytes(base_offset, FileKind::TransactionIndex).is_empty(),
            newest: Some(self.loaded_indexes(base_offset).times.last()),
        };
        let epochs = self.files.get(LEADER_EPOCH_CHECKPOINT_FILE);
        RecoveryInput {
            segments: bases.iter().map(segment).collect(),
            newest_indexes: bases.last().filter(|_| clean_shutdown).map(|base| self.loaded_indexes(*base)),
            recovery_point,
            log_start_offset: Offset(0),
            clean_shutdown,
            snapshots: self.of_kind(FileKind::ProducerSnapshot),
            leader_epochs: epochs.map_or(Vec::new(), |bytes| parse_leader_epoch_checkpoint(bytes).unwrap()),
            truncate_to: None,
        }
    }

    fn recover(&self, input: RecoveryInput) -> Recovered {
        let config =
            LogConfig { index_interval_bytes: 256, producer_id_expiration_ms: i64::MAX, ..LogConfig::default() };
        let mut recovery = Recovery::new(input, &config, NOW);
        loop {
            match recovery.step() {
                RecoveryStep::LoadSnapshot { offset } => recovery.on_snapshot(Some(&self.snapshot(offset))),
                RecoveryStep::Read { segment_base_offset, position, min_length } => {
                    let file = &self.bytes(segment_base_offset, FileKind::Log)[position as usize..];
                    recovery.on_bytes(&file[..file.len().min((min_length as usize).max(4096))]);
                }
                RecoveryStep::Done => return recovery.finish(),
            }
        }
    }
}

fn is_compacted(name: &str) -> bool {
    name.starts_with("__") || name.starts_with("fx-compact")
}

fn ids(entries: &[ProducerSnapshotEntry]) -> BTreeSet<i64> {
    entries.iter().map(|entry| entry.producer_id.0).collect()
}

/// Everything rebuilt from the `.log` files alone equals what Kafka kept: indexes, producers, the end.
#[test]
fn a_rebuild_from_nothing_gives_kafkas_own_files() {
    let (directories, _) = directories("single-node");
    let (mut segments, mut producers) = (0, 0);
    for directory in directories.iter().filter(|directory| !is_compacted(&directory.name)) {
        let name = &directory.name;
        let recovered = directory.recover(RecoveryInput { snapshots: Vec::new(), ..directory.input(Offset(0), false) });
        assert_eq!(recovered.truncated_bytes, 0, "{name}");
        for action in &recovered.actions {
            let RecoveryAction::WriteIndexes { base_offset, index, transactions } = action else { continue };
            let mut index = index.clone();
            index.on_close();
            assert_eq!(index.offsets.encode_from(0), directory.bytes(*base_offset, FileKind::OffsetIndex), "{name}");
            assert_eq!(index.times.encode_from(0), directory.bytes(*base_offset, FileKind::TimeIndex), "{name}");
            assert_eq!(transactions.encode(), directory.bytes(*base_offset, FileKind::TransactionIndex), "{name}");
            segments += 1;
        }
        if let Some(newest) = directory.of_kind(FileKind::ProducerSnapshot).into_iter().max() {
            assert_eq!(recovered.log.log_end_offset, newest, "{name}");
            let mut expected = directory.snapshot(newest);
            expected.sort_by_key(|entry| entry.producer_id);
            let mut found = recovered.log.producers.snapshot();
            // Producers of deleted segments can't be found again.
            found.retain(|entry| ids(&expected).contains(&entry.producer_id.0));
            expected.retain(|entry| ids(&found).contains(&entry.producer_id.0));
            assert_eq!(found, expected, "{name}");
            producers += found.len();
        }
    }
    assert!(segments >= 20 && producers >= 10, "{segments} segments, {producers} producers");
}

#[test]
fn an_orderly_stop_is_trusted() {
    for directory in directories("single-node").0 {
        let name = &directory.name;
        let Some(newest) = directory.of_kind(FileKind::ProducerSnapshot).into_iter().max() else { continue };
        let recovered = directory.recover(directory.input(newest, true));
        assert_eq!((recovered.log.log_end_offset, recovered.log.recovery_point), (newest, newest), "{name}");
        let mut expected = directory.snapshot(newest);
        expected.sort_by_key(|entry| entry.producer_id);
        assert_eq!(recovered.log.producers.snapshot(), expected, "{name}");
        let writes = recovered.actions.iter().filter(|a| !matches!(a, RecoveryAction::DeleteSnapshot { .. }));
        assert_eq!(writes.count(), 0, "{name}");
    }
}

/// From the checkpointed recovery points, as after the kill: the same as from nothing.
#[test]
fn a_killed_brokers_logs_open_from_their_recovery_points() {
    let (directories, top) = directories("unclean");
    let points = parse_offset_checkpoint(&top[RECOVERY_POINT_CHECKPOINT_FILE]).unwrap();
    let mut checked = 0;
    for directory in &directories {
        let name = &directory.name;
        let point = points.iter().find(|entry| entry.topic_partition.to_string() == *name);
        let from_point = directory.recover(directory.input(point.map_or(Offset(0), |entry| entry.offset), false));
        let whole = directory.recover(directory.input(Offset(0), false));
        let (found, expected) = (&from_point.log, &whole.log);
        assert_eq!(found.log_end_offset, expected.log_end_offset, "{name}");
        assert_eq!(found.active.size, expected.active.size, "{name}");
        assert_eq!(found.active.index.max_timestamp(), expected.active.index.max_timestamp(), "{name}");
        assert_eq!(found.leader_epochs.entries(), expected.leader_epochs.entries(), "{name}");
        if !is_compacted(name) {
            assert_eq!(found.producers.snapshot(), expected.producers.snapshot(), "{name}");
        }
        assert!(from_point.actions.iter().all(|a| !matches!(a, RecoveryAction::DeleteSegment { .. })), "{name}");
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}
