//! Throttles of replication (KIP-73): which replicas they are for, and the rates of a broker, which are dynamic
//! configuration only.

use ringlog_types::{NodeId, PartitionIndex};
use rustc_hash::FxHashSet;

use crate::{ConfigMap, ThrottledReplicas, TopicConfig};

/// What a broker may copy, in bytes a second; `i64::MAX`, Kafka's default, is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleRates {
    /// `leader.replication.throttled.rate`: what throttled followers get from it.
    pub leader: u64,
    /// `follower.replication.throttled.rate`: what its throttled replicas fetch.
    pub follower: u64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`: what it copies between its directories.
    pub alter_log_dirs: u64,
}

impl Default for ThrottleRates {
    fn default() -> ThrottleRates {
        let unlimited = i64::MAX as u64;
        ThrottleRates { leader: unlimited, follower: unlimited, alter_log_dirs: unlimited }
    }
}

impl ThrottleRates {
    /// By the dynamic configuration of the broker, else of all brokers. What doesn't parse counts as not set.
    pub fn of(per_broker: &ConfigMap, cluster_default: &ConfigMap) -> ThrottleRates {
        let rate = |key: &str, default: u64| {
            let given = [per_broker, cluster_default].into_iter().find_map(|layer| layer.get(key)?.trim().parse().ok());
            given.filter(|rate| *rate <= i64::MAX as u64).unwrap_or(default)
        };
        let default = ThrottleRates::default();
        ThrottleRates {
            leader: rate("leader.replication.throttled.rate", default.leader),
            follower: rate("follower.replication.throttled.rate", default.follower),
            alter_log_dirs: rate("replica.alter.log.dirs.io.max.bytes.per.second", default.alter_log_dirs),
        }
    }
}

/// Partitions of a topic whose replica on one broker is throttled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ThrottledPartitions {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These.
    Of(FxHashSet<i32>),
}

impl ThrottledPartitions {
    fn of(replicas: &ThrottledReplicas, broker: NodeId) -> ThrottledPartitions {
        let replicas = match replicas {
            ThrottledReplicas::None => return ThrottledPartitions::None,
            ThrottledReplicas::All => return ThrottledPartitions::All,
            ThrottledReplicas::Of(replicas) => replicas,
        };
        let here: FxHashSet<i32> = replicas.iter().filter(|(_, on)| *on == broker.0).map(|(it, _)| *it).collect();
        if here.is_empty() { ThrottledPartitions::None } else { ThrottledPartitions::Of(here) }
    }

    /// Whether it is among them.
    pub fn contains(&self, partition: PartitionIndex) -> bool {
        match self {
            ThrottledPartitions::None => false,
            ThrottledPartitions::All => true,
            ThrottledPartitions::Of(partitions) => partitions.contains(&partition.0),
        }
    }
}

/// What of a topic is throttled on one broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicThrottles {
    /// By `leader.replication.throttled.replicas`: what others fetch from this broker.
    pub leader: ThrottledPartitions,
    /// By `follower.replication.throttled.replicas`: what this broker fetches.
    pub follower: ThrottledPartitions,
}

impl TopicThrottles {
    /// `None` when nothing is.
    pub fn of(topic: &TopicConfig, broker: NodeId) -> Option<TopicThrottles> {
        let throttles = TopicThrottles {
            leader: ThrottledPartitions::of(&topic.leader_replication_throttled_replicas, broker),
            follower: ThrottledPartitions::of(&topic.follower_replication_throttled_replicas, broker),
        };
        (throttles != TopicThrottles::default()).then_some(throttles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BrokerLayers;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn rates_are_the_brokers_else_the_clusters() {
        assert_eq!(ThrottleRates::of(&map(&[]), &map(&[])), ThrottleRates::default());
        let own = [("leader.replication.throttled.rate", "5"), ("follower.replication.throttled.rate", "-5")];
        let all = [("leader.replication.throttled.rate", "7"), ("follower.replication.throttled.rate", "9")];
        let rates = ThrottleRates::of(&map(&own), &map(&all));
        assert_eq!((rates.leader, rates.follower), (5, 9));
        let log_dirs = map(&[("replica.alter.log.dirs.io.max.bytes.per.second", "0")]);
        assert_eq!(ThrottleRates::of(&log_dirs, &map(&[])).alter_log_dirs, 0);
    }

    #[test]
    fn what_is_throttled_is_said_for_each_broker() {
        let throttles = |broker: i32, leader: &str, follower: &str| {
            let overrides = map(&[
                ("leader.replication.throttled.replicas", leader),
                ("follower.replication.throttled.replicas", follower),
            ]);
            let static_config = ConfigMap::new();
            let layers = BrokerLayers::from_static(&static_config);
            TopicThrottles::of(&TopicConfig::resolve(&overrides, &layers), NodeId(broker))
        };
        assert_eq!(throttles(1, "", ""), None);
        assert_eq!(throttles(3, "0:1,1:2", "0:2"), None);
        let on_one = throttles(1, "0:1,1:2,5:1", "0:2").unwrap();
        assert_eq!([0, 1, 5].map(|partition| on_one.leader.contains(PartitionIndex(partition))), [true, false, true]);
        assert!(!on_one.follower.contains(PartitionIndex(0)));
        let everywhere = throttles(7, "*", "").unwrap();
        assert!(everywhere.leader.contains(PartitionIndex(99)) && !everywhere.follower.contains(PartitionIndex(99)));
    }
}
