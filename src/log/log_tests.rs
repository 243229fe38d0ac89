use ringlog_types::Random;

use super::*;
use crate::test_batches::{PLAIN, Spec, marker};
use crate::{RetentionReason, SegmentPosition};

const NOW: TimestampMs = TimestampMs(10_000);

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 100, retention_ms: -1, ..LogConfig::default() }
}

fn append(log: &mut Log, config: &LogConfig, spec: Spec) -> Placement {
    log.append(&[Spec { offset: log.log_end_offset().0, ..spec }.batch()], config, NOW).unwrap()
}

fn filled(config: &LogConfig, batches: usize) -> Log {
    let mut log = Log::new(Offset(0), NOW, 0);
    for i in 0..batches {
        append(&mut log, config, Spec { count: 2, timestamp: 1000 + i as i64, ..PLAIN });
    }
    log
}

fn bases(log: &Log) -> Vec<i64> {
    log.sealed_segments().iter().map(|s| s.base_offset.0).chain([log.active_segment().base_offset.0]).collect()
}

#[test]
fn segments_roll_by_size_with_a_producer_snapshot_and_closed_indexes() {
    let config = config();
    let size = Spec { count: 2, ..PLAIN }.batch().header.size_in_bytes() as u32;
    let per_segment = config.segment_bytes / size;
    let mut log = Log::new(Offset(0), NOW, 0);
    for i in 0..3 * per_segment {
        let placement = append(&mut log, &config, Spec { count: 2, ..PLAIN });
        assert_eq!(placement.position, i % per_segment * size);
        assert_eq!(placement.roll.is_some(), i > 0 && i % per_segment == 0);
        if let Some(roll) = placement.roll {
            assert_eq!(roll.new_base_offset, Offset(i64::from(i) * 2));
            assert_eq!(roll.sealed.size, per_segment * size);
            assert_eq!(roll.producer_snapshot.unwrap().0, roll.new_base_offset);
            assert_eq!(roll.index.times.last().timestamp, TimestampMs(1000));
        }
    }
    assert_eq!(log.size(), u64::from(3 * per_segment * size));
    assert_eq!(log.next_segment(Offset(0)), Some(Offset(i64::from(per_segment) * 2)));
    assert_eq!(log.next_segment(log.active_segment().base_offset), None);
}

#[test]
fn segments_roll_by_record_time_offset_range_and_full_index() {
    let by_time = LogConfig { segment_ms: 100, ..config() };
    let mut log = Log::new(Offset(0), NOW, 0);
    for (timestamp, rolls) in [(1000, false), (1100, false), (1101, true), (1150, false), (2000, true), (5, false)] {
        assert_eq!(append(&mut log, &by_time, Spec { timestamp, ..PLAIN }).roll.is_some(), rolls, "{timestamp}");
    }
    let mut log = Log::new(Offset(0), NOW, 0);
    append(&mut log, &config(), PLAIN);
    let far = Spec { offset: i64::from(i32::MAX) + 1, ..PLAIN }.batch();
    let roll = log.append(&[far], &config(), NOW).unwrap().roll.unwrap();
    assert_eq!(roll.new_base_offset, Offset(i64::from(i32::MAX) + 1));
    let small_index = LogConfig { segment_index_bytes: 36, index_interval_bytes: 0, ..config() };
    let mut log = Log::new(Offset(0), NOW, 0);
    let rolled: Vec<_> =
        (0..6).map(|i| append(&mut log, &small_index, Spec { timestamp: i, ..PLAIN }).roll.is_some()).collect();
    assert_eq!(rolled, [false, false, false, true, false, false], "two of three time index places may fill");
}

#[test]
fn jitter_shortens_the_time_to_roll_and_stays_the_same_for_a_segment() {
    let config = LogConfig { segment_ms: 1000, segment_jitter_ms: 500, ..config() };
    let mut log = Log::new(Offset(0), NOW, 9);
    append(&mut log, &config, Spec { timestamp: 0, ..PLAIN });
    let waits = |log: &Log, ms| log.active_segment().should_roll(&config, 1, Offset(5), TimestampMs(ms), NOW);
    let first = (0..=1001).find(|ms| waits(&log, *ms)).unwrap();
    assert!((501..=1001).contains(&first));
    assert_eq!((0..=1001).find(|ms| waits(&log, *ms)), Some(first));
}

