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

/// That a broker runs, as far as its last contact tells.
#[derive(Debug, Clone, Copy)]
struct Session {
    /// Of which life.
    epoch: BrokerEpoch,
    last_contact: MonotonicMs,
    /// When its process was found gone, if so: nothing that came before says that it runs.
    gone_at: Option<MonotonicMs>,
}

impl Session {
    fn new(epoch: BrokerEpoch, at: MonotonicMs) -> Session {
        Session { epoch, last_contact: at, gone_at: None }
    }
}

/// Contact times and reported offsets. One entry per registered broker.
#[derive(Debug)]
pub(crate) struct HeartbeatManager {
    session_timeout_ms: u64,
    /// A session ends by expiry, or with the broker's process, not by fencing.
    sessions: FxHashMap<NodeId, Session>,
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
                manager.sessions.insert(broker.id, Session::new(broker.epoch, now));
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
            let session = self.sessions.entry(id).or_insert(Session::new(epoch, at));
            if session.epoch != epoch {
                *session = Session::new(epoch, at);
            }
            // A later contact may be known already.
            session.last_contact = session.last_contact.max(at);
            session.gone_at = session.gone_at.filter(|gone_at| *gone_at >= at);
        }
    }

    /// The broker's process was found gone then: its session is over.
    pub(crate) fn end_with_process(&mut self, id: NodeId, epoch: BrokerEpoch, at: MonotonicMs) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.epoch == epoch) {
            session.gone_at = Some(at);
        }
    }

    fn is_over(&self, session: &Session, now: MonotonicMs) -> bool {
        session.gone_at.is_some() || now.since_ms(session.last_contact) > self.session_timeout_ms
    }

    /// How long until the next session expires by time, if nobody is heard of.
    pub(crate) fn next_expiry_ms(&self, now: MonotonicMs) -> Option<u64> {
        let left = |session: &Session| session.last_contact.plus_ms(self.session_timeout_ms + 1).since_ms(now);
        self.sessions.values().map(left).min()
    }

    /// For so long nobody looked at what came in: that time says nothing about who was silent.
    pub(crate) fn forgive(&mut self, ms: u64, now: MonotonicMs) {
        for session in self.sessions.values_mut() {
            session.last_contact = session.last_contact.plus_ms(ms).min(now);
        }
    }

    /// Whether the broker has been heard of in time.
    pub(crate) fn has_valid_session(&self, id: NodeId, epoch: BrokerEpoch, now: MonotonicMs) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.epoch == epoch && !self.is_over(session, now))
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
        let expired = self.sessions.iter().filter(|(_, session)| self.is_over(session, now));
        let (id, epoch) = expired.map(|(id, session)| (*id, session.epoch)).min()?;
        self.sessions.remove(&id);
        Some((id, epoch))
    }

    /// Whether a session has expired that was not taken yet.
    pub(crate) fn has_expired(&self, now: MonotonicMs) -> bool {
        self.sessions.values().any(|session| self.is_over(session, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT_MS: u64 = 9_000;

    fn manager() -> HeartbeatManager {
        let mut manager = HeartbeatManager {
            session_timeout_ms: TIMEOUT_MS,
            sessions: FxHashMap::default(),
            brokers: FxHashMap::default(),
        };
        manager.register(NodeId(1));
        manager.touch(NodeId(1), BrokerEpoch(5), MonotonicMs(100));
        manager
    }

    #[test]
    fn a_session_ends_with_its_time() {
        let mut manager = manager();
        assert_eq!(manager.next_expiry_ms(MonotonicMs(200)), Some(TIMEOUT_MS - 99));
        assert_eq!(manager.take_expired(MonotonicMs(100 + TIMEOUT_MS)), None);
        assert_eq!(manager.take_expired(MonotonicMs(101 + TIMEOUT_MS)), Some((NodeId(1), BrokerEpoch(5))));
        assert_eq!(manager.next_expiry_ms(MonotonicMs(200)), None);
    }

    #[test]
    fn a_session_ends_with_its_process_unless_that_is_heard_of_later() {
        let mut manager = manager();
        let is_alive =
            |manager: &HeartbeatManager| manager.has_valid_session(NodeId(1), BrokerEpoch(5), MonotonicMs(300));
        manager.end_with_process(NodeId(1), BrokerEpoch(4), MonotonicMs(150));
        assert!(is_alive(&manager), "of another life");
        manager.end_with_process(NodeId(1), BrokerEpoch(5), MonotonicMs(150));
        assert!(!is_alive(&manager));
        // What had been sent before it ended.
        manager.touch(NodeId(1), BrokerEpoch(5), MonotonicMs(140));
        assert!(!is_alive(&manager) && manager.has_expired(MonotonicMs(160)));
        manager.touch(NodeId(1), BrokerEpoch(5), MonotonicMs(170));
        assert!(is_alive(&manager) && !manager.has_expired(MonotonicMs(180)));
        manager.end_with_process(NodeId(1), BrokerEpoch(5), MonotonicMs(190));
        assert_eq!(manager.take_expired(MonotonicMs(190)), Some((NodeId(1), BrokerEpoch(5))));
    }
}
