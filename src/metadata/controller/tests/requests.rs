//! What each API refuses, in Kafka's words, and what it writes.

use std::collections::BTreeSet;

use ringlog_protocol::messages::*;
use ringlog_protocol::metadata_records::MetadataRecord;

use super::*;
use crate::image::ConfigResource;

fn refused(code: ErrorCode, text: &str) -> (ErrorCode, Option<String>) {
    (code, Some(text.to_owned()))
}

fn names_since(harness: &Harness, start: usize) -> Vec<&'static str> {
    harness.log[start..].iter().map(|record| record.record.name()).collect()
}

#[test]
fn activation_writes_the_bootstrap_transaction() {
    let mut harness = Harness::new();
    let expected = ["BeginTransactionRecord"]
        .into_iter()
        .chain(std::iter::repeat_n("FeatureLevelRecord", 6))
        .chain(["ConfigRecord", "EndTransactionRecord"]);
    assert_eq!(names_since(&harness, 0), expected.collect::<Vec<_>>());
    // A controller that takes over writes nothing of the kind, unless a transaction is open.
    let (image, now, next) = (harness.replica.clone(), harness.now(), harness.next_offset());
    harness.controller.resign();
    assert_eq!(harness.controller.next_deadline(), None);
    let again = harness.controller.activate(image.clone(), false, LeaderEpoch(2), next, now);
    assert!(again.records.is_empty());
    let again = harness.controller.activate(image, true, LeaderEpoch(3), next, now);
    assert_eq!(again.records.iter().map(|it| it.record.name()).collect::<Vec<_>>(), ["AbortTransactionRecord"]);
}

#[test]
fn create_topics_refuses_as_kafka_does() {
    let mut harness = Harness::new();
    assert_eq!(
        harness.create(vec![topic("a", 1, 1)])[0],
        refused(
            ErrorCode::InvalidReplicationFactor,
            "Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log \
             directories cordoned."
        )
    );
    harness.start(11, 1, -1);
    harness.register(12, 1, -1);
    assert_eq!(harness.create(vec![topic("a.b", 1, 1)])[0], (ErrorCode::None, None));
    let cases = [
        (topic("a.b", 1, 1), refused(ErrorCode::TopicAlreadyExists, "Topic 'a.b' already exists.")),
        (
            topic("a_b", 1, 1),
            refused(ErrorCode::InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b"),
        ),
        (
            topic("__cluster_metadata", 1, 1),
            refused(ErrorCode::InvalidRequest, "Creation of internal topic __cluster_metadata is prohibited."),
        ),
        (
            topic("b", 0, 1),
            refused(ErrorCode::InvalidPartitions, "Number of partitions was set to an invalid non-positive value."),
        ),
        (
            topic("b", 1, 0),
            refused(
                ErrorCode::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ),
        ),
        (
            topic("b", 1, 3),
            refused(
                ErrorCode::InvalidReplicationFactor,
                "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached \
                 because only 2 broker(s) are registered or some brokers have all their log directories cordoned.",
            ),
        ),
    ];
    refuses_all(&mut harness, cases);
    let results = harness.create(vec![topic("d", 1, 1), topic("d", 1, 1)]);
    assert_eq!(results, [refused(ErrorCode::InvalidRequest, "Duplicate topic name.")]);
}

fn refuses_all<const N: usize>(harness: &mut Harness, cases: [(CreatableTopic, (ErrorCode, Option<String>)); N]) {
    let start = harness.log.len();
    for (topic, expected) in cases {
        assert_eq!(harness.create(vec![topic.clone()])[0], expected, "{topic:?}");
    }
    assert_eq!(harness.log.len(), start);
}

#[test]
fn create_topics_refuses_assignments_and_configs_as_kafka_does() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.register(12, 1, -1);
    let with_config = |name: &str, key: &str, value: Option<&str>| {
        let config = create_topics_request::CreatableTopicConfig {
            name: key.to_owned().into(),
            value: value.map(|value| value.to_owned().into()),
        };
        CreatableTopicOf { topic: topic(name, 1, 1), config }.into_topic()
    };
    let cases = [
        (
            assigned("b", &[&[11, 11]]),
            refused(
                ErrorCode::InvalidReplicaAssignment,
                "The manual partition assignment includes the broker 11 more than once.",
            ),
        ),
        (
            assigned("b", &[&[99]]),
            refused(
                ErrorCode::InvalidReplicaAssignment,
                "The manual partition assignment includes broker 99, but no such broker is registered.",
            ),
        ),
        (
            assigned("b", &[&[12]]),
            refused(
                ErrorCode::InvalidReplicaAssignment,
                "All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled \
                 shutdown.",
            ),
        ),
        (
            with_config("b", "no.such.config", Some("1")),
            refused(ErrorCode::InvalidConfig, "Unknown topic config name: no.such.config"),
        ),
        (
            with_config("b", "segment.bytes", Some("1000")),
            refused(
                ErrorCode::InvalidConfig,
                "Invalid value 1000 for configuration segment.bytes: Value must be at least 1048576",
            ),
        ),
        (
            topic("c", 10_001, 1),
            refused(ErrorCode::PolicyViolation, "Excessively large number of partitions per request."),
        ),
    ];
    refuses_all(&mut harness, cases);
}

