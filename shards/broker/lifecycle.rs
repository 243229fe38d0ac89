//! The broker's life in the cluster, on core 0: registration, heartbeats, unfencing, controlled shutdown.
//!
//! ```text
//!   register ──► heartbeat until every core has taken our registration over ──► unfence ──► listeners open
//!        heartbeat every broker.heartbeat.interval.ms …
//!   stop: heartbeats that want to shut down, until the controller has moved our leaderships away ──► log_dirs
//! ```
//!
//! All of it goes to the active controller, wherever that is, in the same requests.

use std::cell::Cell;
use std::rc::Rc;

use ringlog_metadata::features::{FEATURES, METADATA_VERSION, NOT_SERVED};
use ringlog_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    ControllerRegistrationRequest, broker_registration_request, controller_registration_request,
};
use ringlog_protocol::{ResponseBody, StrBytes};
use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, ErrorCode, MonotonicMs, Uuid};
use tracing::{debug, error, info, warn};

use crate::controller::{self, Controller, ControllerRequest};
use crate::core::{Core, Room};
use crate::flag::Flag;
use crate::lasting::Lasting;
use crate::log_dirs::LogDirs;
use crate::metadata::MetadataView;
use crate::net::listener::{self, ListenFault, Net};

/// Wait after the first attempt that failed; doubled each time.
const FIRST_BACKOFF_MS: u64 = 10;
/// One try to register takes no longer, whatever keeps the controller.
const REGISTRATION_TRY_MS: u64 = 5_000;
/// How long a registration waits for the cluster's features, and how long it is tried again when they don't fit.
const FEATURES_WAIT_MS: u64 = 2_000;
/// The longest wait between attempts.
const MAX_BACKOFF_MS: u64 = 2_000;
/// How long a controlled shutdown may take while controllers answer, as in Kafka. It is given up earlier when none has
/// answered for a session (`broker.session.timeout.ms`): whoever leads the quorum then has fenced this broker, and moved
/// its leaderships away; after the last controllers of a cluster nobody is left to.
const SHUTDOWN_LIMIT_MS: u64 = 300_000;
/// However long they have been silent, they are asked once, for so long.
const SHUTDOWN_TRY_MS: u64 = 300;
/// How long a heartbeat that is under way is waited for then.
const LAST_HEARTBEAT_MS: u64 = 500;
/// A broker that isn't let serve after so long says so.
const UNFENCE_PATIENCE_MS: u64 = 10_000;
/// The first wait between the heartbeats of a controlled shutdown that isn't granted yet; doubled each time.
const SHUTDOWN_HEARTBEAT_MS: u64 = 50;

/// Why the broker doesn't come up.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleFault {
    /// The controller refuses it.
    #[error("the controller refuses to register this broker ({}): {reason}", .error.name())]
    Refused {
        /// Its answer.
        error: ErrorCode,
        /// What that means, and what to do.
        reason: String,
    },
    /// No registration in time.
    #[error("the broker could not register within initial.broker.registration.timeout.ms ({timeout_ms} ms): {reason}")]
    TimedOut {
        /// The limit.
        timeout_ms: u64,
        /// What kept it.
        reason: String,
    },
    /// A listener can't be opened.
    #[error(transparent)]
    Listen(#[from] ListenFault),
}

/// What a refusal to register means, and what to do about it.
fn refusal(broker: &Broker, error: ErrorCode) -> String {
    let node = &broker.core.node;
    match error {
        ErrorCode::InconsistentClusterId => format!(
            "this node's directories belong to cluster {}, the controllers to another. Correct controller.quorum.voters \
             or controller.quorum.bootstrap.servers, or format the directories for that cluster",
            node.cluster_id
        ),
        ErrorCode::InvalidRegistration => {
            "its listeners or log directories are not usable for the cluster, or another \
                                           broker has registered a directory with one of their ids: is one a copy?"
                .to_owned()
        }
        ErrorCode::UnsupportedVersion => "the cluster uses feature levels that this release doesn't know, see \
                                          `kafka-features describe`. Start a newer release"
            .to_owned(),
        ErrorCode::DuplicateBrokerRegistration => format!(
            "broker id {} is in use by another live process{}. Stop that one, or give this node a node.id of its own",
            node.id,
            twin(broker).map_or_else(String::new, |address| format!(", which registered {address}"))
        ),
        ErrorCode::ClusterAuthorizationFailed => {
            "the controllers' authorizer has to allow ClusterAction on the Cluster to \
                                                  the principal of this broker"
                .to_owned()
        }
        ErrorCode::BrokerIdNotRegistered => "it isn't known to the cluster".to_owned(),
        _ => "trying again may help; the controllers' logs say more".to_owned(),
    }
}