#[test]
fn appends_that_cannot_be_are_refused_and_change_nothing() {
    let mut log = filled(&config(), 3);
    let (end, size) = (log.log_end_offset(), log.size());
    let below = log.append(&[Spec { offset: 5, ..PLAIN }.batch()], &config(), NOW);
    assert!(matches!(below, Err(LogAppendError::OffsetsNotMonotonic { .. })));
    let large = log.append(&[Spec { offset: 6, value_len: 2000, ..PLAIN }.batch()], &config(), NOW);
    assert!(matches!(large, Err(LogAppendError::RecordListTooLarge { .. })));
    assert_eq!((log.log_end_offset(), log.size()), (end, size));
}

#[test]
fn every_offset_is_found_and_read_ends_are_batch_boundaries() {
    let config = config();
    let log = filled(&config, 40);
    let size = Spec { count: 2, ..PLAIN }.batch().header.size_in_bytes() as u32;
    for offset in 0..80 {
        let base = *bases(&log).iter().rev().find(|base| **base <= offset).unwrap();
        let expected = ((offset - base) / 2) as u32 * size;
        match log.locate(Offset(offset)).unwrap() {
            Location::At { segment_base_offset, position, exact } => {
                assert_eq!((segment_base_offset, exact), (Offset(base), true));
                assert_eq!(position, expected, "offset {offset}");
            }
            Location::NeedsIndex { segment_base_offset } => {
                assert_eq!(segment_base_offset, Offset(base));
                assert!(base < log.active_segment().base_offset.0);
            }
        }
        let end = log.read_end(Offset(base), Offset(offset)).unwrap();
        if end.exact {
            assert_eq!(end.position, expected, "limit {offset}");
        } else {
            assert_eq!(Some(end.position), log.segment_size(Offset(base)));
        }
    }
    assert!(log.locate(Offset(80)).is_ok());
    assert!(log.locate(Offset(81)).is_err());
    assert!(log.locate(Offset(-1)).is_err());
    let whole = log.read_end(Offset(0), Offset(80)).unwrap();
    assert_eq!((whole.position, whole.exact), (log.segment_size(Offset(0)).unwrap(), true));
    assert_eq!(log.read_end(Offset(1), Offset(80)), None);
}

#[test]
fn an_idle_log_finds_lower_bounds_by_its_index() {
    let config = LogConfig { segment_bytes: 1 << 20, ..config() };
    let mut log = filled(&config, 40);
    log.active_segment_mut().shrink();
    let size = Spec { count: 2, ..PLAIN }.batch().header.size_in_bytes() as u32;
    for offset in 0..80 {
        let SegmentPosition { position, .. } = log.active_segment().position_of(Offset(offset), Offset(80));
        let wanted = (offset / 2) as u32 * size;
        assert!(position <= wanted && wanted - position <= 100 + 3 * size, "offset {offset}: {position} {wanted}");
        assert_eq!(position % size, 0);
    }
}

#[test]
fn list_offsets_chooses_the_segment() {
    let config = config();
    let mut log = filled(&config, 40);
    let known = |plan| match plan {
        ListOffsetPlan::Known { offset, leader_epoch, .. } => (offset.0, leader_epoch.0),
        _ => panic!("{plan:?}"),
    };
    log.advance_log_start_offset(Offset(3));
    assert_eq!(known(log.list_offset(TimestampMs(-1))), (80, 0));
    assert_eq!(known(log.list_offset(TimestampMs(-2))), (3, 0));
    assert_eq!(known(log.list_offset(TimestampMs(-4))), (3, 0));
    assert_eq!(known(log.list_offset(TimestampMs(-5))), (-1, -1));
    assert_eq!(known(log.list_offset(TimestampMs(-6))), (-1, -1));
    assert_eq!(known(log.list_offset(TimestampMs(5000))), (-1, -1), "later than all");
    let newest = log.list_offset(TimestampMs(-3));
    assert!(matches!(newest, ListOffsetPlan::MaxTimestampIn { batch_offset: Offset(79), position: Some(_), .. }));
    for i in 0..40 {
        let base = *bases(&log).iter().rev().find(|base| **base <= i * 2).unwrap();
        match log.list_offset(TimestampMs(1000 + i)) {
            ListOffsetPlan::FirstAtOrAfter { segment_base_offset, start_offset, position, .. } => {
                assert_eq!((segment_base_offset.0, start_offset), (base, Offset(3)));
                assert_eq!(position.is_some(), base == log.active_segment().base_offset.0);
            }
            plan => panic!("{plan:?}"),
        }
    }
    let empty = Log::new(Offset(7), NOW, 0);
    assert_eq!(known(empty.list_offset(TimestampMs(-3))), (-1, -1));
    assert_eq!(known(empty.list_offset(TimestampMs(0))), (-1, -1));
    assert_eq!(known(empty.list_offset(TimestampMs(-2))), (7, -1));
}

