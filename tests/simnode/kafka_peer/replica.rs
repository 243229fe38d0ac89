//! A replica and what it is at the moment: who leads, who is in sync, what is committed. What a leader does is in
//! [`super::leading`], what a follower does in [`super::following`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_metadata::image::{MetadataImage, PartitionImage};
use ringlog_types::NodeId;

use super::disk::Key;
use super::log::Log;

/// What doesn't change while a process lives.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// This broker.
    pub own_id: i32,
    /// `min.insync.replicas`.
    pub min_in_sync: usize,
    /// `replica.lag.time.max.ms`.
    pub lag_max_ms: u64,
    /// Who isn't in sync may come to lead, so that what was committed may be cut off.
    pub is_unclean: bool,
}

/// Brokers as the metadata has them: the epoch of each, and whether it may be in sync.
#[derive(Debug, Default)]
pub struct Brokers(BTreeMap<i32, (i64, bool)>);

impl Brokers {
    /// As an image has them.
    pub fn of(image: &MetadataImage) -> Brokers {
        let broker = |broker: &ringlog_metadata::image::BrokerImage| (broker.epoch.0, broker.is_active());
        Brokers(image.cluster.brokers.values().map(|it| (it.id.0, broker(it))).collect())
    }

    /// Whether a broker may be in sync. A fetch without a broker epoch counts for any.
    pub fn is_eligible(&self, id: i32, epoch: i64) -> bool {
        self.0.get(&id).is_some_and(|(known, is_active)| *is_active && (epoch == *known || epoch == -1))
    }

    /// Whether a fetch is of a life of a broker that is over.
    pub fn is_stale(&self, id: i32, epoch: i64) -> bool {
        epoch >= 0 && self.0.get(&id).is_some_and(|(known, _)| epoch < *known)
    }

    /// Whether it may be waited for.
    pub fn is_alive(&self, id: i32) -> bool {
        self.0.get(&id).is_some_and(|(_, is_active)| *is_active)
    }
}

/// What a leader knows of another replica.
#[derive(Debug, Clone, Copy)]
pub struct Remote {
    /// Where it ends, once it has fetched in this epoch.
    pub end: Option<i64>,
    /// Where it starts.
    pub start: i64,
    /// When it had all that there was.
    pub caught_up_ms: u64,
    /// When it fetched last, and where the log ended then.
    pub fetched_ms: u64,
    /// Where the log ended then.
    pub leader_end: i64,
    /// The broker epoch that it named.
    pub broker_epoch: i64,
    /// What it was told last of what is committed.
    pub told_high_watermark: i64,
}

/// Other in-sync replicas that the controller is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who, and in which epoch of each.
    pub in_sync: Vec<(i32, i64)>,
    /// The leader's.
    pub leader_epoch: i32,
    /// Of the partition.
    pub partition_epoch: i32,
    /// It is on its way.
    pub is_sent: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct Replica {
    /// Which.
    pub key: Key,
    /// Its topic.
    pub topic: String,
    /// Its log.
    pub log: Rc<RefCell<Log>>,
    /// `message.timestamp.type` is LogAppendTime.
    pub is_append_time: bool,
    /// Who leads; -1 for nobody.
    pub leader: i32,
    /// In which epoch; -1 before any is known.
    pub leader_epoch: i32,
    pub(super) partition_epoch: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) in_sync: Vec<i32>,
    pub(super) proposal: Option<Proposal>,
    pub(super) high_watermark: i64,
    /// Where this leader's epoch begins.
    pub(super) epoch_start: i64,
    pub(super) remotes: BTreeMap<i32, Remote>,
    pub(super) limits: Limits,
}

/// What an image makes of a replica.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It goes on.
    Same,
    /// It leads.
    Leads,
    /// It follows, in a new epoch.
    Follows(i32),
    /// Nobody leads.
    Waits,
}

impl Replica {
    /// As a process finds it when it starts.
    pub fn new(key: Key, topic: &str, log: &Rc<RefCell<Log>>, limits: Limits) -> Replica {
        let (saved, end) = (log.borrow().saved_high_watermark, log.borrow().end());
        Replica {
            key,
            topic: topic.to_owned(),
            log: log.clone(),
            is_append_time: false,
            leader: -1,
            leader_epoch: -1,
            partition_epoch: -1,
            replicas: Vec::new(),
            in_sync: Vec::new(),
            proposal: None,
            high_watermark: saved.min(end).max(log.borrow().start()),
            epoch_start: 0,
            remotes: BTreeMap::new(),
            limits,
        }
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.leader == self.limits.own_id && self.leader_epoch >= 0
    }

    /// What is committed, as far as this replica knows.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// So much is kept over a restart of what is known to be committed.
    pub fn save_high_watermark(&self) {
        self.log.borrow_mut().saved_high_watermark = self.high_watermark;
    }

    /// Takes over what the metadata says. What is older than what is known already is passed over.
    pub fn on_metadata(&mut self, now: &PartitionImage, brokers: &Brokers, at_ms: u64) -> Turn {
        if now.partition_epoch.0 < self.partition_epoch {
            return Turn::Same;
        }
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<i32>>();
        if now.partition_epoch.0 > self.partition_epoch {
            self.proposal = None;
            self.in_sync = ids(now.in_sync_replicas());
        }
        self.partition_epoch = now.partition_epoch.0;
        self.replicas = ids(now.replicas());
        let is_new = now.leader_epoch.0 > self.leader_epoch || now.leader.0 != self.leader;
        (self.leader, self.leader_epoch) = (now.leader.0, now.leader_epoch.0);
        if self.leads() {
            if is_new {
                self.begin_to_lead(at_ms);
            }
            self.know_remotes(at_ms);
            self.advance(brokers, at_ms);
            return if is_new { Turn::Leads } else { Turn::Same };
        }
        self.remotes.clear();
        self.proposal = None;
        match self.leader {
            _ if !is_new => Turn::Same,
            -1 => Turn::Waits,
            leader => Turn::Follows(leader),
        }
    }

    fn begin_to_lead(&mut self, at_ms: u64) {
        self.remotes.clear();
        self.proposal = None;
        self.epoch_start = self.log.borrow().end();
        self.log.borrow_mut().epochs.assign(self.leader_epoch, self.epoch_start);
        self.know_remotes(at_ms);
    }

    /// Those that have come are known, those that have gone aren't any more.
    fn know_remotes(&mut self, at_ms: u64) {
        let own_id = self.limits.own_id;
        self.remotes.retain(|id, _| self.replicas.contains(id));
        for id in self.replicas.iter().filter(|id| **id != own_id) {
            let caught_up_ms = if self.in_sync.contains(id) { at_ms } else { 0 };
            self.remotes.entry(*id).or_insert(Remote {
                end: None,
                start: -1,
                caught_up_ms,
                fetched_ms: 0,
                leader_end: i64::MAX,
                broker_epoch: -1,
                told_high_watermark: -1,
            });
        }
    }
}