/// Where the process listens that has registered with our id, as far as the metadata has come.
fn twin(broker: &Broker) -> Option<String> {
    let image = broker.metadata.image();
    let other = image.cluster.broker(broker.core.node.id)?;
    let is_other = other.incarnation_id != broker.core.node.incarnation_id;
    let endpoint = other.endpoints.first().filter(|_| is_other)?;
    Some(format!("{}://{}:{}", endpoint.listener, endpoint.host, endpoint.port))
}

/// What core 0 remembers.
pub struct Broker {
    core: Rc<Core>,
    metadata: Rc<MetadataView>,
    log_dirs: Rc<LogDirs>,
    controller: Rc<Controller>,
    net: Rc<Net>,
    epoch: Cell<Option<BrokerEpoch>>,
    /// It has been let serve, and heartbeats follow.
    is_unfenced: Cell<bool>,
    is_stopping: Cell<bool>,
    /// The node begins to stop.
    stopping: ring::Notify,
    heartbeats_ended: Flag,
    /// When a controller last answered.
    heard_at: Cell<Option<MonotonicMs>>,
}

impl Room for Broker {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl Broker {
    /// Not registered.
    pub fn new(
        core: Rc<Core>,
        metadata: Rc<MetadataView>,
        log_dirs: Rc<LogDirs>,
        controller: Rc<Controller>,
        net: Rc<Net>,
    ) -> Broker {
        Broker {
            core,
            metadata,
            log_dirs,
            controller,
            net,
            epoch: Cell::default(),
            is_unfenced: Cell::default(),
            is_stopping: Cell::default(),
            stopping: ring::Notify::new(),
            heartbeats_ended: Flag::default(),
            heard_at: Cell::default(),
        }
    }

