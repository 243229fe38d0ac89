//! A Produce request, from its decoded body to its response. Read from the top:
//!
//! 1. [`begin`] finds the home of each partition and sends its records there ([`Shard::begin_on`], in order).
//! 2. [`append_here`], on the home core: [`Replica::append`] decides by `ringlog_partition` (checks, offsets) and
//!    copies the batch, once, into the tail of the log (`segment_store`). A writer task is woken.
//! 3. `segment_store` writes to the device and reports the durable end to the partition, which moves the high
//!    watermark: for one replica at once, for several when followers have fetched (`fetch`).
//! 4. [`acknowledge`] waits for that, or for the request's timeout.
//! 5. The future that [`begin`] returned collects the answers into the response.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::TransactionRules;
use ringlog_log::validator::{AppendOrigin, RecordFault};
use ringlog_protocol::Records;
use ringlog_protocol::messages::produce_request::ProduceRequest;
use ringlog_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, MonotonicMs, PartitionIndex, TopicIdPartition};
use smallvec::SmallVec;

use crate::dispatch::RequestContext;
use crate::mesh::LocalFuture;
use crate::replica::{AppendRules, Appended, ProduceFault, Replica};
use crate::shard::Shard;

/// Records for one partition, on their way to its home and, to be freed where they were received, back.
struct Part {
    /// Where the answer goes: topic and partition in the request.
    place: (usize, usize),
    id: TopicIdPartition,
    records: Bytes,
    outcome: Result<Appended, ProduceFault>,
    /// Why records that were appended are not acknowledged. The answer names their place all the same, as Kafka's does.
    unacknowledged: Option<ErrorCode>,
}

/// Parts that are appended before looking whether others want to run.
const PARTS_PER_TURN: usize = 64;

/// How long to wait, and for what.
#[derive(Clone, Copy)]
struct Wanted {
    /// -1 for all in-sync replicas, 1 for the leader, 0 for no answer.
    acks: i16,
    api_version: i16,
    deadline: MonotonicMs,
}

/// Starts a Produce: when this returns, its records are on their way in the order of requests. The inner future gives
/// the response.
pub async fn begin(
    shard: &Rc<Shard>,
    context: &RequestContext,
    request: ProduceRequest,
) -> LocalFuture<ProduceResponse> {
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let deadline = ring::now().monotonic.plus_ms(timeout_ms);
    let wanted = Wanted { acks: request.acks, api_version: context.api_version, deadline };
    let (mut response, by_home) = split_by_home(shard, request);
    let mut pending: SmallVec<[LocalFuture<Vec<Part>>; 4]> = SmallVec::new();
    for (home, parts) in by_home {
        pending.push(shard.begin_on(home, move |shard| append_here(shard, parts, wanted)).await);
    }
    Box::pin(async move {
        for parts in pending {
            for part in parts.await {
                let (topic, partition) = part.place;
                let response = &mut response.responses[topic].partition_responses[partition];
                answer(response, part.outcome);
                if let Some(error) = part.unacknowledged {
                    response.error_code = error.code();
                }
            }
        }
        response
    })
}

type ByHome = SmallVec<[(usize, Vec<Part>); 4]>;

/// Prepares a response of the request's shape, with an error where a partition isn't known, and sorts the rest.
fn split_by_home(shard: &Shard, request: ProduceRequest) -> (ProduceResponse, ByHome) {
    let image = shard.image();
    let invalid_acks = !(-1..=1).contains(&request.acks);
    let mut by_home = ByHome::new();
    let mut response = ProduceResponse::default();
    response.responses.reserve(request.topic_data.len());
    for (topic_place, topic) in request.topic_data.into_iter().enumerate() {
        let by_id = !topic.topic_id.is_zero();
        let known = if by_id { image.topics.by_id(topic.topic_id) } else { image.topics.by_name(&topic.name) };
        let unknown = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        let mut answers = Vec::with_capacity(topic.partition_data.len());
        for (place, data) in topic.partition_data.into_iter().enumerate() {
            let mut unanswered =
                PartitionProduceResponse { index: data.index, base_offset: -1, ..PartitionProduceResponse::default() };
            let partition = PartitionIndex(data.index);
            let records = data.records.map(Records::into_contiguous).unwrap_or_default();
            match known {
                _ if invalid_acks => unanswered.error_code = ErrorCode::InvalidRequiredAcks.code(),
                None => unanswered.error_code = unknown.code(),
                Some(topic) if !topic.partitions.contains_key(&partition) => {
                    unanswered.error_code = ErrorCode::UnknownTopicOrPartition.code();
                }
                Some(topic) => {
                    let id = TopicIdPartition { topic_id: topic.id, partition };
                    let outcome = Err(ErrorCode::NotLeaderOrFollower.into());
                    let part = Part { place: (topic_place, place), id, records, outcome, unacknowledged: None };
                    let home = shard.home_of(id);
                    match by_home.iter_mut().find(|(shard, _)| *shard == home) {
                        Some((_, parts)) => parts.push(part),
                        None => by_home.push((home, vec![part])),
                    }
                }
            }
            answers.push(unanswered);
        }
        response.responses.push(TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: answers,
        });
    }
    (response, by_home)
}

