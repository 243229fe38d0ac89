//! An admin: makes topics, and deletes some again.

use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ringlog_protocol::messages::delete_topics_request::DeleteTopicState;
use ringlog_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use ringlog_ring::{sim, sleep_ms};

use super::Shared;
use super::connection::{CallFault, Connection};

const CALL_LIMIT_MS: u64 = 45_000;
/// Names that the admin plays with.
const NAMES: u64 = 6;
/// TOPIC_ALREADY_EXISTS.
pub const EXISTS: i16 = 36;
const UNKNOWN_TOPIC: i16 = 3;
/// No controller at the moment, or it took too long, or there are too few brokers.
pub const RETRIABLE: [i16; 4] = [7, 8, 38, 41];

/// Makes a topic; the error if there is one.
pub async fn create(
    connection: &mut Connection,
    name: &str,
    (partitions, replicas): (i32, i16),
    configs: &[(&str, String)],
) -> Result<i16, CallFault> {
    let config = |(name, value): &(&str, String)| CreatableTopicConfig {
        name: StrBytes::copy_from(name),
        value: Some(StrBytes::copy_from(value)),
    };
    let topic = CreatableTopic {
        name: StrBytes::copy_from(name),
        num_partitions: partitions,
        replication_factor: replicas,
        configs: configs.iter().map(config).collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 20_000, ..CreateTopicsRequest::default() };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let code = answer.topics.first().map(|topic| topic.error_code);
    code.ok_or_else(|| CallFault::Nonsense("an answer without the topic".to_owned()))
}

/// Deletes a topic; the error if there is one.
pub async fn delete(connection: &mut Connection, name: &str) -> Result<i16, CallFault> {
    let topic = DeleteTopicState { name: Some(StrBytes::copy_from(name)), ..DeleteTopicState::default() };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 20_000, ..DeleteTopicsRequest::default() };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let code = answer.responses.first().map(|topic| topic.error_code);
    code.ok_or_else(|| CallFault::Nonsense("an answer without the topic".to_owned()))
}

/// Names of all topics, as a broker knows them.
pub async fn list(connection: &mut Connection) -> Result<Vec<String>, CallFault> {
    let answer =
        connection.call(&MetadataRequest { topics: None, ..MetadataRequest::default() }, CALL_LIMIT_MS).await?;
    Ok(answer.topics.into_iter().filter_map(|topic| topic.name).map(|name| name.as_str().to_owned()).collect())
}

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>) {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    while !shared.is_over.get() {
        let address = addresses[sim::draw(addresses.len() as u64) as usize];
        if let Ok(mut connection) = Connection::open(address).await {
            while !shared.is_over.get() {
                match step(&shared, &mut connection).await {
                    Ok(true) => sleep_ms(sim::draw(150)).await,
                    Ok(false) => break,
                    Err(fault) => {
                        shared.judge("admin", &fault);
                        break;
                    }
                }
            }
        }
        sleep_ms(50 + sim::draw(100)).await;
    }
}

/// Makes or deletes a topic. Says whether this broker can be asked further.
async fn step(shared: &Rc<Shared>, connection: &mut Connection) -> Result<bool, CallFault> {
    let name = shared.topics.borrow_mut().name(sim::draw(NAMES));
    let makes = sim::draw(2) == 0;
    let may_be_twice = !shared.is_calm() && shared.plan.are_nodes_parted();
    shared.topics.borrow_mut().on_attempt(&name, may_be_twice);
    let replicas = match shared.plan.replicas {
        1 => 1,
        most => 1 + sim::draw(most as u64) as i16,
    };
    let code = match makes {
        true => create(connection, &name, (1 + sim::draw(4) as i32, replicas), &[]).await?,
        false => delete(connection, &name).await?,
    };
    let mut topics = shared.topics.borrow_mut();
    match code {
        0 | EXISTS if makes => topics.on_made(&name),
        0 | UNKNOWN_TOPIC if !makes => topics.on_deleted(&name),
        code => {
            drop(topics);
            shared.judge_code("admin", code, &RETRIABLE);
            return Ok(false);
        }
    }
    Ok(true)
}
