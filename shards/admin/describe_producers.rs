//! DescribeProducers: who writes to a partition, as this replica knows (KIP-664).

use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_producers_request::DescribeProducersRequest;
use ringlog_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use ringlog_types::{ErrorCode, PartitionIndex, TopicIdPartition, validate_topic_name};

use crate::data::DataPlane;
use crate::data::by_home::{self, Part};
use crate::data::replica::Replica;
use crate::net::request::RequestContext;
use crate::storage::log_read::StoredLog;

/// Kafka's text for a topic that the cluster doesn't have. Other errors come without one.
const NOT_HOSTED: &str = "This server does not host this topic-partition.";

/// Answers DescribeProducers. Followers answer, too.
pub async fn handle(
    plane: &Rc<DataPlane>,
    _context: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = plane.metadata.image();
    let mut outcomes = Vec::new();
    let mut parts = Vec::new();
    for topic in &request.topics {
        let known = image.topics.by_name(&topic.name);
        for &index in &topic.partition_indexes {
            let partition = PartitionIndex(index);
            if let Some(topic) = known.filter(|topic| topic.partitions.contains_key(&partition)) {
                let id = TopicIdPartition { topic_id: topic.id, partition };
                parts.push(Part { place: outcomes.len(), id, ask: () });
            }
            // Only of topics that aren't there Kafka says more than a code.
            let text = known.is_none().then_some(NOT_HOSTED);
            outcomes.push(Err(match validate_topic_name(&topic.name) {
                Ok(()) => (ErrorCode::UnknownTopicOrPartition, text.map(StrBytes::from_static)),
                Err(fault) => (ErrorCode::InvalidTopicException, Some(StrBytes::from(fault.to_string()))),
            }));
        }
    }
    for (place, outcome) in by_home::run(plane, parts, answer).await {
        outcomes[place] =
            outcome.map_err(|error| (error, (error == ErrorCode::UnknownTopicOrPartition).then(|| NOT_HOSTED.into())));
    }
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let answers = topic.partition_indexes.iter().zip(outcomes.by_ref());
        let partitions = answers.map(|(index, outcome)| {
            let partition_index = *index;
            match outcome {
                Ok(active_producers) => PartitionResponse { partition_index, active_producers, ..Default::default() },
                Err((error, text)) => PartitionResponse {
                    partition_index,
                    error_code: error.code(),
                    error_message: text,
                    ..Default::default()
                },
            }
        });
        TopicResponse { partitions: partitions.collect(), name: topic.name }
    });
    DescribeProducersResponse { topics: topics.collect(), ..Default::default() }
}

/// On the home core.
async fn answer(
    _plane: Rc<DataPlane>,
    replica: Result<Rc<Replica>, Unserved>,
    _ask: (),
) -> Result<Vec<ProducerState>, ErrorCode> {
    let replica = replica.map_err(Unserved::error_code)?;
    let mut producers: Vec<ProducerState> = replica.with_log(|log| {
        let states = log.producers().producers().map(|(id, producer)| ProducerState {
            producer_id: id.0,
            producer_epoch: i32::from(producer.epoch.0),
            last_sequence: producer.last_batch().last_sequence,
            last_timestamp: producer.last_timestamp.0,
            coordinator_epoch: producer.coordinator_epoch,
            current_txn_start_offset: producer.transaction_first_offset.map_or(-1, |offset| offset.0),
        });
        states.collect()
    });
    producers.sort_unstable_by_key(|producer| producer.producer_id);
    Ok(producers)
}
