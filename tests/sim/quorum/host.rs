//! A machine of the quorum: its disk and clocks, and the process that runs on it or doesn't.

use std::rc::Rc;

use ringlog_metadata::ControllerConfig;
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_quorum::{QuorumConfig, QuorumNode};
use ringlog_raft::snapshot::bootstrap_snapshot;
use ringlog_raft::{Endpoint, Endpoints, RaftConfig, ReplicaKey, SnapshotId, VersionRange, Voter, VoterSet};
use ringlog_types::{NodeId, Random, TimestampMs, Uuid};

use super::device::{Device, Files};
use super::driver::{Driver, Inboxes};
use super::loading::{self, Loaded};
use super::plan::{Format, Plan};
use super::ring::{End, Ring};
use super::shared::{Event, Shared};
use super::time::{Clock, Us};

pub(crate) const CLUSTER_ID: &str = "simulated-cluster";
pub(crate) const LISTENER: &str = "CONTROLLER";
/// Every node can be reached here, whatever it advertises.
const BOOTSTRAP_PORT: u16 = 9_000;
/// Ids of nodes without the controller role begin here.
const FIRST_OBSERVER_ID: i32 = 90;

/// A process that runs.
pub(crate) struct Process {
    pub ring: Rc<Ring>,
    pub inboxes: Inboxes,
}

/// See the module's text.
pub(crate) struct Host {
    pub index: usize,
    pub id: NodeId,
    pub is_controller: bool,
    pub directory_id: Uuid,
    /// The port that it advertises, and the one that it will after its next start.
    pub port: u16,
    pub next_port: u16,
    pub device: Rc<Device>,
    pub clock: Rc<Clock>,
    pub process: Option<Process>,
    pub lives: u64,
    pub has_power: bool,
    /// It is to stay down until a fault is mended.
    pub is_held_down: bool,
    /// The process is stopped (SIGSTOP): what happens to it waits.
    pub is_paused: bool,
    pub deferred: Vec<Event>,
}

/// The id of a node by its index.
pub(crate) fn node_id(plan: &Plan, index: usize) -> NodeId {
    let is_controller = index < plan.controllers;
    NodeId(index as i32 + if is_controller { 1 } else { FIRST_OBSERVER_ID })
}

pub(crate) fn endpoint(index: usize, port: u16) -> Endpoint {
    Endpoint { host: format!("n{index}"), port }
}

impl Host {
    /// A machine with a formatted directory.
    pub(crate) fn new(plan: &Plan, index: usize, device: Rc<Device>, random: &mut Random) -> Host {
        let is_controller = index < plan.controllers;
        let range = 2 * plan.rate_ppm as u64 + 1;
        let rate_ppm = random.below(range) as i64 - plan.rate_ppm;
        let wall_offset_ms = random.below(10_000) as i64 - 5_000;
        let clock = Clock::new(rate_ppm, random.below(1_000_000_000), wall_offset_ms);
        Host {
            index,
            id: node_id(plan, index),
            is_controller,
            directory_id: Uuid::random(random),
            port: BOOTSTRAP_PORT,
            next_port: BOOTSTRAP_PORT,
            device,
            clock: Rc::new(clock),
            process: None,
            lives: 0,
            has_power: true,
            is_held_down: false,
            is_paused: false,
            deferred: Vec::new(),
        }
    }

    /// This node as a voter.
    pub(crate) fn voter(&self) -> Voter {
        Voter {
            key: ReplicaKey { id: self.id, directory_id: Some(self.directory_id) },
            endpoints: self.endpoints(),
            kraft_version: VersionRange::SUPPORTED,
        }
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints::from([(LISTENER.to_owned(), endpoint(self.index, self.port))])
    }

    /// What `storage format --initial-controllers` leaves.
    pub(crate) fn format(&self, voters: &[Voter]) {
        let file = bootstrap_snapshot(voters.to_vec(), TimestampMs(1)).expect("voters");
        self.device.disk.borrow_mut().put(&SnapshotId::BOOTSTRAP.file_name(), file.to_vec());
    }

    pub(crate) fn is_port(&self, port: u16) -> bool {
        port == BOOTSTRAP_PORT || port == self.port
    }

