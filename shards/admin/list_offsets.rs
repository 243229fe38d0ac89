//! ListOffsets: the offset for a timestamp, or one of the special ones (log start and end, largest timestamp, …).
//!
//! The partition plans the answer (`ringlog_partition`); where it can't know, the log is read from where the indexes
//! point, and batches are opened to find the record.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringlog_log::{ListOffsetPlan, Location, list_offsets_timestamp};
use ringlog_partition::{IsolationLevel, ListOffsetsRequest as Question, Unserved};
use ringlog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use ringlog_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use ringlog_protocol::records::{BatchError, BatchIter, BatchRef, RecordWalk, TimestampType, Unpacker};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, LeaderEpoch, NodeId, Offset, PartitionIndex, TimestampMs, TopicIdPartition};
use rustc_hash::FxHashSet;

use super::shown::united_by;
use crate::data::DataPlane;
use crate::data::by_home::{self, Part};
use crate::data::replica::Replica;
use crate::net::request::RequestContext;
use crate::storage::log_read::{LogReadError, Place, ReadRange, StoredLog};
use crate::storage::slices::Slices;

/// `replica_id` of a consumer.
const CONSUMER: NodeId = NodeId(-1);
/// `replica_id` of a consumer that may ask followers.
const DEBUGGING_CONSUMER: NodeId = NodeId(-2);
/// Bytes of the log that a search reads at a time.
const SEARCH_READ_BYTES: usize = 256 * 1024;
/// A search whose segment was replaced begins again, so many times.
const SEARCHES_AGAIN_MAX: usize = 3;

/// A record that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    timestamp: TimestampMs,
    offset: Offset,
    leader_epoch: LeaderEpoch,
}

