//! Reads all that is there when clients have come to an end, and compares it with what they were promised.

use std::rc::Rc;

use ringlog_ring::{now, sim, sleep_ms};

use super::connection::Connection;
use super::routes::{ask, route};
use super::{Shared, admin, changer, committer, consumer, member};
use crate::check::ledger::Read;

/// How often a reader asks again that is told to try later.
const READ_TRIES: usize = 200;

/// By topic and partition: where the log starts, and its records.
pub type Found = Vec<((usize, i32), i64, Vec<Read>)>;

/// Reads everything.
pub async fn run(shared: &Rc<Shared>) -> Result<Found, String> {
    let mut all = Vec::new();
    for (number, topic) in shared.plan.topics.iter().enumerate() {
        for partition in 0..topic.partitions {
            let found = read_partition(shared, number, partition).await;
            let (start, found) = found.map_err(|fault| format!("{}-{partition}: {fault}", topic.name))?;
            all.push(((number, partition), start, found));
        }
    }
    all_serve(shared).await?;
    all_in_sync(shared).await?;
    shared.read_at_ms.set(now().wall.0);
    let keys = shared.commits.borrow().keys();
    for key in keys {
        let found = read_commit(shared, &key).await?;
        shared.commits.borrow_mut().check(&key, found)?;
    }
    let places = shared.groups.borrow().places();
    for (group, place) in places {
        let sent_at_ns = sim::control().now_ns();
        let found = read_commit(shared, &(member::group_name(group), place.0, place.1)).await?;
        shared.groups.borrow_mut().check(group, place, found, sent_at_ns)?;
    }
    changer::check(shared).await?;
    let listed = list_topics(shared).await?;
    shared.topics.borrow().check(&listed)?;
    Ok(all)
}

/// Waits until every broker is up. It has taken the newest metadata over then, and given up what it doesn't have any more.
async fn all_serve(shared: &Rc<Shared>) -> Result<(), String> {
    for (id, address) in &shared.brokers {
        let mut tries = 0;
        while let Err(fault) = Connection::open(*address).await {
            tries += 1;
            if tries == READ_TRIES {
                return Err(format!("broker {id} doesn't serve: {fault}"));
            }
            sleep_ms(100).await;
        }
    }
    Ok(())
}

/// Waits until all replicas are in sync.
async fn all_in_sync(shared: &Rc<Shared>) -> Result<(), String> {
    for (number, topic) in shared.plan.topics.iter().enumerate() {
        let mut tries = 0;
        loop {
            let route = route(shared, &topic.name, topic.partitions).await.unwrap_or_default();
            let is_full = |(in_sync, replicas): &(usize, usize)| in_sync == replicas;
            if route.in_sync.len() == topic.partitions as usize && route.in_sync.values().all(is_full) {
                let counts = route.in_sync.into_iter().map(|(partition, (_, all))| ((number, partition), all));
                shared.replicas.borrow_mut().extend(counts);
                break;
            }
            tries += 1;
            if tries == READ_TRIES {
                return Err(format!("{}: so many replicas are in sync, of so many: {:?}", topic.name, route.in_sync));
            }
            sleep_ms(100).await;
        }
    }
    Ok(())
}

/// Some broker may still be starting.
async fn list_topics(shared: &Rc<Shared>) -> Result<Vec<String>, String> {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    let mut last = "no broker".to_owned();
    for turn in 0..READ_TRIES {
        match Connection::open(addresses[turn % addresses.len()]).await {
            Ok(mut connection) => return admin::list(&mut connection).await.map_err(|fault| format!("{fault:?}")),
            Err(fault) => last = fault.to_string(),
        }
        sleep_ms(100).await;
    }
    Err(last)
}

async fn read_partition(shared: &Rc<Shared>, number: usize, partition: i32) -> Result<(i64, Vec<Read>), String> {
    let topic = &shared.plan.topics[number].name;
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    let mut last = "no answer".to_owned();
    let may_have_holes = shared.may_have_lost(topic, partition);
    for turn in 0..READ_TRIES {
        let Ok(mut connection) = Connection::open(addresses[turn % addresses.len()]).await else {
            sleep_ms(100).await;
            continue;
        };
        let route = ask(&mut connection, topic).await.map_err(|fault| format!("{fault:?}"))?;
        let leader = route.as_ref().and_then(|route| shared.brokers.get(route.leaders.get(&partition)?));
        if let (Some(route), Some(leader)) = (&route, leader)
            && let Ok(mut connection) = Connection::open(*leader).await
        {
            match consumer::read_all(&mut connection, (topic, route.topic_id), partition, may_have_holes).await {
                // A leader that was elected doesn't know at once that all of it is committed.
                Ok(Ok((start, found))) => {
                    let wanted = shared.with_ledger((number, partition), |ledger| ledger.end());
                    if start + found.len() as i64 >= wanted || shared.plan.replicas == 1 || turn + 1 == READ_TRIES {
                        return Ok((start, found));
                    }
                }
                Ok(Err(code)) => last = format!("error {code}"),
                Err(fault) => return Err(format!("{fault:?}")),
            }
        }
        sleep_ms(100).await;
    }
    Err(last)
}

async fn read_commit(shared: &Rc<Shared>, key: &(String, usize, i32)) -> Result<i64, String> {
    let mut last = "no coordinator".to_owned();
    for _ in 0..READ_TRIES {
        if let Ok(Some((mut connection, topic_id))) = committer::coordinator(shared, key).await {
            match committer::fetch(&mut connection, topic_id, key).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(code)) => last = format!("error {code}"),
                Err(fault) => return Err(format!("{fault:?}")),
            }
        }
        sleep_ms(100).await;
    }
    Err(format!("{key:?}: {last}"))
}
