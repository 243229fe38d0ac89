use ringlog_types::Random;

use super::*;
use crate::test_batches::{PLAIN, Spec, marker};

const CLIENT: AppendOrigin = AppendOrigin::Client;

fn rules() -> TransactionRules {
    TransactionRules::default()
}

fn data(offset: i64, count: i64, producer: (i64, i16, i32)) -> LogBatch {
    Spec { offset, count, producer, ..PLAIN }.batch()
}

fn transactional(offset: i64, count: i64, producer: (i64, i16, i32)) -> LogBatch {
    Spec { offset, count, producer, transactional: true, ..PLAIN }.batch()
}

/// A producer 1 in epoch 3 with batches 0..=4 and 5..=9 of its sequence at offsets 0 to 9.
fn with_ten_records() -> ProducerStateManager {
    let mut state = ProducerStateManager::new(Offset(0));
    state.apply(&data(0, 5, (1, 3, 0)));
    state.apply(&data(5, 5, (1, 3, 5)));
    state
}

fn gap(sequence: i32, last_sequence: i32) -> Result<ProducerCheck, ProducerError> {
    Err(ProducerError::OutOfOrderSequence { sequence, last_sequence })
}

#[test]
fn sequences_are_judged_as_kafka_does() {
    let state = with_ten_records();
    let duplicate = |first: i64, last: i64| {
        move |found: &Result<ProducerCheck, ProducerError>| {
            matches!(found, Ok(ProducerCheck::Duplicate(held))
                if held.first_offset() == Offset(first) && held.last_offset == Offset(last))
        }
    };
    let check = |count, producer| state.check(&data(10, count, producer), CLIENT, rules());
    assert_eq!(check(1, (1, 3, 10)), Ok(ProducerCheck::Accept));
    assert_eq!(check(1, (1, 3, 11)), gap(11, 9));
    assert_eq!(check(1, (1, 3, 9)), gap(9, 9), "a part of an old batch is no duplicate");
    assert_eq!(check(4, (1, 3, 0)), gap(0, 9), "nor a shorter one");
    assert!(duplicate(0, 4)(&check(5, (1, 3, 0))));
    assert!(duplicate(5, 9)(&check(5, (1, 3, 5))));
    assert_eq!(check(1, (1, 4, 0)), Ok(ProducerCheck::Accept), "a new epoch starts at 0");
    assert_eq!(check(1, (1, 4, 10)), gap(10, 9));
    let stale = ProducerError::InvalidEpoch { epoch: ProducerEpoch(2), current: ProducerEpoch(3) };
    assert_eq!(check(1, (1, 2, 10)), Err(stale));
    assert_eq!(check(5, (1, 2, 0)), Err(stale), "no duplicate across epochs");
    assert_eq!(check(1, (2, 0, 77)), Ok(ProducerCheck::Accept), "an unknown producer may start anywhere");
    assert_eq!(check(1, (-1, -1, -1)), Ok(ProducerCheck::Accept));
    let coordinator = state.check(&data(10, 1, (1, 3, 44)), AppendOrigin::Coordinator, rules());
    assert_eq!(coordinator, Ok(ProducerCheck::Accept), "coordinators' sequences are not checked");
}

#[test]
fn five_batches_are_remembered_and_the_newest_kept() {
    let mut state = ProducerStateManager::new(Offset(0));
    for i in 0..7 {
        state.apply(&data(i, 1, (1, 0, i as i32)));
    }
    for sequence in 0..7 {
        let found = state.check(&data(7, 1, (1, 0, sequence)), CLIENT, rules());
        match sequence {
            0 | 1 => assert_eq!(found, gap(sequence, 6)),
            _ => assert!(
                matches!(found, Ok(ProducerCheck::Duplicate(held)) if held.last_offset.0 == i64::from(sequence))
            ),
        }
    }
}

#[test]
fn sequences_wrap_around() {
    let mut state = ProducerStateManager::new(Offset(0));
    state.apply(&data(0, 3, (1, 0, i32::MAX - 1)));
    let held = state.producer(ProducerId(1)).unwrap().last_batch();
    assert_eq!((held.first_sequence(), held.last_sequence), (i32::MAX - 1, 0));
    assert_eq!(state.check(&data(3, 1, (1, 0, 1)), CLIENT, rules()), Ok(ProducerCheck::Accept));
    assert!(matches!(state.check(&data(3, 3, (1, 0, i32::MAX - 1)), CLIENT, rules()), Ok(ProducerCheck::Duplicate(_))));
    let mut state = ProducerStateManager::new(Offset(0));
    state.apply(&data(0, 1, (1, 0, i32::MAX)));
    assert_eq!(state.check(&data(1, 1, (1, 0, 0)), CLIENT, rules()), Ok(ProducerCheck::Accept));
}

