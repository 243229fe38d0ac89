//! The files of a log directory as Apache Kafka 4.3.1 wrote them: read, and written again byte for byte.

#[path = "../../../tests/data/fixtures.rs"]
mod fixtures;

use fixtures::{load, with_suffix};
use ringlog_log::checkpoint::*;
use ringlog_log::clean_shutdown::{format_clean_shutdown, parse_clean_shutdown};
use ringlog_log::meta_properties::MetaProperties;
use ringlog_log::names::*;
use ringlog_log::offset_index::OffsetIndex;
use ringlog_log::partition_metadata::{format_partition_metadata, parse_partition_metadata};
use ringlog_log::producer_snapshot::{decode_producer_snapshot, encode_producer_snapshot};
use ringlog_log::segment_index::SegmentIndex;
use ringlog_log::time_index::TimeIndex;
use ringlog_log::transaction_index::TransactionIndex;
use ringlog_log::validator::check_replicated;
use ringlog_protocol::records::BatchIter;
use ringlog_types::{LeaderEpoch, Offset, Random, TimestampMs};

const FIXTURES: [&str; 3] = ["single-node", "unclean", "dynamic-quorum-jbod"];

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// `log.index.interval.bytes` of the fixture's broker; the metadata log keeps the default.
fn index_interval_bytes(path: &str) -> u32 {
    if path.starts_with("__cluster_metadata") { 4096 } else { 256 }
}

fn replayed(path: &str, log: &[u8], interval_bytes: u32) -> SegmentIndex {
    let file = SegmentFile::parse(file_name(path)).unwrap();
    let mut index = SegmentIndex::new(file.offset);
    let mut position = 0;
    for batch in BatchIter::new(log) {
        let batch = batch.unwrap();
        index.on_append(&batch.header, position, interval_bytes);
        position += batch.bytes.len() as u32;
    }
    index
}

#[test]
fn replayed_indexes_equal_kafkas() {
    let files = load("single-node");
    let mut segments = 0;
    let mut entries = 0;
    for (path, log) in with_suffix(&files, ".log") {
        // The cleaner counts bytes in its own way, and the index of a deleted log wasn't closed.
        if path.contains("-delete/") || files.contains_key(&format!("{path}.deleted")) {
            continue;
        }
        let mut index = replayed(path, log, index_interval_bytes(path));
        index.on_close();
        let stem = path.strip_suffix(".log").unwrap();
        assert_eq!(index.offsets.encode_from(0), files[&format!("{stem}.index")], "{path}");
        assert_eq!(index.times.encode_from(0), files[&format!("{stem}.timeindex")], "{path}");
        segments += 1;
        entries += index.offsets.len();
    }
    assert!(segments >= 30 && entries >= 100, "{segments} segments, {entries} entries");
}

#[test]
fn indexes_are_loaded_with_or_without_a_preallocated_tail() {
    for name in FIXTURES {
        let files = load(name);
        for (path, bytes) in &files {
            let Some(file) = SegmentFile::parse(file_name(path)) else { continue };
            let trimmed = match file.kind {
                FileKind::OffsetIndex => OffsetIndex::load(file.offset, bytes).unwrap().encode_from(0),
                FileKind::TimeIndex => TimeIndex::load(file.offset, bytes).unwrap().encode_from(0),
                FileKind::TransactionIndex => TransactionIndex::load(file.offset, bytes).unwrap().encode(),
                _ => continue,
            };
            assert_eq!(trimmed, bytes[..trimmed.len()], "{name} {path}");
            assert!(bytes[trimmed.len()..].iter().all(|byte| *byte == 0), "{name} {path}");
        }
    }
    // The killed broker's active indexes are preallocated.
    let unclean = load("unclean");
    let active = &unclean["fx-none-0/00000000000000000000.index"];
    assert_eq!(active.len(), 4096);
    assert_eq!(OffsetIndex::load(Offset(0), active).unwrap().len(), 1);
}

#[test]
fn every_name_is_known() {
    for name in FIXTURES {
        for path in load(name).keys() {
            let mut parts: Vec<&str> = path.split('/').collect();
            let file = parts.pop().unwrap();
            if let Some(folder) = parts.pop().filter(|folder| !["d1", "d2"].contains(folder)) {
                let directory = PartitionDirectory::parse(folder).unwrap();
                let suffixed = folder.rsplit_once('.').filter(|_| directory.kind != DirectoryKind::Current);
                assert_eq!(
                    suffixed.map_or(folder, |(base, _)| base),
                    partition_directory(&directory.topic, directory.partition)
                );
            }
            let known = [
                CLEAN_SHUTDOWN_FILE,
                LOCK_FILE,
                META_PROPERTIES_FILE,
                BOOTSTRAP_CHECKPOINT_FILE,
                RECOVERY_POINT_CHECKPOINT_FILE,
                LOG_START_OFFSET_CHECKPOINT_FILE,
                REPLICATION_OFFSET_CHECKPOINT_FILE,
                CLEANER_OFFSET_CHECKPOINT_FILE,
                LEADER_EPOCH_CHECKPOINT_FILE,
                PARTITION_METADATA_FILE,
                QUORUM_STATE_FILE,
            ];
            let round_trip = SegmentFile::parse(file).map(|parsed| parsed.to_string());
            let snapshot = SnapshotFile::parse(file).map(|(parsed, _)| parsed.to_string());
            let is_known = known.contains(&file) || [&round_trip, &snapshot].contains(&&Some(file.to_owned()));
            assert!(is_known, "{name} {path}");
        }
    }
}

