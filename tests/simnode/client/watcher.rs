//! Watches who leads, while one node at most is silent: what a silent broker led has no leader before long, a lively
//! broker leads on, and no leader takes the place of another in the same epoch.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::MetadataRequest;
use ringlog_protocol::messages::metadata_request::MetadataRequestTopic;
use ringlog_ring::sim::{self, SECOND};
use ringlog_ring::sleep_ms;

use super::Shared;
use super::connection::{CallFault, Connection};
use crate::nemesis::Fault;

const PAUSE_MS: u64 = 200;
const CALL_LIMIT_MS: u64 = 10_000;
/// A silent broker is fenced within this time: its session of three seconds, what the controller takes to see that it is
/// over, and what passes until everybody knows.
const FENCED_WITHIN_NS: u64 = 8 * SECOND;

/// Who is silent in the run, from when to when; none if it is no broker.
struct Silence {
    broker: Option<i32>,
    from_ns: u64,
    to_ns: u64,
}

/// Leader and epoch, by topic and partition.
type Leaders = BTreeMap<(usize, i32), (i32, i32)>;

/// Runs until the faults are over.
pub async fn run(shared: Rc<Shared>) {
    let begun_ns = sim::control().now_ns();
    let Some(planned) = shared.plan.faults.first() else { return };
    let (place, to_ns) = match planned.fault {
        Fault::Kill { node } | Fault::Pause { node } | Fault::Isolate { node, .. } => {
            (Some(node), begun_ns + planned.at_ns + planned.for_ns)
        }
        // Nobody is silent.
        Fault::Reset { .. } | Fault::PartFromBrokers { .. } => (None, begun_ns + shared.plan.lasts_ns),
        _ => return,
    };
    let silent = place.map(|place| &shared.plan.nodes[place]).filter(|node| node.is_broker);
    let silence = Silence { broker: silent.map(|node| node.id), from_ns: begun_ns + planned.at_ns, to_ns };
    let lively: Vec<i32> = shared.brokers.keys().copied().filter(|broker| Some(*broker) != silence.broker).collect();
    let mut known = Leaders::new();
    let mut is_first = true;
    while shared.healed_at_ns.get().is_none() && sim::control().now_ns() < silence.to_ns {
        let broker = lively[sim::draw(lively.len() as u64) as usize];
        let asked_ns = sim::control().now_ns();
        match ask(&shared, broker).await {
            Ok(now) => {
                let checked = check(&silence, asked_ns, &known, &now, is_first);
                checked.unwrap_or_else(|fault| shared.complain(format!("broker {broker} says that {fault}")));
                is_first = false;
                known = now;
            }
            Err(fault) => shared.judge("watcher", &fault),
        }
        sleep_ms(PAUSE_MS + sim::draw(PAUSE_MS)).await;
    }
}

fn check(silence: &Silence, asked_ns: u64, before: &Leaders, now: &Leaders, is_first: bool) -> Result<(), String> {
    let was_known = |known: i32| silence.broker == Some(known);
    for (place, (leader, epoch)) in now {
        let is_due = asked_ns > silence.from_ns + FENCED_WITHIN_NS;
        if is_due && was_known(*leader) {
            return Err(format!("{place:?} is led by broker {leader}, which has been silent for long"));
        }
        let Some((old_leader, old_epoch)) = before.get(place) else { continue };
        if old_leader == leader && old_epoch == epoch {
            continue;
        }
        // Another broker may be behind the one that was asked before.
        if epoch < old_epoch {
            continue;
        }
        if epoch == old_epoch {
            return Err(format!("{place:?} has leader {leader} in epoch {epoch}, where it was {old_leader}"));
        }
        let may_change = was_known(*old_leader) || was_known(*leader);
        if !is_first && !may_change {
            return Err(format!("{place:?} is led by {leader} in epoch {epoch}, and {old_leader} was lively"));
        }
    }
    Ok(())
}

async fn ask(shared: &Shared, broker: i32) -> Result<Leaders, CallFault> {
    let mut connection = Connection::open(shared.brokers[&broker]).await?;
    let topic = |name: &String| MetadataRequestTopic { name: Some(StrBytes::copy_from(name)), ..Default::default() };
    let topics = shared.plan.topics.iter().map(|it| topic(&it.name)).collect();
    let request = MetadataRequest { topics: Some(topics), ..MetadataRequest::default() };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let mut leaders = Leaders::new();
    for topic in answer.topics.iter().filter(|topic| topic.error_code == 0) {
        let number = shared.plan.topics.iter().position(|it| topic.name.as_deref() == Some(it.name.as_str()));
        let Some(number) = number else { continue };
        for partition in &topic.partitions {
            leaders.insert((number, partition.partition_index), (partition.leader_id, partition.leader_epoch));
        }
    }
    Ok(leaders)
}