/// A crash can keep the files of a segment below the log's start from going, and a log can start within a segment.
#[test]
fn list_offsets_looks_for_records_of_the_log_only() {
    let config = config();
    let mut log = filled(&config, 40);
    let bases = bases(&log);
    let segment = |plan| match plan {
        Some(ListOffsetPlan::FirstAtOrAfter { segment_base_offset, start_offset, .. }) => {
            Some((segment_base_offset.0, start_offset.0))
        }
        Some(plan) => panic!("{plan:?}"),
        None => None,
    };
    log.advance_log_start_offset(Offset(bases[1]));
    assert_eq!(segment(Some(log.list_offset(TimestampMs(0)))), Some((bases[1], bases[1])));
    log.advance_log_start_offset(Offset(bases[1] + 1));
    assert_eq!(segment(Some(log.list_offset(TimestampMs(0)))), Some((bases[1], bases[1] + 1)));
    let behind = |base| log.list_offset_behind(Offset(base), TimestampMs(0));
    assert_eq!(segment(behind(bases[1])), Some((bases[2], bases[1] + 1)));
    let last = *bases.last().unwrap();
    assert_eq!(segment(behind(bases[bases.len() - 2])), Some((last, bases[1] + 1)));
    assert_eq!(segment(behind(last)), None);
    log.advance_log_start_offset(Offset(80));
    assert_eq!(segment(Some(log.list_offset(TimestampMs(0)))), Some((last, 80)));
}

#[test]
fn retention_by_time_deletes_old_segments_below_the_high_watermark() {
    let config = LogConfig { retention_ms: 100, ..config() };
    let mut log = filled(&config, 40);
    let before = bases(&log);
    assert!(log.delete_old_segments(&config, Offset(80), TimestampMs(1050)).deleted.is_empty());
    let newest_of_first = log.sealed_segments()[0].max_timestamp.0;
    assert!(log.delete_old_segments(&config, Offset(before[1] - 1), TimestampMs(9999)).deleted.is_empty());
    let outcome = log.delete_old_segments(&config, Offset(80), TimestampMs(newest_of_first + 101));
    assert_eq!(outcome.deleted.len(), 1);
    assert_eq!(outcome.deleted[0].1, RetentionReason::Time);
    assert_eq!(log.log_start_offset(), Offset(before[1]));
    let outcome = log.delete_old_segments(&config, Offset(80), TimestampMs(9999));
    assert!(outcome.roll.is_some(), "when all go the active one is sealed first");
    assert_eq!((bases(&log), log.log_start_offset(), log.size()), (vec![80], Offset(80), 0));
    assert!(log.delete_old_segments(&config, Offset(80), TimestampMs(99_999)).deleted.is_empty(), "an empty one stays");
}

#[test]
fn retention_by_size_keeps_at_least_the_limit() {
    let mut log = filled(&config(), 40);
    let total = log.size();
    let first = u64::from(log.sealed_segments()[0].size);
    let keep = |bytes: u64| LogConfig { retention_bytes: bytes as i64, ..config() };
    assert!(log.delete_old_segments(&keep(total - first + 1), Offset(80), NOW).deleted.is_empty());
    let outcome = log.delete_old_segments(&keep(total - first), Offset(80), NOW);
    assert_eq!(outcome.deleted.len(), 1);
    assert_eq!((outcome.deleted[0].1, log.size()), (RetentionReason::Size, total - first));
    let compacted = LogConfig { cleanup_delete: false, retention_bytes: 0, ..config() };
    assert!(log.delete_old_segments(&compacted, Offset(80), NOW).deleted.is_empty(), "only with the delete policy");
}

#[test]
fn the_log_start_takes_whole_segments_with_it() {
    let config = LogConfig { cleanup_delete: false, ..config() };
    let mut log = filled(&config, 40);
    let before = bases(&log);
    assert!(log.advance_log_start_offset(Offset(before[2] + 1)));
    assert!(!log.advance_log_start_offset(Offset(before[2])), "never back");
    assert_eq!(log.log_start_offset_to_checkpoint(), Some(Offset(before[2] + 1)));
    let outcome = log.delete_old_segments(&config, Offset(80), NOW);
    assert_eq!(outcome.deleted.iter().map(|d| d.0.base_offset.0).collect::<Vec<_>>(), before[..2]);
    assert!(outcome.deleted.iter().all(|d| d.1 == RetentionReason::LogStart));
    assert_eq!(log.leader_epochs().earliest().unwrap().start_offset, Offset(before[2] + 1));
    log.advance_log_start_offset(Offset(80));
    log.delete_old_segments(&config, Offset(80), NOW);
    assert_eq!(bases(&log).len(), 1, "the active segment stays");
}

