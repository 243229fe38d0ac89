//! A node without network or metadata: shards on a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ringlog_config::{ConfigMap, ServerConfig};
use ringlog_log::meta_properties::MetaProperties;
use ringlog_log::validator::AppendOrigin;
use ringlog_log::{LogConfig, TransactionRules};
use ringlog_partition::{LeaderState, RecoveryState};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, ProducerStamp, Unpacker};
use ringlog_ring::{self as ring, ExecutorContext, ExecutorOptions, Executors, MeshBuilder};
use ringlog_types::{
    LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, ProducerEpoch, ProducerId, Random, TimestampMs,
    TopicIdPartition, TopicPartition, Uuid,
};

use super::fixtures;
use crate::core::{self, Message, Room as _};
use crate::data::replica::{AppendRules, Replica};
use crate::descriptors::Descriptors;
use crate::directories::CheckedLogDirs;
use crate::log_dirs::{Claim, LogDirFault, check_and_lock, open};
use crate::mesh;
use crate::node::Node;
use crate::shard::Shard;
use crate::storage::log_read::StoredLog;

/// As in the broker that wrote the fixtures.
pub const INDEX_INTERVAL_BYTES: u32 = 256;

/// Ids of [`TestNode::with_two_directories`].
pub const D1: Uuid = Uuid([5; 16]);
pub const D2: Uuid = Uuid([6; 16]);