/// Why a search fails.
#[derive(Debug, thiserror::Error)]
enum SearchFault {
    #[error(transparent)]
    Read(#[from] LogReadError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("{0}")]
    Refused(ErrorCode),
}

type Outcome<E = ErrorCode> = Result<Option<Found>, E>;

/// Answers ListOffsets.
pub async fn handle(
    plane: &Rc<DataPlane>,
    context: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let replica = NodeId(request.replica_id);
    let isolation = match request.isolation_level {
        0 => IsolationLevel::ReadUncommitted,
        1 => IsolationLevel::ReadCommitted,
        _ => return refusal(request, ErrorCode::UnknownServerError),
    };
    let question = |partition: &ListOffsetsPartition| Question {
        timestamp: TimestampMs(partition.timestamp),
        current_leader_epoch: Some(LeaderEpoch(partition.current_leader_epoch))
            .filter(|epoch| *epoch != LeaderEpoch::NONE),
        isolation: (replica == CONSUMER).then_some(isolation),
        leader_only: replica != DEBUGGING_CONSUMER,
    };
    let repeated = repeated(&request);
    let image = plane.metadata.image();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut parts = Vec::new();
    for topic in &request.topics {
        let known = image.topics.by_name(&topic.name);
        for partition in &topic.partitions {
            let index = PartitionIndex(partition.partition_index);
            let id = known.filter(|topic| topic.partitions.contains_key(&index));
            let id = id.map(|topic| TopicIdPartition { topic_id: topic.id, partition: index });
            outcomes.push(if repeated.contains(&(topic.name.as_str(), index)) {
                Err(ErrorCode::InvalidRequest)
            } else if !is_known_timestamp(partition.timestamp, context.api_version) {
                Err(ErrorCode::UnsupportedVersion)
            } else if let Some(id) = id {
                parts.push(Part { place: outcomes.len(), id, ask: question(partition) });
                Ok(None)
            } else {
                Err(ErrorCode::UnknownTopicOrPartition)
            });
        }
    }
    for (place, outcome) in by_home::run(plane, parts, answer).await {
        outcomes[place] = outcome;
    }
    respond(request, context.api_version, outcomes)
}

/// An error for everything that was asked.
fn refusal(request: ListOffsetsRequest, error: ErrorCode) -> ListOffsetsResponse {
    let answer = |partition: &ListOffsetsPartition| ListOffsetsPartitionResponse {
        partition_index: partition.partition_index,
        error_code: error.code(),
        ..Default::default()
    };
    let topics = request.topics.into_iter().map(|topic| ListOffsetsTopicResponse {
        partitions: topic.partitions.iter().map(answer).collect(),
        name: topic.name,
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

fn repeated(request: &ListOffsetsRequest) -> FxHashSet<(&str, PartitionIndex)> {
    let (mut seen, mut repeated) = (FxHashSet::default(), FxHashSet::default());
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.as_str(), PartitionIndex(partition.partition_index));
            if !seen.insert(key) {
                repeated.insert(key);
            }
        }
    }
    repeated
}

/// Whether the version knows the timestamp's meaning.
fn is_known_timestamp(timestamp: i64, api_version: i16) -> bool {
    let from = match timestamp {
        0.. | list_offsets_timestamp::LATEST | list_offsets_timestamp::EARLIEST => 0,
        list_offsets_timestamp::MAX_TIMESTAMP => 7,
        list_offsets_timestamp::EARLIEST_LOCAL => 8,
        list_offsets_timestamp::LATEST_TIERED => 9,
        list_offsets_timestamp::EARLIEST_PENDING_UPLOAD => 11,
        _ => return false,
    };
    api_version >= from
}

/// On the home core.
async fn answer(plane: Rc<DataPlane>, replica: Result<Rc<Replica>, Unserved>, question: Question) -> Outcome {
    let replica = replica.map_err(Unserved::error_code)?;
    for _ in 0..=SEARCHES_AGAIN_MAX {
        match search(&plane, &replica, &question).await {
            // Where it was searched the log is another now.
            Err(SearchFault::Read(LogReadError::Replaced)) if replica.unserved().is_none() => {}
            Err(SearchFault::Refused(code)) => return Err(code),
            searched => return searched.map_err(|fault| replica.on_read_fault("search failed", &fault)),
        }
    }
    Err(ErrorCode::OffsetNotAvailable)
}

async fn search(plane: &DataPlane, replica: &Replica, question: &Question) -> Outcome<SearchFault> {
    let plan = replica.plan_list_offsets(question);
    let plan = plan.map_err(|error| SearchFault::Refused(error.error_code()))?;
    let mut next = Some(plan);
    while let Some(plan) = next {
        let (segment, found) = match plan {
            ListOffsetPlan::Known { timestamp, offset, leader_epoch } => {
                return Ok((!offset.is_none()).then_some(Found { timestamp, offset, leader_epoch }));
            }
            ListOffsetPlan::FirstAtOrAfter { segment_base_offset, target, start_offset, position } => {
                let search = Search::new(replica, segment_base_offset, position, start_offset);
                (segment_base_offset, first_at_or_after(plane, replica, search, target).await?)
            }
            ListOffsetPlan::MaxTimestampIn { segment_base_offset, batch_offset, position } => {
                let search = Search::new(replica, segment_base_offset, position, batch_offset);
                (segment_base_offset, largest_timestamp(plane, replica, search).await?)
            }
        };
        if let Some(found) = found {
            let visible = replica.is_visible(found.offset, question.isolation);
            return Ok(visible.map_err(|error| SearchFault::Refused(error.error_code()))?.then_some(found));
        }
        // Where retention took the segment meanwhile, there was nothing to be found in it.
        if replica.with_log(|log| log.segment_size(segment).is_none()) {
            return Err(SearchFault::Read(LogReadError::Replaced));
        }
        next = match plan {
            ListOffsetPlan::FirstAtOrAfter { target, .. } => {
                replica.with_log(|log| log.list_offset_behind(segment, target))
            }
            _ => None,
        };
    }
    Ok(None)
}

/// Where to look.
#[derive(Debug, Clone, Copy)]
struct Search {
    segment: Offset,
    place: Place,
    /// The batch that holds this offset comes first.
    from: Offset,
}

impl Search {
    /// The position is known in the active segment.
    fn new(replica: &Replica, segment: Offset, position: Option<u32>, from: Offset) -> Search {
        let location = match position {
            Some(position) => Location::At { segment_base_offset: segment, position, exact: false },
            None => Location::NeedsIndex { segment_base_offset: segment },
        };
        Search { segment, place: replica.place(location), from }
    }