#[test]
fn small_files_round_trip() {
    let mut seen = [0; 6];
    for name in FIXTURES.into_iter().chain(["formatted"]) {
        for (path, bytes) in load(name) {
            let file = file_name(&path);
            let again = match file {
                PARTITION_METADATA_FILE => {
                    seen[0] += 1;
                    format_partition_metadata(parse_partition_metadata(&bytes).unwrap()).into_bytes()
                }
                LEADER_EPOCH_CHECKPOINT_FILE => {
                    seen[1] += 1;
                    format_leader_epoch_checkpoint(&parse_leader_epoch_checkpoint(&bytes).unwrap()).into_bytes()
                }
                RECOVERY_POINT_CHECKPOINT_FILE
                | LOG_START_OFFSET_CHECKPOINT_FILE
                | REPLICATION_OFFSET_CHECKPOINT_FILE
                | CLEANER_OFFSET_CHECKPOINT_FILE => {
                    let entries = parse_offset_checkpoint(&bytes).unwrap();
                    if bytes.is_empty() {
                        continue;
                    }
                    seen[2] += 1;
                    format_offset_checkpoint(&entries).into_bytes()
                }
                CLEAN_SHUTDOWN_FILE => {
                    seen[3] += 1;
                    format_clean_shutdown(parse_clean_shutdown(&bytes)).into_bytes()
                }
                META_PROPERTIES_FILE => {
                    seen[4] += 1;
                    check_meta_properties(&bytes);
                    continue;
                }
                _ if SegmentFile::parse(file).is_some_and(|parsed| parsed.kind == FileKind::ProducerSnapshot) => {
                    seen[5] += 1;
                    encode_producer_snapshot(&decode_producer_snapshot(&bytes).unwrap())
                }
                _ => continue,
            };
            assert_eq!(again, bytes, "{name} {path}");
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert!(seen[5] >= 46, "{seen:?}");
}

/// The order of the keys isn't fixed, so the lines are compared as a set; the date is the comment's.
fn check_meta_properties(bytes: &[u8]) {
    let parsed = MetaProperties::parse(bytes).unwrap();
    assert!(parsed.directory_id.is_some());
    let written = parsed.format(TimestampMs(0));
    assert_eq!(MetaProperties::parse(written.as_bytes()), Ok(parsed));
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&written), lines(std::str::from_utf8(bytes).unwrap()));
}

/// A torn or overwritten file gives an error or other content, never a panic.
#[test]
fn hostile_files_are_survived() {
    let mut random = Random::from_seed(3);
    let files = load("single-node");
    for (path, bytes) in &files {
        for _ in 0..20 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + random.below(4) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.next_u64() as u8;
                }
            }
            bytes.truncate(random.below(2 * bytes.len() as u64 + 1) as usize);
            let base_offset = SegmentFile::parse(file_name(path)).map_or(Offset(0), |file| file.offset);
            let _ = OffsetIndex::load(base_offset, &bytes).map(|index| index.lookup(Offset(i64::MAX)));
            let _ = TimeIndex::load(base_offset, &bytes).map(|index| index.lookup(TimestampMs(i64::MAX)));
            let _ = TransactionIndex::load(base_offset, &bytes)
                .map(|index| index.collect_aborted(Offset(0), Offset(i64::MAX)));
            let _ = decode_producer_snapshot(&bytes);
            let _ = parse_offset_checkpoint(&bytes);
            let _ = parse_leader_epoch_checkpoint(&bytes);
            let _ = parse_partition_metadata(&bytes);
            let _ = parse_clean_shutdown(&bytes);
            let _ = MetaProperties::parse(&bytes);
            let _ = check_replicated(&bytes, base_offset, LeaderEpoch(i32::MAX));
        }
        let name: String = path.chars().rev().collect();
        let _ = (PartitionDirectory::parse(&name), SegmentFile::parse(&name), SnapshotFile::parse(&name));
    }
    for name in ["é.log", "0é-0", "-é", "t-0.é-delete", "00000000000000000000é", "é-0000000001.checkpoint"] {
        let _ = (PartitionDirectory::parse(name), SegmentFile::parse(name), SnapshotFile::parse(name));
    }
}
