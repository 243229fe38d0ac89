//! When each broker was last heard of, and how far it has read the metadata log. Not replicated.

use ringlog_types::{BrokerEpoch, MonotonicMs, NodeId, Offset};
use rustc_hash::FxHashMap;

use crate::image::ClusterImage;

/// What is known of one broker besides its registration.
#[derive(Debug, Clone, Copy)]
struct BrokerHeartbeats {
    /// The metadata offset that its last heartbeat named.
    metadata_offset: Offset,
    /// The last offset of the batch that began its controlled shutdown.
    controlled_shutdown_offset: Option<Offset>,
}

/// Contact times and reported offsets. One entry per registered broker.
#[derive(Debug)]
pub(crate) struct HeartbeatManager {
    session_timeout_ms: u64,
    /// The time of the last contact of each live session. A session ends by expiry alone, not by fencing.
    sessions: FxHashMap<NodeId, (BrokerEpoch, MonotonicMs)>,
    brokers: FxHashMap<NodeId, BrokerHeartbeats>,
}

impl HeartbeatManager {
    /// At activation: unfenced brokers get a fresh session, fenced ones none.
    pub(crate) fn new(session_timeout_ms: u64, cluster: &ClusterImage, now: MonotonicMs) -> HeartbeatManager {
        let mut manager =
            HeartbeatManager { session_timeout_ms, sessions: FxHashMap::default(), brokers: FxHashMap::default() };
        for broker in cluster.brokers.values() {
            manager.register(broker.id);
            if !broker.is_fenced {
                manager.sessions.insert(broker.id, (broker.epoch, now));
            }
        }
        manager
    }

    /// A broker registered anew: nothing is known of this life yet.
    pub(crate) fn register(&mut self, id: NodeId) {
        let fresh = BrokerHeartbeats { metadata_offset: Offset(-1), controlled_shutdown_offset: None };
        self.brokers.insert(id, fresh);
    }

    /// The broker is no longer registered.
    pub(crate) fn remove(&mut self, id: NodeId) {
        self.brokers.remove(&id);
        self.sessions.remove(&id);
    }

    /// The broker is known not to run, or is about to be heard of.
    pub(crate) fn end_session(&mut self, id: NodeId) {
        self.sessions.remove(&id);
    }

    /// A heartbeat came in then. Only registered brokers have sessions, which bounds their number.
    pub(crate) fn touch(&mut self, id: NodeId, epoch: BrokerEpoch, at: MonotonicMs) {
        if self.brokers.contains_key(&id) {
            let session = self.sessions.entry(id).or_insert((epoch, at));
            // Of this life of the broker a later one may be known already.
            *session = if session.0 == epoch { (epoch, session.1.max(at)) } else { (epoch, at) };
        }
    }

    /// For so long nobody looked at what came in: that time says nothing about who was silent.
    pub(crate) fn forgive(&mut self, ms: u64, now: MonotonicMs) {
        for (_, last_contact) in self.sessions.values_mut() {
            *last_contact = last_contact.plus_ms(ms).min(now);
        }
    }

    /// Whether the broker has been heard of in time.
    pub(crate) fn has_valid_session(&self, id: NodeId, epoch: BrokerEpoch, now: MonotonicMs) -> bool {
        self.sessions.get(&id).is_some_and(|(session_epoch, last_contact)| {
            *session_epoch == epoch && now.since_ms(*last_contact) <= self.session_timeout_ms
        })
    }

    /// The registration changed: how far the broker has come counts anew from its next heartbeat.
    pub(crate) fn forget_offset(&mut self, id: NodeId) {
        self.report_offset(id, Offset(-1));
    }

    /// Notes the offset that a heartbeat named.
    pub(crate) fn report_offset(&mut self, id: NodeId, offset: Offset) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.metadata_offset = offset;
        }
    }

    /// The batch that ends at `offset` began the broker's controlled shutdown.
    pub(crate) fn on_controlled_shutdown(&mut self, id: NodeId, offset: Offset) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.controlled_shutdown_offset.get_or_insert(offset);
        }
    }

    /// The broker is fenced: it stops later, or comes back.
    pub(crate) fn end_controlled_shutdown(&mut self, id: NodeId) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.controlled_shutdown_offset = None;
        }
    }

    /// Whether the broker's controlled shutdown began in this life of the controller, and since the broker registered
    /// last. What the registration says of it may be older.
    pub(crate) fn is_shutting_down(&self, id: NodeId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| broker.controlled_shutdown_offset.is_some())
    }

    /// Whether every other broker that is up has read the batch that began the broker's shutdown.
    pub(crate) fn may_shut_down(&self, id: NodeId, cluster: &ClusterImage) -> bool {
        let Some(offset) = self.brokers.get(&id).and_then(|broker| broker.controlled_shutdown_offset) else {
            return true;
        };
        let up = cluster.brokers.values().filter(|broker| !broker.is_fenced);
        let active =
            up.filter_map(|broker| self.brokers.get(&broker.id)).filter(|it| it.controlled_shutdown_offset.is_none());
        active.min_by_key(|broker| broker.metadata_offset).is_none_or(|broker| broker.metadata_offset >= offset)
    }

    /// Ends one session that has expired and says whose it was.
    pub(crate) fn take_expired(&mut self, now: MonotonicMs) -> Option<(NodeId, BrokerEpoch)> {
        let is_expired = |last_contact: MonotonicMs| now.since_ms(last_contact) > self.session_timeout_ms;
        let expired = self.sessions.iter().filter(|(_, (_, last_contact))| is_expired(*last_contact));
        let (id, epoch) = expired.map(|(id, (epoch, _))| (*id, *epoch)).min()?;
        self.sessions.remove(&id);
        Some((id, epoch))
    }

    /// Whether a session has expired that was not taken yet.
    pub(crate) fn has_expired(&self, now: MonotonicMs) -> bool {
        self.sessions.values().any(|(_, last_contact)| now.since_ms(*last_contact) > self.session_timeout_ms)
    }
}