struct CreatableTopicOf {
    topic: CreatableTopic,
    config: create_topics_request::CreatableTopicConfig,
}

impl CreatableTopicOf {
    fn into_topic(mut self) -> CreatableTopic {
        self.topic.configs.push(self.config);
        self.topic
    }
}

#[test]
fn a_topics_records_come_in_kafkas_order() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    let start = harness.log.len();
    let config =
        create_topics_request::CreatableTopicConfig { name: "min.insync.replicas".into(), value: Some("1".into()) };
    let new_topic = CreatableTopicOf { topic: topic("t", 2, -1), config }.into_topic();
    let response: CreateTopicsResponse =
        harness.send(CreateTopicsRequest { topics: vec![new_topic], ..Default::default() });
    assert_eq!(
        names_since(&harness, start),
        ["TopicRecord", "ConfigRecord", "ClearElrRecord", "PartitionRecord", "PartitionRecord"]
    );
    let result = &response.topics[0];
    assert_eq!((result.num_partitions, result.replication_factor), (2, 1));
    let shown = result.configs.as_ref().unwrap();
    assert!(shown.iter().any(|it| it.name == "min.insync.replicas" && it.config_source == 1));
    let partition = harness.partition("t", 0);
    assert_eq!((ids(partition.replicas()), partition.leader_epoch.0, partition.partition_epoch.0), (vec![11], 0, 0));
    assert_eq!(partition.directories()[0], Uuid([111; 16]));
}

#[test]
fn placement_stripes_over_racks_and_leaves_fenced_brokers_for_last() {
    let mut harness = Harness::new();
    for (id, rack) in [(11, "a"), (12, "a"), (13, "b"), (14, "b"), (15, "c"), (16, "c")] {
        let request = BrokerRegistrationRequest { rack: Some(rack.into()), ..Harness::registration(id, 1) };
        let _: BrokerRegistrationResponse = harness.send(request);
        if id != 16 {
            harness.heartbeat(id, |_| {});
        }
    }
    harness.create(vec![topic("t", 30, 3), topic("all", 4, 6)]);
    let rack = |id: &i32| (*id - 11) / 2;
    let mut leaders = BTreeSet::new();
    for index in 0..30 {
        let partition = harness.partition("t", index);
        let replicas = ids(partition.replicas());
        assert_eq!(replicas.iter().map(rack).collect::<BTreeSet<_>>().len(), 3, "{replicas:?}");
        assert_ne!(replicas[0], 16);
        leaders.insert(partition.leader.0);
    }
    assert_eq!(leaders, BTreeSet::from([11, 12, 13, 14, 15]));
    for index in 0..4 {
        let partition = harness.partition("all", index);
        assert_eq!(ids(partition.replicas()).into_iter().collect::<BTreeSet<_>>().len(), 6);
        assert_eq!(partition.in_sync_replicas().len(), 5);
    }
}

