//! Elections, in-sync sets and eligible leader replicas.

use ringlog_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ringlog_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use ringlog_protocol::metadata_records::{MetadataRecord, PartitionChangeRecord};

use super::*;
use crate::image::LeaderRecoveryState;

/// A leader's request for another in-sync set.
pub(super) fn alter(
    harness: &mut Harness,
    topic: &str,
    sender: i32,
    members: &[i32],
    edit: impl FnOnce(&mut PartitionData),
) -> (ErrorCode, ErrorCode) {
    let partition = harness.partition(topic, 0);
    let members = members.iter().map(|id| BrokerState {
        broker_id: *id,
        broker_epoch: harness.replica.cluster.broker(NodeId(*id)).map_or(-2, |broker| broker.epoch.0),
    });
    let mut data = PartitionData {
        partition_index: 0,
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        new_isr_with_epochs: members.collect(),
        ..Default::default()
    };
    edit(&mut data);
    let topic_id = harness.replica.topics.id(topic).unwrap();
    let request = AlterPartitionRequest {
        broker_id: sender,
        broker_epoch: harness.epoch(sender),
        topics: vec![TopicData { topic_id, partitions: vec![data] }],
    };
    let response: AlterPartitionResponse = harness.send(request);
    let code = |code| ErrorCode::from_code(code).unwrap();
    let inner = response.topics.first().map_or(ErrorCode::None, |topic| code(topic.partitions[0].error_code));
    (code(response.error_code), inner)
}

/// The chain that was observed on real nodes: KIP-966 with min.insync.replicas 2.
#[test]
fn eligible_replicas_follow_losses_and_returns() {
    let mut harness = Harness::with(|config| config.min_in_sync_replicas = 2);
    for id in [11, 12, 13] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("t", &[&[12, 13, 11]])]);
    let state = |harness: &Harness| {
        let it = harness.partition("t", 0);
        let (isr, elr) = (ids(it.in_sync_replicas()), ids(it.eligible_leader_replicas()));
        (it.leader.0, isr, elr, ids(it.last_known_elr()))
    };
    assert_eq!(state(&harness), (12, vec![12, 13, 11], vec![], vec![]));
    harness.kill(13);
    assert_eq!(state(&harness), (12, vec![12, 11], vec![], vec![]));
    harness.kill(12);
    assert_eq!(state(&harness), (11, vec![11], vec![12], vec![]));
    harness.kill(11);
    assert_eq!(state(&harness), (-1, vec![], vec![11, 12], vec![11]));
    harness.start(12, 2, -1);
    assert_eq!(state(&harness), (-1, vec![], vec![11], vec![11]));
    harness.register(11, 2, -1);
    assert_eq!(state(&harness), (-1, vec![], vec![], vec![11]));
    harness.heartbeat(11, |_| {});
    assert_eq!(state(&harness), (11, vec![11], vec![], vec![]));
    assert_eq!(harness.partition("t", 0).leader_recovery_state, LeaderRecoveryState::Recovering);
    let grown = alter(&mut harness, "t", 11, &[11, 12], |data| data.leader_recovery_state = 0);
    assert_eq!(grown, (ErrorCode::None, ErrorCode::None));
    assert_eq!(harness.partition("t", 0).leader_recovery_state, LeaderRecoveryState::Recovered);
}

#[test]
fn a_clean_restart_of_the_only_replica_elects_it_from_the_eligible() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.create(vec![assigned("t", &[&[11]])]);
    let first = harness.heartbeat(11, |request| request.want_shut_down = true);
    assert!(!first.should_shut_down);
    let it = harness.partition("t", 0);
    assert_eq!((it.leader.0, ids(it.in_sync_replicas())), (-1, vec![]));
    assert_eq!(ids(it.eligible_leader_replicas()), [11]);
    let second = harness.heartbeat(11, |request| request.want_shut_down = true);
    assert!(second.should_shut_down && second.is_fenced);
    let epoch = harness.epoch(11);
    // Until the session ends, another life is refused.
    let early: BrokerRegistrationResponse = harness.send(Harness::registration(11, 2));
    assert_eq!(early.error_code, ErrorCode::DuplicateBrokerRegistration.code());
    harness.now_ms += 9_001;
    harness.start(11, 2, epoch);
    let it = harness.partition("t", 0);
    assert_eq!((it.leader.0, ids(it.in_sync_replicas())), (11, vec![11]));
    assert_eq!(it.leader_recovery_state, LeaderRecoveryState::Recovered);
}

