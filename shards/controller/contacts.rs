//! Who of the quorum answers this node, who doesn't and why: for the log, and for the end of a node that has no business
//! with those it asks.
//!
//! Bounds: the places that raft asks, which are voters, bootstrap servers and leaders; those that weren't asked for
//! [`FORGOTTEN_AFTER_MS`] are forgotten.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ringlog_raft::{Destination, Endpoint};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, MonotonicMs};
use tracing::{error, info, warn};

use crate::lasting::Lasting;
use crate::net::peer::PeerError;

/// A peer that doesn't answer is worth a line after so long: nodes of a cluster seldom start at the same moment.
const PATIENCE_MS: u64 = 5_000;
/// A request to which nothing came for so long counts as unanswered.
const SILENCE_MS: u64 = 2_000;
/// A node to which everybody who answers says that it doesn't belong there gives up after so long.
const STRANGER_MS: u64 = 2_000;
/// Places that weren't asked for so long don't count any more.
const FORGOTTEN_AFTER_MS: u64 = 10_000;

/// What the controller's core knows of the other nodes.
pub struct Contacts {
    own_cluster_id: String,
    known: RefCell<BTreeMap<Endpoint, Contact>>,
    /// Somebody has answered as to a member of the cluster.
    is_member: Cell<bool>,
    stranger_since: Cell<Option<MonotonicMs>>,
    fatal: RefCell<Option<String>>,
    fatal_came: ring::Notify,
}

struct Contact {
    /// For the log: `controller 2 at kafka-2:9093`.
    name: String,
    fault: Option<String>,
    /// When the first request was sent to which nothing came.
    unanswered_since: Option<MonotonicMs>,
    asked_at: MonotonicMs,
    silence: Lasting,
    refusal: Lasting,
}

impl Contacts {
    /// Nobody was asked yet.
    pub fn new(own_cluster_id: &str) -> Contacts {
        Contacts {
            own_cluster_id: own_cluster_id.to_owned(),
            known: RefCell::default(),
            is_member: Cell::new(false),
            stranger_since: Cell::new(None),
            fatal: RefCell::default(),
            fatal_came: ring::Notify::new(),
        }
    }

    /// A request goes there. Raft gives it up when it likes, so that nobody may hear that there was no answer.
    pub fn on_asked(&self, to: &Destination, now: MonotonicMs) {
        self.with(to, now, |contact| {
            let since = *contact.unanswered_since.get_or_insert(now);
            if now.since_ms(since) >= SILENCE_MS && contact.fault.is_none() {
                contact.fault = Some(PeerError::TimedOut.to_string());
            }
            contact.tell(now);
        });
    }

    /// There was an answer, and nothing at its top that speaks against this node.
    pub fn on_answer(&self, to: &Destination, now: MonotonicMs) {
        self.is_member.set(true);
        self.with(to, now, |contact| {
            contact.fault = None;
            contact.unanswered_since = None;
            contact.refusal.over(now);
            if let Some(lasted_ms) = contact.silence.over(now) {
                info!("{} answers again, after {} s", contact.name, lasted_ms / 1000);
            }
        });
    }

    /// There was none.
    pub fn on_fault(&self, to: &Destination, fault: &PeerError, now: MonotonicMs) {
        self.with(to, now, |contact| {
            contact.fault = Some(fault.to_string());
            contact.tell(now);
        });
    }

    /// The answer says that this node has no business there. `cluster_id` is that of the other one, where it is known.
    pub fn on_refusal(&self, to: &Destination, refusal: ErrorCode, cluster_id: Option<&str>, now: MonotonicMs) {
        let own = &self.own_cluster_id;
        self.with(to, now, |contact| {
            let name = &contact.name;
            let text = match (refusal, cluster_id) {
                (ErrorCode::InconsistentClusterId, cluster_id) => format!(
                    "{name} belongs to cluster {}, this node to cluster {own}: correct controller.quorum.voters or \
                     controller.quorum.bootstrap.servers, or format this node's directories for the cluster that it is \
                     to join",
                    cluster_id.unwrap_or("(its id is not known)")
                ),
                _ => format!(
                    "{name} refuses this node as unauthorized ({}): its authorizer has to allow ClusterAction on the \
                     Cluster to the principal of this node",
                    refusal.name()
                ),
            };
            if !self.is_member.get() {
                let since = self.stranger_since.get().unwrap_or(now);
                self.stranger_since.set(Some(since));
                if now.since_ms(since) >= STRANGER_MS {
                    *self.fatal.borrow_mut() = Some(text.clone());
                    self.fatal_came.notify_all();
                }
            } else if contact.refusal.holds(now).is_some() {
                error!("{text}");
            }
            contact.fault = Some(text);
            contact.unanswered_since = None;
            contact.silence.over(now);
        });
    }

    /// Why `endpoint` can't be reached, if it can't.
    pub fn fault_of(&self, endpoint: &Endpoint) -> Option<String> {
        self.known.borrow().get(endpoint).and_then(|contact| contact.fault.clone())
    }

    /// All that can't be reached and why, in one line.
    pub fn summary(&self, now: MonotonicMs) -> String {
        let known = self.known.borrow();
        let asked = known.values().filter(|contact| !contact.is_forgotten(now));
        let faults: Vec<String> = asked
            .filter_map(|contact| contact.fault.as_ref().map(|fault| format!("{}: {fault}", contact.name)))
            .collect();
        if faults.is_empty() { "all that were asked answer".to_owned() } else { faults.join("; ") }
    }

    /// Waits until nobody wants this node; returns the reason.
    pub async fn fatal(&self) -> String {
        loop {
            if let Some(reason) = self.fatal.take() {
                return reason;
            }
            self.fatal_came.wait().await;
        }
    }

    fn with(&self, to: &Destination, now: MonotonicMs, note: impl FnOnce(&mut Contact)) {
        let mut known = self.known.borrow_mut();
        known.retain(|_, contact| !contact.is_forgotten(now));
        let contact = known.entry(to.endpoint.clone()).or_insert_with(|| Contact {
            name: name_of(to),
            fault: None,
            unanswered_since: None,
            asked_at: now,
            silence: Lasting::after(PATIENCE_MS),
            refusal: Lasting::default(),
        });
        if to.node_id.is_some() {
            contact.name = name_of(to);
        }
        contact.asked_at = now;
        note(contact);
    }
}

impl Contact {
    /// Says in the log that there is no answer, if that is due.
    fn tell(&self, now: MonotonicMs) {
        let Some(fault) = &self.fault else { return };
        if let Some(lasted_ms) = self.silence.holds(now) {
            warn!("{} has not answered for {} s: {fault}", self.name, lasted_ms / 1000);
        }
    }

    fn is_forgotten(&self, now: MonotonicMs) -> bool {
        now.since_ms(self.asked_at) >= FORGOTTEN_AFTER_MS
    }
}

fn name_of(to: &Destination) -> String {
    match to.node_id {
        Some(id) => format!("controller {id} at {}", to.endpoint),
        None => format!("the controller at {}", to.endpoint),
    }
}
