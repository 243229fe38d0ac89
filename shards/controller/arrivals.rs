//! When heartbeats came to this controller, whether or not it has got to them: a broker that was heard of isn't fenced
//! because the controller is at work.

use std::cell::RefCell;

use ringlog_protocol::RequestBody;
use ringlog_types::{BrokerEpoch, MonotonicMs, NodeId};
use rustc_hash::FxHashMap;

/// Brokers that are noted at most until the controller looks; those beyond count when they are handled.
const MAX_BROKERS: usize = 20_000;

/// The last heartbeat of each broker since the controller looked.
#[derive(Debug, Default)]
pub struct Arrivals {
    heartbeats: RefCell<FxHashMap<NodeId, (BrokerEpoch, MonotonicMs)>>,
}

impl Arrivals {
    /// Notes the request if it is a heartbeat.
    pub fn note(&self, request: &RequestBody, now: MonotonicMs) {
        let RequestBody::BrokerHeartbeat(heartbeat) = request else { return };
        let mut heartbeats = self.heartbeats.borrow_mut();
        let id = NodeId(heartbeat.broker_id);
        if heartbeats.len() < MAX_BROKERS || heartbeats.contains_key(&id) {
            heartbeats.insert(id, (BrokerEpoch(heartbeat.broker_epoch), now));
        }
    }

    /// All that came since the last time.
    pub fn take(&self) -> Vec<(NodeId, BrokerEpoch, MonotonicMs)> {
        self.heartbeats.borrow_mut().drain().map(|(id, (epoch, at))| (id, epoch, at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::BrokerHeartbeatRequest;

    use super::*;

    #[test]
    fn the_last_heartbeat_of_each_broker_is_noted_up_to_a_bound() {
        let arrivals = Arrivals::default();
        let heartbeat = |broker_id, broker_epoch| {
            RequestBody::from(BrokerHeartbeatRequest { broker_id, broker_epoch, ..Default::default() })
        };
        for id in 0..MAX_BROKERS as i32 + 5 {
            arrivals.note(&heartbeat(id, 1), MonotonicMs(5));
        }
        arrivals.note(&heartbeat(7, 2), MonotonicMs(9));
        let mut taken = arrivals.take();
        taken.sort_unstable();
        assert_eq!(taken.len(), MAX_BROKERS);
        assert_eq!(taken[7], (NodeId(7), BrokerEpoch(2), MonotonicMs(9)));
        assert!(arrivals.take().is_empty());
    }
}