#[test]
fn shutdown_waits_until_active_brokers_have_read_of_it() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.start(12, 1, -1);
    harness.create(vec![assigned("t", &[&[11, 12]])]);
    harness.heartbeat(12, |_| {});
    let wants = |request: &mut BrokerHeartbeatRequest| request.want_shut_down = true;
    assert!(!harness.heartbeat(11, wants).should_shut_down);
    let it = harness.partition("t", 0);
    assert_eq!((it.leader.0, ids(it.in_sync_replicas()), it.leader_epoch.0), (12, vec![12], 1));
    assert!(!harness.heartbeat(11, wants).should_shut_down, "broker 12 may not know yet that it leads");
    harness.heartbeat(12, |_| {});
    assert!(harness.heartbeat(11, wants).should_shut_down);
}

#[test]
fn without_eligible_replicas_the_last_member_stays_in_sync() {
    let mut harness = Harness::with(|config| {
        let levels = [("eligible.leader.replicas.version".to_owned(), 0)];
        let request = crate::bootstrap::BootstrapRequest { feature_levels: levels.into(), ..Default::default() };
        config.bootstrap = BootstrapMetadata::new(&request).unwrap();
    });
    harness.start(11, 1, -1);
    harness.start(12, 1, -1);
    harness.create(vec![assigned("t", &[&[11, 12]])]);
    harness.kill(12);
    harness.kill(11);
    let it = harness.partition("t", 0);
    assert_eq!((it.leader.0, ids(it.in_sync_replicas())), (-1, vec![11]));
    harness.start(12, 2, -1);
    assert_eq!(harness.partition("t", 0).leader.0, -1);
    harness.start(11, 2, -1);
    assert_eq!(harness.partition("t", 0).leader.0, 11);
}

#[test]
fn alter_partition_refuses_in_kafkas_order() {
    let mut harness = Harness::new();
    for id in [11, 12, 13] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("t", &[&[11, 12, 13]])]);
    let none = ErrorCode::None;
    type Edit = fn(&mut PartitionData);
    let cases: [(i32, &[i32], Edit, ErrorCode); 11] = [
        (11, &[11], |it| it.leader_epoch += 1, ErrorCode::NotController),
        (11, &[11], |it| it.partition_epoch += 1, ErrorCode::NotController),
        (11, &[11], |it| it.leader_epoch -= 1, ErrorCode::FencedLeaderEpoch),
        (12, &[12], |_| {}, ErrorCode::InvalidRequest),
        (11, &[11], |it| it.partition_epoch -= 1, ErrorCode::InvalidUpdateVersion),
        (11, &[], |_| {}, ErrorCode::InvalidRequest),
        (11, &[11, 11], |_| {}, ErrorCode::InvalidRequest),
        (11, &[12, 13], |_| {}, ErrorCode::InvalidRequest),
        (11, &[11, 99], |_| {}, ErrorCode::InvalidRequest),
        (11, &[11], |it| it.leader_recovery_state = 1, ErrorCode::InvalidRequest),
        (11, &[11], |it| it.partition_index = 5, ErrorCode::UnknownTopicOrPartition),
    ];
    let records = harness.log.len();
    for (number, (sender, members, edit, expected)) in cases.into_iter().enumerate() {
        assert_eq!(alter(&mut harness, "t", sender, members, edit), (none, expected), "case {number}");
    }
    assert_eq!(harness.log.len(), records);
    assert_eq!(alter(&mut harness, "t", 11, &[11, 12], |_| {}), (none, none));
    let it = harness.partition("t", 0);
    assert_eq!((ids(it.in_sync_replicas()), it.leader_epoch.0, it.partition_epoch.0), (vec![11, 12], 0, 1));
    let records = harness.log.len();
    assert_eq!(alter(&mut harness, "t", 11, &[11, 12], |_| {}), (none, none));
    assert_eq!(harness.log.len(), records, "the same in-sync set writes nothing");
    let stale = |data: &mut PartitionData| data.new_isr_with_epochs[2].broker_epoch -= 1;
    assert_eq!(alter(&mut harness, "t", 11, &[11, 12, 13], stale), (none, ErrorCode::IneligibleReplica));
    harness.kill(13);
    assert_eq!(alter(&mut harness, "t", 11, &[11, 12, 13], |_| {}), (none, ErrorCode::IneligibleReplica));
}

