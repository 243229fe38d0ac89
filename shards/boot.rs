//! Starting and stopping a node.
//!
//! Start, in this order, so that nothing is served before it can be kept:
//! 1. the host is asked whether io_uring may be used; the log directories are checked and locked (`log_manager`);
//! 2. one executor per core, joined by the mesh;
//! 3. each core opens the logs that live on it, recovering them if the last stop was no orderly one; the controller's
//!    core loads the metadata log and becomes leader of its quorum (`controller`);
//! 4. the broker registers and catches up with the metadata, every core takes its partitions over
//!    (`metadata_publisher`), the broker is unfenced (`broker_lifecycle`);
//! 5. listeners open on every core.
//!
//! Stop: leadership is handed over (`broker_lifecycle`), listeners and connections close, logs are written out and
//! closed, the controller stops last.

use std::rc::Rc;
use std::sync::Arc;

use ringlog_config::ServerConfig;
use ringlog_ring::{self as ring, ExecutorContext, ExecutorOptions, Executors, MeshBuilder};
use ringlog_types::{Random, Uuid};
use tracing::{info, warn};

use crate::descriptors::{self, Descriptors, Needs, TooFew};
use crate::log_manager::{self, LogDirFault};
use crate::mesh::{self, MESH_CAPACITY, Message};
use crate::shard::{Node, Shard};
use crate::{broker_lifecycle, controller, coordinator, listener, metadata_publisher};

/// From this many cores on the controller has one of its own.
const CORES_FOR_OWN_CONTROLLER: usize = 4;

