use super::super::test_images::{image, topic_id};
use super::*;

fn ask(
    image: &MetadataImage,
    listener: &str,
    version: i16,
    topics: Option<&[&str]>,
) -> (MetadataResponse, Vec<String>) {
    let topic = |name: &&str| MetadataRequestTopic { name: Some(StrBytes::copy_from(name)), ..Default::default() };
    let request =
        MetadataRequest { topics: topics.map(|names| names.iter().map(topic).collect()), ..Default::default() };
    answer(view(image, listener, version), request)
}

fn view<'a>(image: &'a MetadataImage, listener: &'a str, version: i16) -> View<'a> {
    View { image, cluster_id: "cluster", node_id: NodeId(1), listener, version, may_create: true }
}

#[test]
fn fenced_brokers_are_no_nodes_and_their_replicas_are_offline() {
    let image = image(&[("t", 1)]);
    let (response, _) = ask(&image, "PLAINTEXT", 12, Some(&["t"]));
    assert_eq!(response.brokers.iter().map(|broker| (broker.node_id, broker.port)).collect::<Vec<_>>(), [(1, 9092)]);
    assert_eq!((response.controller_id, response.cluster_id.as_deref()), (1, Some("cluster")));
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id, partition.leader_epoch), (0, 1, 5));
    assert_eq!((&partition.replica_nodes[..], &partition.offline_replicas[..]), (&[1, 2][..], &[2][..]));
    assert_eq!(ask(&image, "OTHER", 12, None).0.brokers[0].port, 9093);
}

#[test]
fn a_leader_without_the_listener_is_said_as_the_version_can() {
    let image = image(&[("t", 2)]);
    let code = |listener, version| {
        let (response, _) = ask(&image, listener, version, Some(&["t"]));
        (response.topics[0].partitions[1].error_code, response.topics[0].partitions[1].leader_id)
    };
    assert_eq!(code("PLAINTEXT", 12), (0, 2));
    assert_eq!(code("OTHER", 12), (ErrorCode::ListenerNotFound.code(), -1));
    assert_eq!(code("OTHER", 5), (ErrorCode::LeaderNotAvailable.code(), -1));
    let (response, _) = ask(&image, "OTHER", 0, Some(&["t"]));
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::ReplicaNotAvailable.code());
    assert_eq!(response.topics[0].partitions[0].replica_nodes, [1]);
}

#[test]
fn an_empty_list_is_all_topics_in_version_0_and_none_later() {
    let image = image(&[("a", 1), ("b", 1)]);
    assert_eq!(ask(&image, "PLAINTEXT", 0, Some(&[])).0.topics.len(), 2);
    assert_eq!(ask(&image, "PLAINTEXT", 1, Some(&[])).0.topics.len(), 0);
    assert_eq!(ask(&image, "PLAINTEXT", 1, None).0.topics.len(), 2);
}

#[test]
fn missing_topics_are_created_if_they_may() {
    let image = image(&[("t", 1)]);
    let (response, missing) = ask(&image, "PLAINTEXT", 12, Some(&["t", "new", "new", "a b"]));
    let codes: Vec<(&str, i16)> =
        response.topics.iter().map(|it| (it.name.as_deref().unwrap_or(""), it.error_code)).collect();
    assert_eq!(codes, [("t", 0), ("new", 3), ("a b", 17)]);
    assert_eq!(missing, ["new"]);
    let topics = Some(vec![MetadataRequestTopic { name: Some("new".into()), ..Default::default() }]);
    let unwanted = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
    assert!(answer(view(&image, "PLAINTEXT", 12), unwanted.clone()).1.is_empty());
    let wanted = MetadataRequest { allow_auto_topic_creation: true, ..unwanted };
    let forbidden = View { may_create: false, ..view(&image, "PLAINTEXT", 12) };
    assert!(answer(forbidden, wanted).1.is_empty());
}

#[test]
fn ids_are_answered_by_id_and_only_from_version_12() {
    let image = image(&[("t", 1)]);
    let topic = |number| MetadataRequestTopic { name: None, topic_id: topic_id(number) };
    let request = MetadataRequest {
        topics: Some(vec![topic(1), topic(9)]),
        include_topic_authorized_operations: true,
        ..Default::default()
    };
    let codes = |version| {
        let (response, _) = answer(view(&image, "PLAINTEXT", version), request.clone());
        let topics = response.topics.iter();
        topics.map(|it| (it.name.as_deref().map(str::to_owned), it.error_code)).collect::<Vec<_>>()
    };
    assert_eq!(codes(12), [(Some("t".to_owned()), 0), (None, ErrorCode::UnknownTopicId.code())]);
    assert_eq!(codes(11), [(Some(String::new()), 42), (Some(String::new()), 42)]);
    let (response, _) = answer(view(&image, "PLAINTEXT", 12), request);
    assert_eq!(response.topics[0].topic_authorized_operations, 3576);
}
