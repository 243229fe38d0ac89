//! Throttles of replication (KIP-73), as this core enforces them: what its followers fetch from here, what its own replicas
//! fetch, and what is copied between directories, against the rates of this broker.
//!
//! The rates are the node's, and cores share nothing. So each core keeps the account of the whole node: its own bytes count
//! at once, and those of the others as soon as they tell, which they do at most each [`TOLD_EACH_MS`], and not at all as long as
//! nothing throttled is copied. A rate divided among the cores would be simpler still, but the one partition that is moved
//! lives on one core, and would get that core's part only. What the cores copy in the meantime beyond the rate is paid for by
//! what comes next, like every answer that exceeds it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlog_config::ThrottleRates;
use ringlog_partition::{QuotaWindows, ReplicationQuota};
use ringlog_ring as ring;
use ringlog_types::{MonotonicMs, NodeId, TopicIdPartition};

use crate::core::{Core, Room};
use crate::data::replica::Replica;
use crate::metadata::MetadataView;

/// How often a core tells the others what it has copied, at most.
const TOLD_EACH_MS: u64 = 50;

/// What is throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttled {
    /// What followers elsewhere fetch from here.
    Leader,
    /// What replicas here fetch.
    Follower,
    /// What is copied between directories, of whatever partition.
    LogDirs,
}

impl Throttled {
    fn rate(self, rates: &ThrottleRates) -> u64 {
        match self {
            Throttled::Leader => rates.leader,
            Throttled::Follower => rates.follower,
            Throttled::LogDirs => rates.alter_log_dirs,
        }
    }
}

/// The throttles on one core.
pub struct ReplicationQuotas {
    core: Rc<Core>,
    metadata: Rc<MetadataView>,
    accounts: [Account; 3],
}

/// What the node has copied of one kind.
struct Account {
    quota: RefCell<ReplicationQuota>,
    /// Bytes of this core that the others don't know of.
    untold: Cell<u64>,
    is_telling: Cell<bool>,
}

impl Account {
    fn new(windows: QuotaWindows) -> Account {
        Account {
            quota: RefCell::new(ReplicationQuota::new(windows)),
            untold: Cell::default(),
            is_telling: Cell::default(),
        }
    }

    fn record(&self, bytes: u64) {
        self.quota.borrow_mut().record(bytes, ring::now().monotonic);
    }
}

impl Room for ReplicationQuotas {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl ReplicationQuotas {
    /// Nothing was copied yet.
    pub fn new(core: Rc<Core>, metadata: Rc<MetadataView>) -> ReplicationQuotas {
        let quota = &core.node.config.quota;
        let windows = QuotaWindows::new(quota.replication_window_num, quota.replication_window_size_seconds);
        let between = QuotaWindows::new(quota.alter_log_dirs_window_num, quota.alter_log_dirs_window_size_seconds);
        ReplicationQuotas { core, metadata, accounts: [windows, windows, between].map(Account::new) }
    }

    /// Whether the partition, which lives on this core, is throttled.
    pub fn is_throttled(&self, what: Throttled, id: TopicIdPartition) -> bool {
        self.metadata.with_throttles(id.topic_id, |throttles| match what {
            Throttled::Leader => throttles.leader.contains(id.partition),
            Throttled::Follower => throttles.follower.contains(id.partition),
            Throttled::LogDirs => true,
        })
    }

    /// Whether anything is throttled here.
    pub fn is_any_throttled(&self) -> bool {
        self.metadata.has_throttles()
    }

    /// More was copied than allowed: when to look again.
    pub fn exceeded_until(&self, what: Throttled) -> Option<MonotonicMs> {
        let rate = self.metadata.with_server_config(|config| what.rate(&config.throttle_rates));
        self.accounts[what as usize].quota.borrow().exceeded_until(rate, ring::now().monotonic)
    }

    /// Whether a follower gets nothing of this partition for now: it is throttled, and the follower not in sync.
    pub fn withholds(&self, replica: &Replica, follower: NodeId) -> bool {
        self.is_any_throttled()
            && self.is_throttled(Throttled::Leader, replica.id)
            && !replica.is_in_sync(follower)
            && self.exceeded_until(Throttled::Leader).is_some()
    }

    /// So many bytes of throttled partitions were copied.
    pub fn record(self: &Rc<Self>, what: Throttled, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let account = &self.accounts[what as usize];
        account.record(bytes as u64);
        account.untold.set(account.untold.get().saturating_add(bytes as u64));
        if self.core.node.shards > 1 && !account.is_telling.replace(true) {
            self.core.spawn_until_stop(self.clone().tell_others(what));
        }
    }

    async fn tell_others(self: Rc<Self>, what: Throttled) {
        let account = &self.accounts[what as usize];
        loop {
            let bytes = account.untold.take();
            if bytes == 0 {
                account.is_telling.set(false);
                return;
            }
            for core in (0..self.core.node.shards).filter(|core| *core != self.core.index) {
                self.tell(core, move |quotas| quotas.accounts[what as usize].record(bytes)).await;
            }
            ring::sleep_ms(TOLD_EACH_MS).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_dirs::tests::cluster::TestNode;

    #[test]
    fn what_one_core_copies_counts_on_all() {
        TestNode::formatted().run(2, async |shard| {
            let quotas = shard.data.quotas.clone();
            let seen = async |core: usize| {
                let work = |quotas: &Rc<ReplicationQuotas>| {
                    let quota = quotas.accounts[Throttled::Follower as usize].quota.borrow();
                    quota.exceeded_until(1_000, ring::now().monotonic).is_some()
                };
                quotas.ask(core, work).await
            };
            assert!(!seen(0).await && !seen(1).await);
            quotas.record(Throttled::Follower, 600);
            quotas.record(Throttled::Follower, 600);
            assert!(seen(0).await);
            while !seen(1).await {
                ring::sleep_ms(1).await;
            }
            assert_eq!(quotas.exceeded_until(Throttled::Follower), None, "without a rate nothing is exceeded");
        });
    }
}
