//! What a comparison with Kafka showed, step by step; see `tests/e2e/decisions.rs`.

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use ringlog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use ringlog_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use ringlog_protocol::messages::delete_topics_request::DeleteTopicState;
use ringlog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use ringlog_protocol::messages::*;
use ringlog_protocol::metadata_records::MetadataRecord;

use super::leadership::alter;
use super::*;

fn reassign(harness: &mut Harness, replicas: &[i32]) {
    let partitions = vec![ReassignablePartition { partition_index: 0, replicas: Some(replicas.to_vec()) }];
    let topics = vec![ReassignableTopic { name: "a".into(), partitions }];
    let response: AlterPartitionReassignmentsResponse =
        harness.send(AlterPartitionReassignmentsRequest { topics, ..Default::default() });
    assert_eq!(response.responses[0].partitions[0].error_code, 0);
}

fn set(resource_type: i8, name: &str, key: &str, value: &str) -> AlterConfigsResource {
    let config =
        AlterableConfig { name: key.to_owned().into(), config_operation: 0, value: Some(value.to_owned().into()) };
    AlterConfigsResource { resource_type, resource_name: name.to_owned().into(), configs: vec![config] }
}

fn configure(harness: &mut Harness, resources: Vec<AlterConfigsResource>) -> Vec<i16> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
    let response: IncrementalAlterConfigsResponse = harness.send(request);
    response.responses.iter().map(|it| it.error_code).collect()
}

#[test]
fn a_new_target_leaves_what_it_does_not_change_and_elects_nobody_uncleanly() {
    let mut harness = Harness::new();
    for id in [11, 12, 13] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("a", &[&[11]])]);
    reassign(&mut harness, &[12, 13]);
    assert_eq!(ids(harness.partition("a", 0).adding_replicas()), [12, 13]);
    reassign(&mut harness, &[12]);
    // 13 isn't added any more, but that is only written when another is.
    assert_eq!(ids(harness.partition("a", 0).adding_replicas()), [12, 13]);
    assert_eq!(ids(harness.partition("a", 0).removing_replicas()), [11, 13]);
    // Without a leader and with unclean elections allowed, a new target waits for the next election.
    configure(&mut harness, vec![set(2, "a", "unclean.leader.election.enable", "true")]);
    harness.create(vec![assigned("b", &[&[11]])]);
    harness.heartbeat(11, |it| it.want_fence = true);
    let (before, start) = (harness.partition("a", 0).leader, harness.log.len());
    reassign(&mut harness, &[13]);
    assert_eq!(harness.partition("a", 0).leader, before);
    assert!(harness.log.len() <= start + 1);
}

/// Who was removed while too few were in sync, and comes back with an empty log, is no leader.
#[test]
fn replicas_that_are_removed_are_not_eligible_when_they_are_added_again() {
    let mut harness = Harness::with(|config| config.min_in_sync_replicas = 2);
    for id in [11, 12, 13] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("a", &[&[11, 12]])]);
    reassign(&mut harness, &[13, 12]);
    harness.kill(12);
    let grown = alter(&mut harness, "a", 11, &[11, 13], |_| {});
    assert!(matches!(grown.1, ErrorCode::None | ErrorCode::NewLeaderElected), "{grown:?}");
    let it = harness.partition("a", 0);
    assert_eq!((it.leader.0, ids(it.replicas()), ids(it.in_sync_replicas())), (13, vec![13, 12], vec![13]));
    assert_eq!(ids(it.eligible_leader_replicas()), [11, 12], "as in Kafka");
    harness.kill(13);
    let it = harness.partition("a", 0);
    assert_eq!((it.leader.0, ids(it.eligible_leader_replicas())), (-1, vec![11, 12, 13]));
    reassign(&mut harness, &[11, 13, 12]);
    let it = harness.partition("a", 0);
    assert_eq!((it.leader.0, ids(it.eligible_leader_replicas())), (-1, vec![12, 13]));
}

#[test]
fn registrations_need_directories_and_end_former_lives_of_the_unregistered() {
    let mut harness = Harness::new();
    let request = BrokerRegistrationRequest { log_dirs: Vec::new(), ..Harness::registration(11, 1) };
    let response: BrokerRegistrationResponse = harness.send_at(request, 1);
    assert_eq!(response.error_code, ErrorCode::InvalidRegistration.code());
    harness.start(11, 1, -1);
    harness.create(vec![assigned("a", &[&[11]])]);
    let response: UnregisterBrokerResponse = harness.send(UnregisterBrokerRequest { broker_id: 11 });
    assert_eq!(response.error_code, 0);
    assert_eq!(ids(harness.partition("a", 0).eligible_leader_replicas()), [11]);
    harness.register(11, 2, -1);
    assert_eq!(ids(harness.partition("a", 0).eligible_leader_replicas()), [0; 0]);
}

