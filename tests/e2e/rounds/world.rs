//! A cluster's nodes, network and disks, and what a test does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringlog_client::Client;
use ringlog_e2e_tests::cluster::{Cluster, ClusterPlan, Voters};
use ringlog_e2e_tests::namespaces::Network;
use ringlog_e2e_tests::node::{Kind, Node, Roles};
use ringlog_e2e_tests::small_disk::SmallDisk;
use ringlog_e2e_tests::{fetching, paths, replicas};

use super::plan::{MAX_MESSAGE_BYTES, PARTITIONS, Plan};
use super::producers;

/// Room for one node's partitions.
const DISK_MB: u64 = 256;
/// How long everything may take to be in sync again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The topic of groups' offsets, which is there once a group is.
const OFFSETS: &str = "__consumer_offsets";

/// The cluster's name: several runs may go on beside each other.
fn name(plan: &Plan) -> String {
    format!("rounds-{}", plan.seed)
}

/// Removes what the nodes have said.
pub fn forget_words(plan: &Plan) -> Result<()> {
    for id in 1..=plan.kinds.len() {
        fs::remove_file(paths::work()?.join("logs").join(format!("{}-{id}.log", name(plan))))?;
    }
    Ok(())
}

/// The nodes and what is around them.
pub struct World<'a> {
    /// The network that they are in.
    pub network: &'a Network,
    /// The nodes, with ids from 1 on.
    pub cluster: Cluster,
    /// A disk for each node's partitions, if such can be mounted here.
    disks: Vec<SmallDisk>,
    folders: Vec<PathBuf>,
    /// Nodes that may have ended by themselves.
    may_have_ended: BTreeSet<i32>,
}

