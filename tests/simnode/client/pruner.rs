//! An admin that deletes records up to some offset, again and again.

use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::DeleteRecordsRequest;
use ringlog_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use ringlog_ring::{sim, sleep_ms};

use super::Shared;
use super::connection::{CallFault, Connection};
use super::routes::route;

const CALL_LIMIT_MS: u64 = 45_000;
/// The node doesn't lead the partition, or doesn't know it yet; or it took too long.
const RETRIABLE: [i16; 5] = [3, 5, 6, 7, 9];

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>) {
    let topics: Vec<usize> = shared.plan.workload.pruned_topics().collect();
    while !shared.is_over.get() {
        let topic = topics[sim::draw(topics.len() as u64) as usize];
        let plan = &shared.plan.topics[topic];
        let partition = sim::draw(plan.partitions as u64) as i32;
        let route = route(&shared, &plan.name, plan.partitions).await;
        let leader = route.and_then(|route| shared.brokers.get(route.leaders.get(&partition)?).copied());
        if let Some(leader) = leader
            && let Ok(mut connection) = Connection::open(leader).await
            && let Err(fault) = delete(&shared, &mut connection, (topic, partition)).await
        {
            shared.judge("pruner", &fault);
        }
        sleep_ms(50 + sim::draw(500)).await;
    }
}

async fn delete(shared: &Rc<Shared>, connection: &mut Connection, place: (usize, i32)) -> Result<(), CallFault> {
    let end = shared.with_ledger(place, |ledger| ledger.end());
    let offset = sim::draw(end.unsigned_abs() + 1) as i64;
    shared.with_ledger(place, |ledger| ledger.starts.on_delete(offset));
    let name = StrBytes::copy_from(&shared.plan.topics[place.0].name);
    let partition = DeleteRecordsPartition { partition_index: place.1, offset };
    let topic = DeleteRecordsTopic { name, partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 };
    let shortages = (shared.shortages.get(), shared.shortages_begun.get());
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
    let may_have_lost = shared.with_ledger(place, |ledger| ledger.may_have_lost());
    match found.error_code {
        0 if found.low_watermark < offset => {
            let low = found.low_watermark;
            Err(CallFault::Nonsense(format!("{place:?} was to start at {offset}, and its low watermark is {low}")))
        }
        0 => {
            // Where a log starts is saved before the answer, unless there is no room for it: then, as Kafka does it at any
            // time, some time later, and a crash before may bring the records back.
            let is_saved = shortages == (0, shared.shortages_begun.get());
            let (opened_at_ns, low) = (connection.opened_at_ns, found.low_watermark);
            // A replica that isn't alive is waited for by nobody, in Kafka as here, and may come to lead with what it has:
            // which ones those are is certain only before anything goes wrong.
            let have_all = shared.plan.replicas == 1 || shared.is_calm();
            if is_saved && have_all {
                shared.with_ledger(place, |ledger| ledger.on_deleted(opened_at_ns, sim::control().now_ns(), low));
            }
            Ok(())
        }
        // What was there went with the power.
        1 if may_have_lost => Ok(()),
        // A leader that was elected may not know yet that it is committed.
        1 if shared.plan.replicas > 1 => Ok(()),
        code => {
            let who = format!("pruner of {place:?} to {offset}");
            shared.judge_partition(&who, code, &RETRIABLE, connection.address, place);
            Ok(())
        }
    }
}
