//! Unmodified clients in four languages write, read and share the work in groups.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{NewRecord, Producer, ProducerOptions};
use ringlog_e2e_tests::corpus::Record;
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::programs::{Member, Program};
use ringlog_e2e_tests::wait_until;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PARTITIONS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// Each client writes with each codec; each client reads all of it.
#[test]
fn records_come_back_as_they_were_sent() -> Result<()> {
    let node = Node::start_new("clients-records", Kind::under_test(), "num.partitions=3")?;
    let bootstrap = node.bootstrap();
    let mut sent: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    thread::scope(|scope| -> Result<()> {
        let write = |program: Program| {
            let bootstrap = &bootstrap;
            move || -> Result<Vec<(String, Vec<Record>)>> {
                let mut sent = Vec::new();
                for codec in CODECS {
                    let topic = format!("{}-{codec}", program.name());
                    let records = program.corpus();
                    program.produce(bootstrap, &topic, codec, &records).with_context(|| topic.clone())?;
                    sent.push((topic, records));
                }
                Ok(sent)
            }
        };
        let writers = Program::ALL.map(|program| scope.spawn(write(program)));
        for writer in writers {
            sent.extend(writer.join().expect("a writer doesn't panic")?);
        }
        Ok(())
    })?;
    let topics: Vec<String> = sent.keys().cloned().collect();
    let count = sent.values().map(Vec::len).sum();
    for reader in Program::ALL {
        let mut read: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for (topic, record) in reader.consume(&bootstrap, &topics, count).context(reader.name())? {
            read.entry(topic).or_default().push(record);
        }
        for (topic, records) in &sent {
            compare(reader, records, read.get(topic).map_or(&[], Vec::as_slice))
                .with_context(|| format!("{reader:?} reads {topic}"))?;
        }
    }
    Ok(())
}

fn compare(reader: Program, sent: &[Record], read: &[Record]) -> Result<()> {
    ensure!(sent.len() == read.len(), "{} records were sent, {} came back", sent.len(), read.len());
    let prepared = |records: &[Record]| {
        let mut records = records.to_vec();
        for record in &mut records {
            // kcat can't show such headers unambiguously.
            let is_plain =
                |value: &Option<Vec<u8>>| value.as_ref().is_some_and(|value| value.is_ascii() && !value.is_empty());
            if reader == Program::Kcat && !record.headers.iter().all(|(_, value)| is_plain(value)) {
                record.headers.clear();
            }
            if reader == Program::Kcat && record.key.as_deref() == Some(b"headers") {
                record.headers.clear();
            }
        }
        records.sort();
        records
    };
    for (sent, read) in prepared(sent).iter().zip(&prepared(read)) {
        ensure!(sent == read, "sent {sent:?}\nread {read:?}");
    }
    Ok(())
}

/// Two members of each client share a topic; when one leaves, the other gets all; what was committed stays so, also
/// when the node starts again.
#[test]
fn groups_rebalance_and_keep_their_offsets() -> Result<()> {
    let settings = format!("num.partitions={PARTITIONS}");
    let mut node = Node::start_new("clients-groups", Kind::under_test(), &settings)?;
    thread::scope(|scope| -> Result<()> {
        let tests = Program::ALL.map(|program| {
            let node = &node;
            scope.spawn(move || rebalance(node, program).with_context(|| format!("groups of {program:?}")))
        });
        for test in tests {
            test.join().expect("a test of a group doesn't panic")?;
        }
        Ok(())
    })?;
    node.stop()?;
    node.start()?;
    thread::scope(|scope| -> Result<()> {
        let tests = Program::ALL.map(|program| {
            let node = &node;
            scope.spawn(move || come_back(node, program).with_context(|| format!("{program:?} after the restart")))
        });
        for test in tests {
            test.join().expect("a test of a group doesn't panic")?;
        }
        Ok(())
    })?;
    let mut jvm = Jvm::shared()?;
    for program in Program::ALL {
        let arguments = ["--bootstrap-server", &node.bootstrap(), "--describe", "--group", program.name()];
        let output = jvm.tool("kafka-consumer-groups", &arguments, b"")?.success()?;
        let rows: Vec<&str> = output.lines().filter(|line| line.starts_with(program.name())).collect();
        ensure!(rows.len() == PARTITIONS, "{output}");
    }
    Ok(())
}