#[test]
fn cordoned_directories_are_stated_anew_after_each_registration() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    let directory = Uuid([111; 16]);
    harness.heartbeat(11, |it| it.cordoned_log_dirs = Some(vec![directory]));
    assert!(harness.replica.cluster.broker(NodeId(11)).unwrap().cordoned_directories.is_some());
    harness.register(11, 1, -1);
    assert_eq!(harness.replica.cluster.broker(NodeId(11)).unwrap().cordoned_directories, None);
}

#[test]
fn a_broker_that_has_shut_down_is_a_fenced_one_for_placement() {
    let mut harness = Harness::new();
    for id in [11, 12] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("a", &[&[12, 11]])]);
    harness.heartbeat(12, |it| it.want_shut_down = true);
    let refused = harness.create(vec![topic("b", 1, 2)]);
    assert_eq!(refused[0].0, ErrorCode::InvalidReplicationFactor, "it is shutting down");
    harness.heartbeat(11, |_| {});
    assert!(harness.heartbeat(12, |it| it.want_shut_down = true).should_shut_down);
    assert_eq!(harness.create(vec![topic("b", 1, 2)])[0].0, ErrorCode::None);
    // Asked again, it is fenced once more.
    let start = harness.log.len();
    assert!(harness.heartbeat(12, |it| it.want_shut_down = true).should_shut_down);
    assert_eq!(harness.log.len(), start + 1);
}

#[test]
fn after_an_unfencing_the_others_wait_for_the_next_heartbeat() {
    let mut harness = Harness::new();
    for id in [11, 12] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("a", &[&[12, 11]])]);
    harness.heartbeat(11, |_| {});
    harness.heartbeat(12, |it| it.want_shut_down = true);
    harness.heartbeat(11, |it| it.want_fence = true);
    harness.heartbeat(11, |_| {});
    assert!(!harness.heartbeat(12, |it| it.want_shut_down = true).should_shut_down);
    harness.heartbeat(11, |_| {});
    assert!(harness.heartbeat(12, |it| it.want_shut_down = true).should_shut_down);
}

#[test]
fn eligible_sets_are_cleared_behind_all_configs() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.create(vec![assigned("a", &[&[11]]), assigned("b", &[&[11]])]);
    let start = harness.log.len();
    let resources = vec![set(2, "a", "min.insync.replicas", "2"), set(2, "b", "retention.ms", "5")];
    assert_eq!(configure(&mut harness, resources), [0, 0]);
    let names: Vec<_> = harness.log[start..].iter().map(|it| it.record.name()).collect();
    assert_eq!(names, ["ConfigRecord", "ConfigRecord", "ClearElrRecord"]);
    // What an operation can't do is told before what doesn't exist, and an unknown type each time.
    let mut append = set(2, "nothing", "retention.ms", "5");
    append.configs[0].config_operation = 2;
    let unknown = set(9, "x", "a", "1");
    let bad = configure(&mut harness, vec![set(2, "bad name", "retention.ms", "5")]);
    assert_eq!(bad, [ErrorCode::InvalidTopicException.code()]);
    let codes = configure(&mut harness, vec![append, unknown.clone(), unknown]);
    assert_eq!(
        codes,
        [ErrorCode::InvalidConfig, ErrorCode::UnsupportedVersion, ErrorCode::UnsupportedVersion].map(|it| it.code())
    );
}

#[test]
fn topics_that_are_named_twice_stay() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.create(vec![assigned("a", &[&[11]]), assigned("b", &[&[11]])]);
    let named = |name: &str| DeleteTopicState { name: Some(name.to_owned().into()), topic_id: Uuid::ZERO };
    let by_id = DeleteTopicState { name: None, topic_id: harness.replica.topics.id("b").unwrap() };
    let topics = vec![named("a"), named("a"), by_id, named("b")];
    let response: DeleteTopicsResponse = harness.send(DeleteTopicsRequest { topics, ..Default::default() });
    let texts: Vec<_> = response.responses.iter().map(|it| it.error_message.as_deref().unwrap_or("")).collect();
    let mapped = "The provided topic name maps to an ID that was already supplied.";
    assert_eq!(texts, ["Duplicate topic name.", mapped]);
    assert_eq!(harness.replica.topics.len(), 2);
}

