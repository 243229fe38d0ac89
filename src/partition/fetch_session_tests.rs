use super::*;

fn partition(number: i32) -> SessionPartition {
    SessionPartition {
        topic: SessionTopic::Id(Uuid([7; 16])),
        partition: PartitionIndex(number),
        fetch_offset: Offset(0),
        max_bytes: 1000,
        current_leader_epoch: LeaderEpoch(1),
        last_fetched_epoch: LeaderEpoch::NONE,
        log_start_offset: Offset::NONE,
    }
}

fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> SessionRequest {
    SessionRequest {
        session_id,
        session_epoch,
        is_follower: false,
        uses_topic_ids: true,
        partitions: partitions.iter().map(|&number| partition(number)).collect(),
        forgotten: Vec::new(),
    }
}

const QUIET: PartitionResult = PartitionResult {
    error: ErrorCode::None,
    records_size: 0,
    high_watermark: Offset(10),
    log_start_offset: Offset(0),
    redirects_or_diverges: false,
};

fn numbers(context: &FetchContext) -> Vec<i32> {
    context.partitions.iter().map(|p| p.partition.0).collect()
}

struct Fixture {
    cache: FetchSessionCache,
    random: Random,
}

impl Fixture {
    fn new(slots: usize) -> Fixture {
        let limits = FetchSessionCacheLimits { slots, eviction_ms: 1000 };
        Fixture { cache: FetchSessionCache::new(limits), random: Random::from_seed(1) }
    }

    fn open(&mut self, partitions: &[i32], is_follower: bool, now: u64) -> i32 {
        let request = SessionRequest { is_follower, ..request(0, 0, partitions) };
        let context = self.cache.begin(request, MonotonicMs(now)).unwrap();
        let results = vec![QUIET; partitions.len()];
        let finished = self.cache.finish(context, &results, MonotonicMs(now), &mut self.random).unwrap();
        assert_eq!(finished.include, None);
        finished.session_id
    }

    fn step(&mut self, request: SessionRequest, results: impl Fn(i32) -> PartitionResult) -> (Vec<i32>, Vec<i32>) {
        let context = self.cache.begin(request, MonotonicMs(1)).unwrap();
        let read = numbers(&context);
        let results: Vec<_> = read.iter().map(|&number| results(number)).collect();
        let finished = self.cache.finish(context, &results, MonotonicMs(1), &mut self.random).unwrap();
        let include = finished.include.unwrap_or(vec![true; read.len()]);
        let answered = read.iter().zip(include).filter(|(_, included)| *included).map(|(n, _)| *n).collect();
        (read, answered)
    }
}

#[test]
fn incremental_answers_hold_only_news_and_rotate_what_had_data() {
    let mut fixture = Fixture::new(10);
    let id = fixture.open(&[1, 2, 3], false, 0);
    assert!(id > 0);
    assert_eq!(fixture.step(request(id, 1, &[]), |_| QUIET), (vec![1, 2, 3], vec![]));
    let with_data = |wanted| move |n| PartitionResult { records_size: if n == wanted { 5 } else { 0 }, ..QUIET };
    assert_eq!(fixture.step(request(id, 2, &[]), with_data(1)), (vec![1, 2, 3], vec![1]));
    let moved = |n| PartitionResult { high_watermark: Offset(if n == 3 { 11 } else { 10 }), ..QUIET };
    assert_eq!(fixture.step(request(id, 3, &[]), moved), (vec![2, 3, 1], vec![3]));
    assert_eq!(fixture.step(request(id, 4, &[]), moved), (vec![2, 3, 1], vec![]));
    let failed = |n| PartitionResult {
        error: if n == 2 { ErrorCode::NotLeaderOrFollower } else { ErrorCode::None },
        ..moved(n)
    };
    assert_eq!(fixture.step(request(id, 5, &[]), failed).1, [2]);
    assert_eq!(fixture.step(request(id, 6, &[]), moved).1, [2], "once more after the error is gone");
    assert_eq!(fixture.step(request(id, 7, &[]), moved).1, [0; 0]);
    let diverging = |n| PartitionResult { redirects_or_diverges: n == 1, ..moved(n) };
    assert_eq!(fixture.step(request(id, 8, &[]), diverging).1, [1]);
}