/// A directory that goes when the test ends.
pub struct TestNode {
    path: PathBuf,
    /// Two log directories in it, and not itself.
    has_two: bool,
    cache_memory_bytes: usize,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl TestNode {
    fn new() -> TestNode {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringlog-log-manager-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        TestNode { path, has_two: false, cache_memory_bytes: 0 }
    }

    /// A copy of a fixture.
    pub fn of_fixture(name: &str) -> TestNode {
        let node = TestNode::new();
        for (path, bytes) in fixtures::load(name) {
            let path = node.path.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        node
    }

    /// One that was formatted and never started.
    pub fn formatted() -> TestNode {
        let node = TestNode::new();
        let properties = MetaProperties {
            cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
            node_id: NodeId(1),
            directory_id: Some(Uuid([5; 16])),
        };
        fs::write(node.path.join("meta.properties"), properties.format(TimestampMs(0))).unwrap();
        node
    }

    /// One with the directories `d1` and `d2`, whose ids are [`D1`] and [`D2`].
    pub fn with_two_directories() -> TestNode {
        let mut node = TestNode::new();
        node.has_two = true;
        for (name, id) in [("d1", D1), ("d2", D2)] {
            let properties = MetaProperties {
                cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
                node_id: NodeId(1),
                directory_id: Some(id),
            };
            fs::create_dir_all(node.path.join(name)).unwrap();
            fs::write(node.path.join(name).join("meta.properties"), properties.format(TimestampMs(0))).unwrap();
        }
        node
    }

    /// Of which each core keeps so much of what it has read.
    pub fn with_cache(mut self, bytes: usize) -> TestNode {
        self.cache_memory_bytes = bytes;
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn config(&self, node_id: i32) -> ServerConfig {
        self.config_of(&self.path.display().to_string(), node_id)
    }

    pub fn config_with(&self, first: &str, second: &str, node_id: i32) -> ServerConfig {
        let path = |name| self.path.join(name).display().to_string();
        self.config_of(&format!("{},{}", path(first), path(second)), node_id)
    }

    fn config_of(&self, log_dirs: &str, node_id: i32) -> ServerConfig {
        let properties = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", node_id.to_string()),
            ("controller.quorum.voters", format!("{node_id}@localhost:9093")),
            ("listeners", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093".to_owned()),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("log.dirs", log_dirs.to_owned()),
            ("log.index.interval.bytes", INDEX_INTERVAL_BYTES.to_string()),
        ];
        let properties: ConfigMap = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        ServerConfig::from_properties(&properties).unwrap().0
    }

    /// Opens the logs on `shards` shards and runs `scenario` on the first. What isn't closed then is as after a kill.
    pub fn run<F>(&self, shards: usize, scenario: F)
    where
        F: AsyncFnOnce(Rc<Shard>) + Send + 'static,
    {
        let config = if self.has_two { self.config_with("d1", "d2", 1) } else { self.config(1) };
        let mut log_dirs = taken_over(&config).unwrap();
        // Executors leak what their last tasks hold, which a process that ends doesn't.
        let locks: Vec<_> = log_dirs.directories.iter_mut().map(|directory| directory.lock.take()).collect();
        let node = Arc::new(Node {
            id: config.node_id,
            cluster_id: log_dirs.cluster_id.clone(),
            incarnation_id: Uuid([1; 16]),
            started_at: ring::now().monotonic,
            shards,
            controller_index: 0,
            cache_memory_bytes: self.cache_memory_bytes,
            descriptors: Descriptors { files_per_core: 64, broker_connections: 1000, controller_connections: 1000 },
            config,
            log_dirs,
        });
        let mesh = MeshBuilder::new(shards, 64);
        let mut scenario = Some(scenario);
        let executors = (0..shards).map(|_| {
            let options = ExecutorOptions { io_memory_bytes: 8 << 20, ..ExecutorOptions::default() };
            let (node, mesh, scenario) = (node.clone(), mesh.clone(), scenario.take());
            (options, move |context: ExecutorContext| run_shard(context, node, mesh, scenario))
        });
        ring::block_on(Executors::start(executors.collect()).unwrap().join());
        drop(locks);
    }

    /// All files by path.
    pub fn files(&self) -> fixtures::Files {
        let mut files = fixtures::Files::new();
        let mut pending = vec![self.path.clone()];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let name = path.strip_prefix(&self.path).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        files
    }

    pub fn directories(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap());
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// The segments of a partition, in order.
    pub fn logs(&self, partition: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join(partition)).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        logs.sort();
        logs
    }

    /// Changes the newest segment of a partition.
    pub fn change(&self, partition: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.logs(partition).pop().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    pub fn rewrite(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, change(text)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path.join(name)).unwrap();
    }
}

async fn run_shard<F: AsyncFnOnce(Rc<Shard>)>(
    context: ExecutorContext,
    node: Arc<Node>,
    mesh: MeshBuilder<Message>,
    scenario: Option<F>,
) {
    let index = context.index();
    let shard = Shard::new(index, node, Arc::default(), mesh.join(index).await, index as u64);
    // Before any call comes.
    shard.core.open(&shard);
    for peer in 0..context.count() {
        ring::spawn_detached(core::receive(shard.core.clone(), peer));
    }
    open(&shard.log_dirs).await.unwrap();
    context.ready();
    if let Some(scenario) = scenario {
        scenario(shard.clone()).await;
        for core in 0..context.count() {
            let work = |shard: &Rc<Shard>| -> mesh::LocalFuture<()> {
                let shard = shard.clone();
                Box::pin(async move { shard.log_dirs.background.close().await })
            };
            shard.invoke_on(core, work).await;
        }
        for core in (0..context.count()).rev() {
            shard
                .invoke_on(core, |shard| {
                    let shard = shard.clone();
                    Box::pin(async move { shard.core.stopped.set() })
                })
                .await;
        }
    }
    shard.core.stopped.wait_until_set().await;
    shard.core.mesh.close();
}

pub fn id_of(name: &str, topic_id: Uuid) -> TopicIdPartition {
    TopicIdPartition { topic_id, partition: name_of(name).partition }
}

fn name_of(name: &str) -> TopicPartition {
    let (topic, partition) = name.rsplit_once('-').unwrap();
    TopicPartition { topic: topic.into(), partition: PartitionIndex(partition.parse().unwrap()) }
}

/// What a claimed log was found to be.
#[derive(Debug)]
pub struct Claimed {
    pub log_start: i64,
    pub log_end: i64,
    pub high_watermark: i64,
    /// With everything committed.
    pub last_stable: i64,
    pub producers: usize,
    pub segments: usize,
    pub epochs: Vec<(i32, i64)>,
}

/// Claims a log on its home shard.
pub async fn claim(shard: &Rc<Shard>, name: &str, topic_id: Uuid, config: LogConfig) -> Claimed {
    claim_with(shard, name, topic_id, config, async |_| {}).await
}

/// Claims a log on its home shard, makes it the leader there and does something with it. The offsets are those from
/// before that.
pub async fn claim_with<W>(shard: &Rc<Shard>, name: &str, topic_id: Uuid, config: LogConfig, work: W) -> Claimed
where
    W: AsyncFnOnce(Rc<Replica>) + Send + 'static,
{
    claim_in(shard, name, topic_id, None, config, async |_, replica| work(replica).await).await
}

/// What a home is asked for.
pub fn claim_of(name: &str, topic_id: Uuid, directory: Option<Uuid>, config: LogConfig) -> Claim {
    Claim { id: id_of(name, topic_id), name: name_of(name), directory, config: Rc::new(config) }
}

/// As [`claim_with`], of a log that the metadata has in that directory.
pub async fn claim_in<W>(
    shard: &Rc<Shard>,
    name: &str,
    topic_id: Uuid,
    directory: Option<Uuid>,
    config: LogConfig,
    work: W,
) -> Claimed
where
    W: AsyncFnOnce(Rc<Shard>, Rc<Replica>) + Send + 'static,
{
    let (id, name) = (id_of(name, topic_id), name.to_owned());
    shard
        .invoke_on(shard.core.node.home_of(id), move |shard| {
            let shard = shard.clone();
            Box::pin(async move {
                let claim = claim_of(&name, topic_id, directory, config);
                let claimed = shard.log_dirs.claim_or_create(claim).await;
                let replica = claimed.unwrap();
                let claimed = look_at(&replica);
                lead(&replica).await;
                work(shard.clone(), replica).await;
                claimed
            })
        })
        .await
}

fn look_at(replica: &Replica) -> Claimed {
    let high_watermark = replica.high_watermark();
    replica.with_log(|log| {
        let mut producers = log.producers().clone();
        producers.on_high_watermark(log.log_end_offset());
        Claimed {
            log_start: log.log_start_offset().0,
            log_end: log.log_end_offset().0,
            high_watermark: high_watermark.0,
            last_stable: producers.first_unstable_offset().unwrap_or(log.log_end_offset()).0,
            producers: producers.len(),
            segments: log.sealed_segments().len() + 1,
            epochs: log.leader_epochs().entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect(),
        }
    })
}

async fn lead(replica: &Rc<Replica>) {
    let node = [NodeId(1)];
    let latest = replica.with_log(|log| log.leader_epochs().latest_epoch());
    replica.become_leader(&LeaderState {
        leader_epoch: latest.unwrap_or(LeaderEpoch(0)),
        partition_epoch: PartitionEpoch(0),
        replicas: &node,
        isr: &node,
        inactive: &[],
        recovery_state: RecoveryState::Recovered,
    });
}

/// Appends a batch of an idempotent producer and waits until it is acknowledged.
pub async fn appended(replica: &Rc<Replica>, sequence: i32, records: usize, record_bytes: usize) {
    let appended = append(replica, sequence, records, record_bytes);
    loop {
        if let Some(outcome) = replica.acknowledged(&appended, -1) {
            return outcome.unwrap();
        }
        replica.progressed().await;
    }
}

/// Appends so many batches of 5 records with 200 bytes each, one after the other.
pub async fn appended_in_rounds(replica: &Rc<Replica>, rounds: i32) {
    for round in 0..rounds {
        appended(replica, round * 5, 5, 200).await;
    }
}

/// Appends without waiting.
pub fn appended_unwritten(replica: &Rc<Replica>, sequence: i32, records: usize, record_bytes: usize) {
    append(replica, sequence, records, record_bytes);
}

fn append(replica: &Rc<Replica>, sequence: i32, records: usize, record_bytes: usize) -> crate::data::replica::Appended {
    let now = ring::now();
    let mut builder = BatchBuilder::new(BatchOptions {
        producer: ProducerStamp {
            producer_id: ProducerId(9),
            producer_epoch: ProducerEpoch(0),
            base_sequence: sequence,
        },
        ..BatchOptions::default()
    });
    for number in 0..records {
        let value = vec![number as u8; record_bytes];
        builder.append(now.wall, None, Some(&value), &[]);
    }
    let rules =
        AppendRules { origin: AppendOrigin::Client, required_acks: -1, transaction: TransactionRules::default() };
    replica.append_own(&builder.build(), &rules, &mut Unpacker::new(), now).unwrap()
}

/// The log directories of a configuration as a start takes them.
pub fn taken_over(config: &ServerConfig) -> Result<CheckedLogDirs, LogDirFault> {
    ring::block_on(async {
        let locked = check_and_lock(config).await?;
        locked.take_over(config, &mut Random::from_seed(1)).await
    })
}