/// Why a node doesn't start. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// io_uring can't be used here.
    #[error(transparent)]
    Host(#[from] ring::Refusal),
    /// A log directory isn't formatted, is in use, belongs to another cluster, …
    #[error(transparent)]
    LogDir(#[from] LogDirFault),
    /// Too few files may be open.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// CPUs or file limits can't be read.
    #[error("the host's limits can't be read: {0}")]
    Limits(#[source] std::io::Error),
    /// An executor failed.
    #[error(transparent)]
    Executor(#[from] ring::StartError),
    /// A core could not bring up what it owns.
    #[error("{0}")]
    Core(String),
}

/// A node that serves.
pub struct RunningNode {
    executors: Executors<Result<(), String>>,
}

impl RunningNode {
    /// Asks it to stop in order; [`RunningNode::join`] waits for that. From any thread.
    pub fn stop_handle(&self) -> ring::StopHandle {
        self.executors.stop_handle()
    }

    /// Waits until it has stopped.
    pub fn join(self) -> Result<(), StartFault> {
        let outcome = self.join_executors();
        let stalls = ring::stall_stats();
        info!(
            stalls = stalls.stalls,
            longest.ms = stalls.longest_stall_ms,
            busy.ms = stalls.longest_busy_ms,
            "executors have ended"
        );
        outcome
    }

    fn join_executors(self) -> Result<(), StartFault> {
        self.executors.join().into_iter().try_for_each(|outcome| outcome.map_err(StartFault::Core))
    }
}

/// Starts a node and returns once it serves clients. `seed` is for ids and jitter.
pub fn start(config: ServerConfig, seed: u64) -> Result<RunningNode, StartFault> {
    let started_at = ring::now().monotonic;
    ring::probe()?;
    let open_files = usize::try_from(ring::raise_nofile()).unwrap_or(usize::MAX);
    let log_dirs = log_manager::check_and_lock(&config)?;
    let cpus = ring::usable_cpus().map_err(StartFault::Limits)?;
    let (shards, peers) = match config.roles.broker {
        true => split_cores(config.ringlog.shards as usize, cpus.len()),
        // A controller has no partitions to host.
        false => (1, 1),
    };
    let mut random = Random::from_seed(seed);
    let node = Arc::new(Node {
        id: config.node_id,
        cluster_id: log_dirs.cluster_id.clone(),
        incarnation_id: Uuid::random(&mut random),
        started_at,
        shards,
        controller_index: if peers > shards { shards } else { 0 },
        descriptors: descriptors(open_files, peers, &config, log_dirs.directories.len())?,
        config,
        log_dirs,
    });
    announce(&node, &cpus);
    let subject = ringlog_tuning::Subject {
        log_dirs: node.log_dirs.directories.iter().map(|directory| directory.path.clone()).collect(),
        shards,
    };
    let mesh = MeshBuilder::new(peers, MESH_CAPACITY);
    let executors = (0..peers).map(|index| {
        let options = ExecutorOptions {
            name: if index < shards { format!("shard-{index}") } else { "controller".to_owned() },
            cpu: cpus.get(index % cpus.len()).copied(),
            io_memory_bytes: node.config.ringlog.io_memory_bytes as usize,
            ..ExecutorOptions::default()
        };
        let (node, mesh, seed) = (node.clone(), mesh.clone(), random.next_u64());
        (options, move |context: ExecutorContext| run_core(context, node, mesh, seed))
    });
    let executors = Executors::start(executors.collect())?;
    match executors.wait_until_ready() {
        Ok(()) => {
            check_host(subject);
            Ok(RunningNode { executors })
        }
        Err(fault) => {
            executors.stop_handle().stop();
            let failed = executors.join().into_iter().find_map(Result::err);
            Err(failed.map_or(StartFault::Executor(fault), StartFault::Core))
        }
    }
}

fn descriptors(limit: usize, cores: usize, config: &ServerConfig, directories: usize) -> Result<Descriptors, TooFew> {
    let needs = Needs {
        cores,
        broker_listeners: config.broker_listeners().count(),
        controller_listeners: config.controller_listeners().count(),
        directories,
        voters: config.quorum_voters.len().max(config.quorum_bootstrap_servers.len()),
    };
    descriptors::divide(limit, needs)
}

/// How many cores host partitions, and how many there are with the controller's.
fn split_cores(configured_shards: usize, cpus: usize) -> (usize, usize) {
    let own_controller = cpus >= CORES_FOR_OWN_CONTROLLER;
    let shards = match configured_shards {
        0 => cpus - usize::from(own_controller),
        shards => shards,
    };
    (shards, shards + usize::from(own_controller))
}

fn announce(node: &Node, cpus: &[usize]) {
    let directories: Vec<String> =
        node.log_dirs.directories.iter().map(|directory| directory.path.display().to_string()).collect();
    info!(
        node.id = node.id.0,
        cluster.id = node.cluster_id,
        shards = node.shards,
        cores = ?cpus,
        own_controller_core = node.controller_index >= node.shards,
        log.dirs = directories.join(","),
        "starting"
    );
}

/// Warns of what slows the node down on this host. Once, on a thread of its own: clients are served already.
fn check_host(subject: ringlog_tuning::Subject) {
    let check = move || {
        for finding in ringlog_tuning::warnings(&ringlog_tuning::check(&subject)) {
            warn!("{finding}");
        }
    };
    if let Err(fault) = std::thread::Builder::new().name("host-check".to_owned()).spawn(check) {
        warn!("the host can't be checked: {fault}");
    }
}

async fn run_core(
    mut context: ExecutorContext,
    node: Arc<Node>,
    mesh: MeshBuilder<Message>,
    seed: u64,
) -> Result<(), String> {
    let index = context.index();
    let shard = Rc::new(Shard::new(index, node.clone(), mesh.join(index).await, seed));
    let store = shard.store.clone();
    ring::on_shortage(move || store.files.shed());
    for peer in 0..context.count() {
        ring::spawn_detached(mesh::receive(shard.clone(), peer));
    }
    if index == node.controller_index {
        // Before logs are recovered, which may take long: the quorum counts on this node.
        controller::start(&shard).await.map_err(|fault| fault.to_string())?;
        broker_lifecycle::open_controller_listeners(&shard).map_err(|fault| fault.to_string())?;
    }
    if index < node.shards && node.config.roles.broker {
        log_manager::open(&shard).await.map_err(|fault| fault.to_string())?;
    }
    metadata_publisher::start(&shard);
    if index == 0 {
        broker_lifecycle::start(&shard).await.map_err(|fault| fault.to_string())?;
    }
    context.ready();
    context.stopped().wait().await;
    if index == 0 {
        stop(&shard).await;
    }
    shard.stopped.wait_until_set().await;
    shard.mesh.close();
    let metrics = &shard.metrics;
    info!(
        core = index,
        requests = metrics.requests.get(),
        appended.bytes = metrics.appended_bytes.get(),
        response.bytes = metrics.response_bytes.get(),
        disk.read.bytes = ring::disk_reads().bytes,
        "core has stopped"
    );
    Ok(())
}

/// On core 0: stops the whole node in order.
async fn stop(shard: &Rc<Shard>) {
    info!("stopping");
    let broker_epoch = broker_lifecycle::stop(shard).await;
    for core in 0..shard.node.shards {
        shard
            .invoke_on(core, |shard| {
                coordinator::resign_all(shard);
                shard.stop_serving();
                Box::pin(std::future::ready(()))
            })
            .await;
    }
    for core in 0..shard.mesh.peers() {
        shard.invoke_on(core, |shard| Box::pin(listener::close(shard.clone()))).await;
    }
    if shard.node.config.roles.broker {
        log_manager::close_all(shard, broker_epoch.map(|epoch| epoch.0)).await;
    }
    let controller = shard.node.controller_index;
    shard.invoke_on(controller, |shard| Box::pin(controller::stop(shard.clone()))).await;
    for core in 0..shard.mesh.peers() {
        shard
            .invoke_on(core, |shard| {
                listener::close_controller(shard);
                Box::pin(std::future::ready(()))
            })
            .await;
    }
    for core in (0..shard.mesh.peers()).rev() {
        // The answer to this comes by the queue that closes then.
        shard
            .invoke_on(core, |shard| {
                let shard = shard.clone();
                Box::pin(async move { shard.stopped.set() })
            })
            .await;
    }
    info!("stopped");
}
