//! The node's programs: what formats its directories, and the node itself.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ringlog_config::ServerConfig;
use ringlog_log::meta_properties::MetaProperties;
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_raft::{Endpoint, ReplicaKey, VersionRange, Voter};
use ringlog_ring::{self as ring, fs, sim};
use ringlog_shards::{DirectoryFormat, StopRequest, format_directory};
use ringlog_types::{NodeId, Random, Uuid};

use crate::plan::{CONTROLLER_PORT, NodePlan, Plan};

/// The cluster's id.
pub const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// The id of a node's directory; of each disk that takes the place of one before, it is another.
pub fn directory_id(plan: &Plan, node: i32, place: usize, generation: u64) -> Uuid {
    let seed = plan.seed ^ (node as u64) << 40 ^ (place as u64) << 32 ^ generation << 52;
    Uuid::random(&mut Random::from_seed(seed))
}

fn voters(plan: &Plan) -> Vec<Voter> {
    let voter = |node: &NodePlan| Voter {
        key: ReplicaKey { id: NodeId(node.id), directory_id: Some(directory_id(plan, node.id, 0, 0)) },
        endpoints: BTreeMap::from([("CONTROLLER".to_owned(), Endpoint { host: node.host(), port: CONTROLLER_PORT })]),
        kraft_version: VersionRange::SUPPORTED,
    };
    plan.nodes.iter().filter(|node| node.is_controller).take(plan.initial_voters).map(voter).collect()
}

/// Makes the log directories of a node, as `storage format` does; on disks that are new, later, without voters.
pub async fn format(plan: &Plan, node: &NodePlan, generation: u64) -> io::Result<()> {
    let fs = fs::now();
    let bootstrap = BootstrapMetadata::latest();
    let voters = voters(plan);
    let is_voter = voters.iter().any(|voter| voter.key.id.0 == node.id);
    let has_voters = plan.has_dynamic_quorum && is_voter && generation == 0;
    let voters = if has_voters { voters } else { Vec::new() };
    for (place, directory) in node.directories().iter().enumerate() {
        let directory_id = Some(directory_id(plan, node.id, place, generation));
        let format = DirectoryFormat {
            properties: MetaProperties { cluster_id: CLUSTER_ID.to_owned(), node_id: NodeId(node.id), directory_id },
            bootstrap: &bootstrap,
            voters: if place == 0 { &voters } else { &[] },
            now: ring::now().wall,
        };
        format_directory(&fs, Path::new(directory), &format).await?;
    }
    Ok(())
}

/// The node, until it has stopped: SIGTERM stops it. What the command does, without its arguments.
pub async fn run(properties: ringlog_config::ConfigMap, seed: u64) {
    let (config, _) = ServerConfig::from_properties(&properties).expect("a valid configuration");
    let stop = StopRequest::default();
    let request = stop.clone();
    ring::spawn_detached(async move {
        sim::signal(1).await;
        request.request();
    });
    let outcome = match ringlog_shards::start(config, seed, &stop).await {
        Ok(Some(node)) => node.join().await,
        Ok(None) => Ok(()),
        Err(fault) => Err(fault),
    };
    if let Err(fault) = outcome {
        sim::control().note(|| format!("the node doesn't start, or can't go on: {fault}"));
        ring::halt(1);
    }
}