    fn heard_at(&self) -> MonotonicMs {
        self.heard_at.get().unwrap_or(MonotonicMs(0))
    }
}

fn error_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// Registers, catches up, opens listeners.
pub async fn start(broker: &Rc<Broker>) -> Result<(), LifecycleFault> {
    let roles = broker.core.node.config.roles;
    if roles.controller {
        broker.core.spawn_until_stop(register_controller(broker.clone()));
    }
    if !roles.broker {
        announce(broker, None);
        return Ok(());
    }
    broker.core.spawn_until_stop(halt_without_directories(broker.clone()));
    let epoch = register(broker).await?;
    broker.epoch.set(Some(epoch));
    catch_up(broker, epoch).await;
    tell_unserved_features(broker);
    // Before the broker is named to clients as one to use.
    listener::open(&broker.net, false).await?;
    let state = unfence(broker, epoch).await;
    broker.is_unfenced.set(true);
    broker.core.spawn_until_stop(heartbeats(broker.clone(), epoch, state));
    announce(broker, Some(epoch));
    Ok(())
}

/// One line that says what runs.
fn announce(broker: &Rc<Broker>, epoch: Option<BrokerEpoch>) {
    let node = &broker.core.node;
    let listeners: Vec<String> = node.config.listeners.iter().map(ToString::to_string).collect();
    let directories: Vec<String> =
        node.log_dirs.directories.iter().map(|directory| directory.path.display().to_string()).collect();
    info!(
        node.id = node.id.0,
        cluster.id = node.cluster_id,
        shards = node.shards,
        log.dirs = directories.join(","),
        direct.io = node.config.ringlog.direct_io,
        listeners = listeners.join(","),
        broker.epoch = epoch.map(|epoch| epoch.0),
        time.taken.ms = ring::now().monotonic.since_ms(node.started_at),
        "started"
    );
}

fn registration(broker: &Rc<Broker>) -> BrokerRegistrationRequest {
    let node = &broker.core.node;
    let config = &node.config;
    let listeners = config.advertised_listeners.iter().map(|listener| broker_registration_request::Listener {
        name: StrBytes::copy_from(&listener.name),
        host: controller::host_or_name(&listener.host).into(),
        port: listener.port,
        security_protocol: listener.security_protocol.code(),
    });
    let unstable = config.controller.unstable_feature_versions_enable;
    let image = broker.metadata.image();
    let features = FEATURES.iter().map(|feature| {
        let range = feature.range_of_brokers(image.features.level(feature.name), unstable);
        broker_registration_request::Feature {
            name: feature.name.into(),
            min_supported_version: range.min,
            max_supported_version: range.max,
        }
    });
    let mut log_dirs: Vec<Uuid> = node.log_dirs.usable_ids();
    log_dirs.sort_unstable();
    BrokerRegistrationRequest {
        broker_id: node.id.0,
        cluster_id: StrBytes::copy_from(&node.cluster_id),
        incarnation_id: node.incarnation_id,
        listeners: listeners.collect(),
        features: features.collect(),
        rack: config.rack.as_deref().map(StrBytes::copy_from),
        is_migrating_zk_broker: false,
        log_dirs,
        previous_broker_epoch: node.log_dirs.previous_broker_epoch().0,
    }
}

/// Says of this controller what brokers and other controllers need to know, whenever the image says something else.
/// Runs beside the broker's own start: nobody waits for it.
async fn register_controller(broker: Rc<Broker>) {
    let node = &broker.core.node;
    let listeners = node.config.advertised_controller_listeners.iter();
    let listeners = listeners.map(|listener| controller_registration_request::Listener {
        name: StrBytes::copy_from(&listener.name),
        host: controller::host_or_name(&listener.host).into(),
        port: listener.port,
        security_protocol: listener.security_protocol.code(),
    });
    let unstable = node.config.controller.unstable_feature_versions_enable;
    let features = FEATURES.iter().map(|feature| {
        let range = feature.supported_range(unstable);
        controller_registration_request::Feature {
            name: feature.name.into(),
            min_supported_version: range.min,
            max_supported_version: range.max,
        }
    });
    let request = ControllerRegistrationRequest {
        controller_id: node.id.0,
        incarnation_id: node.incarnation_id,
        zk_migration_ready: false,
        listeners: listeners.collect(),
        features: features.collect(),
    };
    let mut backoff = Backoff::new();
    let refused = Lasting::after(UNFENCE_PATIENCE_MS);
    while !broker.core.closing.is_set() {
        let image = broker.metadata.image();
        let own = image.cluster.controllers.get(&node.id);
        let is_known = own.is_some_and(|controller| controller.incarnation_id == node.incarnation_id);
        // Levels of metadata.version below 3.7 don't record controllers.
        if is_known || !image.metadata_version().is_controller_registration_supported() {
            backoff = Backoff::new();
            broker.metadata.changed.wait().await;
            continue;
        }
        let response = controller::request(&broker.controller, ControllerRequest::internal(request.clone())).await;
        match response {
            ResponseBody::ControllerRegistration(response) if response.error_code == ErrorCode::None.code() => {
                info!(node.id = node.id.0, "registered as a controller");
            }
            ResponseBody::ControllerRegistration(response) if !is_no_answer(error_of(response.error_code)) => {
                if let Some(lasted_ms) = refused.holds(ring::now().monotonic) {
                    let error = error_of(response.error_code).name();
                    warn!("this controller can't register for {} s ({error})", lasted_ms / 1000);
                }
            }
            response => debug!(?response, "this controller isn't registered yet, trying again"),
        }
        // The image follows soon.
        backoff.wait().await;
    }
}

async fn register(broker: &Rc<Broker>) -> Result<BrokerEpoch, LifecycleFault> {
    let config = &broker.core.node.config.controller;
    let timeout_ms = u64::try_from(config.initial_broker_registration_timeout_ms).unwrap_or(0);
    let deadline = ring::now().monotonic.plus_ms(timeout_ms);
    learn_features(broker).await;
    let mut backoff = Backoff::new();
    let mut is_waiting = false;
    let refused = Lasting::after(session_timeout_ms(broker));
    let unsupported = Lasting::after(FEATURES_WAIT_MS);
    let mut answered = None;
    loop {
        let left_ms = deadline.since_ms(ring::now().monotonic).max(1);
        let own = ControllerRequest::internal(registration(broker));
        let response = controller::request_within(&broker.controller, own, left_ms.min(REGISTRATION_TRY_MS)).await;
        let response = BrokerRegistrationResponse::try_from(response).unwrap_or_else(|_| BrokerRegistrationResponse {
            error_code: ErrorCode::UnknownServerError.code(),
            ..BrokerRegistrationResponse::default()
        });
        let now = ring::now().monotonic;
        let error = error_of(response.error_code);
        match error {
            ErrorCode::None => {
                broker.heard_at.set(Some(now));
                return Ok(BrokerEpoch(response.broker_epoch));
            }
            // The levels that the cluster has may not have come yet, or not all of them.
            ErrorCode::UnsupportedVersion
                if !knows_features(broker) || unsupported.holds(ring::now().monotonic).is_none() => {}
            ErrorCode::InconsistentClusterId | ErrorCode::InvalidRegistration | ErrorCode::UnsupportedVersion => {
                return Err(LifecycleFault::Refused { error, reason: refusal(broker, error) });
            }
            ErrorCode::DuplicateBrokerRegistration if !is_waiting => {
                is_waiting = true;
                info!("waiting for the session of this broker's former life to end (broker.session.timeout.ms)");
            }
            _ => debug!(error = error.name(), "registration failed, trying again"),
        }
        if is_no_answer(error) {
            // What is said of the controllers says it all.
            refused.over(now);
        } else {
            answered = Some((now, error));
            if let Some(lasted_ms) = refused.holds(now) {
                let (error, reason) = (error.name(), refusal(broker, error));
                warn!("not registered after {} s ({error}): {reason}", lasted_ms / 1000);
            }
        }
        if now >= deadline {
            // The last try may have had no time for an answer.
            let recent = answered.filter(|(at, _)| now.since_ms(*at) <= REGISTRATION_TRY_MS + MAX_BACKOFF_MS);
            let reason = match recent {
                Some((_, error)) => format!("{}: {}", error.name(), refusal(broker, error)),
                None => controller::why_unreachable(&broker.controller)
                    .await
                    .unwrap_or_else(|| "the active controller doesn't answer".to_owned()),
            };
            return Err(LifecycleFault::TimedOut { timeout_ms, reason });
        }
        backoff.wait().await;
    }
}

/// Waits for a moment until it is known which features the cluster has: a registration has to fit them.
async fn learn_features(broker: &Rc<Broker>) {
    let known = async {
        while !knows_features(broker) {
            broker.metadata.changed.wait().await;
        }
    };
    let _ = ring::timeout_ms(FEATURES_WAIT_MS, known).await;
}

/// Says what the cluster has and this broker doesn't.
fn tell_unserved_features(broker: &Broker) {
    let image = broker.metadata.image();
    let finalized = NOT_SERVED.iter().map(|name| (name, image.features.level(name))).filter(|(_, level)| *level > 0);
    let finalized: Vec<String> = finalized.map(|(name, level)| format!("{name}={level}")).collect();
    if !finalized.is_empty() {
        info!("the cluster has {}, which this broker doesn't serve yet", finalized.join(", "));
    }
}

fn knows_features(broker: &Broker) -> bool {
    broker.metadata.image().features.level(METADATA_VERSION) > 0
}

/// Whether the answer is our own, for want of one.
fn is_no_answer(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::RequestTimedOut | ErrorCode::NotController)
}

