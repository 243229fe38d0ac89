//! What becomes of requests between the controller and raft.

mod alone;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    alter_client_quotas_request, broker_registration_request,
};
use ringlog_types::{ErrorCode, LeaderEpoch};

use alone::Alone;

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
    let registration = BrokerRegistrationRequest {
        broker_id: 5,
        cluster_id: "cluster".into(),
        features: vec![broker_registration_request::Feature {
            name: "metadata.version".into(),
            min_supported_version: 1,
            max_supported_version: 40,
        }],
        log_dirs: vec![ringlog_types::Uuid([5; 16])],
        listeners: vec![listener; 300],
        ..BrokerRegistrationRequest::default()
    };
    let answer = BrokerRegistrationResponse::try_from(alone.ask(registration).unwrap()).unwrap();
    assert_eq!(answer.error_code, too_large);
    assert!(alone.node.image().cluster.brokers.is_empty());
    assert_eq!(alone.renounced, Vec::<String>::new());
}