#[test]
fn registration_refuses_as_kafka_does() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    let base = || Harness::registration(12, 1);
    let cases = [
        (BrokerRegistrationRequest { cluster_id: "other".into(), ..base() }, ErrorCode::InconsistentClusterId),
        (Harness::registration(11, 2), ErrorCode::DuplicateBrokerRegistration),
        (BrokerRegistrationRequest { is_migrating_zk_broker: true, ..base() }, ErrorCode::BrokerIdNotRegistered),
        (BrokerRegistrationRequest { log_dirs: vec![], ..base() }, ErrorCode::InvalidRegistration),
        (BrokerRegistrationRequest { log_dirs: vec![Uuid::ZERO], ..base() }, ErrorCode::InvalidRegistration),
        (BrokerRegistrationRequest { log_dirs: vec![Uuid([9; 16]); 2], ..base() }, ErrorCode::InvalidRegistration),
        (BrokerRegistrationRequest { log_dirs: vec![Uuid([111; 16])], ..base() }, ErrorCode::InvalidRegistration),
        (BrokerRegistrationRequest { features: vec![], ..base() }, ErrorCode::InvalidRegistration),
        (
            BrokerRegistrationRequest { features: base().features.into_iter().take(1).collect(), ..base() },
            ErrorCode::UnsupportedVersion,
        ),
    ];
    for (request, expected) in cases {
        let response: BrokerRegistrationResponse = harness.send(request);
        assert_eq!(ErrorCode::from_code(response.error_code), Some(expected));
        assert_eq!(response.broker_epoch, -1);
    }
    let stale: BrokerHeartbeatResponse =
        harness.send(BrokerHeartbeatRequest { broker_id: 11, broker_epoch: 1, ..Default::default() });
    assert_eq!(stale.error_code, ErrorCode::StaleBrokerEpoch.code());
    // The same life again keeps epoch and state.
    let epoch = harness.epoch(11);
    assert_eq!(harness.register(11, 1, -1), epoch);
    assert!(!harness.replica.cluster.broker(NodeId(11)).unwrap().is_fenced);
}

#[test]
fn a_broker_epoch_is_the_first_offset_of_the_result() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.start(12, 1, -1);
    harness.create(vec![assigned("t", &[&[11, 12], &[12, 11]])]);
    harness.kill(12);
    harness.kill(11);
    let next = harness.next_offset();
    let start = harness.log.len();
    assert_eq!(harness.register(11, 2, -1), next.0);
    assert_eq!(names_since(&harness, start).last(), Some(&"RegisterBrokerRecord"));
    assert!(harness.log.len() - start > 1, "partitions forget the life before");
    // Caught up is who has read the registration itself, not only its epoch's offset.
    let early = harness.heartbeat(11, |request| request.current_metadata_offset = next.0);
    assert!(!early.is_caught_up && early.is_fenced);
    assert!(!harness.heartbeat(11, |_| {}).is_fenced);
}

#[test]
fn unregistering_hides_a_broker_for_good() {
    let mut harness = Harness::new();
    let missing: UnregisterBrokerResponse = harness.send(UnregisterBrokerRequest { broker_id: 77 });
    assert_eq!(missing.error_code, ErrorCode::BrokerIdNotRegistered.code());
    assert_eq!(missing.error_message.as_deref(), Some("Broker ID 77 is not currently registered"));
    harness.start(11, 1, -1);
    harness.create(vec![topic("t", 1, 1)]);
    let gone: UnregisterBrokerResponse = harness.send(UnregisterBrokerRequest { broker_id: 11 });
    assert_eq!(gone.error_code, 0);
    let partition = harness.partition("t", 0);
    assert_eq!((partition.leader.0, ids(partition.replicas())), (-1, vec![11]));
    assert!(harness.replica.cluster.broker(NodeId(11)).is_none());
}

