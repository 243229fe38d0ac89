//! What the replicas of a topic are: who is in sync, and which bytes each node has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use ringlog_client::Client;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::MetadataRequest;
use ringlog_protocol::messages::metadata_request::MetadataRequestTopic;
use ringlog_protocol::records::BatchIter;

use crate::cluster::Cluster;
use crate::wait_until;

/// How long replicas may take to be in sync, or the same.
const PATIENCE: Duration = Duration::from_secs(90);

/// Leader and in-sync replicas, by partition.
pub fn states(client: &mut Client, topic: &str) -> Result<BTreeMap<i32, (i32, BTreeSet<i32>)>> {
    let topic = MetadataRequestTopic { name: Some(StrBytes::copy_from(topic)), ..MetadataRequestTopic::default() };
    let response = client.send(&MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() })?;
    let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    Ok(partitions.map(|it| (it.partition_index, (it.leader_id, it.isr_nodes.into_iter().collect()))).collect())
}

/// Waits until these nodes are in sync, and no others, in all of a topic's partitions.
pub fn wait_for_in_sync(cluster: &mut Cluster, topic: &str, partitions: i32, wanted: &BTreeSet<i32>) -> Result<()> {
    let mut client = cluster.client()?;
    let outcome = wait_until(&format!("{wanted:?} to be in sync for {topic}"), PATIENCE, || {
        let Ok(states) = states(&mut client, topic) else { return Ok(None) };
        let are_in = states.len() == partitions as usize && states.values().all(|(_, isr)| isr == wanted);
        Ok(are_in.then_some(()))
    });
    outcome.with_context(|| format!("{:?}\n{}", states(&mut client, topic), cluster.explanation()))
}

/// The batches of a partition's log on a node; none as long as it hasn't made it.
fn batches(cluster: &mut Cluster, node: i32, topic: &str, partition: i32) -> Result<Vec<u8>> {
    let folder = cluster.node(node)?.folder().join("data").join(format!("{topic}-{partition}"));
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names: Vec<_> = fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".log"))
        .collect();
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let bytes = fs::read(folder.join(name))?;
        let len = BatchIter::new(&bytes).map_while(Result::ok).map(|batch| batch.bytes.len()).sum();
        all.extend_from_slice(&bytes[..len]);
    }
    Ok(all)
}

/// Waits until all nodes have the same bytes of a topic that nobody writes to.
pub fn are_the_same(cluster: &mut Cluster, topic: &str, partitions: i32) -> Result<()> {
    let ids = cluster.controller_ids();
    (0..partitions).try_for_each(|partition| are_the_same_on(cluster, &ids, topic, partition).map(drop))
}

/// Waits until these nodes have the same bytes of a partition that nobody writes to; how many.
pub fn are_the_same_on(cluster: &mut Cluster, ids: &[i32], topic: &str, partition: i32) -> Result<usize> {
    let compared = wait_until("equal replicas", PATIENCE, || {
        let of = ids.iter().map(|id| batches(cluster, *id, topic, partition)).collect::<Result<Vec<_>>>()?;
        Ok(of.iter().all(|other| *other == of[0]).then(|| of[0].len()))
    });
    compared.with_context(|| format!("{topic}-{partition}"))
}