#[test]
fn partitions_join_change_and_leave() {
    let mut fixture = Fixture::new(10);
    let id = fixture.open(&[1, 2], false, 0);
    let mut change = request(id, 1, &[3]);
    change.partitions.push(SessionPartition { fetch_offset: Offset(77), ..partition(2) });
    change.forgotten.push(ForgottenPartition { topic: partition(1).topic, partition: PartitionIndex(1) });
    let context = fixture.cache.begin(change, MonotonicMs(1)).unwrap();
    assert_eq!(numbers(&context), [2, 3]);
    assert_eq!(context.partitions[0].fetch_offset, Offset(77));
    let results = [QUIET, QUIET];
    let finished = fixture.cache.finish(context, &results, MonotonicMs(1), &mut fixture.random).unwrap();
    assert_eq!(finished.include, Some(vec![false, true]), "a new one has always news");
    let mut last = request(id, 2, &[]);
    for number in [2, 3] {
        last.forgotten.push(ForgottenPartition { topic: partition(1).topic, partition: PartitionIndex(number) });
    }
    let context = fixture.cache.begin(last, MonotonicMs(1)).unwrap();
    assert!(!context.is_incremental() && fixture.cache.is_empty(), "an empty session is closed");
}

#[test]
fn epochs_and_ids_are_checked() {
    let mut fixture = Fixture::new(10);
    let id = fixture.open(&[1], false, 0);
    let begin = |f: &mut Fixture, request| f.cache.begin(request, MonotonicMs(1)).map(|c| numbers(&c));
    assert_eq!(begin(&mut fixture, request(id ^ 1, 1, &[])), Err(SessionError::IdNotFound));
    assert_eq!(begin(&mut fixture, request(id, 2, &[])), Err(SessionError::InvalidEpoch));
    let by_name = SessionRequest { uses_topic_ids: false, ..request(id, 1, &[]) };
    assert_eq!(begin(&mut fixture, by_name), Err(SessionError::TopicIdMismatch));
    let context = fixture.cache.begin(request(id, 1, &[]), MonotonicMs(1)).unwrap();
    assert_eq!(context.throttled_session_id(), id);
    fixture.cache.begin(request(id, 2, &[]), MonotonicMs(1)).unwrap();
    let late = fixture.cache.finish(context, &[QUIET], MonotonicMs(1), &mut fixture.random);
    assert_eq!(late, Err(SessionError::InvalidEpoch), "a newer request has taken the session over");
    assert_eq!(begin(&mut fixture, request(id, -1, &[4, 5])), Ok(vec![4, 5]));
    assert_eq!(begin(&mut fixture, request(id, 3, &[])), Err(SessionError::IdNotFound), "closed by the final epoch");
    assert_eq!((next_epoch(i32::MAX), next_epoch(1)), (1, 2));
}

#[test]
fn a_full_cache_evicts_by_kafkas_rules() {
    let mut fixture = Fixture::new(2);
    let small = fixture.open(&[1], false, 0);
    let follower = fixture.open(&[1], true, 0);
    assert_eq!(fixture.open(&[1, 2, 3], false, 500), 0, "nobody has lived long enough");
    let taken = fixture.open(&[1, 2], true, 500);
    assert!(taken > 0, "a follower may evict a consumer at once");
    assert_eq!(fixture.cache.begin(request(small, 1, &[]), MonotonicMs(500)), Err(SessionError::IdNotFound));
    assert_eq!(fixture.open(&[1, 2, 3], true, 600), 0, "but not a young follower");
    // The other follower session is unused since time 0 and goes stale.
    assert_eq!(fixture.open(&[1], false, 1000), 0);
    let consumer = fixture.open(&[1], false, 1001);
    assert!(consumer > 0);
    assert_eq!(fixture.cache.begin(request(follower, 1, &[]), MonotonicMs(1001)), Err(SessionError::IdNotFound));
    assert_eq!((fixture.cache.len(), fixture.cache.evictions()), (2, 2));
    assert_eq!(fixture.cache.partition_count(), 3);
}

#[test]
fn a_larger_session_evicts_a_smaller_old_one() {
    let mut fixture = Fixture::new(1);
    let id = fixture.open(&[1, 2], false, 0);
    // Used lately, so it isn't stale, but it has lived for the eviction time.
    fixture.cache.begin(request(id, 1, &[]), MonotonicMs(1500)).unwrap();
    assert_eq!(fixture.open(&[1], false, 1600), 0, "a smaller one does not");
    assert!(fixture.open(&[1, 2, 3], false, 1600) > 0);
    assert_eq!(fixture.cache.len(), 1);
}