#[test]
fn preferred_leaders_come_back_by_the_task() {
    let mut harness = Harness::new();
    harness.start(11, 1, -1);
    harness.start(12, 1, -1);
    harness.create(vec![assigned("t", &[&[11, 12]])]);
    harness.kill(11);
    assert_eq!(harness.partition("t", 0).leader.0, 12);
    harness.start(11, 2, -1);
    assert_eq!(alter(&mut harness, "t", 12, &[12, 11], |_| {}).1, ErrorCode::None);
    harness.now_ms += 300_000;
    harness.heartbeat(11, |_| {});
    harness.heartbeat(12, |_| {});
    harness.tick();
    let it = harness.partition("t", 0);
    assert_eq!((it.leader.0, it.leader_epoch.0), (11, 2));
}

/// A broker with more partitions than one batch holds records comes and goes.
#[test]
fn large_changes_are_worked_out_in_portions() {
    let mut harness = Harness::new();
    for id in [11, 12, 13] {
        harness.start(id, 1, -1);
    }
    for name in ["a", "b", "c"] {
        assert_eq!(harness.create(vec![topic(name, 9_000, 3)])[0].0, ErrorCode::None);
    }
    let count = |harness: &Harness, wanted: &dyn Fn(&PartitionImage) -> bool| {
        harness.replica.topics.iter().flat_map(|topic| topic.partitions.values()).filter(|it| wanted(it)).count()
    };
    let before = harness.log.len();
    harness.kill(13);
    assert!(harness.log.len() > before + 27_000);
    assert_eq!(count(&harness, &|it| it.in_sync_replicas().contains(&NodeId(13)) || it.leader == NodeId(13)), 0);
    assert_eq!(count(&harness, &|it| it.in_sync_replicas().len() == 2 && it.has_leader()), 27_000);
    // Its next life may register at once, with all that follows.
    harness.start(13, 2, -1);
    let response = harness.heartbeat(12, |request| request.want_shut_down = true);
    assert!(!response.should_shut_down);
    assert_eq!(count(&harness, &|it| it.leader == NodeId(12)), 0);
    for id in [11, 13] {
        harness.heartbeat(id, |_| {});
    }
    assert!(harness.heartbeat(12, |request| request.want_shut_down = true).should_shut_down);
    harness.kill(11);
    assert_eq!(count(&harness, &|it| it.leader == NodeId::NONE), 27_000);
    harness.start(11, 2, harness.epoch(11));
    assert_eq!(count(&harness, &|it| it.leader == NodeId(11)), 27_000);
    invariants::check(&harness);
}

#[test]
fn who_is_elected_uncleanly_recovers_whatever_the_old_leader_said_of_itself() {
    use crate::controller::partition_change::Election;
    let mut harness = Harness::new();
    for id in [11, 12] {
        harness.start(id, 1, -1);
    }
    harness.create(vec![assigned("a", &[&[11, 12]])]);
    let topic_id = harness.replica.topics.by_name("a").unwrap().id;
    let id = TopicIdPartition { topic_id, partition: PartitionIndex(0) };
    for was_recovering in [true, false] {
        let old = if was_recovering { LeaderRecoveryState::Recovering } else { LeaderRecoveryState::Recovered };
        let active = harness.controller.active.as_mut().unwrap();
        let alone = PartitionChangeRecord {
            partition_id: 0,
            topic_id,
            isr: Some(vec![11]),
            leader_recovery_state: old as i8,
            ..PartitionChangeRecord::default()
        };
        let mut delta = MetadataDelta::new(&harness.replica);
        delta.replay(&MetadataRecord::PartitionChange(alone)).unwrap();
        active.image = delta.apply(Provenance::EMPTY).0;
        // It says that it has recovered, and can't lead any more, say because its directory is offline.
        let change = active.change_partition(id, &|id| id != NodeId(11), |change| {
            change.in_sync_replicas = vec![NodeId(11)];
            change.leader_recovery_state = LeaderRecoveryState::Recovered;
            change.election = Election::Unclean;
        });
        let Some(RecordAndVersion { record: MetadataRecord::PartitionChange(change), .. }) = change else {
            panic!("nothing changes")
        };
        let after =
            active.image.topics.by_id(topic_id).unwrap().partitions.get(&id.partition).unwrap().merge(&change).unwrap();
        assert_eq!((after.leader, ids(after.in_sync_replicas())), (NodeId(12), vec![12]));
        assert_eq!(after.leader_recovery_state, LeaderRecoveryState::Recovering);
    }
}