/// Puts a number of records into each partition.
fn fill(node: &Node, topic: &str, records_per_partition: usize) -> Result<()> {
    let mut client = node.client()?;
    let mut producer = Producer::new(topic, ProducerOptions::default(), 1);
    for partition in (0..PARTITIONS).cycle().take(PARTITIONS * records_per_partition) {
        let partition = i32::try_from(partition)?;
        let record = NewRecord { partition: Some(partition), value: Some(b"v".to_vec()), ..NewRecord::default() };
        producer.append(&mut client, &record)?;
    }
    for delivery in producer.flush(&mut client) {
        delivery.outcome?;
    }
    Ok(())
}

fn all() -> BTreeSet<i64> {
    (0..PARTITIONS as i64).collect()
}

fn rebalance(node: &Node, program: Program) -> Result<()> {
    let (topic, group) = (program.name(), program.name());
    fill(node, topic, 1)?;
    let mut first = program.join(&node.bootstrap(), topic, group)?;
    wait_for(&mut [&mut first], "all partitions", |members| Ok(*members[0].assigned()? == all()))?;
    let mut second = program.join(&node.bootstrap(), topic, group)?;
    wait_for(&mut [&mut first, &mut second], "both to have partitions", |members| {
        let (one, other) = (members[0].assigned()?.clone(), members[1].assigned()?.clone());
        Ok(!one.is_empty() && !other.is_empty() && one.is_disjoint(&other) && &one | &other == all())
    })?;
    fill(node, topic, 2)?;
    wait_for(&mut [&mut first, &mut second], "all records", |members| {
        let mut got: BTreeSet<(i64, i64)> = members[0].records()?.iter().copied().collect();
        got.extend(members[1].records()?);
        Ok(got.len() == 3 * PARTITIONS)
    })?;
    let read_by_second = second.leave()?.len();
    ensure!(read_by_second >= 2, "the second member read {read_by_second} records");
    wait_for(&mut [&mut first], "all partitions again", |members| Ok(*members[0].assigned()? == all()))?;
    fill(node, topic, 1)?;
    wait_for(&mut [&mut first], "records of the partitions that came back", |members| {
        let got = members[0].records()?;
        Ok((0..PARTITIONS as i64).all(|partition| got.contains(&(partition, 3))))
    })?;
    first.leave()?;
    Ok(())
}

/// Nothing that was read before is read again.
fn come_back(node: &Node, program: Program) -> Result<()> {
    let mut member = program.join(&node.bootstrap(), program.name(), program.name())?;
    wait_for(&mut [&mut member], "all partitions", |members| Ok(*members[0].assigned()? == all()))?;
    fill(node, program.name(), 1)?;
    wait_for(&mut [&mut member], "the new records", |members| Ok(members[0].records()?.len() >= PARTITIONS))?;
    let records = member.leave()?;
    ensure!(records.len() == PARTITIONS && records.iter().all(|(_, offset)| *offset == 4), "it read {records:?}");
    Ok(())
}

fn wait_for(
    members: &mut [&mut Member],
    what: &str,
    mut is_so: impl FnMut(&mut [&mut Member]) -> Result<bool>,
) -> Result<()> {
    let outcome = wait_until(what, PATIENCE, || Ok(is_so(members)?.then_some(())));
    outcome.with_context(|| {
        let said: Vec<&[String]> = members.iter().map(|member| member.last_lines()).collect();
        format!("the members' last lines: {said:#?}")
    })
}
