//! What becomes of requests between the controller and raft.

mod alone;

use ringlog_metadata::features::FEATURES;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::update_features_request::FeatureUpdateKey;
use ringlog_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    ControllerRegistrationRequest, UpdateFeaturesRequest, UpdateFeaturesResponse, UpdateRaftVoterRequest,
    alter_client_quotas_request, broker_registration_request, controller_registration_request,
    update_raft_voter_request,
};
use ringlog_quorum::{ControllerRequest, Input};
use ringlog_raft::ReplyToken;
use ringlog_types::{BrokerEpoch, ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Uuid};

use alone::{Alone, SESSION_MS, heartbeat, registration};

/// A change of that many entities with names of that length.
fn quotas(entities: usize, name_len: usize) -> AlterClientQuotasRequest {
    let entries = (0..entities).map(|index| alter_client_quotas_request::EntryData {
        entity: vec![alter_client_quotas_request::EntityData {
            entity_type: "user".into(),
            entity_name: Some(StrBytes::from(format!("{index:0>name_len$}"))),
        }],
        ops: vec![alter_client_quotas_request::OpData {
            key: "producer_byte_rate".into(),
            value: 1000.0 + index as f64,
            remove: false,
        }],
    });
    AlterClientQuotasRequest { entries: entries.collect(), validate_only: false }
}

fn codes(answer: Option<ringlog_protocol::ResponseBody>) -> Vec<(i16, Option<String>)> {
    let answer = AlterClientQuotasResponse::try_from(answer.expect("an answer")).expect("its own answer");
    let code = |entry: &ringlog_protocol::messages::alter_client_quotas_response::EntryData| {
        (entry.error_code, entry.error_message.as_ref().map(ToString::to_string))
    };
    let mut codes: Vec<_> = answer.entries.iter().map(code).collect();
    codes.dedup();
    codes
}

/// 300 entities with names of 32,000 bytes cost Kafka's controllers, and cost ours, their leadership, one after the
/// other. 261 of them fit into a batch of 8 MiB there, 262 don't.
#[test]
fn a_change_that_no_batch_can_hold_is_refused_and_the_leader_stays() {
    let mut alone = Alone::new();
    let text = |size: usize| {
        Some(format!("The total record(s) size of {size} exceeds the maximum allowed batch size of 8388608"))
    };
    let too_large = ErrorCode::RecordListTooLarge.code();
    assert_eq!(codes(alone.ask(quotas(300, 32_000))), [(too_large, text(9_616_197))]);
    assert_eq!(codes(alone.ask(quotas(262, 32_000))), [(too_large, text(8_398_145))]);
    assert_eq!(codes(alone.ask(quotas(261, 32_000))), [(0, None)]);
    assert_eq!(alone.renounced, Vec::<String>::new());
    assert_eq!((alone.node.raft().epoch(), alone.node.raft().is_leader()), (LeaderEpoch(1), true));
    // One record that is too large alone, of a kind that needn't stand together with others.
    let listener = broker_registration_request::Listener {
        name: "PLAINTEXT".into(),
        host: "h".repeat(30_000).into(),
        port: 9092,
        security_protocol: 0,
    };
    let registration = BrokerRegistrationRequest { listeners: vec![listener; 300], ..registration(5) };
    let answer = BrokerRegistrationResponse::try_from(alone.ask(registration).unwrap()).unwrap();
    assert_eq!(answer.error_code, too_large);
    assert!(alone.node.image().cluster.brokers.is_empty());
    assert_eq!(alone.renounced, Vec::<String>::new());
}

/// A stalled disk, a large change, a core that had other things to do: heartbeats lie in the mailbox meanwhile.
#[test]
fn who_was_heard_of_is_not_fenced_whatever_kept_the_controller() {
    let mut alone = Alone::new();
    let epochs = [2, 3].map(|id| (id, alone.broker(id)));
    alone.wait(2_000);
    // For nine seconds it looks at nothing. Broker 2 was heard of in time, broker 3 for the last time before.
    let stall = SESSION_MS + 500;
    let heard_at = MonotonicMs(alone.now_ms + 5_000);
    alone.now_ms += stall;
    let (id, epoch) = epochs[0];
    alone.node.on_heartbeats_received([(NodeId(id), BrokerEpoch(epoch), heard_at)]);
    alone.step(Input::Tick);
    assert!(!alone.is_fenced(2));
    assert!(!alone.is_fenced(3), "nobody listened, so it may have spoken");
    // From now on it listens: who goes on being silent is fenced.
    for _ in 0..5 {
        alone.wait(1_900);
        alone.ask(heartbeat(id, epoch));
    }
    assert_eq!((alone.is_fenced(2), alone.is_fenced(3)), (false, true));
}

