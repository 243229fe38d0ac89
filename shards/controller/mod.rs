//! The controller's core: drives this node of the metadata quorum, hands its images to every core, and finds the active
//! controller for whoever on this node needs it.
//!
//! One task owns raft, the controller, the image loader and the metadata log ([`driver`]). It runs on a core of its own,
//! or in a task queue of its own beside shard 0. Others reach it through bounded mailboxes, wherever they run:
//! [`request`] finds the active controller, here or on another node; [`request_here`] is for what comes in by the
//! controller's listener and is meant for this node.
//!
//! ```text
//!   request() ─┬─► mailbox ──► QuorumNode ──records──► raft ──► metadata log ──► fdatasync, followers' fetches
//!              │                                                     │ high watermark
//!              │   response ◄── every core has it ◄── image ◄────────┘
//!              └─► remote ──► the active controller's listener ──► response
//! ```

mod arrivals;
mod broker_watch;
mod contacts;
mod driver;
mod handle;
mod loading;
mod mailbox;
mod metadata_log;
mod metadata_log_error;
mod peers;
mod progress;
mod recovery;
mod remote;
mod settings;
mod snapshot_files;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlog_quorum::{QuorumConfig, QuorumNode};
use ringlog_ring as ring;
use ringlog_types::{LeaderEpoch, Offset, Random};
use tracing::{info, warn};

use crate::lasting::Lasting;
use contacts::Contacts;
use handle::{KnownLeader, REQUEST_LIMIT_MS, RETRY_MS};
use mailbox::{Command, Inboxes};
use remote::RemoteController;

pub use handle::{
    Controller, ControllerHandle, applied_offset, quorum, request, request_here, request_of_client, request_within,
    takes, why_unreachable,
};
pub use loading::LoadFault;
pub use ringlog_quorum::ControllerRequest;
pub use settings::host_or_name;

/// Requests that may wait for the controller; further ones wait to get in.
const MAILBOX_CAPACITY: usize = 1024;
/// The weight of the controller's task queue where it shares a core; shard 0's own queue has 1000.
const SHARED_CORE_SHARES: usize = 250;
/// How often its queue gets a turn then, at least.
const SHARED_CORE_LATENCY_MS: u64 = 10;
/// No active controller for so long is worth a line in the log.
const PATIENCE_MS: u64 = 5_000;
/// How often it is looked whether there is one.
const LOOK_MS: u64 = 1_000;

/// Loads the metadata log and joins the quorum. Requests may be sent from the moment this is called; they wait.
pub async fn start(controller: &Rc<Controller>) -> Result<(), LoadFault> {
    let (mailbox, controller_inbox) = ring::local_channel(MAILBOX_CAPACITY);
    let (raft_mailbox, raft_inbox) = ring::local_channel(MAILBOX_CAPACITY);
    let attempt_ms = u64::try_from(controller.core.node.config.controller.socket_timeout_ms).unwrap_or(0);
    let random_seed = controller.core.random.borrow_mut().next_u64();
    let handle = Rc::new(ControllerHandle {
        mailbox,
        raft_mailbox,
        arrivals: arrivals::Arrivals::default(),
        applied: Cell::new(Offset::NONE),
        leader: RefCell::new(KnownLeader { id: None, epoch: LeaderEpoch(0), endpoint: None, is_here: false }),
        leader_changed: ring::Notify::new(),
        kraft_version: Cell::new(0),
        features_offset: Cell::new(Offset::NONE),
        remote: RemoteController::new(controller.core.node.id, attempt_ms, Random::from_seed(random_seed)),
        contacts: Rc::new(Contacts::new(&controller.core.node.cluster_id)),
    });
    // Before the first await: nobody finds this core without it.
    let is_first = controller.handle.set(handle.clone()).is_ok();
    assert!(is_first, "the controller is started once");
    let node = controller.core.node.clone();
    let raft = settings::raft(&node);
    let loaded = loading::load(controller, &raft).await?;
    let mut random = Random::from_seed(controller.core.random.borrow_mut().next_u64());
    let policy = settings::snapshots(&node.config);
    let request_timeout_ms = raft.request_timeout_ms;
    let deciding =
        node.config.roles.controller.then(|| settings::controller(&node, loaded.bootstrap, random.next_u64()));
    let static_voters = settings::static_voters(&node.config);
    let config = QuorumConfig { raft, controller: deciding, snapshots: policy, static_voters };
    let machine = QuorumNode::new(config, loaded.node, random, ring::now());
    let inboxes = Inboxes { controller: controller_inbox, raft: raft_inbox };
    controller.core.spawn_until_stop(watch_quorum(controller.clone(), handle.clone()));
    if node.config.roles.controller {
        broker_watch::start(controller, &handle);
    }
    let driver =
        driver::Driver::new(controller.clone(), handle, inboxes, machine, loaded.log, policy, request_timeout_ms);
    if node.controller_index < node.shards {
        let queue = ring::TaskQueue::new("controller", SHARED_CORE_SHARES, Some(SHARED_CORE_LATENCY_MS));
        ring::spawn_into(queue, driver.run()).detach();
    } else {
        // [`stop`] waits for it.
        ring::spawn_detached(driver.run());
    }
    if node.config.roles.broker {
        controller.core.spawn_until_stop(follow_versions(controller.clone()));
    }
    Ok(())
}