#[test]
fn flushes_are_due_by_messages_and_time() {
    let config = LogConfig { flush_messages: 5, flush_ms: 100, ..config() };
    let mut log = filled(&config, 2);
    assert!(!log.must_flush(&config));
    append(&mut log, &config, PLAIN);
    assert!(log.must_flush(&config));
    assert!(log.flush_is_due(&config, TimestampMs(NOW.0 + 100)));
    log.on_flushed(Offset(99), TimestampMs(NOW.0 + 100));
    assert_eq!(log.recovery_point(), Offset(5));
    assert!(!log.must_flush(&config) && !log.flush_is_due(&config, TimestampMs(NOW.0 + 999)));
}

#[test]
fn aborted_transactions_are_indexed_where_their_marker_lies() {
    let config = config();
    let mut log = Log::new(Offset(0), NOW, 0);
    append(&mut log, &config, Spec { producer: (1, 0, 0), transactional: true, ..PLAIN });
    assert_eq!(log.last_stable_offset(Offset(1)), Offset(0));
    let placement = log.append(&[marker(1, (1, 0), false, 0)], &config, NOW).unwrap();
    assert_eq!(placement.aborted_transactions.len(), 1);
    assert_eq!(log.active_segment().transaction_index.entries(), placement.aborted_transactions);
    log.roll(log.log_end_offset(), NOW).unwrap();
    assert_eq!(log.transaction_index_segments(Offset(0)).collect::<Vec<_>>(), [Offset(0)]);
    log.producers_mut().on_high_watermark(Offset(2));
    assert_eq!(log.last_stable_offset(Offset(2)), Offset(2));
}

#[test]
fn starting_anew_forgets_everything() {
    let mut log = filled(&config(), 40);
    let count = bases(&log).len();
    assert_eq!(log.truncate_fully_and_start_at(Offset(500), NOW).len(), count);
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size()), (Offset(500), Offset(500), 0));
    assert_eq!(log.leader_epochs().latest_epoch(), None);
    assert!(log.roll(Offset(500), NOW).is_none(), "an empty segment is not rolled onto itself");
}

/// Random appends and deletions against a list of all batches.
#[test]
fn random_operations_agree_with_a_model() {
    for seed in 0..30 {
        let mut random = Random::from_seed(seed);
        let config = config();
        let mut log = Log::new(Offset(0), NOW, seed);
        // (base offset, next offset, segment, position)
        let mut model: Vec<(i64, i64, i64, u32)> = Vec::new();
        for _ in 0..200 {
            match random.below(10) {
                0 => {
                    let to = random.below(log.log_end_offset().0 as u64 + 1) as i64;
                    let start = log.log_start_offset().0.max(to);
                    log.advance_log_start_offset(Offset(to));
                    log.delete_old_segments(&config, log.log_end_offset(), NOW);
                    assert_eq!(log.log_start_offset().0, start);
                    let first = log.first_segment_base_offset().0;
                    assert!(first <= start);
                    model.retain(|batch| batch.2 >= first);
                }
                1 => {
                    log.roll(log.log_end_offset(), NOW);
                }
                _ => {
                    let (count, value_len) = (1 + random.below(4) as i64, random.below(60) as usize);
                    let base = log.log_end_offset().0;
                    let placement = append(&mut log, &config, Spec { count, value_len, ..PLAIN });
                    model.push((base, base + count, placement.segment_base_offset.0, placement.position));
                }
            }
            for &(base, next, segment, position) in &model {
                if base < log.log_start_offset().0 {
                    continue;
                }
                match log.locate(Offset(next - 1)).unwrap() {
                    Location::At { segment_base_offset, position: found, exact } => {
                        assert_eq!(segment_base_offset.0, segment, "seed {seed}");
                        assert!(if exact { found == position } else { found <= position });
                    }
                    Location::NeedsIndex { segment_base_offset } => assert_eq!(segment_base_offset.0, segment),
                }
            }
        }
    }
}
