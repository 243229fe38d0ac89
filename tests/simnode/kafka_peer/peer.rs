//! A peer's process: its replicas, and what an image of the metadata makes of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringlog_metadata::image::{ConfigResource, MetadataImage};
use ringlog_ring::{self as ring, sim};

use super::disk::{Disk, Key};
use super::fetcher::Fetcher;
use super::log::Log;
use super::replica::{Brokers, Replica, Turn};
use super::sessions::Sessions;
use super::settings::Settings;

/// See the module's text.
pub struct Peer {
    /// What it is like.
    pub settings: Settings,
    /// What outlives it.
    pub disk: Rc<Disk>,
    /// The newest metadata.
    pub image: RefCell<MetadataImage>,
    /// Brokers in it.
    pub brokers: RefCell<Brokers>,
    /// Something is new in it.
    pub image_changed: ring::Notify,
    /// Of its registration; -1 before.
    pub epoch: Cell<i64>,
    /// It has caught up: replicas are what the metadata says.
    pub is_loaded: Cell<bool>,
    /// Its replicas.
    pub replicas: RefCell<BTreeMap<Key, Rc<RefCell<Replica>>>>,
    /// By leader.
    pub fetchers: RefCell<BTreeMap<i32, Rc<Fetcher>>>,
    /// Of those who fetch from here.
    pub sessions: RefCell<Sessions>,
    /// Something was appended or committed, or somebody else leads: who waits looks again.
    pub progress: ring::Notify,
    /// Some replica may want something of the controller.
    pub proposed: ring::Notify,
    /// It was told to stop.
    pub is_stopping: Cell<bool>,
    /// The same for who waits.
    pub stopping: ring::Notify,
    /// Producer ids that were given to this broker: the next, and behind the last.
    pub producer_ids: Cell<(i64, i64)>,
}

impl Peer {
    /// As a process begins.
    pub fn new(settings: Settings, disk: Rc<Disk>) -> Peer {
        let image = disk.metadata.borrow().image();
        let sessions = Sessions::new(settings.sessions);
        Peer {
            settings,
            image: RefCell::new(image),
            disk,
            brokers: RefCell::default(),
            image_changed: ring::Notify::new(),
            epoch: Cell::new(-1),
            is_loaded: Cell::new(false),
            replicas: RefCell::default(),
            fetchers: RefCell::default(),
            sessions: RefCell::new(sessions),
            progress: ring::Notify::new(),
            proposed: ring::Notify::new(),
            is_stopping: Cell::new(false),
            stopping: ring::Notify::new(),
            producer_ids: Cell::new((0, 0)),
        }
    }

    /// Its `node.id`.
    pub fn id(&self) -> i32 {
        self.settings.limits.own_id
    }

    /// What no run may show.
    pub fn complain(&self, text: &str) {
        sim::control().add_violation(format!("to Kafka {}, {text}", self.id()));
    }

    /// Milliseconds of a clock that goes on.
    pub fn now_ms() -> u64 {
        ring::now().monotonic.0
    }

    /// A replica, if it is here.
    pub fn replica(&self, key: Key) -> Option<Rc<RefCell<Replica>>> {
        self.replicas.borrow().get(&key).cloned()
    }

    /// Something has happened to replicas: who waits looks, and the controller is asked for what they want.
    pub fn on_progress(&self) {
        self.progress.notify_all();
        self.proposed.notify_all();
    }

    /// There is another image.
    pub fn on_image(self: &Rc<Self>) {
        let image = self.disk.metadata.borrow().image();
        *self.brokers.borrow_mut() = Brokers::of(&image);
        *self.image.borrow_mut() = image.clone();
        if self.is_loaded.get() {
            self.apply(&image);
        }
        self.image_changed.notify_all();
        self.on_progress();
    }

    /// Replicas come, go, lead and follow.
    fn apply(self: &Rc<Self>, image: &MetadataImage) {
        let mut here = BTreeSet::new();
        let topics: BTreeMap<_, _> = image.topics.iter().map(|topic| (topic.id, topic)).collect();
        for (topic_id, topic) in topics {
            let config = image.configs.value(&ConfigResource::topic(&topic.name), "message.timestamp.type");
            let is_append_time = config.is_some_and(|value| **value == *"LogAppendTime");
            for (index, partition) in topic.partitions.iter() {
                if !partition.replicas().iter().any(|node| node.0 == self.id()) {
                    continue;
                }
                let key = (topic_id, index.0);
                here.insert(key);
                let replica = self.replica(key).unwrap_or_else(|| self.open(key, &topic.name));
                let turn = {
                    let mut replica = replica.borrow_mut();
                    replica.is_append_time = is_append_time;
                    replica.on_metadata(partition, &self.brokers.borrow(), Peer::now_ms())
                };
                if turn != Turn::Same {
                    sim::control().note(|| format!("{}-{}: {turn:?}, {partition:?}", topic.name, index.0));
                }
                match turn {
                    Turn::Same => {}
                    Turn::Leads | Turn::Waits => self.unfollow(key),
                    Turn::Follows(leader) => self.follow(&replica, leader),
                }
            }
        }
        let gone: Vec<Key> = self.replicas.borrow().keys().filter(|key| !here.contains(key)).copied().collect();
        for key in gone {
            self.unfollow(key);
            self.replicas.borrow_mut().remove(&key);
        }
        // Also what a former life had.
        self.disk.logs.borrow_mut().retain(|key, _| here.contains(key));
    }

    fn open(&self, key: Key, topic: &str) -> Rc<RefCell<Replica>> {
        let new = || Rc::new(RefCell::new(Log::new(format!("{topic}-{}", key.1))));
        let log = self.disk.logs.borrow_mut().entry(key).or_insert_with(new).clone();
        let replica = Rc::new(RefCell::new(Replica::new(key, topic, &log, self.settings.limits)));
        self.replicas.borrow_mut().insert(key, replica.clone());
        replica
    }

    /// High watermarks are saved, for the next life.
    pub fn save_high_watermarks(&self) {
        self.replicas.borrow().values().for_each(|replica| replica.borrow().save_high_watermark());
    }
}
