//! Fetch as messages say it: what a request asks for, and how an answer is told.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use ringlog_log::transaction_index::AbortedTransaction as IndexedAbort;
use ringlog_partition::{
    FinishedFetch, ForgottenPartition, PartitionResult, SessionPartition, SessionRequest, SessionTopic,
};
use ringlog_protocol::messages::fetch_request::FetchRequest;
use ringlog_protocol::messages::fetch_response::{
    AbortedTransaction, FetchResponse, FetchableTopicResponse, PartitionData,
};
use ringlog_protocol::{Records, StrBytes};
use ringlog_types::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, Uuid};
use rustc_hash::FxHashMap;

use super::Outcome;
use crate::storage::log_read::available;

/// The first version of Fetch that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// The first version of Fetch in which a consumer says its rack, and can be sent to another replica.
const PREFERRED_REPLICA_SINCE: i16 = 11;

/// A partition as the client names it.
pub(super) type Name = (SessionTopic, PartitionIndex);

/// What a request says of its session. Of a partition that is named more than once the last mention counts.
pub(super) fn session_request(request: FetchRequest, version: i16, is_follower: bool) -> SessionRequest {
    let uses_topic_ids = version >= TOPIC_IDS_SINCE;
    let name_of = |id: Uuid, name: &StrBytes| {
        if uses_topic_ids { SessionTopic::Id(id) } else { SessionTopic::Name(Arc::from(name.as_str())) }
    };
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let name = name_of(topic.topic_id, &topic.topic);
        partitions.extend(topic.partitions.iter().map(|partition| SessionPartition {
            topic: name.clone(),
            partition: PartitionIndex(partition.partition),
            fetch_offset: Offset(partition.fetch_offset),
            max_bytes: partition.partition_max_bytes,
            current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
            log_start_offset: Offset(partition.log_start_offset),
        }));
    }
    unite_repeated(&mut partitions);
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let name = name_of(topic.topic_id, &topic.topic);
        forgotten.extend(
            topic
                .partitions
                .iter()
                .map(|&partition| ForgottenPartition { topic: name.clone(), partition: PartitionIndex(partition) }),
        );
    }
    SessionRequest {
        session_id: request.session_id,
        session_epoch: if version >= 7 { request.session_epoch } else { -1 },
        is_follower,
        uses_topic_ids,
        partitions,
        forgotten,
    }
}

/// Of a partition that is named more than once the last mention counts, in the place of the first.
fn unite_repeated(partitions: &mut Vec<SessionPartition>) {
    if partitions.len() < 2 {
        return;
    }
    let mut places = FxHashMap::default();
    let mut united: Vec<SessionPartition> = Vec::with_capacity(partitions.len());
    for partition in partitions.drain(..) {
        match places.entry((partition.topic.clone(), partition.partition)) {
            Entry::Occupied(place) => united[*place.get()] = partition,
            Entry::Vacant(place) => {
                place.insert(united.len());
                united.push(partition);
            }
        }
    }
    *partitions = united;
}

/// An error for everything that was asked.
pub(super) fn refusal(request: FetchRequest, version: i16, error: ErrorCode) -> FetchResponse {
    let partition = |index| PartitionData {
        partition_index: index,
        error_code: error.code(),
        high_watermark: -1,
        aborted_transactions: Some(Vec::new()),
        records: Some(Records::default()),
        ..PartitionData::default()
    };
    // With ids of topics Kafka leaves it at the error of the whole.
    let topics = request.topics.into_iter().filter(|_| version < TOPIC_IDS_SINCE);
    let responses = topics.map(|topic| FetchableTopicResponse {
        partitions: topic.partitions.iter().map(|asked| partition(asked.partition)).collect(),
        topic: topic.topic,
        topic_id: topic.topic_id,
    });
    FetchResponse {
        error_code: error.code(),
        session_id: request.session_id,
        responses: responses.collect(),
        ..FetchResponse::default()
    }
}

/// What a session takes note of.
pub(super) fn result_of(outcome: &Outcome) -> PartitionResult {
    PartitionResult {
        error: outcome.error.unwrap_or(ErrorCode::None),
        records_size: available(&outcome.records),
        high_watermark: outcome.info.map_or(Offset::NONE, |info| info.high_watermark),
        log_start_offset: outcome.info.map_or(Offset::NONE, |info| info.log_start_offset),
        redirects_or_diverges: outcome.diverging.is_some() || outcome.preferred.is_some(),
    }
}

/// The response of a session's fetch: what was found of its partitions, those apart that it leaves out.
pub(super) fn response(
    finished: &FinishedFetch,
    names: Vec<Name>,
    outcomes: Vec<Outcome>,
    version: i16,
) -> FetchResponse {
    let mut response = FetchResponse { session_id: finished.session_id, ..FetchResponse::default() };
    let mut found: Vec<_> = outcomes.into_iter().zip(names).enumerate().collect();
    // As Kafka has them: what was read, then what nobody could read.
    found.sort_by_key(|(_, (outcome, _))| outcome.error.is_some() && outcome.aborted.is_some());
    for (place, (outcome, (topic, partition))) in found {
        if finished.include.as_ref().is_some_and(|include| !include[place]) {
            continue;
        }
        let data = partition_data(partition, outcome, version);
        match response.responses.last_mut().filter(|last| is_topic(last, &topic)) {
            Some(last) => last.partitions.push(data),
            None => {
                let mut answer = FetchableTopicResponse { partitions: vec![data], ..FetchableTopicResponse::default() };
                match topic {
                    SessionTopic::Id(id) => answer.topic_id = id,
                    SessionTopic::Name(name) => answer.topic = StrBytes::copy_from(&name),
                }
                response.responses.push(answer);
            }
        }
    }
    response
}

fn is_topic(answer: &FetchableTopicResponse, topic: &SessionTopic) -> bool {
    match topic {
        SessionTopic::Id(id) => answer.topic_id == *id,
        SessionTopic::Name(name) => answer.topic.as_str() == &**name,
    }
}

/// Clients that ask in a version up to 5 don't know of storage errors, and look for another leader when they are told to.
fn as_known(error: ErrorCode, version: i16) -> ErrorCode {
    if error == ErrorCode::KafkaStorageError && version <= 5 { ErrorCode::NotLeaderOrFollower } else { error }
}

fn partition_data(partition: PartitionIndex, outcome: Outcome, version: i16) -> PartitionData {
    let mut data = PartitionData {
        partition_index: partition.0,
        error_code: outcome.error.map_or(0, |error| as_known(error, version).code()),
        high_watermark: -1,
        // Clients before flexible versions take null for an error.
        records: Some(Records::from_chunks(outcome.records.into_vec())),
        ..PartitionData::default()
    };
    if let Some(info) = outcome.info {
        data.high_watermark = info.high_watermark.0;
        data.last_stable_offset = info.last_stable_offset.0;
        data.log_start_offset = info.log_start_offset.0;
    }
    if let Some(preferred) = outcome.preferred.filter(|_| version >= PREFERRED_REPLICA_SINCE) {
        data.preferred_read_replica = preferred.0;
    }
    if let Some((epoch, end_offset)) = outcome.diverging.filter(|_| version >= 12) {
        data.diverging_epoch.epoch = epoch.0;
        data.diverging_epoch.end_offset = end_offset.0;
    }
    data.aborted_transactions = outcome.aborted.map(|aborted| {
        let entry = |transaction: IndexedAbort| AbortedTransaction {
            producer_id: transaction.producer_id.0,
            first_offset: transaction.first_offset.0,
        };
        aborted.into_iter().map(entry).collect()
    });
    data
}
