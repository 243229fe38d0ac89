//! Brokers under full load for long: is any of them taken for dead, though it lives?

use std::time::Duration;

use anyhow::Result;
use ringlog_bench::sides::{Numbers, Side};
use ringlog_client::{Client, ClientOptions};
use ringlog_e2e_tests::cluster::Cluster;
use ringlog_e2e_tests::fetching;
use ringlog_e2e_tests::metadata_log::MetadataLog;
use ringlog_e2e_tests::wait_until;
use ringlog_protocol::metadata_records::MetadataRecord;

use crate::measure::{PATIENCE, TOPIC, cluster, full_speed, standing, turned};

/// Each broker leads a third.
const PARTITIONS: i32 = 12;
/// What a partition keeps: as much as is in the disk's and the kernel's caches, not as much as an hour writes.
const KEPT: [(&str, &str); 3] =
    [("retention.bytes", "134217728"), ("segment.bytes", "67108864"), ("file.delete.delay.ms", "1000")];

/// Fencings and leavings that the controller has written down.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    fencings: u32,
    leavings: u32,
}

/// Three brokers with this side's default timeouts take records at full speed, each partition on all three.
pub fn full_load(side: &Side, time: Duration) -> Result<Numbers> {
    let cluster = cluster(side, "full-load", "log.retention.check.interval.ms=5000", 3)?;
    fetching::create(&cluster.brokers()[0], TOPIC, &turned(PARTITIONS), &KEPT)?;
    let mut client = Client::connect(cluster.brokers()[0].as_str(), ClientOptions::default())?;
    let topics = [TOPIC.to_owned()];
    wait_until("all to be in sync", PATIENCE, || {
        Ok((standing(&mut client, &topics, 3)?.in_sync == PARTITIONS).then_some(()))
    })?;
    let load = full_speed(cluster.brokers(), PARTITIONS, 6);
    load.wait_until_taken()?;
    let before = written(&cluster)?;
    let produced = load.produce(time);
    let after = written(&cluster)?;
    let (fencings, leavings) = (after.fencings - before.fencings, after.leavings - before.leavings);
    let produced = produced.inspect_err(|_| println!("{fencings} fencings, {leavings} replicas left"))?;
    let [.., p99, p999, longest] = produced.latency_ms;
    Ok(vec![
        ("minutes at full speed".to_owned(), produced.seconds / 60.0),
        ("produced with three replicas, GB".to_owned(), produced.bytes as f64 / 1e9),
        ("produced, MB/s".to_owned(), produced.mb_s()),
        ("brokers fenced".to_owned(), f64::from(fencings)),
        ("replicas that left those in sync".to_owned(), f64::from(leavings)),
        ("produce latency, p99 ms".to_owned(), p99),
        ("produce latency, p99.9 ms".to_owned(), p999),
        ("produce latency, longest ms".to_owned(), longest),
    ])
}

/// A partition change that names fewer in sync than there are replicas is a leaving: nobody is added meanwhile.
fn written(cluster: &Cluster) -> Result<Written> {
    let mut written = Written::default();
    for node in cluster.controller_nodes() {
        for record in MetadataLog::read(&node.metadata_folder())?.records()? {
            match record {
                MetadataRecord::BrokerRegistrationChange(record) if record.fenced > 0 => written.fencings += 1,
                MetadataRecord::FenceBroker(_) => written.fencings += 1,
                MetadataRecord::PartitionChange(record) if record.isr.as_ref().is_some_and(|isr| isr.len() < 3) => {
                    written.leavings += 1;
                }
                _ => {}
            }
        }
    }
    Ok(written)
}