fn session_timeout_ms(broker: &Broker) -> u64 {
    u64::try_from(broker.core.node.config.controller.broker_session_timeout_ms).unwrap_or(9_000)
}

/// What the last heartbeat's answer said.
#[derive(Debug, Clone, Copy)]
struct State {
    is_fenced: bool,
    should_shut_down: bool,
}

/// Heartbeats, still fenced, until every core has taken our registration over: an unfenced broker may become leader at
/// once, and must know what it hosts.
async fn catch_up(broker: &Rc<Broker>, epoch: BrokerEpoch) {
    let mut backoff = Backoff::new();
    let waiting = Lasting::after(UNFENCE_PATIENCE_MS);
    while controller::applied_offset(&broker.controller).await.0 < epoch.0 || !has_own_registration(broker) {
        let state = heartbeat(broker, epoch, Want { fence: true, shut_down: false }, heartbeat_limit_ms(broker)).await;
        if let Some(lasted_ms) = waiting.holds(ring::now().monotonic) {
            let (at, answer) = (controller::applied_offset(&broker.controller).await.0, answer_of(&state));
            info!(
                "registered at offset {epoch}, but its metadata has come to {at} only after {} s ({answer})",
                lasted_ms / 1000
            );
        }
        backoff.wait().await;
    }
}