/// Says in the log when there is no active controller, and why; ends the node when it has no business in its quorum.
async fn watch_quorum(controller: Rc<Controller>, handle: Rc<ControllerHandle>) {
    let silence = Lasting::after(PATIENCE_MS);
    while !controller.core.controller_closing.is_set() {
        let stranger = async { Some(handle.contacts.fatal().await) };
        let look = async {
            ring::sleep_ms(LOOK_MS).await;
            None
        };
        if let Some(reason) = futures_lite::future::or(stranger, look).await {
            return controller.core.fail(&reason);
        }
        let now = ring::now().monotonic;
        let Some(reason) = handle.lacks_controller(now) else {
            if let Some(lasted_ms) = silence.over(now) {
                info!("there is an active controller again, after {} s", lasted_ms / 1000);
            }
            continue;
        };
        if let Some(lasted_ms) = silence.holds(now) {
            let consequence = match (controller.core.node.config.roles.broker, handle.applied_offset()) {
                (false, _) => "nothing can be changed in the cluster",
                (true, Offset::NONE) => "this broker can't serve before it is registered",
                (true, _) => "producing and fetching go on with the metadata known so far, nothing can be changed",
            };
            warn!("no active controller for {} s: {reason}; {consequence}", lasted_ms / 1000);
        }
    }
}

/// Asks each new active controller what it speaks, so that ApiVersions is right before the first forwarded request.
async fn follow_versions(controller: Rc<Controller>) {
    let Some(handle) = controller.handle.get().cloned() else { return };
    while !controller.core.closing.is_set() {
        let leader = handle.leader();
        if let Some(endpoint) = leader.endpoint.as_ref().filter(|_| !leader.is_here) {
            let deadline = ring::now().monotonic.plus_ms(REQUEST_LIMIT_MS);
            if handle.remote.learn_versions(endpoint, deadline).await.is_err() {
                ring::sleep_ms(RETRY_MS).await;
                continue;
            }
        }
        if handle.leader() == leader {
            handle.leader_changed.wait().await;
        }
    }
}

/// Stops in order: leadership is handed over, what was proposed is written, the log is left as an orderly stop leaves it.
pub async fn stop(controller: Rc<Controller>) {
    let Some(handle) = controller.handle.get().cloned() else { return };
    let (done, stopped) = ring::oneshot();
    if handle.mailbox.send(Command::Stop(done)).await.is_ok() {
        // The driver drops its end when it is done.
        let _ = stopped.await;
        info!("the controller has stopped");
    }
}
