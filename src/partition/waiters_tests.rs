use ringlog_types::Random;
use smallvec::smallvec;

use super::*;

fn key(number: u32) -> PartitionKey {
    PartitionKey(number)
}

fn watch(partition: u32, offset: i64, wait_for: WaitFor) -> ProduceWatch {
    ProduceWatch { partition: key(partition), required_offset: Offset(offset), wait_for, outcome: None }
}

fn produce(token: u32, watches: &[ProduceWatch]) -> DelayedProduce<u32> {
    DelayedProduce { token, watches: watches.iter().copied().collect() }
}

fn fetch(token: u32, partitions: &[u32], min_bytes: u32) -> DelayedFetch<u32> {
    let watch = |&p: &u32| FetchWatch { partition: key(p), fetch_offset: Offset(0), max_bytes: 100, available: 0 };
    DelayedFetch { token, watches: partitions.iter().map(watch).collect(), min_bytes }
}

fn tokens(completed: &mut Vec<Completed<u32>>) -> Vec<u32> {
    let token = |c: Completed<u32>| match c {
        Completed::Produce(p) => p.token,
        Completed::Fetch(f) => f.token,
    };
    completed.drain(..).map(token).collect()
}

#[test]
fn a_produce_completes_when_all_its_partitions_are_over() {
    let mut waiters = Waiters::new(10);
    let mut done = Vec::new();
    let watches = [watch(1, 5, WaitFor::HighWatermark), watch(2, 7, WaitFor::HighWatermark)];
    waiters.add_produce(produce(1, &watches), MonotonicMs(100)).unwrap();
    waiters.on_offset(key(1), WaitFor::HighWatermark, Offset(4), ProduceOutcome::Done, &mut done);
    waiters.on_offset(key(1), WaitFor::Durable, Offset(9), ProduceOutcome::Done, &mut done);
    waiters.on_offset(key(2), WaitFor::HighWatermark, Offset(7), ProduceOutcome::Done, &mut done);
    assert!(done.is_empty());
    waiters.on_offset(key(1), WaitFor::HighWatermark, Offset(5), ProduceOutcome::Done, &mut done);
    match &done[..] {
        [Completed::Produce(p)] => assert!(p.watches.iter().all(|w| w.outcome == Some(ProduceOutcome::Done))),
        other => panic!("{other:?}"),
    }
    assert!(waiters.is_empty());
    assert_eq!(waiters.next_deadline(), None);
}