fn alter_config(
    harness: &mut Harness,
    resource_type: i8,
    name: &str,
    key: &str,
    operation: i8,
    value: Option<&str>,
) -> (ErrorCode, Option<String>) {
    let config = incremental_alter_configs_request::AlterableConfig {
        name: key.to_owned().into(),
        config_operation: operation,
        value: value.map(|value| value.to_owned().into()),
    };
    let resource = incremental_alter_configs_request::AlterConfigsResource {
        resource_type,
        resource_name: name.to_owned().into(),
        configs: vec![config],
    };
    let response: IncrementalAlterConfigsResponse =
        harness.send(IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() });
    let result = &response.responses[0];
    (ErrorCode::from_code(result.error_code).unwrap(), result.error_message.as_ref().map(|text| text.to_string()))
}

#[test]
fn configs_change_and_are_refused_as_in_kafka() {
    let mut harness = Harness::new();
    harness.start(1, 1, -1);
    harness.create(vec![topic("t", 1, 1)]);
    let done = (ErrorCode::None, None);
    let h = &mut harness;
    assert_eq!(alter_config(h, 2, "t", "cleanup.policy", 2, Some("compact")), done);
    let value = |h: &Harness, resource: ConfigResource, key: &str| {
        h.replica.configs.value(&resource, key).map(|value| value.to_string())
    };
    assert_eq!(value(h, ConfigResource::topic("t"), "cleanup.policy"), Some("delete,compact".to_owned()));
    let start = h.log.len();
    assert_eq!(alter_config(h, 2, "t", "cleanup.policy", 0, Some("delete,compact")), done);
    assert_eq!(h.log.len(), start, "an unchanged topic value writes nothing");
    assert_eq!(alter_config(h, 4, "1", "log.cleaner.threads", 0, Some("1")), done);
    assert_eq!(alter_config(h, 4, "1", "log.cleaner.threads", 0, Some("1")), done);
    assert_eq!(h.log.len(), start + 2, "a broker's is always written");
    assert_eq!(alter_config(h, 4, "", "min.insync.replicas", 0, Some("1")), done);
    assert_eq!(names_since(h, start + 2), ["ConfigRecord", "ClearElrRecord"]);
    assert_eq!(alter_config(h, 32, "g", "consumer.session.timeout.ms", 0, Some("50000")), done);
    let cases = [
        (
            2,
            "none",
            "retention.ms",
            0,
            Some("1"),
            ErrorCode::UnknownTopicOrPartition,
            "The topic 'none' does not exist.",
        ),
        (2, "t", "no.such.config", 0, Some("1"), ErrorCode::InvalidConfig, "Unknown topic config name: no.such.config"),
        (
            2,
            "t",
            "retention.ms",
            2,
            Some("1"),
            ErrorCode::InvalidConfig,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            4,
            "1",
            "min.insync.replicas",
            0,
            Some("1"),
            ErrorCode::InvalidConfig,
            "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
        ),
        (
            4,
            "",
            "min.insync.replicas",
            1,
            None,
            ErrorCode::InvalidConfig,
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        ),
        (4, "9", "log.cleaner.threads", 0, Some("1"), ErrorCode::BrokerIdNotRegistered, "No node with id 9 found."),
        (32, "", "a", 0, Some("1"), ErrorCode::InvalidRequest, "Default group resources are not allowed."),
        (99, "x", "a", 0, Some("1"), ErrorCode::UnsupportedVersion, "Unknown resource type 99."),
    ];
    for (resource_type, name, key, operation, value, code, text) in cases {
        assert_eq!(alter_config(h, resource_type, name, key, operation, value), refused(code, text));
    }
}

