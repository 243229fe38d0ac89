//! A Produce request, from its decoded body to its response. Read from the top:
//!
//! 1. [`begin`] finds the home of each partition, checks each batch ([`crate::data::batch_checks`]: all of its bytes, so that
//!    consumers can read what is stored) and sends it there ([`crate::scatter`], in order).
//! 2. [`append_here`], on the home core: [`Replica::append`] decides by `ringlog_partition` (producers, offsets) and
//!    copies the batch, once, into the tail of the log (`segment_store`). A writer task is woken.
//! 3. `segment_store` writes to the device and reports the durable end to the partition, which moves the high
//!    watermark: for one replica at once, for several when followers have fetched (`fetch`).
//! 4. [`acknowledge`] waits for that, or for the request's timeout.
//! 5. The future that [`begin`] returned collects the answers into the response.

mod repeated;

use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::TransactionRules;
use ringlog_log::validator::{
    AppendOrigin, BatchRules, CheckedBatch, RecordFault, RequestFault, ValidationError, holds_transaction,
};
use ringlog_protocol::Records;
use ringlog_protocol::messages::produce_request::ProduceRequest;
use ringlog_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, MonotonicMs, PartitionIndex, TopicIdPartition, TopicPartition, is_internal_topic};
use smallvec::SmallVec;

use crate::data::DataPlane;
use crate::data::replica::{AppendRules, Appended, ProduceFault, Replica, Told};
use crate::mesh::LocalFuture;
use crate::net::request::RequestContext;
use crate::scatter;
use repeated::Places;

/// Records for one partition, on their way to its home and, to be freed where they were received, back.
struct Part {
    /// Where the answer goes: topic and partition in the request.
    place: (usize, usize),
    id: TopicIdPartition,
    records: Bytes,
    /// What became of the check; it is taken to the log.
    checked: Option<Result<CheckedBatch, ValidationError>>,
    outcome: Result<Appended, ProduceFault>,
}

/// Parts that are appended before looking whether others want to run.
const PARTS_PER_TURN: usize = 8;
/// Clients that may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";
/// The first version of Produce that names topics by their ids (KIP-516).
const TOPIC_ID_SINCE: i16 = 13;
/// The first version of Produce that knows zstd.
const ZSTD_SINCE: i16 = 7;

/// How long to wait, and for what.
#[derive(Clone, Copy)]
struct Wanted {
    /// -1 for all in-sync replicas, 1 for the leader, 0 for no answer.
    acks: i16,
    deadline: MonotonicMs,
}

/// Starts a Produce: when this returns, its records are on their way in the order of requests. The inner future gives
/// the response.
pub async fn begin(
    plane: &Rc<DataPlane>,
    context: &RequestContext,
    request: ProduceRequest,
) -> LocalFuture<ProduceResponse> {
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let deadline = ring::now().monotonic.plus_ms(timeout_ms);
    let wanted = Wanted { acks: request.acks, deadline };
    if let Some(fault) = fault_of_request(&request) {
        let response = refuse_all(request, &fault);
        return Box::pin(async move { response });
    }
    let (mut response, mut by_home) = split_by_home(plane, context, request);
    let refused = check_batches(plane, context, wanted, &mut response, &mut by_home).await;
    let repeated =
        repeated::find(&response).then(|| repeated::drop_earlier(&mut by_home, |part| (part.id, part.place)));
    let pending = by_home.send(plane, move |plane, parts| append_here(plane, parts, wanted)).await;
    Box::pin(async move {
        for parts in pending {
            for part in parts.answer().await {
                let (topic, partition) = part.place;
                answer(&mut response.responses[topic].partition_responses[partition], part.outcome);
            }
        }
        if let Some(dropped) = repeated {
            repeated::unite(&mut response, &refused, &dropped);
        }
        response.responses.retain(|topic| !topic.partition_responses.is_empty());
        response
    })
}

type ByHome = scatter::ByHome<Part>;