#[test]
fn deadlines_complete_with_what_is_missing() {
    let mut waiters = Waiters::new(10);
    let mut done = Vec::new();
    let watches = [watch(1, 5, WaitFor::Durable), watch(2, 7, WaitFor::LowWatermark)];
    waiters.add_produce(produce(1, &watches), MonotonicMs(100)).unwrap();
    waiters.add_fetch(fetch(2, &[1], 1), MonotonicMs(50)).unwrap();
    assert_eq!(waiters.next_deadline(), Some(MonotonicMs(50)));
    waiters.on_deadline(MonotonicMs(49), &mut done);
    assert!(done.is_empty());
    waiters.on_deadline(MonotonicMs(50), &mut done);
    assert_eq!(tokens(&mut done), [2]);
    waiters.on_offset(key(2), WaitFor::LowWatermark, Offset(8), ProduceOutcome::Done, &mut done);
    waiters.on_deadline(MonotonicMs(100), &mut done);
    match &done[..] {
        [Completed::Produce(p)] => {
            assert_eq!((p.watches[0].outcome, p.watches[1].outcome), (None, Some(ProduceOutcome::Done)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn fetches_complete_by_bytes_over_all_partitions() {
    let mut waiters = Waiters::new(10);
    let mut done = Vec::new();
    waiters.add_fetch(fetch(1, &[1, 2], 120), MonotonicMs(100)).unwrap();
    waiters.on_data(key(1), |_| Some(500), &mut done);
    assert!(done.is_empty(), "no more than its limit counts for a partition");
    waiters.on_data(key(2), |_| Some(19), &mut done);
    assert!(done.is_empty());
    waiters.on_data(key(2), |_| Some(20), &mut done);
    assert_eq!(tokens(&mut done), [1]);
    assert_eq!(waiters.add_fetch(fetch(2, &[1], 0), MonotonicMs(100)).unwrap_err().token, 2, "nothing to wait for");
}

#[test]
fn losing_leadership_ends_produces_and_wakes_fetches() {
    let mut waiters = Waiters::new(10);
    let mut done = Vec::new();
    waiters.add_produce(produce(1, &[watch(1, 5, WaitFor::HighWatermark)]), MonotonicMs(100)).unwrap();
    waiters.add_produce(produce(2, &[watch(2, 5, WaitFor::HighWatermark)]), MonotonicMs(100)).unwrap();
    waiters.add_fetch(fetch(3, &[1, 2], 1), MonotonicMs(100)).unwrap();
    waiters.on_leadership_change(key(1), ErrorCode::NotLeaderOrFollower, &mut done);
    match &done[..] {
        [Completed::Produce(p), Completed::Fetch(f)] => {
            let failed = ProduceOutcome::Failed(ErrorCode::NotLeaderOrFollower);
            assert_eq!((p.token, p.watches[0].outcome, f.token), (1, Some(failed), 3));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(waiters.len(), 1);
}

#[test]
fn keys_of_gone_waiters_mean_nothing_and_room_is_bounded() {
    let mut waiters = Waiters::new(1);
    let first = waiters.add_fetch(fetch(1, &[1], 1), MonotonicMs(100)).unwrap();
    assert_eq!(waiters.add_fetch(fetch(2, &[1], 1), MonotonicMs(100)).unwrap_err().token, 2);
    assert!(waiters.cancel(first).is_some());
    assert!(waiters.cancel(first).is_none());
    let second = waiters.add_fetch(fetch(3, &[1], 1), MonotonicMs(200)).unwrap();
    assert_ne!(first, second);
    let mut done = Vec::new();
    waiters.on_deadline(MonotonicMs(150), &mut done);
    assert!(done.is_empty(), "the deadline of the first is void");
    let over = ProduceWatch { outcome: Some(ProduceOutcome::Done), ..watch(1, 1, WaitFor::Durable) };
    assert!(waiters.add_produce(DelayedProduce { token: 4, watches: smallvec![over] }, MonotonicMs(1)).is_err());
}

#[test]
fn many_short_waits_leave_nothing_behind() {
    let mut waiters = Waiters::new(1000);
    let mut done = Vec::new();
    for i in 0..10_000 {
        waiters.add_fetch(fetch(i, &[1, 2, 3], 1), MonotonicMs(1_000_000)).unwrap();
        waiters.on_data(key(i % 3 + 1), |_| Some(1), &mut done);
    }
    assert_eq!(done.len(), 10_000);
    assert!(waiters.deadlines.len() < 200 && waiters.watchers.is_empty() && waiters.slots.len() == 1);
}

/// Every waiter comes back exactly once, whatever happens.
#[test]
fn random_events_complete_each_waiter_once() {
    for seed in 0..30 {
        let mut random = Random::from_seed(seed);
        let mut waiters = Waiters::new(50);
        let (mut done, mut seen, mut given) = (Vec::new(), Vec::new(), 0_u32);
        for now in 0..500_u64 {
            let partition = key(random.below(5) as u32);
            let deadline = MonotonicMs(now + random.below(100));
            match random.below(6) {
                0 | 1 => {
                    let watches: Vec<_> = (0..1 + random.below(3))
                        .map(|_| watch(random.below(5) as u32, random.below(50) as i64, WaitFor::HighWatermark))
                        .collect();
                    given += u32::from(waiters.add_produce(produce(given, &watches), deadline).is_ok());
                }
                2 => {
                    let partitions = [random.below(5) as u32, random.below(5) as u32];
                    given += u32::from(waiters.add_fetch(fetch(given, &partitions, 30), deadline).is_ok());
                }
                3 => {
                    let offset = Offset(random.below(60) as i64);
                    waiters.on_offset(partition, WaitFor::HighWatermark, offset, ProduceOutcome::Done, &mut done);
                }
                4 => {
                    let bytes = random.below(40) as u32;
                    waiters.on_data(partition, |_| Some(bytes), &mut done);
                }
                _ if random.below(5) == 0 => {
                    waiters.on_leadership_change(partition, ErrorCode::NotLeaderOrFollower, &mut done);
                }
                _ => waiters.on_deadline(MonotonicMs(now), &mut done),
            }
            seen.extend(tokens(&mut done));
            assert_eq!(seen.len() + waiters.len(), given as usize, "seed {seed}");
        }
        waiters.on_deadline(MonotonicMs(u64::MAX), &mut done);
        seen.extend(tokens(&mut done));
        seen.sort_unstable();
        assert_eq!(seen, (0..given).collect::<Vec<_>>());
        assert!(waiters.watchers.is_empty());
    }
}