#[test]
fn the_older_alter_configs_removes_what_it_does_not_name() {
    let mut harness = Harness::new();
    harness.start(1, 1, -1);
    harness.create(vec![topic("t", 1, 1)]);
    let h = &mut harness;
    assert_eq!(alter_config(h, 2, "t", "cleanup.policy", 0, Some("compact")), (ErrorCode::None, None));
    let value = |h: &Harness, resource: ConfigResource, key: &str| {
        h.replica.configs.value(&resource, key).map(|value| value.to_string())
    };
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configs: vec![alter_configs_request::AlterableConfig { name: "retention.ms".into(), value: Some("5".into()) }],
    };
    let response: AlterConfigsResponse =
        h.send(AlterConfigsRequest { resources: vec![resource], ..Default::default() });
    assert_eq!(response.responses[0].error_code, 0);
    assert_eq!(value(h, ConfigResource::topic("t"), "cleanup.policy"), None);
    assert_eq!(value(h, ConfigResource::topic("t"), "retention.ms"), Some("5".to_owned()));
}

fn update(harness: &mut Harness, feature: &str, level: i16, upgrade_type: i8) -> (ErrorCode, Option<String>) {
    update_all(harness, &[(feature, level)], upgrade_type)
}

fn update_all(harness: &mut Harness, features: &[(&str, i16)], upgrade_type: i8) -> (ErrorCode, Option<String>) {
    let update = |(feature, level): &(&str, i16)| update_features_request::FeatureUpdateKey {
        feature: (*feature).to_owned().into(),
        max_version_level: *level,
        upgrade_type,
        allow_downgrade: false,
    };
    let feature_updates = features.iter().map(update).collect();
    let response: UpdateFeaturesResponse =
        harness.send(UpdateFeaturesRequest { feature_updates, ..Default::default() });
    (ErrorCode::from_code(response.error_code).unwrap(), response.error_message.map(|text| text.to_string()))
}

#[test]
fn features_change_only_as_every_node_can() {
    let mut harness = Harness::new();
    let h = &mut harness;
    let preface = "The update failed for all features since the following feature had an error: ";
    let no = |text: &str| refused(ErrorCode::InvalidUpdateVersion, &format!("{preface}{text}"));
    assert_eq!(
        update(h, "metadata.version", 99, 1),
        no("Invalid update version 99 for feature metadata.version. Local controller 1 only supports versions 7-30")
    );
    assert_eq!(
        update(h, "metadata.version", 25, 2),
        no(
            "Unsupported metadata.version downgrade from 30 to 25. Refusing to perform the requested downgrade because \
            it might delete metadata information."
        )
    );
    assert_eq!(
        update(h, "transaction.version", 0, 1),
        no("Invalid update version 0 for feature transaction.version. Can't downgrade the version of this feature \
            without setting the upgrade type to either safe or unsafe downgrade.")
    );
    assert_eq!(
        update(h, "no.such.version", 1, 1),
        no("Invalid update version 1 for feature no.such.version. Local controller 1 does not support this feature.")
    );
    assert_eq!(
        update(h, "no.such.version", 0, 1),
        no("Invalid update version 0 for feature no.such.version. Feature no.such.version not found.")
    );
    assert_eq!(
        update_all(h, &[("eligible.leader.replicas.version", 9), ("share.version", 9), ("group.version", 9)], 1),
        no("Invalid update version 9 for feature group.version. Local controller 1 only supports versions 0-1")
    );
    let allowed = update_features_request::FeatureUpdateKey {
        feature: "transaction.version".into(),
        max_version_level: 0,
        allow_downgrade: true,
        ..Default::default()
    };
    let request = UpdateFeaturesRequest { feature_updates: vec![allowed], ..Default::default() };
    let response: UpdateFeaturesResponse = h.send_at(request, 0);
    assert_eq!(response.error_code, ErrorCode::InvalidUpdateVersion.code());
    assert_eq!(update(h, "share.version", 1, 1), (ErrorCode::None, None));
    assert_eq!(update(h, "transaction.version", 0, 2), (ErrorCode::None, None));
    assert_eq!(h.replica.features.level("transaction.version"), 0);
    let mut old = Harness::registration(11, 1);
    old.features.retain(|feature| feature.name != "transaction.version");
    let _: BrokerRegistrationResponse = h.send(old);
    assert_eq!(
        update(h, "transaction.version", 2, 1),
        no("Invalid update version 2 for feature transaction.version. Broker 11 does not support this feature.")
    );
}