/// Heartbeats until the controller lets this broker serve.
async fn unfence(broker: &Rc<Broker>, epoch: BrokerEpoch) -> State {
    let mut backoff = Backoff::new();
    let waiting = Lasting::after(UNFENCE_PATIENCE_MS);
    loop {
        let outcome =
            heartbeat(broker, epoch, Want { fence: false, shut_down: false }, heartbeat_limit_ms(broker)).await;
        match outcome {
            Ok(state) if !state.is_fenced => return state,
            outcome => {
                if let Some(lasted_ms) = waiting.holds(ring::now().monotonic) {
                    warn!(
                        "the controller hasn't let this broker serve for {} s ({})",
                        lasted_ms / 1000,
                        answer_of(&outcome)
                    );
                }
            }
        }
        backoff.wait().await;
    }
}

/// For the log.
fn answer_of(outcome: &Result<State, ErrorCode>) -> &'static str {
    match outcome {
        Ok(state) if state.is_fenced => "it is fenced",
        Ok(_) => "it answers",
        Err(error) => error.name(),
    }
}

/// The next heartbeat must still come within the session.
fn heartbeat_limit_ms(broker: &Broker) -> u64 {
    session_timeout_ms(broker) / 2
}

fn has_own_registration(broker: &Rc<Broker>) -> bool {
    broker.metadata.broker_epoch().is_some()
}

#[derive(Debug, Clone, Copy)]
struct Want {
    fence: bool,
    shut_down: bool,
}

async fn heartbeat(broker: &Rc<Broker>, epoch: BrokerEpoch, want: Want, limit_ms: u64) -> Result<State, ErrorCode> {
    let node = &broker.core.node;
    let request = BrokerHeartbeatRequest {
        broker_id: node.id.0,
        broker_epoch: epoch.0,
        current_metadata_offset: controller::applied_offset(&broker.controller).await.0,
        want_fence: want.fence,
        want_shut_down: want.shut_down,
        offline_log_dirs: offline_directories(broker),
        cordoned_log_dirs: if want.fence { None } else { Some(broker.log_dirs.cordoned_ids()) },
    };
    let asked = controller::request_within(&broker.controller, ControllerRequest::internal(request), limit_ms);
    // What a controller has begun is waited for otherwise, however slow its disk is. A heartbeat counts as soon as it has
    // arrived, and the next one has to come within the session.
    let response = ring::timeout_ms(limit_ms, asked).await.map_err(|_| ErrorCode::RequestTimedOut)?;
    let response = BrokerHeartbeatResponse::try_from(response).map_err(|_| ErrorCode::UnknownServerError)?;
    let error = error_of(response.error_code);
    if !is_no_answer(error) {
        broker.heard_at.set(Some(ring::now().monotonic));
    }
    match error {
        ErrorCode::None => Ok(State { is_fenced: response.is_fenced, should_shut_down: response.should_shut_down }),
        error => Err(error),
    }
}

/// Ids of directories that were registered and have failed since.
fn offline_directories(broker: &Rc<Broker>) -> Vec<Uuid> {
    broker.log_dirs.failed_ids()
}

/// Ends the process when no log directory is left, or the metadata log's failed, as Kafka does.
async fn halt_without_directories(broker: Rc<Broker>) {
    while !broker.is_stopping.get() {
        if broker.log_dirs.must_halt() {
            error!("all log directories failed, or the one of the metadata log: the process ends");
            ring::halt(1);
        }
        futures_lite::future::or(broker.stopping.wait(), broker.log_dirs.failures_changed.wait()).await;
    }
}

/// Heartbeats at their interval until the node stops.
async fn heartbeats(broker: Rc<Broker>, epoch: BrokerEpoch, mut state: State) {
    let interval_ms = u64::try_from(broker.core.node.config.controller.broker_heartbeat_interval_ms).unwrap_or(2_000);
    let failing = Lasting::default();
    while !broker.is_stopping.get() {
        // A failed directory is told at once.
        let news = futures_lite::future::or(broker.stopping.wait(), broker.log_dirs.failures_changed.wait());
        let _ = ring::timeout_ms(interval_ms, news).await;
        if broker.is_stopping.get() {
            break;
        }
        let limit_ms = heartbeat_limit_ms(&broker);
        let outcome = heartbeat(&broker, epoch, Want { fence: false, shut_down: false }, limit_ms).await;
        let at = ring::now().monotonic;
        match outcome {
            Ok(now) => {
                if let Some(lasted_ms) = failing.over(at) {
                    info!("heartbeats are accepted again, after {} s", lasted_ms / 1000);
                }
                if now.is_fenced != state.is_fenced {
                    warn!(fenced = now.is_fenced, "the controller changed this broker's state");
                }
                state = now;
            }
            Err(error) if is_no_answer(error) => debug!(error = error.name(), "no answer to a heartbeat"),
            Err(error) => {
                if let Some(lasted_ms) = failing.holds(at) {
                    let meaning = match error {
                        ErrorCode::StaleBrokerEpoch => "it was unregistered, or another process registered with its id",
                        _ => "clients are sent to other brokers when its session ends",
                    };
                    let seconds = lasted_ms / 1000;
                    warn!(
                        "the controller refuses this broker's heartbeats for {seconds} s ({}): {meaning}",
                        error.name()
                    );
                }
            }
        }
        if lacks_directories(&broker) {
            refresh_registration(&broker, interval_ms).await;
        }
    }
    broker.heartbeats_ended.set();
}

