//! Starting and stopping a node.
//!
//! Start, in this order, so that nothing is served before it can be kept:
//! 1. the host is asked whether io_uring may be used; the log directories are checked and locked (`log_dirs`), the
//!    ports of the listeners claimed (`listener`);
//! 2. one executor per core, joined by the mesh;
//! 3. each core opens the logs that live on it, recovering them if the last stop was no orderly one; the controller's
//!    core loads the metadata log and becomes leader of its quorum (`controller`);
//! 4. the broker registers and catches up with the metadata, every core takes its partitions over
//!    (`metadata_publisher`), the broker is unfenced (`broker_lifecycle`);
//! 5. listeners open on every core.
//!
//! Stop: leadership is handed over (`broker_lifecycle`), listeners and connections close, logs are written out and
//! closed, the controller stops last.
//!
//! A start may fail on any core, and a request to stop may come at any moment of it. Whatever a core waits for in its
//! start is raced with the request ([`start_core`]); the first failure is told to the thread that started the node, which
//! asks all cores to stop. Then the node stops in the order above, as far as it had got; what takes too long for that is
//! left to the next start, which recovers from it as from a crash.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ringlog_config::ServerConfig;
use ringlog_ring::{self as ring, ExecutorContext, ExecutorOptions, Executors, MeshBuilder, Stopped};
use ringlog_types::{Random, Uuid};
use tracing::{info, warn};

use crate::broker::{lifecycle, metadata_publisher};
use crate::controller;
use crate::core::{self, Message, Room as _};
use crate::descriptors::{self, Descriptors, Needs, TooFew};
use crate::log_dirs::{self, LogDirFault};
use crate::mesh::{LocalFuture, MESH_CAPACITY};
use crate::metrics::Leftovers;
use crate::net::listener::{self, ClaimedListener, ListenFault, Net};
use crate::node::Node;
use crate::shard::Shard;
use crate::stop::StopRequest;

/// From this many cores on the controller has one of its own.
const CORES_FOR_OWN_CONTROLLER: usize = 4;
/// How long a node whose start failed may take to stop in order.
const FAILED_START_LIMIT_MS: u64 = 1_500;
/// How long one may take that was asked to stop while it started, or can't go on: a leader of the quorum hands over
/// meanwhile.
const STOP_LIMIT_MS: u64 = 10_000;

/// How long a core that stops waits for what still runs beside: answers for cores that have gone, most likely.
const LAST_TASKS_MS: u64 = 500;

