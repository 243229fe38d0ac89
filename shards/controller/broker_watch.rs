//! Finds out that a broker's process has ended before its session does (`broker.session.timeout.ms`): its leaderships move
//! within milliseconds after a crash, where Kafka waits for the session.
//!
//! Each controller keeps a connection to each broker that isn't fenced, and asks nothing by it. The system of a host closes
//! the connections of a process that ends, and refuses new ones where nobody listens any more: then the broker is gone,
//! whoever asks. What a network does looks otherwise: it loses packets, or says that a host can't be reached; then the session
//! decides, as in Kafka. That the network refuses in a host's place (a firewall that rejects) is ruled out by what is asked
//! first: that very broker could be reached from here before in this life of it, or another one can be now. And one that was
//! never reached in this life may not listen yet: Kafka's brokers open their ports only once they have been let serve.
//!
//! Bound: a connection and a task for each broker.

use std::cell::RefCell;
use std::rc::Rc;

use ringlog_metadata::image::{BrokerImage, Endpoint};
use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, NodeId};
use rustc_hash::FxHashMap;
use tracing::{debug, warn};

use super::handle::{Controller, ControllerHandle};
use super::mailbox::Command;
use crate::core::Room as _;
use crate::flag::Flag;
use crate::net::peer::{NameLookups, PeerError, connect};

/// How long a try to connect may take.
const CONNECT_MS: u64 = 2_000;
/// Between two tries where a broker can't be reached.
const RETRY_MS: u64 = 1_000;
/// The same where a broker seems to be gone, and another controller is to say so: it may be this one before long.
const RETRY_GONE_MS: u64 = 100;
/// A connection that ends sooner may be one that the broker doesn't take: the next try waits, longer each time.
const LASTING_MS: u64 = 1_000;
/// For so long at first.
const RETRY_FIRST_MS: u64 = 10;
/// A broker that has been let serve opens its port within this time.
const OPENS_WITHIN_MS: u64 = 2_000;

struct BrokerWatch {
    controller: Rc<Controller>,
    handle: Rc<ControllerHandle>,
    lookups: NameLookups,
    watched: RefCell<FxHashMap<NodeId, Watched>>,
}

/// A broker in one of its lives.
struct Watched {
    epoch: BrokerEpoch,
    is_reached: bool,
    /// Nobody needs to know any more.
    is_over: Rc<Flag>,
}

/// Begins, on the controller's core.
pub fn start(controller: &Rc<Controller>, handle: &Rc<ControllerHandle>) {
    let watch = BrokerWatch {
        controller: controller.clone(),
        handle: handle.clone(),
        lookups: NameLookups::default(),
        watched: RefCell::default(),
    };
    controller.core().spawn_until_stop(follow_images(Rc::new(watch)));
}

/// Begins and ends to watch as the metadata says which brokers serve.
async fn follow_images(watch: Rc<BrokerWatch>) {
    let core = watch.controller.core().clone();
    loop {
        let image = watch.controller.metadata().image();
        let serves = |broker: &BrokerImage| !broker.is_fenced && broker.id != core.node.id;
        watch.watched.borrow_mut().retain(|id, watched| {
            let is_there = image.cluster.broker(*id).is_some_and(|it| serves(it) && it.epoch == watched.epoch);
            if !is_there {
                watched.is_over.set();
            }
            is_there
        });
        for broker in image.cluster.brokers.values().filter(|broker| serves(broker)) {
            if watch.watched.borrow().contains_key(&broker.id) {
                continue;
            }
            let listener = &core.node.config.inter_broker_listener_name;
            let Some(endpoint) = broker.endpoint(listener).or(broker.endpoints.first()).cloned() else { continue };
            let is_over = Rc::new(Flag::default());
            let watched = Watched { epoch: broker.epoch, is_reached: false, is_over: is_over.clone() };
            watch.watched.borrow_mut().insert(broker.id, watched);
            let (watch, id, epoch) = (watch.clone(), broker.id, broker.epoch);
            core.spawn_until_stop(async move {
                futures_lite::future::or(look(&watch, id, epoch, &endpoint), is_over.wait_until_set()).await;
            });
        }
        watch.controller.metadata().changed.wait().await;
    }
}

/// Keeps a connection to a broker until it is gone.
async fn look(watch: &BrokerWatch, id: NodeId, epoch: BrokerEpoch, endpoint: &Endpoint) {
    let mut after_end_ms = RETRY_FIRST_MS;
    let watched_from = ring::now().monotonic;
    loop {
        let begun = ring::now().monotonic;
        let deadline = begun.plus_ms(CONNECT_MS);
        let mut wait_ms = RETRY_MS;
        match connect(&watch.lookups, &endpoint.host, endpoint.port, deadline).await {
            Ok(connection) => {
                watch.set_reached(id, epoch);
                // Nothing is asked, so nothing comes but the end.
                let _ = connection.read(&mut [0; 1]).await;
                let has_lasted = ring::now().monotonic.since_ms(begun) >= LASTING_MS;
                wait_ms = if has_lasted { RETRY_FIRST_MS } else { after_end_ms };
                after_end_ms = (wait_ms * 2).min(RETRY_MS);
            }
            Err(PeerError::Refused) if !watch.is_reached(id) && begun.since_ms(watched_from) < OPENS_WITHIN_MS => {
                debug!(broker = id.0, "the broker doesn't listen yet");
                wait_ms = RETRY_GONE_MS;
            }
            Err(PeerError::Refused) if watch.is_meant_by_host() => {
                if watch.handle.leader().is_here {
                    warn!(
                        broker = id.0,
                        "the broker's process has ended: nothing listens at {}:{} any more",
                        endpoint.host,
                        endpoint.port
                    );
                    // This ends with the image that shows it fenced. Said again, if something has lost it or unfenced it.
                    let _ = watch.handle.mailbox.send(Command::BrokerGone(id, epoch)).await;
                } else {
                    wait_ms = RETRY_GONE_MS;
                }
            }
            Err(fault) => debug!(broker = id.0, "the broker can't be reached from here: {fault}"),
        }
        ring::sleep_ms(wait_ms).await;
    }
}

impl BrokerWatch {
    fn set_reached(&self, id: NodeId, epoch: BrokerEpoch) {
        if let Some(watched) = self.watched.borrow_mut().get_mut(&id).filter(|watched| watched.epoch == epoch) {
            watched.is_reached = true;
        }
    }

    /// Whether a broker was reached in this life of it.
    fn is_reached(&self, id: NodeId) -> bool {
        self.watched.borrow().get(&id).is_some_and(|watched| watched.is_reached)
    }

    /// Whether a refusal comes from a broker's host and not from something in between: it, or another, was reached.
    fn is_meant_by_host(&self) -> bool {
        self.watched.borrow().values().any(|watched| watched.is_reached)
    }
}
