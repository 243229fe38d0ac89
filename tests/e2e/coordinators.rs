//! Groups go on while their coordinator moves between brokers of both programs: nobody joins anew, no generation ends, what
//! was committed stays, and each record is read once.
//!
//! `COORDINATOR_MOVES` says how often it moves.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{
    Client, ClientOptions, Consumer, ConsumerOptions, NewRecord, Producer, ProducerOptions, StartOffset, Subscription,
};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, FIRST_BROKER, Voters};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::programs::{Member, Program};
use ringlog_e2e_tests::replicas::{are_the_same_on, states, wait_for_in_sync};
use ringlog_e2e_tests::{fetching, wait_until, wire};
use ringlog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use ringlog_protocol::messages::elect_leaders_request::TopicPartitions;
use ringlog_protocol::messages::{AlterPartitionReassignmentsRequest, ElectLeadersRequest};

const TOPIC: &str = "shared";
const OFFSETS: &str = "__consumer_offsets";
const PARTITIONS: i32 = 4;
const BROKERS: [i32; 2] = [FIRST_BROKER, FIRST_BROKER + 1];
const MEMBERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(90);
/// Each member reads so many records under each coordinator.
const RECORDS: usize = 40;

fn moves() -> usize {
    env::var("COORDINATOR_MOVES").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// A group of members that all run the same program.
struct Group {
    program: Program,
    members: Vec<Member>,
}

impl Group {
    fn name(program: Program) -> String {
        format!("group-of-{}", program.name())
    }

    fn start(bootstrap: &str, program: Program) -> Result<Group> {
        let join = |_| program.join(bootstrap, TOPIC, &Group::name(program));
        Ok(Group { program, members: (0..MEMBERS).map(join).collect::<Result<_>>()? })
    }

    /// All partitions are somebody's, and everybody has some.
    fn is_balanced(&mut self) -> Result<bool> {
        let mut all = BTreeSet::new();
        let mut is_everybodys = true;
        for member in &mut self.members {
            is_everybodys &= !member.assigned()?.is_empty();
            all.extend(member.assigned()?.iter().copied());
        }
        Ok(is_everybodys && all.len() == PARTITIONS as usize)
    }

    fn count(&mut self) -> Result<usize> {
        self.members.iter_mut().map(|member| Ok(member.records()?.len())).sum()
    }

    fn explanation(&mut self) -> String {
        let member = |member: &mut Member| format!("{:?} {:?}", member.assigned().cloned(), member.last_lines());
        let members: Vec<String> = self.members.iter_mut().map(member).collect();
        format!("{:?}: {members:#?}", self.program)
    }

    /// Each record once.
    fn leave(self, sent: usize) -> Result<()> {
        let mut found: Vec<(i64, i64)> = Vec::new();
        for member in self.members {
            found.extend(member.leave()?);
        }
        let all: BTreeSet<(i64, i64)> = found.iter().copied().collect();
        ensure!(all.len() == sent, "{:?} read {} of {sent}", self.program, all.len());
        ensure!(found.len() == sent, "{:?} read {} twice", self.program, found.len() - sent);
        Ok(())
    }
}

/// Replaces the order of the replicas and has the first of them elected.
fn lead_by(cluster: &mut Cluster, leader: i32) -> Result<()> {
    let follower = BROKERS.into_iter().find(|id| *id != leader).context("two brokers")?;
    let mut client = cluster.client()?;
    let partition = ReassignablePartition { partition_index: 0, replicas: Some(vec![leader, follower]) };
    let reassigning = AlterPartitionReassignmentsRequest {
        timeout_ms: 10_000,
        topics: vec![ReassignableTopic { name: OFFSETS.into(), partitions: vec![partition] }],
        ..AlterPartitionReassignmentsRequest::default()
    };
    let partitions = TopicPartitions { topic: OFFSETS.into(), partitions: vec![0] };
    let electing =
        ElectLeadersRequest { election_type: 0, topic_partitions: Some(vec![partitions]), timeout_ms: 10_000 };
    let outcome = wait_until("the coordinator to move", PATIENCE, || {
        client.send(&reassigning)?;
        client.send(&electing)?;
        let states = states(&mut client, OFFSETS)?;
        Ok(states.get(&0).is_some_and(|(now, _)| *now == leader).then_some(()))
    });
    outcome.with_context(|| cluster.explanation())
}

/// The generations of each group that were written down by now, in their order, each once.
fn generations(cluster: &mut Cluster, leader: i32) -> Result<BTreeMap<String, Vec<i32>>> {
    let mut connection = fetching::connect(&cluster.node(leader)?.bootstrap())?;
    let end = wire::fetched(&mut connection, OFFSETS, 0, 1)?.high_watermark;
    let mut client = cluster.client()?;
    let from_start = vec![(OFFSETS.to_owned(), 0, StartOffset::Earliest)];
    let mut consumer = Consumer::new(Subscription::Partitions(from_start), ConsumerOptions::default());
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    wait_until("the end of what groups keep", PATIENCE, || {
        let records = consumer.poll(&mut client)?;
        let is_end = records.last().is_some_and(|record| record.offset + 1 >= end);
        for record in records {
            let (Some(key), Some(value)) = (record.key, record.value) else { continue };
            let Some((group, generation)) = group_metadata(&key, &value) else { continue };
            let of_group = found.entry(group).or_default();
            if of_group.last() != Some(&generation) {
                of_group.push(generation);
            }
        }
        Ok(is_end.then_some(()))
    })?;
    Ok(found)
}

/// GroupMetadataKey and the beginning of GroupMetadataValue, versions 0 to 3.
fn group_metadata(key: &[u8], value: &[u8]) -> Option<(String, i32)> {
    let number = |bytes: &[u8]| bytes.first_chunk().copied().map(i16::from_be_bytes);
    if number(key)? != 2 || number(value)? > 3 {
        return None;
    }
    let group = String::from_utf8(key.get(4..)?.to_vec()).ok()?;
    let after_type = 4 + usize::try_from(number(value.get(2..)?)?).ok()?;
    Some((group, value.get(after_type..)?.first_chunk().copied().map(i32::from_be_bytes)?))
}

fn produce(bootstrap: &str, next: &mut usize, count: usize) -> Result<()> {
    let mut client = Client::connect(bootstrap, ClientOptions::default())?;
    let mut producer = Producer::new(TOPIC, ProducerOptions { retries: 100, ..ProducerOptions::default() }, 1);
    let mut delivered = Vec::new();
    for _ in 0..count {
        let partition = Some((*next % PARTITIONS as usize) as i32);
        let record = NewRecord { partition, value: Some(next.to_string().into_bytes()), ..NewRecord::default() };
        delivered.extend(producer.append(&mut client, &record)?);
        *next += 1;
    }
    delivered.extend(producer.flush(&mut client));
    ensure!(delivered.iter().all(|delivery| delivery.outcome.is_ok()), "{delivered:?}");
    Ok(())
}

#[test]
fn a_coordinator_moves_and_nobody_notices() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("coordinators", Voters::Initial)
        .settings("offsets.topic.replication.factor=2\noffsets.topic.num.partitions=1\nmin.insync.replicas=1")
        .settings("auto.leader.rebalance.enable=false\ngroup.initial.rebalance.delay.ms=0")
        .controllers(1, &[Kind::under_test()], Roles::Controller)
        .brokers(2, &[Kind::Kafka, Kind::under_test()])
        .prepare()?;
    cluster.start()?;
    let bootstrap = cluster.bootstrap();
    let replicas = (0..PARTITIONS as usize).map(|place| vec![BROKERS[place % 2], BROKERS[(place + 1) % 2]]);
    fetching::create(&bootstrap, TOPIC, &replicas.collect::<Vec<_>>(), &[])?;
    let mut groups = Vec::new();
    for program in Program::ALL {
        groups.push(Group::start(&bootstrap, program)?);
    }
    for group in &mut groups {
        let outcome = wait_until("a balanced group", PATIENCE, || Ok(group.is_balanced()?.then_some(())));
        outcome.with_context(|| group.explanation())?;
    }
    wait_for_in_sync(&mut cluster, OFFSETS, 1, &BROKERS.into())?;
    let mut sent = 0;
    let mut before = None;
    for number in 0..moves() {
        let leader = BROKERS[(number + 1) % 2];
        lead_by(&mut cluster, leader)?;
        produce(&bootstrap, &mut sent, RECORDS * MEMBERS)?;
        for group in &mut groups {
            let outcome = wait_until("a group to go on", PATIENCE, || Ok((group.count()? == sent).then_some(())));
            outcome.with_context(|| format!("under {leader}: {}\n{}", group.explanation(), cluster.explanation()))?;
        }
        // Under the first of them a rebalance may have come to its end.
        let now = generations(&mut cluster, leader)?;
        let last = |all: &BTreeMap<String, Vec<i32>>| -> BTreeMap<String, Option<i32>> {
            all.iter().map(|(group, numbers)| (group.clone(), numbers.last().copied())).collect()
        };
        let first = before.get_or_insert_with(|| last(&now));
        ensure!(*first == last(&now), "generations ended: {first:?}, then {now:?}");
        for group in &mut groups {
            ensure!(group.is_balanced()?, "{:?} has lost a partition", group.program);
        }
    }
    println!("{} moves; {before:?}", moves());
    for group in groups {
        group.leave(sent)?;
    }
    are_the_same_on(&mut cluster, &BROKERS, OFFSETS, 0)?;
    cluster.stop_and_check()
}
