//! Administrators: they keep the controllers busy, and what they are told is checked where it is said.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_protocol::messages::add_raft_voter_request::Listener;
use ringlog_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use ringlog_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ringlog_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ringlog_protocol::messages::delete_topics_request::DeleteTopicState;
use ringlog_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use ringlog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use ringlog_protocol::messages::{
    AddRaftVoterRequest, AlterClientQuotasRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeQuorumRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, RemoveRaftVoterRequest,
    UnregisterBrokerRequest,
};
use ringlog_protocol::{Request, StrBytes};
use ringlog_ring::{sim, sleep_ms};
use ringlog_types::Uuid;

use super::check::{Checks, NodeView};
use super::requests;
use crate::client::connection::{CallFault, Connection};
use crate::plan::CONTROLLER_PORT;

pub(super) const TOPICS: u64 = 8;
const BROKER: i8 = 4;
const CALL_LIMIT_MS: u64 = 3_000;
pub(super) const TIMEOUT_MS: i32 = 2_000;
/// Changes of voters aren't waited for as long: the next is asked for before the last one is through.
const CHANGE_LIMIT_MS: u64 = 300;
/// How often controllers are asked who leads.
const ASK_EVERY_MS: u64 = 200;

/// What all clients know.
pub struct Known {
    /// Where controllers listen, by node.
    pub controllers: Vec<(i32, SocketAddr)>,
    /// Where brokers listen.
    pub brokers: Vec<SocketAddr>,
    /// Voters come and go.
    pub is_dynamic: bool,
    /// And do so all the time.
    pub changes_voters_often: bool,
    /// The longest pause.
    pub think_ms: u64,
    /// They are to end.
    pub is_over: Cell<bool>,
    /// The checkers, who know the voters.
    pub checks: Rc<RefCell<Checks>>,
}

impl Known {
    /// Where a controller listens.
    fn address(&self, id: i32) -> SocketAddr {
        let found = self.controllers.iter().find(|(controller, _)| *controller == id);
        found.map_or(self.controllers[0].1, |(_, address)| *address)
    }
}

pub(super) fn draw(bound: usize) -> usize {
    sim::draw(bound.max(1) as u64) as usize
}

pub(super) fn topic() -> StrBytes {
    StrBytes::copy_from(&format!("topic-{}", draw(TOPICS as usize)))
}

/// Runs until it is over.
pub async fn administrate(known: Rc<Known>) {
    while !known.is_over.get() {
        let has_broker = !known.brokers.is_empty() && draw(4) > 0;
        let leader = known.checks.borrow().leader_id().filter(|_| draw(4) > 0);
        let address = match (has_broker, leader) {
            (true, _) => known.brokers[draw(known.brokers.len())],
            (false, Some(leader)) => known.address(leader),
            (false, None) => known.controllers[draw(known.controllers.len())].1,
        };
        if let Ok(mut connection) = Connection::open(address).await {
            for _ in 0..8 {
                if known.is_over.get() || act(&known, &mut connection, has_broker).await.is_err() {
                    break;
                }
                sleep_ms(1 + sim::draw(known.think_ms)).await;
            }
        }
        sleep_ms(1 + sim::draw(known.think_ms)).await;
    }
}

pub(super) async fn send<R: Request>(connection: &mut Connection, request: R) -> Result<(), CallFault> {
    connection.call(&request, CALL_LIMIT_MS).await.map(|_| ())
}

async fn act(known: &Known, connection: &mut Connection, is_broker: bool) -> Result<(), CallFault> {
    if known.changes_voters_often && !is_broker && draw(2) == 0 {
        return change_voters(known, connection).await;
    }
    match draw(130) {
        0..30 => send(connection, create(topic(), 1 + draw(4) as i32, 1 + draw(2) as i16)).await,
        30..38 => {
            let topic = DeleteTopicState { name: Some(topic()), ..DeleteTopicState::default() };
            let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
            send(connection, request).await
        }
        38..46 => {
            let topic = CreatePartitionsTopic { name: topic(), count: 2 + draw(5) as i32, assignments: None };
            let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
            send(connection, request).await
        }
        46..66 => send(connection, alter_config()).await,
        66..72 => send(connection, alter_quota()).await,
        72..80 if is_broker => {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: 60_000,
                producer_id: -1,
                producer_epoch: -1,
                ..InitProducerIdRequest::default()
            };
            send(connection, request).await
        }
        80..82 => {
            let broker_id = 1 + draw(8) as i32;
            send(connection, UnregisterBrokerRequest { broker_id }).await
        }
        82..92 if known.is_dynamic && !is_broker => change_voters(known, connection).await,
        100..130 if !is_broker => requests::send_any(known, connection).await,
        _ => Ok(()),
    }
}

fn create(name: StrBytes, num_partitions: i32, replication_factor: i16) -> CreateTopicsRequest {
    let configs = match draw(3) {
        0 => vec![CreatableTopicConfig {
            name: "min.insync.replicas".into(),
            value: Some(StrBytes::copy_from(&(1 + draw(3)).to_string())),
        }],
        _ => Vec::new(),
    };
    let topic = CreatableTopic { name, num_partitions, replication_factor, configs, ..CreatableTopic::default() };
    CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..CreateTopicsRequest::default() }
}