#[test]
fn version_two_wants_unknown_transactional_producers_to_start_at_zero() {
    let state = ProducerStateManager::new(Offset(0));
    let version_two = TransactionRules { version_two: true, ..rules() };
    assert_eq!(state.check(&transactional(0, 1, (1, 0, 4)), CLIENT, version_two), gap(4, -1));
    assert_eq!(state.check(&transactional(0, 1, (1, 0, 4)), CLIENT, rules()), Ok(ProducerCheck::Accept));
    assert_eq!(state.check(&data(0, 1, (1, 0, 4)), CLIENT, version_two), Ok(ProducerCheck::Accept));
}

#[test]
fn transactions_hold_the_last_stable_offset_until_replicated() {
    let mut state = ProducerStateManager::new(Offset(0));
    state.apply(&transactional(0, 2, (1, 0, 0)));
    state.apply(&transactional(2, 1, (2, 0, 0)));
    state.apply(&transactional(3, 1, (1, 0, 2)));
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)));
    assert!(state.has_ongoing_transaction(ProducerId(1), ProducerEpoch(0)));
    assert_eq!(
        state.check(&data(4, 1, (1, 0, 3)), CLIENT, rules()),
        Err(ProducerError::InvalidTransactionState),
        "plain data inside of a transaction"
    );
    let ended = state.apply(&marker(4, (1, 0), false, 0)).unwrap();
    assert_eq!((ended.first_offset, ended.last_offset, ended.last_stable_offset), (Offset(0), Offset(4), Offset(2)));
    assert!(ended.index_entry().is_some());
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)), "until the marker is below the high watermark");
    state.on_high_watermark(Offset(4));
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)));
    state.on_high_watermark(Offset(5));
    assert_eq!(state.first_unstable_offset(), Some(Offset(2)));
    let ended = state.apply(&marker(5, (2, 0), true, 0)).unwrap();
    assert_eq!((ended.last_stable_offset, ended.index_entry()), (Offset(6), None));
    state.on_high_watermark(Offset(6));
    assert_eq!(state.first_unstable_offset(), None);
    assert_eq!(state.apply(&marker(6, (2, 0), true, 0)), None, "nothing open, nothing ended");
}

#[test]
fn markers_are_fenced_by_epochs() {
    let mut state = ProducerStateManager::new(Offset(0));
    state.apply(&transactional(0, 1, (1, 5, 0)));
    let coordinator = AppendOrigin::Coordinator;
    let version_two = TransactionRules { version_two: true, ..rules() };
    let check = |state: &ProducerStateManager, epoch, coordinator_epoch, rules| {
        state.check(&marker(1, (1, epoch), true, coordinator_epoch), coordinator, rules)
    };
    let stale = |epoch, current| {
        Err(ProducerError::InvalidEpoch { epoch: ProducerEpoch(epoch), current: ProducerEpoch(current) })
    };
    assert_eq!(check(&state, 4, 1, rules()), stale(4, 5));
    assert_eq!(check(&state, 5, 1, rules()), Ok(ProducerCheck::Accept));
    assert_eq!(check(&state, 5, 1, version_two), stale(5, 5), "with version 2 the epoch was bumped");
    assert_eq!(check(&state, 6, 1, version_two), Ok(ProducerCheck::Accept));
    state.apply(&marker(1, (1, 6), true, 1));
    assert_eq!(check(&state, 6, 1, version_two), Ok(ProducerCheck::Accept), "a retry with nothing open");
    let fenced = Err(ProducerError::CoordinatorFenced { epoch: 0, current: 1 });
    assert_eq!(check(&state, 6, 0, rules()), fenced);
    assert_eq!(state.producer(ProducerId(1)).unwrap().last_batch().last_sequence, -1, "a new epoch has no batches");
}