#[test]
fn partitions_are_added_topics_deleted_and_ids_given_out() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.create(vec![topic("t", 2, 1)]);
    let mut add = |name: &str, count: i32| {
        let topics = vec![create_partitions_request::CreatePartitionsTopic {
            name: name.to_owned().into(),
            count,
            assignments: None,
        }];
        let response: CreatePartitionsResponse = harness.send(CreatePartitionsRequest { topics, ..Default::default() });
        let result = &response.results[0];
        (ErrorCode::from_code(result.error_code).unwrap(), result.error_message.as_ref().map(|text| text.to_string()))
    };
    assert_eq!(add("t", 2), refused(ErrorCode::InvalidPartitions, "Topic already has 2 partition(s)."));
    let text = "The topic t currently has 2 partition(s); 1 would not be an increase.";
    assert_eq!(add("t", 1), refused(ErrorCode::InvalidPartitions, text));
    assert_eq!(add("none", 1), (ErrorCode::UnknownTopicOrPartition, None));
    assert_eq!(add("t", 5), (ErrorCode::None, None));
    assert_eq!(harness.replica.topics.by_name("t").unwrap().partitions.len(), 5);

    let broker_epoch = harness.epoch(11);
    for expected in [0, 1000] {
        let request = AllocateProducerIdsRequest { broker_id: 11, broker_epoch };
        let block: AllocateProducerIdsResponse = harness.send(request);
        assert_eq!((block.producer_id_start, block.producer_id_len), (expected, 1000));
    }
    let stale: AllocateProducerIdsResponse =
        harness.send(AllocateProducerIdsRequest { broker_id: 11, broker_epoch: 0 });
    assert_eq!(stale.error_code, ErrorCode::StaleBrokerEpoch.code());

    let topic_names = vec!["t".into(), "none".into()];
    let response: DeleteTopicsResponse = harness.send_at(DeleteTopicsRequest { topic_names, ..Default::default() }, 5);
    let codes: Vec<i16> = response.responses.iter().map(|it| it.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
    assert!(harness.replica.topics.is_empty());
    assert_eq!(harness.replica.topics.partition_count(), 0);
}

#[test]
fn reassignments_run_complete_and_are_cancelled() {
    let mut harness = Harness::new();
    for id in [11, 12, 13] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("t", &[&[11]])]);
    let reassign = |harness: &mut Harness, replicas: Option<&[i32]>| {
        let partition = alter_partition_reassignments_request::ReassignablePartition {
            partition_index: 0,
            replicas: replicas.map(<[i32]>::to_vec),
        };
        let topics = vec![alter_partition_reassignments_request::ReassignableTopic {
            name: "t".into(),
            partitions: vec![partition],
        }];
        let response: AlterPartitionReassignmentsResponse =
            harness.send(AlterPartitionReassignmentsRequest { topics, ..Default::default() });
        ErrorCode::from_code(response.responses[0].partitions[0].error_code).unwrap()
    };
    assert_eq!(reassign(&mut harness, None), ErrorCode::NoReassignmentInProgress);
    assert_eq!(reassign(&mut harness, Some(&[])), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(reassign(&mut harness, Some(&[12, 13])), ErrorCode::None);
    let it = harness.partition("t", 0);
    assert_eq!((ids(it.replicas()), ids(it.adding_replicas())), (vec![12, 13, 11], vec![12, 13]));
    assert_eq!(ids(it.removing_replicas()), [11]);
    let listed: ListPartitionReassignmentsResponse = harness.send(ListPartitionReassignmentsRequest::default());
    assert_eq!(listed.topics[0].partitions[0].adding_replicas, [12, 13]);
    assert_eq!(reassign(&mut harness, None), ErrorCode::None);
    let it = harness.partition("t", 0);
    assert_eq!((ids(it.replicas()), it.is_reassigning(), it.leader.0), (vec![11], false, 11));
    assert_eq!(reassign(&mut harness, Some(&[12, 13])), ErrorCode::None);
    // The last member to join ends it and takes the leadership away from the one that asked.
    let (_, result) = super::leadership::alter(&mut harness, "t", 11, &[11, 12, 13], |_| {});
    assert_eq!(result, ErrorCode::NewLeaderElected);
    let it = harness.partition("t", 0);
    assert_eq!((ids(it.replicas()), ids(it.in_sync_replicas()), it.leader.0), (vec![12, 13], vec![12, 13], 12));
}