#[test]
fn a_user_and_a_quota_entity_are_altered_once_in_a_request() {
    let mut harness = Harness::new();
    let upsertion = |mechanism, length| ScramCredentialUpsertion {
        name: "u".into(),
        mechanism,
        iterations: 4_096,
        salt: vec![1].into(),
        salted_password: vec![7; length].into(),
    };
    let upsertions = vec![upsertion(1, 32), upsertion(2, 64)];
    let response: AlterUserScramCredentialsResponse =
        harness.send(AlterUserScramCredentialsRequest { upsertions, ..Default::default() });
    assert_eq!(response.results[0].error_code, ErrorCode::DuplicateResource.code());
    let part = |kind: &str, name: &str| EntityData {
        entity_type: StrBytes::copy_from(kind),
        entity_name: Some(StrBytes::copy_from(name)),
    };
    let entry = EntryData {
        entity: vec![part("client-id", "c"), part("user", "u")],
        ops: vec![OpData { key: "producer_byte_rate".into(), value: 5.0, remove: false }],
    };
    let request = AlterClientQuotasRequest { entries: vec![entry.clone(), entry], validate_only: false };
    let response: AlterClientQuotasResponse = harness.send(request);
    assert_eq!(response.entries.len(), 1);
    let text = response.entries[0].error_message.as_deref().unwrap();
    assert!(text.starts_with("Ignoring duplicate entity ClientQuotaEntity(entries={"), "{text}");
}

#[test]
fn requests_that_name_nothing_are_answered_with_nothing() {
    let mut harness = Harness::new();
    let response: AlterPartitionResponse = harness.send(AlterPartitionRequest { broker_id: 99, ..Default::default() });
    assert_eq!(response.error_code, 0);
    for (topic_partitions, code) in [(Some(Vec::new()), 0), (None, ErrorCode::InvalidRequest.code())] {
        let request = ElectLeadersRequest { election_type: 7, topic_partitions, timeout_ms: 1 };
        let response: ElectLeadersResponse = harness.send(request);
        assert_eq!((response.error_code, response.replica_election_results.len()), (code, 0));
    }
}

#[test]
fn the_last_leader_is_noted_whatever_took_its_leadership() {
    let mut harness = Harness::new();
    for id in [11, 12] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("a", &[&[11, 12]])]);
    harness.heartbeat(11, |it| it.want_fence = true);
    assert_eq!(harness.partition("a", 0).leader, NodeId(12));
    // The present leader's directory is lost, which nobody looked at yet.
    let lost: AssignReplicasToDirsResponse = harness.send(AssignReplicasToDirsRequest {
        broker_id: 12,
        broker_epoch: harness.epoch(12),
        directories: vec![assign_replicas_to_dirs_request::DirectoryData {
            id: Uuid([55; 16]),
            topics: vec![assign_replicas_to_dirs_request::TopicData {
                topic_id: harness.replica.topics.id("a").unwrap(),
                partitions: vec![assign_replicas_to_dirs_request::PartitionData { partition_index: 0 }],
            }],
        }],
    });
    assert_eq!(lost.error_code, 0);
    assert_eq!(harness.partition("a", 0).leader, NodeId::NONE);
    assert_eq!(ids(harness.partition("a", 0).last_known_elr()), [12]);
    let is_change = |it: &RecordAndVersion| matches!(it.record, MetadataRecord::PartitionChange(_));
    assert!(harness.log.iter().filter(|it| is_change(it)).count() >= 2);
}

#[test]
fn a_broker_that_announces_only_level_0_does_not_know_the_feature() {
    let mut harness = Harness::new();
    let mut request = Harness::registration(11, 1);
    let feature = request.features.iter_mut().find(|it| it.name == "share.version").unwrap();
    feature.max_supported_version = 0;
    let response: BrokerRegistrationResponse = harness.send(request.clone());
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code(), "it is at level 1");
    let update = |level, upgrade_type| update_features_request::FeatureUpdateKey {
        feature: "share.version".into(),
        max_version_level: level,
        upgrade_type,
        ..Default::default()
    };
    let ask = |harness: &mut Harness, update| -> UpdateFeaturesResponse {
        harness.send(UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() })
    };
    assert_eq!(ask(&mut harness, update(0, 2)).error_code, 0);
    let response: BrokerRegistrationResponse = harness.send(request);
    assert_eq!(response.error_code, 0);
    let text = ask(&mut harness, update(1, 1)).error_message.unwrap().to_string();
    assert!(text.ends_with("Broker 11 does not support this feature."), "{text}");
}

#[test]
fn who_shuts_down_under_another_controller_gets_no_partition_alone() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.start(12, 1, -1);
    harness.create(vec![assigned("a", &[&[11, 12]])]);
    // 12 has not read of it, so 11 is not told to stop yet.
    harness.heartbeat(11, |it| it.want_shut_down = true);
    harness.controller.resign();
    let (image, next, now) = (harness.replica.clone(), harness.next_offset(), harness.now());
    let first = harness.controller.activate(image, true, LeaderEpoch(2), next, now);
    harness.append(first.records);
    harness.kill(12);
    let refusal =
        "Unable to replicate the partition 1 time(s): All brokers are currently fenced or in controlled shutdown.";
    let expected = [(ErrorCode::InvalidReplicationFactor, Some(refusal.to_owned()))];
    assert_eq!(harness.create(vec![topic("b", 1, 1)]), expected);
}