/// Why a node doesn't start. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// io_uring can't be used here.
    #[error(transparent)]
    Host(#[from] ring::Refusal),
    /// A log directory isn't formatted, is in use, belongs to another cluster, …
    #[error(transparent)]
    LogDir(#[from] LogDirFault),
    /// A listener can't be opened.
    #[error(transparent)]
    Listen(#[from] ListenFault),
    /// Too few files may be open.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// CPUs or file limits can't be read.
    #[error("the host's limits can't be read: {0}")]
    Limits(#[source] std::io::Error),
    /// An executor failed.
    #[error(transparent)]
    Executor(#[from] ring::StartError),
}

/// A node that serves.
pub struct RunningNode {
    executors: Executors<()>,
    /// Its log directories, absolute.
    pub log_dirs: Vec<PathBuf>,
    /// How many cores host partitions.
    pub shards: usize,
}

impl RunningNode {
    /// Waits until it has stopped, as [`StopRequest::request`] asks it to. A node that can't go on is stopped, and the
    /// error says why; threads of it may still be there then, and the process is to end. Blocks, see [`start`].
    pub async fn join(mut self) -> Result<(), StartFault> {
        let outcome = self.executors.end().await;
        if outcome.is_err() {
            self.executors.stop_handle().stop();
            if !self.executors.end_within(STOP_LIMIT_MS).await {
                warn!("the node can't be stopped in order within {STOP_LIMIT_MS} ms: the next start recovers");
                return Ok(outcome?);
            }
        }
        self.executors.join().await;
        let stalls = ring::stall_stats();
        info!(
            stalls = stalls.stalls,
            held = stalls.held,
            longest.ms = stalls.longest_stall_ms,
            busy.ms = stalls.longest_busy_ms,
            "executors have ended"
        );
        Ok(outcome?)
    }
}

/// Starts a node and returns once it serves clients; `None` if it is asked to stop before. `seed` is for ids and jitter.
///
/// After a fault, threads of the node may still be there: the process is to end. This is for a process's main thread,
/// which it blocks ([`ring::block_on`]).
pub async fn start(config: ServerConfig, seed: u64, stop: &StopRequest) -> Result<Option<RunningNode>, StartFault> {
    let started_at = ring::now().monotonic;
    ring::probe()?;
    let cpus = ring::usable_cpus().map_err(StartFault::Limits)?;
    let (shards, peers) = match config.roles.broker {
        true => split_cores(config.ringlog.shards as usize, cpus.len()),
        // A controller has no partitions to host.
        false => (1, 1),
    };
    let open_files = usize::try_from(ring::raise_nofile()).unwrap_or(usize::MAX);
    let descriptors = descriptors(open_files, peers, &config, config.log_dirs.len())?;
    let locked = log_dirs::check_and_lock(&config).await?;
    let Some(listeners) = listener::claim_all(&config, stop).await? else { return Ok(None) };
    let listeners = Arc::new(listeners);
    let mut random = Random::from_seed(seed);
    let log_dirs = locked.take_over(&config, &mut random).await?;
    let node = Arc::new(Node {
        id: config.node_id,
        cluster_id: log_dirs.cluster_id.clone(),
        incarnation_id: Uuid::random(&mut random),
        started_at,
        shards,
        controller_index: if peers > shards { shards } else { 0 },
        cache_memory_bytes: cache_memory_bytes(&config, shards, ring::memory()),
        descriptors,
        config,
        log_dirs,
    });
    announce(&node, &cpus);
    let log_dirs = node.log_dirs.directories.iter().map(|directory| directory.path.clone()).collect();
    let mesh = MeshBuilder::new(peers, MESH_CAPACITY);
    let executors = (0..peers).map(|index| {
        let options = ExecutorOptions {
            name: if index < shards { format!("shard-{index}") } else { "controller".to_owned() },
            cpu: cpus.get(index % cpus.len()).copied(),
            io_memory_bytes: node.config.ringlog.io_memory_bytes as usize,
            ..ExecutorOptions::default()
        };
        let (node, listeners, mesh, seed) = (node.clone(), listeners.clone(), mesh.clone(), random.next_u64());
        (options, move |context: ExecutorContext| run_core(context, node, listeners, mesh, seed))
    });
    let mut executors = Executors::start(executors.collect())?;
    stop.attach(executors.stop_handle());
    match executors.ready().await {
        Ok(()) => Ok(Some(RunningNode { executors, log_dirs, shards })),
        Err(ring::StartError::Stopped) => {
            if !executors.end_within(STOP_LIMIT_MS).await {
                warn!("the start can't be undone in order within {STOP_LIMIT_MS} ms: the next one recovers");
            }
            Ok(None)
        }
        Err(fault) => {
            executors.stop_handle().stop();
            executors.end_within(FAILED_START_LIMIT_MS).await;
            Err(StartFault::Executor(fault))
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

/// Memory of a core for what it read: its part of a quarter of what there is, unless the configuration says how much.
fn cache_memory_bytes(config: &ServerConfig, shards: usize, host: Option<ring::HostMemory>) -> usize {
    let configured = config.ringlog.cache_memory_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    configured.unwrap_or_else(|| host.map_or(0, |host| host.total_bytes as usize / 4 / shards.max(1)))
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

async fn run_core(
    context: ExecutorContext,
    node: Arc<Node>,
    listeners: Arc<Vec<ClaimedListener>>,
    mesh: MeshBuilder<Message>,
    seed: u64,
) {
    let index = context.index();
    // Every executor runs by now, and joining is the first that each does.
    let shard = Shard::new(index, node.clone(), listeners, mesh.join(index).await, seed);
    // A new core has none.
    let _ = shard.core.faults.set(context.faults());
    let store = shard.store.clone();
    ring::on_shortage(move || store.files.shed());
    for peer in 0..context.count() {
        ring::spawn_detached(core::receive(shard.core.clone(), peer));
    }
    let stopped = context.stopped();
    match start_core(&shard, &stopped).await {
        Ok(Progress::Serves) => context.ready(),
        Ok(Progress::Stopped) => {}
        Err(fault) => shard.core.fail(&fault),
    }
    stopped.wait().await;
    if index == 0 {
        stop(&shard).await;
    }
    shard.core.stopped.wait_until_set().await;
    let gate = &shard.core.gate;
    if ring::timeout_ms(LAST_TASKS_MS, gate.close()).await.is_err() {
        info!(core = index, tasks = gate.inside(), "tasks are cut off");
    }
    ring::observe(&leftovers(&shard));
    shard.core.mesh.close();
    let metrics = &shard.core.metrics;
    info!(
        core = index,
        requests = metrics.requests.get(),
        appended.bytes = metrics.appended_bytes.get(),
        response.bytes = metrics.response_bytes.get(),
        disk.read.bytes = ring::disk_reads().bytes,
        "core has stopped"
    );
}

fn leftovers(shard: &Shard) -> Leftovers {
    let budgets = &shard.net.budgets;
    Leftovers {
        core: shard.core.index,
        connections: shard.net.open_connections(),
        request_bytes: budgets.request_memory.held_bytes(),
        response_bytes: budgets.response_memory.held_bytes(),
        admitted: shard.admission.clients(),
    }
}

/// How far a core has come.
enum Progress {
    Serves,
    /// The node was asked to stop before.
    Stopped,
}

/// Brings up what this core owns, until the node is asked to stop.
async fn start_core(shard: &Rc<Shard>, stopped: &Stopped) -> Result<Progress, String> {
    let (node, index) = (&shard.core.node, shard.core.index);
    if index == node.controller_index {
        // Before logs are recovered, which may take long: the quorum counts on this node.
        let Some(started) = unless_stopped(stopped, controller::start(&shard.controller)).await else {
            return Ok(Progress::Stopped);
        };
        started.map_err(|fault| fault.to_string())?;
        let Some(open) = unless_stopped(stopped, listener::open(&shard.net, true)).await else {
            return Ok(Progress::Stopped);
        };
        open.map_err(|fault| fault.to_string())?;
    }
    if index < node.shards && node.config.roles.broker {
        let open = log_dirs::open(&shard.log_dirs);
        let opened = if node.log_dirs.were_left_in_order() {
            // Quick, and the markers that say so are gone: they come back when all logs have been opened and closed.
            Some(open.await)
        } else {
            unless_stopped(stopped, open).await
        };
        let Some(opened) = opened else { return Ok(Progress::Stopped) };
        opened.map_err(|fault| fault.to_string())?;
    }
    metadata_publisher::start(&shard.publisher);
    if index == 0 {
        let Some(up) = unless_stopped(stopped, lifecycle::start(&shard.broker)).await else {
            return Ok(Progress::Stopped);
        };
        up.map_err(|fault| fault.to_string())?;
    }
    Ok(Progress::Serves)
}

/// `None` if the node is asked to stop first; the work is given up then.
async fn unless_stopped<T>(stopped: &Stopped, work: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(work.await) }, async {
        stopped.wait().await;
        None
    })
    .await
}

/// On core 0: stops the whole node in order.
async fn stop(shard: &Rc<Shard>) {
    info!("stopping");
    let broker_epoch = lifecycle::stop(&shard.broker).await;
    let (node, cores) = (&shard.core.node, 0..shard.core.mesh.peers());
    for core in 0..node.shards {
        shard.coordinators.tell(core, |coordinators| coordinators.resign_all()).await;
        shard.data.tell(core, |data| data.replicas.stop_serving()).await;
    }
    for core in cores.clone() {
        shard.net.invoke_on(core, |net| Box::pin(listener::close(net.clone()))).await;
    }
    if node.config.roles.broker {
        log_dirs::close_all(&shard.log_dirs, broker_epoch.map(|epoch| epoch.0)).await;
    }
    let controller = node.controller_index;
    shard.controller.invoke_on(controller, |controller| Box::pin(controller::stop(controller.clone()))).await;
    for core in cores.clone() {
        shard.net.tell(core, |net| listener::close_controller(net)).await;
    }
    for core in cores.rev() {
        // The answer to this comes by the queue that closes then.
        let stop = |net: &Rc<Net>| -> LocalFuture<()> {
            let core = net.core.clone();
            Box::pin(async move { core.stopped.set() })
        };
        shard.net.invoke_on(core, stop).await;
    }
    info!("stopped");
}