/// What Kafka refuses a request as a whole for, whatever else it holds: bytes that can't be a batch, and transactions of
/// nobody.
fn fault_of_request(request: &ProduceRequest) -> Option<RequestFault> {
    for data in request.topic_data.iter().flat_map(|topic| &topic.partition_data) {
        // A request's records are one slice of its frame.
        let records = data.records.as_ref().and_then(|records| records.chunks().first());
        match holds_transaction(records.map_or(&[], |records| records)) {
            Ok(false) => {}
            Ok(true) if request.transactional_id.is_some() => return None,
            Ok(true) => {
                return Some(RequestFault { code: ErrorCode::TransactionalIdAuthorizationFailed, message: None });
            }
            Err(fault) => return Some(fault),
        }
    }
    None
}

fn refuse_all(request: ProduceRequest, fault: &RequestFault) -> ProduceResponse {
    let partition = |index| PartitionProduceResponse {
        index,
        error_code: fault.code.code(),
        base_offset: -1,
        error_message: fault.message.clone().map(Into::into),
        ..PartitionProduceResponse::default()
    };
    // As Kafka, which goes through the partitions: a topic without any isn't named.
    let named = request.topic_data.into_iter().filter(|topic| !topic.partition_data.is_empty());
    let topics = named.map(|topic| TopicProduceResponse {
        name: topic.name,
        topic_id: topic.topic_id,
        partition_responses: topic.partition_data.iter().map(|data| partition(data.index)).collect(),
    });
    let mut response = ProduceResponse { responses: topics.collect(), ..ProduceResponse::default() };
    if repeated::find(&response) {
        repeated::unite(&mut response, &Places::default(), &Places::default());
    }
    response
}