impl<'a> World<'a> {
    /// Starts a cluster with its topics.
    pub fn start(plan: &Plan, network: &'a Network) -> Result<World<'a>> {
        let mut cluster = ClusterPlan::new(&name(plan), Voters::Static)
            .settings(Plan::settings())
            .controllers(plan.kinds.len(), &plan.kinds, Roles::Both)
            .places(network.places())
            .prepare()?;
        let mut disks = Vec::new();
        let mut folders = Vec::new();
        for id in cluster.controller_ids() {
            let node = cluster.node(id)?;
            // Partitions on a disk of their own, so that only they go when it does.
            let data = match SmallDisk::new(&format!("{}-{id}", name(plan)), DISK_MB)? {
                Some(disk) => {
                    let data = disk.folder().join("data");
                    disks.push(disk);
                    data
                }
                None => node.folder().join("partitions"),
            };
            node.set("log.dirs", &data.display().to_string())?;
            let metadata = node.folder().join("metadata").display().to_string();
            node.set("metadata.log.dir", &metadata)?;
            node.wipe(&[])?;
            folders.push(data);
        }
        cluster.start()?;
        let world = World { network, cluster, disks, folders, may_have_ended: BTreeSet::new() };
        for topic in &plan.topics {
            let largest = MAX_MESSAGE_BYTES.to_string();
            let configs = [("min.insync.replicas", topic.min_insync_replicas), ("max.message.bytes", &largest)];
            fetching::create(&world.cluster.bootstrap(), topic.name, &topic.replicas, &configs)?;
        }
        Ok(world)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.folders.len()
    }

    /// The node at a place in the network.
    pub fn node(&mut self, place: usize) -> Result<&mut Node> {
        self.cluster.node(place as i32 + 1)
    }

    /// Where a node's partitions are.
    pub fn folder(&self, place: usize) -> &PathBuf {
        &self.folders[place]
    }

    /// A node's disk.
    pub fn disk(&self, place: usize) -> Option<&SmallDisk> {
        self.disks.get(place)
    }

    /// A node may end by itself from now on, until it starts again.
    pub fn may_end(&mut self, place: usize) {
        self.may_have_ended.insert(place as i32 + 1);
    }

    /// Where the active controller is, if there is one now.
    pub fn active_controller(&mut self) -> Option<usize> {
        let view = self.cluster.view().ok()??;
        usize::try_from(view.leader - 1).ok().filter(|place| *place < self.len())
    }

    /// Whether a node runs; one that has ended by itself is an error, unless it may have.
    pub fn is_running(&mut self, place: usize) -> Result<bool> {
        let id = place as i32 + 1;
        let may_have_ended = self.may_have_ended.contains(&id);
        let node = self.node(place)?;
        if !node.is_started() {
            return Ok(false);
        }
        if node.is_alive() {
            return Ok(true);
        }
        let was_asked_to = node.is_stopping();
        let status = node.wait_for_end(PATIENCE)?;
        ensure!(was_asked_to || may_have_ended, "node {id} ended by itself with {status}; {}", node.explanation());
        Ok(false)
    }

    /// Kills a node if it runs.
    pub fn kill(&mut self, place: usize) -> Result<()> {
        if self.is_running(place)? { self.node(place)?.kill() } else { Ok(()) }
    }

    /// Empties the folder of a node's partitions, as a new disk would be.
    pub fn empty(&mut self, place: usize) -> Result<()> {
        fs::remove_dir_all(&self.folders[place])?;
        self.node(place)?.format(&["--ignore-formatted"])
    }

    /// Starts whatever doesn't run, and waits until it serves.
    pub fn start_all(&mut self) -> Result<()> {
        let mut started = Vec::new();
        for place in 0..self.len() {
            if self.node(place)?.is_stopping() && self.is_running(place)? {
                self.node(place)?.wait_until_stopped()?;
            }
            if !self.is_running(place)? {
                self.node(place)?.spawn()?;
                started.push(place);
            }
        }
        for place in started {
            self.node(place)?.wait_until_ready()?;
        }
        self.may_have_ended.clear();
        Ok(())
    }

    /// Waits until each partition has all its replicas in sync.
    pub fn wait_until_in_sync(&mut self, plan: &Plan) -> Result<()> {
        let mut topics: BTreeMap<&str, usize> = plan.topics.iter().map(|topic| (topic.name, 3)).collect();
        topics.insert(OFFSETS, 3);
        let deadline = Instant::now() + PATIENCE;
        let mut client = Client::new(self.cluster.bootstrap().as_str(), producers::options("rounds"))?;
        let mut last = BTreeMap::new();
        while !topics.is_empty() {
            for place in 0..self.len() {
                ensure!(self.is_running(place)?, "node {} doesn't run", place + 1);
            }
            for topic in topics.keys().copied().collect::<Vec<_>>() {
                let Ok(states) = replicas::states(&mut client, topic) else { continue };
                let count = states.len() as i32;
                let all_in = states.values().all(|(leader, in_sync)| *leader > 0 && in_sync.len() == topics[topic]);
                if count == PARTITIONS && all_in {
                    topics.remove(topic);
                }
                last.insert(topic.to_owned(), states);
            }
            if Instant::now() > deadline {
                let rest = topics.keys().map(|topic| format!("{topic}: {:?}", last.get(*topic)));
                let rest = rest.collect::<Vec<_>>().join("\n");
                bail!("waited {PATIENCE:?} in vain for all to be in sync:\n{rest}\n{}", self.cluster.explanation());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Nothing in the nodes' logs that ought never to be there.
    pub fn check_words(&self) -> Result<()> {
        for node in self.cluster.nodes().filter(|node| node.kind() == Kind::Ringlog) {
            let words = node.words()?;
            let bad = words.lines().find(|line| line.contains("panicked at") || line.contains("assertion"));
            ensure!(bad.is_none(), "node {} said {}", node.id(), bad.unwrap_or_default());
        }
        Ok(())
    }

    /// Stops all nodes in order.
    pub fn stop(&mut self) -> Result<()> {
        self.cluster.stop().map(drop).context("stopping the cluster")
    }
}