#[test]
fn directories_are_assigned_and_lost() {
    let mut harness = Harness::new();
    let (d1, d2) = (Uuid([1; 16]), Uuid([2; 16]));
    let request = BrokerRegistrationRequest { log_dirs: vec![d1, d2], ..Harness::registration(11, 1) };
    let _: BrokerRegistrationResponse = harness.send(request);
    harness.heartbeat(11, |_| {});
    harness.start(12, 1, -1);
    harness.create(vec![assigned("t", &[&[11, 12]])]);
    assert_eq!(harness.partition("t", 0).directories()[0], crate::image::directory::UNASSIGNED);
    let partitions = vec![assign_replicas_to_dirs_request::PartitionData { partition_index: 0 }];
    let topic_id = harness.replica.topics.id("t").unwrap();
    let topics = vec![assign_replicas_to_dirs_request::TopicData { topic_id, partitions }];
    let directories = vec![assign_replicas_to_dirs_request::DirectoryData { id: d2, topics }];
    let request = AssignReplicasToDirsRequest { broker_id: 11, broker_epoch: harness.epoch(11), directories };
    let response: AssignReplicasToDirsResponse = harness.send(request);
    assert_eq!(response.directories[0].topics[0].partitions[0].error_code, 0);
    let it = harness.partition("t", 0);
    assert_eq!((it.directories()[0], it.partition_epoch.0, it.leader_epoch.0), (d2, 1, 0));
    harness.heartbeat(11, |request| request.offline_log_dirs = vec![d2]);
    let it = harness.partition("t", 0);
    assert_eq!((it.leader.0, ids(it.in_sync_replicas())), (12, vec![12]));
    assert_eq!(harness.replica.cluster.broker(NodeId(11)).unwrap().directories, [d1]);
    let start = harness.log.len();
    harness.heartbeat(11, |request| request.offline_log_dirs = vec![d2]);
    assert_eq!(harness.log.len(), start, "the same again is ignored");
    harness.heartbeat(11, |request| request.cordoned_log_dirs = Some(vec![]));
    assert_eq!(harness.log.len(), start + 1, "a first statement is recorded, even that nothing is cordoned");
}

#[test]
fn elections_are_refused_as_in_kafka() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.create(vec![topic("t", 1, 1)]);
    let mut elect = |election_type: i8, topic: &str| {
        let topics =
            vec![elect_leaders_request::TopicPartitions { topic: topic.to_owned().into(), partitions: vec![0] }];
        let request = ElectLeadersRequest { election_type, topic_partitions: Some(topics), ..Default::default() };
        let response: ElectLeadersResponse = harness.send(request);
        ErrorCode::from_code(response.replica_election_results[0].partition_result[0].error_code).unwrap()
    };
    assert_eq!(elect(0, "t"), ErrorCode::ElectionNotNeeded);
    assert_eq!(elect(1, "t"), ErrorCode::ElectionNotNeeded);
    assert_eq!(elect(0, "none"), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(elect(7, "t"), ErrorCode::InvalidRequest);
    harness.kill(11);
    let request = ElectLeadersRequest { election_type: 1, topic_partitions: None, ..Default::default() };
    let response: ElectLeadersResponse = harness.send(request);
    let code = response.replica_election_results[0].partition_result[0].error_code;
    assert_eq!(code, ErrorCode::EligibleLeadersNotAvailable.code());
}