fn alter_config() -> IncrementalAlterConfigsRequest {
    let (resource_type, resource_name, name) = match draw(3) {
        0 => (2, topic(), "segment.bytes"),
        1 => (BROKER, StrBytes::copy_from(&(1 + draw(5)).to_string()), "log.cleaner.threads"),
        _ => (BROKER, StrBytes::default(), "log.cleaner.threads"),
    };
    let value = if resource_type == 2 { 2_000_000 + draw(1_000) } else { 1 + draw(9) };
    let is_delete = draw(5) == 0;
    let config = AlterableConfig {
        name: name.into(),
        config_operation: i8::from(is_delete),
        value: (!is_delete).then(|| StrBytes::copy_from(&value.to_string())),
    };
    let resource = AlterConfigsResource { resource_type, resource_name, configs: vec![config] };
    IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
}

fn alter_quota() -> AlterClientQuotasRequest {
    let entity_name = Some(StrBytes::copy_from(&format!("user-{}", draw(4))));
    let entity = vec![EntityData { entity_type: "user".into(), entity_name }];
    let remove = draw(4) == 0;
    let ops = vec![OpData { key: "producer_byte_rate".into(), value: 1_000.0 + draw(5) as f64, remove }];
    AlterClientQuotasRequest { entries: vec![EntryData { entity, ops }], validate_only: false }
}

/// A controller that isn't a voter is to become one; or a voter is to go, one that is lost or any of many.
async fn change_voters(known: &Known, connection: &mut Connection) -> Result<(), CallFault> {
    let (outside, inside, lost, are_whole) = {
        let checks = known.checks.borrow();
        let voters = checks.committed.present_voters();
        // Whose disk is being replaced is lost already.
        let is_lost = |view: &NodeView| view.is_hurt && voters.holds(view.id, view.directory);
        let controllers = checks.nodes.iter().filter(|view| view.is_controller && !is_lost(view));
        let (inside, outside): (Vec<_>, Vec<_>) = controllers
            .map(|view| (view.id, view.directory))
            .partition(|(id, directory)| voters.holds(*id, *directory));
        let known = |id: &i32, directory: Uuid| inside.contains(&(*id, directory));
        let lost: Vec<(i32, Uuid)> = voters
            .iter()
            .filter_map(|(id, directory)| Some((*id, (*directory)?)).filter(|it| !known(&it.0, it.1)))
            .collect();
        (outside, inside, lost, checks.are_whole())
    };
    if draw(2) == 0 && !outside.is_empty() {
        let (voter_id, voter_directory_id) = outside[draw(outside.len())];
        let host = StrBytes::copy_from(&format!("n{voter_id}"));
        let listener = Listener { name: "CONTROLLER".into(), host, port: CONTROLLER_PORT };
        let request = AddRaftVoterRequest {
            cluster_id: None,
            timeout_ms: TIMEOUT_MS,
            voter_id,
            voter_directory_id,
            listeners: vec![listener],
            ack_when_committed: draw(2) == 0,
        };
        return ask_for_voters(known, connection, &request).await;
    }
    // Nobody sends one away who votes while another may not be able to.
    let can_go = are_whole && inside.len() > 2;
    let gone = lost.first().copied().or_else(|| can_go.then(|| inside[draw(inside.len())]));
    let Some((voter_id, voter_directory_id)) = gone else { return Ok(()) };
    let request = RemoveRaftVoterRequest { cluster_id: None, voter_id, voter_directory_id };
    ask_for_voters(known, connection, &request).await
}

/// Meanwhile nobody loses its disk: whom the change leaves may have been needed.
async fn ask_for_voters<R: Request>(known: &Known, connection: &mut Connection, request: &R) -> Result<(), CallFault> {
    known.checks.borrow_mut().changes_asked_for += 1;
    let outcome = connection.call(request, CHANGE_LIMIT_MS).await;
    known.checks.borrow_mut().changes_asked_for -= 1;
    outcome.map(|_| ())
}

/// Asks one controller again and again who leads.
pub async fn ask_who_leads(known: Rc<Known>, address: SocketAddr) {
    while !known.is_over.get() {
        if let Ok(mut connection) = Connection::open(address).await {
            while !known.is_over.get() {
                let topic = TopicData {
                    topic_name: "__cluster_metadata".into(),
                    partitions: vec![PartitionData { partition_index: 0 }],
                };
                if send(&mut connection, DescribeQuorumRequest { topics: vec![topic] }).await.is_err() {
                    break;
                }
                sleep_ms(ASK_EVERY_MS).await;
            }
        }
        sleep_ms(ASK_EVERY_MS).await;
    }
}

/// Once nothing is wrong any more, a change has to succeed.
pub async fn change_something(known: Rc<Known>) {
    for turn in 0.. {
        let (_, address) = known.controllers[turn % known.controllers.len()];
        if let Ok(mut connection) = Connection::open(address).await {
            let answer = connection.call(&alter_quota(), CALL_LIMIT_MS).await;
            if answer.is_ok_and(|answer| answer.entries.iter().all(|entry| entry.error_code == 0)) {
                return;
            }
        }
        sleep_ms(100).await;
    }
}
