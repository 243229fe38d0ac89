//! A consumer that commits offsets, as one without a group's members does, and asks for them again.

use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::find_coordinator_response::Coordinator;
use ringlog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ringlog_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use ringlog_protocol::messages::{FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest};
use ringlog_ring::{sim, sleep_ms};
use ringlog_types::Uuid;

use super::Shared;
use super::connection::{CallFault, Connection};
use super::routes::route;

const CALL_LIMIT_MS: u64 = 45_000;
/// The coordinator isn't there, still loads, or is elsewhere; or it took too long; or the topic isn't known yet.
const RETRIABLE: [i16; 7] = [3, 7, 14, 15, 16, 27, 100];

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>, number: usize) {
    let topic = number % shared.plan.topics.len();
    let key = (format!("group-{number}"), topic, 0);
    let (mut offset, mut attempts) = (0, 0);
    while !shared.is_over.get() {
        let Ok(Some((mut connection, topic_id))) = coordinator(&shared, &key).await else {
            sleep_ms(50 + sim::draw(50)).await;
            continue;
        };
        while !shared.is_over.get() {
            match step(&shared, &mut connection, topic_id, &key, (&mut offset, &mut attempts)).await {
                Ok(true) => sleep_ms(sim::draw(40)).await,
                Ok(false) => break,
                Err(fault) => {
                    shared.judge(&key.0, &fault);
                    break;
                }
            }
        }
        sleep_ms(20 + sim::draw(50)).await;
    }
}

/// A commit, or a look. Says whether this coordinator can be asked further.
async fn step(
    shared: &Rc<Shared>,
    connection: &mut Connection,
    topic_id: Uuid,
    key: &(String, usize, i32),
    (offset, attempts): (&mut i64, &mut u32),
) -> Result<bool, CallFault> {
    if sim::draw(3) == 0 {
        let found = fetch(connection, topic_id, key).await?;
        return Ok(match found {
            Ok(found) => {
                let checked = shared.commits.borrow_mut().check(key, found);
                checked.unwrap_or_else(|fault| shared.complain(fault));
                true
            }
            Err(code) => {
                shared.judge_code(&key.0, code, &RETRIABLE);
                false
            }
        });
    }
    shared.commits.borrow_mut().on_attempt(key, *offset);
    *attempts += 1;
    match commit(connection, topic_id, key, *offset).await? {
        0 => {
            let is_first_try = *attempts == 1;
            shared.commits.borrow_mut().on_acknowledged(key, *offset, connection.opened_at_ns, is_first_try);
            (*offset, *attempts) = (*offset + 1, 0);
            Ok(true)
        }
        code => {
            shared.judge_code(&key.0, code, &RETRIABLE);
            Ok(false)
        }
    }
}

async fn commit(
    connection: &mut Connection,
    topic_id: Uuid,
    (group, _, partition): &(String, usize, i32),
    offset: i64,
) -> Result<i16, CallFault> {
    let part = OffsetCommitRequestPartition {
        partition_index: *partition,
        committed_offset: offset,
        committed_leader_epoch: -1,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic { topic_id, partitions: vec![part], ..OffsetCommitRequestTopic::default() };
    let request = OffsetCommitRequest {
        group_id: StrBytes::copy_from(group),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let code = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).next();
    code.ok_or_else(|| CallFault::Nonsense("a commit's answer without the partition".to_owned()))
}

/// The committed offset, or the error.
pub async fn fetch(
    connection: &mut Connection,
    topic_id: Uuid,
    (group, _, partition): &(String, usize, i32),
) -> Result<Result<i64, i16>, CallFault> {
    let topics = OffsetFetchRequestTopics {
        topic_id,
        partition_indexes: vec![*partition],
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: StrBytes::copy_from(group),
        topics: Some(vec![topics]),
        member_epoch: -1,
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest { groups: vec![group], require_stable: true, ..OffsetFetchRequest::default() };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let missing = || CallFault::Nonsense("an offset's answer without the partition".to_owned());
    let group = answer.groups.into_iter().next().ok_or_else(missing)?;
    if group.error_code != 0 {
        return Ok(Err(group.error_code));
    }
    let found = group.topics.into_iter().flat_map(|topic| topic.partitions).next().ok_or_else(missing)?;
    Ok(if found.error_code == 0 { Ok(found.committed_offset) } else { Err(found.error_code) })
}

/// A connection to the coordinator of a group, and the topic's id.
pub async fn coordinator(
    shared: &Rc<Shared>,
    (group, topic, _): &(String, usize, i32),
) -> Result<Option<(Connection, Uuid)>, CallFault> {
    let topic = &shared.plan.topics[*topic];
    let Some(route) = route(shared, &topic.name, topic.partitions).await else { return Ok(None) };
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    let mut connection = Connection::open(addresses[sim::draw(addresses.len() as u64) as usize]).await?;
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![StrBytes::copy_from(group)],
        ..FindCoordinatorRequest::default()
    };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let found = answer.coordinators.into_iter().next();
    let Some(Coordinator { error_code: 0, node_id, .. }) = found else { return Ok(None) };
    let Some(address) = shared.brokers.get(&node_id) else { return Ok(None) };
    Ok(Some((Connection::open(*address).await?, route.topic_id)))
}