#[test]
fn quotas_acls_credentials_and_tokens_are_recorded() {
    let mut harness = Harness::with(|config| {
        config.has_authorizer = true;
        config.delegation_token_secret = Some("secret".to_owned());
    });
    let quota = |value: f64| alter_client_quotas_request::EntryData {
        entity: vec![alter_client_quotas_request::EntityData {
            entity_type: "user".into(),
            entity_name: Some("alice".into()),
        }],
        ops: vec![alter_client_quotas_request::OpData { key: "producer_byte_rate".into(), value, remove: false }],
    };
    for (value, expected) in [(1.5, Some("producer_byte_rate cannot be a fractional value.")), (10.0, None)] {
        let request = AlterClientQuotasRequest { entries: vec![quota(value)], ..Default::default() };
        let response: AlterClientQuotasResponse = harness.send(request);
        assert_eq!(response.entries[0].error_message.as_deref(), expected);
    }
    assert_eq!(harness.replica.client_quotas.entities.len(), 1);

    let creation = create_acls_request::AclCreation {
        resource_type: 2,
        resource_name: "t".into(),
        resource_pattern_type: 3,
        principal: "User:alice".into(),
        host: "*".into(),
        operation: 3,
        permission_type: 3,
    };
    let request = CreateAclsRequest { creations: vec![creation.clone(), creation] };
    let _: CreateAclsResponse = harness.send(request);
    assert_eq!(harness.replica.acls.entries.len(), 1);
    let filter = delete_acls_request::DeleteAclsFilter {
        resource_type_filter: 1,
        resource_name_filter: None,
        pattern_type_filter: 1,
        principal_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
    };
    let deleted: DeleteAclsResponse = harness.send(DeleteAclsRequest { filters: vec![filter] });
    assert_eq!(deleted.filter_results[0].matching_acls.len(), 1);
    assert!(harness.replica.acls.entries.is_empty());

    let upsertion = |iterations, password: &str| alter_user_scram_credentials_request::ScramCredentialUpsertion {
        name: "alice".into(),
        mechanism: 1,
        iterations,
        salt: "salt".into(),
        salted_password: bytes::Bytes::copy_from_slice(password.as_bytes()),
    };
    let cases = [(100, "password", 93, Some("Too few iterations")), (4096, "", -1, None), (4096, "password", 0, None)];
    for (iterations, password, code, text) in cases {
        let upsertions = vec![upsertion(iterations, password)];
        let request = AlterUserScramCredentialsRequest { upsertions, ..Default::default() };
        let response: AlterUserScramCredentialsResponse = harness.send(request);
        assert_eq!((response.results[0].error_code, response.results[0].error_message.as_deref()), (code, text));
    }
    assert_eq!(harness.replica.scram.credentials.len(), 1);

    let token: CreateDelegationTokenResponse = harness.send(CreateDelegationTokenRequest::default());
    assert_eq!((token.error_code, token.max_timestamp_ms - token.issue_timestamp_ms), (0, 604_800_000));
    let request = ExpireDelegationTokenRequest { hmac: token.hmac, expiry_time_period_ms: -1 };
    let expired: ExpireDelegationTokenResponse = harness.send(request);
    assert_eq!(expired.error_code, 0);
    assert!(harness.replica.tokens.tokens.is_empty());
}

#[test]
fn an_idle_controller_writes_no_op_records() {
    let mut harness = Harness::new();
    let start = harness.log.len();
    for _ in 0..4 {
        let deadline = harness.controller.next_deadline().unwrap();
        harness.now_ms = harness.now_ms.max(deadline.0);
        harness.tick();
    }
    let is_no_op = |record: &RecordAndVersion| matches!(record.record, MetadataRecord::NoOp(_));
    assert!(harness.log.len() - start >= 3);
    assert!(harness.log[start..].iter().all(is_no_op));
}