/// Whether our registration was written when the cluster's `metadata.version` had no place for directories, and now
/// has: without them replicas here count as assigned to no directory (KIP-858).
fn lacks_directories(broker: &Broker) -> bool {
    let image = broker.metadata.image();
    let own =
        image.cluster.broker(broker.core.node.id).filter(|it| it.incarnation_id == broker.core.node.incarnation_id);
    image.metadata_version().is_directory_assignment_supported() && own.is_some_and(|it| it.directories.is_empty())
}

/// Registers again in the same life: epoch and state are kept, the rest is written anew.
async fn refresh_registration(broker: &Rc<Broker>, limit_ms: u64) {
    info!("registering again, as the new metadata.version knows log directories");
    let response =
        controller::request_within(&broker.controller, ControllerRequest::internal(registration(broker)), limit_ms)
            .await;
    match BrokerRegistrationResponse::try_from(response).map(|response| error_of(response.error_code)) {
        Ok(ErrorCode::None) => {}
        refused => debug!(?refused, "the broker could not register again, trying again"),
    }
}

/// Hands leadership over. Returns the epoch of the registration that ends, if there was one.
pub async fn stop(broker: &Rc<Broker>) -> Option<BrokerEpoch> {
    let epoch = broker.epoch.get()?;
    broker.is_stopping.set(true);
    broker.stopping.notify_all();
    if !broker.is_unfenced.get() {
        // Stopped while it started: it leads nothing.
        return Some(epoch);
    }
    let _ = ring::timeout_ms(LAST_HEARTBEAT_MS, broker.heartbeats_ended.wait_until_set()).await;
    if broker.core.node.config.controller.controlled_shutdown_enable {
        shut_down_controlled(broker, epoch).await;
    }
    Some(epoch)
}

async fn shut_down_controlled(broker: &Rc<Broker>, epoch: BrokerEpoch) {
    let begun = ring::now().monotonic;
    let limit = begun.plus_ms(SHUTDOWN_LIMIT_MS);
    let mut backoff = Backoff { next_ms: SHUTDOWN_HEARTBEAT_MS };
    loop {
        let silent_until = || broker.heard_at().plus_ms(session_timeout_ms(broker)).min(limit);
        let left_ms = silent_until().since_ms(ring::now().monotonic);
        let try_ms = left_ms.clamp(SHUTDOWN_TRY_MS, heartbeat_limit_ms(broker).max(SHUTDOWN_TRY_MS));
        match heartbeat(broker, epoch, Want { fence: false, shut_down: true }, try_ms).await {
            Ok(state) if state.should_shut_down => return,
            Ok(_) => {}
            Err(ErrorCode::StaleBrokerEpoch) => {
                debug!("this broker isn't registered any more: no controlled shutdown");
                return;
            }
            Err(error) => debug!(error = error.name(), "controlled shutdown not granted yet"),
        }
        let now = ring::now().monotonic;
        if now >= silent_until() {
            let silent_ms = now.since_ms(broker.heard_at());
            let reason =
                controller::why_unreachable(&broker.controller).await.unwrap_or_else(|| "it isn't granted".to_owned());
            warn!(
                waited.ms = now.since_ms(begun),
                silent.ms = silent_ms,
                "stopping without a controlled shutdown: {reason}"
            );
            return;
        }
        backoff.wait().await;
    }
}

/// Waits that double.
struct Backoff {
    next_ms: u64,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff { next_ms: FIRST_BACKOFF_MS }
    }

    async fn wait(&mut self) {
        ring::sleep_ms(self.next_ms).await;
        self.next_ms = (self.next_ms * 2).min(MAX_BACKOFF_MS);
    }
}