/// On the home core: appends at once, then waits for what `wanted` asks.
fn append_here(shard: &Rc<Shard>, parts: Vec<Part>, wanted: Wanted) -> LocalFuture<Vec<Part>> {
    let mut work = Appending { parts, next: 0, appended: Waiting::new(), wanted };
    if !shard.store.frames.is_waited_for() && work.go_on(shard) == Stop::Done {
        return Box::pin(work.acknowledge_all());
    }
    // Memory is full of records that the disk has not taken yet, or there is much to do. Appends wait in order; their
    // connections read no more.
    let shard = shard.clone();
    Box::pin(ring::spawn(async move {
        let turn = shard.store.frames.turn().await;
        loop {
            match work.go_on(&shard) {
                Stop::Done => break,
                Stop::Preempted => ring::yield_now().await,
                Stop::NoRoom if ring::now().monotonic >= wanted.deadline => {
                    work.give_up();
                    break;
                }
                Stop::NoRoom => shard.store.frames.wait_a_moment().await,
            }
        }
        drop(turn);
        work.acknowledge_all().await
    }))
}

/// Appended parts: place in the request's part list, replica, and where the records lie.
type Waiting = SmallVec<[(usize, Rc<Replica>, Appended); 4]>;

/// A request's parts for one core.
struct Appending {
    parts: Vec<Part>,
    /// The first part that hasn't been looked at.
    next: usize,
    appended: Waiting,
    wanted: Wanted,
}

#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Done,
    /// There is no memory for the next part.
    NoRoom,
    /// Others want to run.
    Preempted,
}

impl Appending {
    /// Appends as many parts as can be.
    fn go_on(&mut self, shard: &Shard) -> Stop {
        let now = ring::now();
        let rules = AppendRules {
            origin: AppendOrigin::Client,
            required_acks: self.wanted.acks,
            is_zstd_allowed: self.wanted.api_version >= 7,
            transaction: TransactionRules::default(),
        };
        let scratch = &mut *shard.scratch.borrow_mut();
        let begun = self.next;
        while let Some(part) = self.parts.get_mut(self.next) {
            if self.next > begun && self.next.is_multiple_of(PARTS_PER_TURN) && ring::needs_preempt() {
                return Stop::Preempted;
            }
            match shard.served(part.id) {
                Err(why) => part.outcome = Err(why.error_code().into()),
                Ok(replica) if !replica.has_room_for(part.records.len()) => return Stop::NoRoom,
                Ok(replica) => {
                    part.outcome = replica.append(&part.records, &rules, scratch, now);
                    if let Ok(appended) = part.outcome {
                        shard.metrics.appended_bytes.add(part.records.len() as u64);
                        self.appended.push((self.next, replica, appended));
                    }
                }
            }
            self.next += 1;
        }
        Stop::Done
    }

    /// There was no memory in time: the rest is not in any log, and may be sent again.
    fn give_up(&mut self) {
        for part in &mut self.parts[self.next..] {
            part.outcome = Err(ErrorCode::RequestTimedOut.into());
        }
    }

    async fn acknowledge_all(mut self) -> Vec<Part> {
        for (place, replica, appended) in self.appended {
            self.parts[place].unacknowledged = acknowledge(&replica, &appended, self.wanted).await.err();
        }
        self.parts
    }
}

/// Waits until the records are durable here (acks 0 and 1), or committed (acks -1).
async fn acknowledge(replica: &Replica, appended: &Appended, wanted: Wanted) -> Result<(), ErrorCode> {
    loop {
        if let Some(outcome) = replica.acknowledged(appended, wanted.acks) {
            return outcome;
        }
        let left_ms = wanted.deadline.since_ms(ring::now().monotonic);
        // Only waiting for followers, or for room on a full disk, may time out: what the leader has taken, it writes or
        // fails.
        if wanted.acks != -1 && !replica.is_stuck() {
            replica.progress.wait().await;
        } else if left_ms == 0 || ring::timeout_ms(left_ms, replica.progress.wait()).await.is_err() {
            return Err(ErrorCode::RequestTimedOut);
        }
    }
}

fn answer(response: &mut PartitionProduceResponse, outcome: Result<Appended, ProduceFault>) {
    match outcome {
        Ok(appended) => {
            response.base_offset = appended.base_offset.0;
            response.log_append_time_ms = appended.log_append_time.0;
            response.log_start_offset = appended.log_start_offset.0;
        }
        Err(fault) => {
            response.error_code = fault.code.code();
            response.error_message = fault.message.map(Into::into);
            response.record_errors = fault.record_errors.into_iter().map(record_error).collect();
        }
    }
}

fn record_error(fault: RecordFault) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage { batch_index: fault.batch_index, batch_index_error_message: Some(fault.message.into()) }
}