    /// Whether the process runs and takes things in.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn raft_config(&self, plan: &Plan) -> RaftConfig {
        let auto_join = matches!(plan.format, Format::Dynamic { auto_join: true, .. }) && self.is_controller;
        RaftConfig {
            is_controller: self.is_controller,
            endpoints: if self.is_controller { self.endpoints() } else { Endpoints::new() },
            default_listener: LISTENER.to_owned(),
            bootstrap_servers: (0..plan.controllers).map(|index| endpoint(index, BOOTSTRAP_PORT)).collect(),
            election_timeout_ms: plan.timeouts.election_ms,
            fetch_timeout_ms: plan.timeouts.fetch_ms,
            election_backoff_max_ms: plan.timeouts.election_ms,
            request_timeout_ms: plan.timeouts.request_ms,
            retry_backoff_ms: plan.timeouts.retry_ms,
            append_linger_ms: plan.timeouts.linger_ms,
            fetch_max_bytes: plan.fetch_max_bytes,
            fetch_snapshot_max_bytes: plan.snapshot_max_bytes,
            auto_join,
            ..RaftConfig::new(self.id, self.directory_id, CLUSTER_ID)
        }
    }

    fn controller_config(&self, plan: &Plan, random_seed: u64) -> ControllerConfig {
        ControllerConfig {
            random_seed,
            session_timeout_ms: plan.session_timeout_ms,
            max_idle_interval_ms: plan.idle_interval_ms,
            num_partitions: 2,
            default_replication_factor: 2,
            min_in_sync_replicas: 2,
            leader_imbalance_check_interval_ms: 7_000,
            unclean_leader_election_interval_ms: 9_000,
            delegation_token_expiry_check_interval_ms: 5_000,
            delegation_token_secret: Some("secret".to_owned()),
            has_authorizer: true,
            ..ControllerConfig::new(self.id, CLUSTER_ID, BootstrapMetadata::latest())
        }
    }

    /// Begins a new life of the process.
    pub(crate) fn start(&mut self, shared: &Rc<Shared>) {
        self.lives += 1;
        self.port = self.next_port;
        self.device.has_failed.set(false);
        let ring = Ring::new(shared.clone(), self.index, self.lives, self.clock.clone());
        let inboxes = Inboxes::new(&ring);
        let plan = &shared.plan;
        let seed = shared.schedule_seed();
        let raft = self.raft_config(plan);
        let static_voters = static_voters(plan);
        let controller = self.is_controller.then(|| self.controller_config(plan, seed));
        let quorum = QuorumConfig { raft, controller, snapshots: plan.snapshots, static_voters };
        let files = Files { ring: ring.clone(), device: self.device.clone() };
        let process = Process { ring: ring.clone(), inboxes };
        let main = run(files, quorum, Random::from_seed(seed), &process.inboxes);
        ring.spawn_detached(main);
        shared.checks.borrow_mut().on_started(shared.now(), self.index, self.lives, self.directory_id);
        shared.post(1, Event::Wake { node: self.index, incarnation: self.lives });
        self.process = Some(process);
    }

    /// How long the process has run is of no more interest: it is gone, with all that it had in memory.
    pub(crate) fn end_process(&mut self) -> Option<Process> {
        let process = self.process.take()?;
        process.ring.kill();
        self.is_paused = false;
        self.deferred.clear();
        Some(process)
    }
}

/// `controller.quorum.voters`; empty for a dynamic quorum.
pub(crate) fn static_voters(plan: &Plan) -> VoterSet {
    if plan.format != Format::Static {
        return VoterSet::default();
    }
    let voters = (0..plan.controllers).map(|index| (node_id(plan, index), endpoint(index, BOOTSTRAP_PORT)));
    VoterSet::from_static(LISTENER, voters).expect("a few voters")
}

/// The process' main task: loads what there is, then drives the node.
fn run(files: Files, config: QuorumConfig, random: Random, inboxes: &Inboxes) -> impl Future<Output = ()> + 'static {
    let ring = files.ring.clone();
    let (policy, request_timeout_ms) = (config.snapshots, config.raft.request_timeout_ms);
    let is_controller = config.raft.is_controller;
    let inboxes = inboxes.clone();
    async move {
        let log_config = ring.shared.plan.log.clone();
        let loaded = loading::load(&files, &config.raft, &config.static_voters, &log_config).await;
        let Loaded { log, node } = match loaded {
            Ok(loaded) => loaded,
            Err(fault) => return ring.exit(End::Halted(format!("at the start: {fault}"))),
        };
        ring.shared.checks.borrow_mut().on_loaded(&ring.shared, ring.node, &node, &log);
        let machine = QuorumNode::new(config, node, random, ring.now());
        ring.shared.checks.borrow_mut().after_step(&ring.shared, ring.node, &machine);
        inboxes.is_loaded.set(true);
        Driver::new(&ring, is_controller, &inboxes, machine, log, policy, request_timeout_ms).run().await;
    }
}

/// How long a machine that lost its power takes to boot, at least.
pub(crate) const BOOT_US: Us = 50_000;