#[test]
fn verification_needs_a_guard_that_still_stands() {
    let mut state = ProducerStateManager::new(Offset(0));
    let with = |guard| TransactionRules { verification: Some(guard), ..rules() };
    let first = transactional(0, 1, (1, 0, 5));
    assert_eq!(state.check(&first, CLIENT, with(None)), Err(ProducerError::InvalidTransactionState));
    let guard = state.begin_verification(ProducerId(1), ProducerEpoch(0), 5, TimestampMs(0));
    assert_eq!(state.begin_verification(ProducerId(1), ProducerEpoch(0), 6, TimestampMs(0)), guard);
    assert_eq!(state.check(&first, CLIENT, with(Some(guard))), Ok(ProducerCheck::Accept));
    assert_eq!(
        state.check(&transactional(0, 1, (1, 0, 6)), CLIENT, with(Some(guard))),
        gap(6, 5),
        "a later batch must not overtake the one that asked first"
    );
    state.apply(&marker(0, (1, 0), false, 0));
    assert_eq!(state.check(&first, CLIENT, with(Some(guard))), Err(ProducerError::InvalidTransactionState));
    let guard = state.begin_verification(ProducerId(1), ProducerEpoch(0), 0, TimestampMs(0));
    state.apply(&transactional(1, 1, (1, 0, 0)));
    assert_eq!(state.check(&transactional(2, 1, (1, 0, 1)), CLIENT, with(None)), Ok(ProducerCheck::Accept));
    assert_ne!(state.begin_verification(ProducerId(1), ProducerEpoch(0), 0, TimestampMs(0)), guard);
}

#[test]
fn snapshots_round_trip_and_leave_out_the_expired() {
    let mut state = with_ten_records();
    state.apply(&transactional(10, 1, (2, 0, 0)));
    state.apply(&transactional(11, 1, (3, 0, 0)));
    state.apply(&marker(12, (3, 1), false, 9));
    let (offset, entries) = state.take_snapshot().unwrap();
    assert_eq!((offset, entries.len()), (Offset(13), 3));
    assert_eq!(state.take_snapshot(), None, "once for an offset");
    let loaded = ProducerStateManager::from_snapshot(offset, &entries, i64::MAX, TimestampMs(5000));
    assert_eq!(loaded.snapshot(), entries);
    assert_eq!(loaded.first_unstable_offset(), Some(Offset(10)));
    assert!(matches!(
        loaded.check(&data(13, 5, (1, 3, 5)), CLIENT, rules()),
        Ok(ProducerCheck::Duplicate(held)) if held.last_offset == Offset(9)
    ));
    let late = ProducerStateManager::from_snapshot(offset, &entries, 100, TimestampMs(5000));
    assert_eq!(late.producers().map(|(id, _)| id.0).collect::<Vec<_>>(), [2], "an open transaction stays");
}

#[test]
fn idle_producers_expire_unless_a_transaction_is_open() {
    let mut state = with_ten_records();
    state.apply(&transactional(10, 1, (2, 0, 0)));
    assert_eq!(state.remove_expired(100, TimestampMs(1099)), 0);
    assert_eq!(state.remove_expired(100, TimestampMs(1100)), 1);
    assert!(state.producer(ProducerId(2)).is_some());
    assert_eq!(state.check(&data(11, 1, (1, 3, 99)), CLIENT, rules()), Ok(ProducerCheck::Accept));
}

/// The last stable offset equals what a list of all transactions says.
#[test]
fn random_transactions_agree_with_a_model() {
    for seed in 0..50 {
        let mut random = Random::from_seed(seed);
        let mut state = ProducerStateManager::new(Offset(0));
        // (producer, first offset, end offset if ended)
        let mut model: Vec<(i64, i64, Option<i64>)> = Vec::new();
        let mut sequences = [0_i32; 4];
        let mut high_watermark = 0;
        for offset in 0..200_i64 {
            let id = random.below(4) as i64;
            let open = model.iter_mut().find(|(producer, _, end)| *producer == id && end.is_none());
            if random.below(3) == 0 {
                let ended = state.apply(&marker(offset, (id, 0), random.below(2) == 0, 0));
                assert_eq!(ended.map(|e| e.first_offset.0), open.as_ref().map(|o| o.1), "seed {seed}");
                if let Some(open) = open {
                    open.2 = Some(offset);
                }
            } else {
                let batch = transactional(offset, 1, (id, 0, sequences[id as usize]));
                assert_eq!(state.check(&batch, CLIENT, rules()), Ok(ProducerCheck::Accept));
                state.apply(&batch);
                sequences[id as usize] += 1;
                if open.is_none() {
                    model.push((id, offset, None));
                }
            }
            if random.below(4) == 0 {
                high_watermark = high_watermark.max(random.below(offset as u64 + 2) as i64);
                state.on_high_watermark(Offset(high_watermark));
            }
            let unstable =
                model.iter().filter(|(_, _, end)| end.is_none_or(|end| end >= high_watermark)).map(|t| t.1).min();
            assert_eq!(state.first_unstable_offset().map(|o| o.0), unstable, "seed {seed} offset {offset}");
        }
    }
}
