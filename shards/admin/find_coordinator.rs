//! FindCoordinator: the leader of the partition of `__consumer_offsets` that holds a group's state.

use std::rc::Rc;

use ringlog_metadata::MetadataImage;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use ringlog_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use ringlog_types::{ErrorCode, GROUP_METADATA_TOPIC, NodeId, partition_for_key};

use super::shown::{INVALID_REQUEST, endpoint};
use super::topic_creation::TopicCreation;
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

/// From this version on a request names several keys.
const BATCHED_FROM_VERSION: i16 = 4;

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyType {
    Group,
    Transaction,
    Share,
}

impl KeyType {
    fn of(code: i8) -> Option<KeyType> {
        match code {
            0 => Some(KeyType::Group),
            1 => Some(KeyType::Transaction),
            2 => Some(KeyType::Share),
            _ => None,
        }
    }
}

/// Why there is no coordinator to name, with a text for the client's error.
type Refusal = (ErrorCode, Option<&'static str>);

/// Answers FindCoordinator. The topic of group state is created when it is missing.
pub fn handle(
    metadata: &MetadataView,
    creation: &Rc<TopicCreation>,
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let image = metadata.image();
    let key_type = KeyType::of(request.key_type);
    if key_type == Some(KeyType::Group) && image.topics.by_name(GROUP_METADATA_TOPIC).is_none() {
        creation.begin(vec![GROUP_METADATA_TOPIC.to_owned()]);
    }
    let listener = &context.peer.listener.name;
    if context.api_version >= BATCHED_FROM_VERSION {
        let answer = |key: StrBytes| one(key.clone(), find(&image, listener, key_type, &key));
        let coordinators = request.coordinator_keys.into_iter().map(answer).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let found = one(StrBytes::default(), find(&image, listener, key_type, &request.key));
    FindCoordinatorResponse {
        error_code: found.error_code,
        // Kafka's text for each code, even that of success.
        error_message: found.error_message.filter(|text| !text.is_empty()).or(Some(text_of(found.error_code))),
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

/// Id, host and port of the coordinator.
type Found = (NodeId, StrBytes, u16);

fn find(image: &MetadataImage, listener: &str, key_type: Option<KeyType>, key: &str) -> Result<Found, Refusal> {
    match key_type {
        Some(KeyType::Group) => {}
        // An error that clients don't retry, with a text that they show.
        Some(KeyType::Transaction) => {
            return Err((ErrorCode::UnsupportedVersion, Some("This node doesn't support transactions yet.")));
        }
        Some(KeyType::Share) => {
            return Err((ErrorCode::UnsupportedVersion, Some("This node doesn't support share groups yet.")));
        }
        None => return Err((ErrorCode::InvalidRequest, Some(INVALID_REQUEST))),
    }
    let not_yet = (ErrorCode::CoordinatorNotAvailable, None);
    let topic = image.topics.by_name(GROUP_METADATA_TOPIC).ok_or(not_yet)?;
    let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let partition = topic.partitions.get(&partition_for_key(key, partitions)).ok_or(not_yet)?;
    let (broker, endpoint) = endpoint(image, partition.leader, listener).ok_or(not_yet)?;
    if broker.is_fenced {
        return Err(not_yet);
    }
    Ok((broker.id, StrBytes::copy_from(&endpoint.host), endpoint.port))
}

/// What Kafka calls the errors that FindCoordinator has.
fn text_of(error_code: i16) -> StrBytes {
    StrBytes::from_static(match ErrorCode::from_code(error_code) {
        Some(ErrorCode::None) => "NONE",
        Some(ErrorCode::CoordinatorNotAvailable) => "The coordinator is not available.",
        other => other.map_or("", ErrorCode::name),
    })
}

fn one(key: StrBytes, found: Result<Found, Refusal>) -> Coordinator {
    match found {
        Ok((node, host, port)) => {
            let error_message = Some(StrBytes::default());
            Coordinator { key, node_id: node.0, host, port: i32::from(port), error_code: 0, error_message }
        }
        Err((error, message)) => Coordinator {
            key,
            node_id: -1,
            host: StrBytes::default(),
            port: -1,
            error_code: error.code(),
            error_message: Some(message.map(Into::into).unwrap_or_default()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_images::image;
    use super::*;

    fn code(topics: &[(&str, i32)], listener: &str, key_type: i8, key: &str) -> (i32, i16) {
        let found = one(StrBytes::copy_from(key), find(&image(topics), listener, KeyType::of(key_type), key));
        (found.node_id, found.error_code)
    }

    #[test]
    fn the_coordinator_is_the_leader_of_the_groups_partition() {
        let topics = [(GROUP_METADATA_TOPIC, 50)];
        // "hello" hashes to partition 22, led by broker 1; "a" to 47, led by the fenced broker 2.
        assert_eq!(code(&topics, "PLAINTEXT", 0, "hello"), (1, 0));
        assert_eq!(code(&topics, "PLAINTEXT", 0, "a"), (-1, ErrorCode::CoordinatorNotAvailable.code()));
        assert_eq!(code(&[], "PLAINTEXT", 0, "hello"), (-1, ErrorCode::CoordinatorNotAvailable.code()));
        assert_eq!(code(&topics, "NOWHERE", 0, "hello"), (-1, ErrorCode::CoordinatorNotAvailable.code()));
    }

    #[test]
    fn what_there_is_no_coordinator_for_is_not_tried_again() {
        for (key_type, error) in
            [(1, ErrorCode::UnsupportedVersion), (2, ErrorCode::UnsupportedVersion), (3, ErrorCode::InvalidRequest)]
        {
            assert!(!error.is_retriable());
            assert_eq!(code(&[(GROUP_METADATA_TOPIC, 50)], "PLAINTEXT", key_type, "k"), (-1, error.code()));
        }
    }
}