    fn range(self, limit: Offset) -> ReadRange {
        ReadRange { place: self.place, from: self.from, limit, max_bytes: SEARCH_READ_BYTES, at_least_one: true }
    }
}

/// The first record of the segment, at or after an offset, whose timestamp is at least `target`.
async fn first_at_or_after(
    plane: &DataPlane,
    replica: &Replica,
    mut search: Search,
    target: TimestampMs,
) -> Result<Option<Found>, SearchFault> {
    let start_offset = search.from;
    if !search.place.has_position() {
        // All up to the last index entry below the target is too early.
        let times = replica.time_index(search.place).await?;
        search.from = search.from.max(times.lookup(target).offset);
    }
    loop {
        let end = replica.durable_end_offset();
        let limit = replica.with_log(|log| log.next_segment(search.segment)).map_or(end, |next| next.min(end));
        if search.from >= limit {
            return Ok(None);
        }
        let bytes = contiguous(replica.read(&search.range(limit)).await?.slices);
        let mut next = None;
        for batch in BatchIter::new(&bytes) {
            let batch = match batch {
                // The last one may be cut off.
                Err(BatchError::Incomplete { .. }) => break,
                batch => batch?,
            };
            let found = if batch.header.max_timestamp >= target {
                let matches = |found: &Found| found.timestamp >= target && found.offset >= start_offset;
                first_record(&batch, unpacked_bytes_max(plane), matches).await?
            } else {
                None
            };
            if found.is_some() {
                return Ok(found);
            }
            next = Some(batch.header.next_offset());
        }
        match next {
            // The next part lies behind what was read; its place is looked up anew.
            Some(next) if next > search.from => {
                search = Search::new(replica, search.segment, position_of(replica, search.segment, next), next);
            }
            _ => return Ok(None),
        }
    }
}

/// Where a scan for `offset` may start in the segment, if it is the active one.
fn position_of(replica: &Replica, segment: Offset, offset: Offset) -> Option<u32> {
    match replica.with_log(|log| log.locate(offset)) {
        Ok(Location::At { segment_base_offset, position, .. }) if segment_base_offset == segment => Some(position),
        _ => None,
    }
}

/// The first record with its batch's largest timestamp.
async fn largest_timestamp(plane: &DataPlane, replica: &Replica, search: Search) -> Result<Option<Found>, SearchFault> {
    let limit = replica.durable_end_offset();
    if search.from >= limit {
        return Ok(None);
    }
    let bytes = contiguous(replica.read(&search.range(limit)).await?.slices);
    let Some(batch) = BatchIter::new(&bytes).next() else { return Ok(None) };
    let batch = batch?;
    let largest = batch.header.max_timestamp;
    Ok(first_record(&batch, unpacked_bytes_max(plane), |found| found.timestamp == largest).await?)
}

/// What a batch may unpack to, as when it was appended.
fn unpacked_bytes_max(plane: &DataPlane) -> usize {
    usize::try_from(plane.core.node.config.network.request_max_bytes).unwrap_or(0)
}

/// The first record that fits, unpacked piece by piece: other tasks run in between.
async fn first_record(
    batch: &BatchRef<'_>,
    unpacked_bytes_max: usize,
    matches: impl Fn(&Found) -> bool,
) -> Result<Option<Found>, BatchError> {
    let header = &batch.header;
    let mut unpacker = Unpacker::new();
    unpacker.begin(header.compression()?, unpacked_bytes_max);
    let mut walk = RecordWalk::new(header.record_count);
    let (mut unread, mut first) = (0, None);
    while let Some(piece) = unpacker.next(batch.payload(), unread)? {
        unread = walk.advance(piece, |record| {
            let timestamp = match header.timestamp_type() {
                TimestampType::LogAppendTime => header.max_timestamp,
                TimestampType::CreateTime => TimestampMs(header.base_timestamp.0.wrapping_add(record.timestamp_delta)),
            };
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            let found = Found { timestamp, offset, leader_epoch: header.partition_leader_epoch };
            if first.is_none() && matches(&found) {
                first = Some(found);
            }
        })?;
        if first.is_some() {
            return Ok(first);
        }
        ring::yield_if_needed().await;
    }
    walk.end(unread)?;
    Ok(None)
}

fn contiguous(slices: Slices) -> Bytes {
    match <[Bytes; 1]>::try_from(slices.into_vec()) {
        Ok([only]) => only,
        Err(slices) => {
            let mut joined = BytesMut::new();
            slices.iter().for_each(|slice| joined.extend_from_slice(slice));
            joined.freeze()
        }
    }
}

fn respond(request: ListOffsetsRequest, api_version: i16, outcomes: Vec<Outcome>) -> ListOffsetsResponse {
    let mut outcomes = outcomes.into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let answers = topic.partitions.iter().zip(outcomes.by_ref());
        let partitions = answers.map(|(partition, outcome)| {
            let mut answer =
                ListOffsetsPartitionResponse { partition_index: partition.partition_index, ..Default::default() };
            match outcome {
                Ok(Some(found)) => {
                    answer.timestamp = found.timestamp.0;
                    answer.offset = found.offset.0;
                    // A field of version 4 and later, which older answers can't leave out silently.
                    if api_version >= 4 {
                        answer.leader_epoch = found.leader_epoch.0;
                    }
                }
                Ok(None) => {}
                Err(error) => answer.error_code = error.code(),
            }
            answer
        });
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions: partitions.collect() });
    }
    let mut topics = united_by(
        topics,
        |topic| topic.name.clone(),
        |known, again| {
            known.partitions.extend(again.partitions);
        },
    );
    topics.retain(|topic| !topic.partitions.is_empty());
    for topic in &mut topics {
        let partitions = std::mem::take(&mut topic.partitions);
        topic.partitions = united_by(partitions, |partition| partition.partition_index, |known, again| *known = again);
    }
    ListOffsetsResponse { topics, ..Default::default() }
}