/// Prepares a response of the request's shape, with an error where a partition isn't known, and sorts the rest.
fn split_by_home(plane: &DataPlane, context: &RequestContext, request: ProduceRequest) -> (ProduceResponse, ByHome) {
    let image = plane.metadata.image();
    let mut by_home = ByHome::default();
    let mut response = ProduceResponse::default();
    response.responses.reserve(request.topic_data.len());
    for (topic_place, topic) in request.topic_data.into_iter().enumerate() {
        let by_id = context.api_version >= TOPIC_ID_SINCE;
        let known = if by_id { image.topics.by_id(topic.topic_id) } else { image.topics.by_name(&topic.name) };
        let unknown = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        let mut answers = Vec::with_capacity(topic.partition_data.len());
        for (place, data) in topic.partition_data.into_iter().enumerate() {
            let mut unanswered =
                PartitionProduceResponse { index: data.index, base_offset: -1, ..PartitionProduceResponse::default() };
            let partition = PartitionIndex(data.index);
            let records = data.records.map(Records::into_contiguous).unwrap_or_default();
            match known {
                None => unanswered.error_code = unknown.code(),
                Some(topic) if !topic.partitions.contains_key(&partition) => {
                    unanswered.error_code = ErrorCode::UnknownTopicOrPartition.code();
                }
                Some(topic) => {
                    let id = TopicIdPartition { topic_id: topic.id, partition };
                    let outcome = Err(ErrorCode::NotLeaderOrFollower.into());
                    let part = Part { place: (topic_place, place), id, records, checked: None, outcome };
                    let home = plane.core.node.home_of(id);
                    by_home.push(home, part);
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

/// Checks every batch. Those that no log is asked for are answered here; the places of those that are refused for what the
/// request holds are returned.
async fn check_batches(
    plane: &DataPlane,
    context: &RequestContext,
    wanted: Wanted,
    response: &mut ProduceResponse,
    by_home: &mut ByHome,
) -> Places {
    let image = plane.metadata.image();
    let is_acks_valid = (-1..=1).contains(&wanted.acks);
    // What coordinators keep is theirs; Kafka lets only clients of this name write to it.
    let may_write_internal = context.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
    let now = ring::now().wall;
    let (mut refused, mut is_any_answered) = (Places::default(), false);
    for part in by_home.parts_mut() {
        let fault = match image.topics.by_id(part.id.topic_id) {
            // It was there when its partitions were looked up, in the same metadata.
            None => ErrorCode::UnknownTopicOrPartition,
            Some(topic) => {
                let config = plane.metadata.topic_config(&image, topic);
                let rules = BatchRules {
                    is_zstd_allowed: context.api_version >= ZSTD_SINCE,
                    looks_inside: plane.core.node.config.ringlog.check_compressed_batches,
                    unpacked_bytes_max: plane.core.node.config.network.request_max_bytes as usize,
                    ..BatchRules::new(&config, AppendOrigin::Client, now)
                };
                let name = TopicPartition { topic: topic.name.clone(), partition: part.id.partition };
                let checked = plane.batch_checks.check(&part.records, &name, &rules).await;
                ring::yield_if_needed().await;
                match &checked {
                    Err(fault) if fault.is_of_request => {
                        refused.insert(part.place);
                        fault.code
                    }
                    _ if !is_acks_valid => ErrorCode::InvalidRequiredAcks,
                    _ if !may_write_internal && is_internal_topic(&topic.name) => ErrorCode::InvalidTopicException,
                    _ => {
                        part.checked = Some(checked);
                        continue;
                    }
                }
            }
        };
        let (topic, partition) = part.place;
        answer(&mut response.responses[topic].partition_responses[partition], Err(fault.into()));
        is_any_answered = true;
    }
    if is_any_answered {
        by_home.retain(|part| part.checked.is_some());
    }
    refused
}

/// On the home core: appends at once, then waits for what `wanted` asks.
fn append_here(plane: &Rc<DataPlane>, parts: Vec<Part>, wanted: Wanted) -> LocalFuture<Vec<Part>> {
    let mut work = Appending { parts, next: 0, appended: Waiting::new(), wanted };
    if !plane.store.frames.is_waited_for() && work.append_parts(plane) == Stop::Done {
        return Box::pin(work.acknowledge_all());
    }
    // Memory is full of records that the disk has not taken yet, or there is much to do. Appends wait in order; their
    // connections read no more.
    let plane = plane.clone();
    Box::pin(ring::spawn(async move {
        let turn = plane.store.frames.turn().await;
        loop {
            match work.append_parts(&plane) {
                Stop::Done => break,
                Stop::Preempted => ring::yield_now().await,
                Stop::NoRoom if ring::now().monotonic >= wanted.deadline => {
                    work.give_up();
                    break;
                }
                Stop::NoRoom => plane.store.frames.wait_a_moment().await,
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
    fn append_parts(&mut self, plane: &DataPlane) -> Stop {
        let now = ring::now();
        let rules = AppendRules {
            origin: AppendOrigin::Client,
            required_acks: self.wanted.acks,
            transaction: TransactionRules::default(),
        };
        let begun = self.next;
        while let Some(part) = self.parts.get_mut(self.next) {
            if self.next > begun && self.next.is_multiple_of(PARTS_PER_TURN) && ring::needs_preempt() {
                return Stop::Preempted;
            }
            match (plane.replicas.served(part.id), part.checked.take()) {
                (Err(why), _) => part.outcome = Err(why.error_code().into()),
                // Nobody has checked it: those were answered before.
                (Ok(_), None) => {}
                (Ok(replica), Some(checked)) if !replica.has_room_for_checked(&checked) => {
                    part.checked = Some(checked);
                    return Stop::NoRoom;
                }
                (Ok(replica), Some(checked)) => {
                    part.outcome = replica.append(checked, &rules, now);
                    if let Ok(appended) = part.outcome {
                        plane.core.metrics.appended_bytes.add(part.records.len() as u64);
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
            if let Err(code) = acknowledge(&replica, &appended, self.wanted).await {
                self.parts[place].outcome = Err(ProduceFault { told: Told::Appended(appended), ..code.into() });
            }
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
            replica.progressed().await;
        } else if left_ms == 0 || ring::timeout_ms(left_ms, replica.progressed()).await.is_err() {
            return Err(ErrorCode::RequestTimedOut);
        }
    }
}

fn answer(response: &mut PartitionProduceResponse, outcome: Result<Appended, ProduceFault>) {
    let told = match outcome {
        Ok(appended) => Told::Appended(appended),
        Err(fault) => {
            response.error_code = fault.code.code();
            response.error_message = fault.message.map(Into::into);
            response.record_errors = fault.record_errors.into_iter().map(record_error).collect();
            fault.told
        }
    };
    match told {
        Told::Nothing => {}
        Told::LogStart(offset) => response.log_start_offset = offset.0,
        Told::Appended(appended) => {
            response.base_offset = appended.base_offset.0;
            response.log_append_time_ms = appended.log_append_time.0;
            response.log_start_offset = appended.log_start_offset.0;
        }
    }
}

fn record_error(fault: RecordFault) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage { batch_index: fault.batch_index, batch_index_error_message: Some(fault.message.into()) }
}