/// Its request is answered late, and it isn't thought to live for longer because of that.
#[test]
fn a_heartbeat_counts_from_when_it_came() {
    let mut alone = Alone::new();
    let epoch = alone.broker(2);
    let received_at = Some(MonotonicMs(alone.now_ms));
    alone.wait(7_000);
    let request = ControllerRequest { received_at, ..ControllerRequest::internal(heartbeat(2, epoch)) };
    alone.step(Input::Request { token: ReplyToken(1_000_000), request: Box::new(request) });
    alone.wait(3_500);
    assert!(alone.is_fenced(2), "it has been silent for more than ten seconds");
}

/// Kafka's text; as there, checks alone ask raft as well.
#[test]
fn features_are_raised_all_or_none_and_raft_is_asked_first() {
    let mut alone = Alone::among(&[1, 2, 3]);
    let features = FEATURES.iter().map(|feature| controller_registration_request::Feature {
        name: feature.name.into(),
        min_supported_version: feature.supported_range(false).min,
        max_supported_version: feature.supported_range(false).max,
    });
    let features: Vec<_> = features.collect();
    for controller_id in [2, 3] {
        let registration =
            ControllerRegistrationRequest { controller_id, features: features.clone(), ..Default::default() };
        alone.ask(registration).expect("it is decided at once");
    }
    let update = |feature: &str, level, upgrade_type| FeatureUpdateKey {
        feature: feature.to_owned().into(),
        max_version_level: level,
        upgrade_type,
        ..Default::default()
    };
    let updates = vec![update("group.version", 0, 2), update("kraft.version", 1, 1)];
    let level = |alone: &Alone| alone.node.image().features.level("group.version");
    let request = UpdateFeaturesRequest { feature_updates: updates, ..Default::default() };
    assert_eq!((level(&alone), alone.node.raft().kraft_version()), (1, 0));
    for validate_only in [true, false] {
        let answer = alone.ask(UpdateFeaturesRequest { validate_only, ..request.clone() }).expect("an answer");
        let answer = UpdateFeaturesResponse::try_from(answer).expect("its own answer");
        let text = "The update failed for all features since the following feature had an error: Invalid upgrade of \
                    kraft.version to KRAFT_VERSION_1 because not all of the voters support it";
        assert_eq!(answer.error_code, ErrorCode::InvalidUpdateVersion.code());
        assert_eq!(answer.error_message.as_deref(), Some(text));
        assert_eq!((level(&alone), alone.node.raft().kraft_version()), (1, 0), "nothing of it is done");
    }
    // Once the voters have told of their directories all of it is done.
    for id in [2, 3] {
        alone.ask(voter(id, alone.node.raft().epoch()));
    }
    let checked = alone.ask(UpdateFeaturesRequest { validate_only: true, ..request.clone() }).expect("an answer");
    assert_eq!(UpdateFeaturesResponse::try_from(checked).expect("its own answer").error_code, 0);
    assert_eq!((level(&alone), alone.node.raft().kraft_version()), (1, 0));
    let answer = alone.ask(request).expect("an answer");
    assert_eq!(UpdateFeaturesResponse::try_from(answer).expect("its own answer").error_code, 0);
    assert_eq!((level(&alone), alone.node.raft().kraft_version()), (0, 1));
}

/// What a voter tells the leader of itself.
fn voter(id: i32, epoch: LeaderEpoch) -> UpdateRaftVoterRequest {
    UpdateRaftVoterRequest {
        cluster_id: Some("cluster".into()),
        current_leader_epoch: epoch.0,
        voter_id: id,
        voter_directory_id: Uuid([id as u8; 16]),
        listeners: vec![update_raft_voter_request::Listener {
            name: "CONTROLLER".into(),
            host: "127.0.0.1".into(),
            port: 9090 + id as u16,
        }],
        kraft_version_feature: update_raft_voter_request::KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: 1,
        },
    }
}
