//! The partitions that live on one core, and why others don't.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_protocol::StrBytes;
use ringlog_types::{NodeId, TopicIdPartition, Uuid};
use rustc_hash::FxHashMap;

use crate::data::replica::{Proposals, Replica};
use crate::metadata::MetadataView;

/// The replicas of one core.
pub struct Replicas {
    node_id: NodeId,
    metadata: Rc<MetadataView>,
    here: RefCell<FxHashMap<TopicIdPartition, Rc<Replica>>>,
    /// Those that are gone while the image still shows them.
    departed: RefCell<FxHashMap<TopicIdPartition, Unserved>>,
    /// This process is registered, and what the image gives to it was opened, if it could be.
    is_registered: Cell<bool>,
    observer: OnceCell<Rc<dyn ReplicaObserver>>,
    /// Changes of in-sync replicas that are wanted.
    pub proposals: Rc<Proposals>,
}

/// Who keeps state where a partition is led: the coordinators.
pub trait ReplicaObserver {
    /// This broker became the leader of the partition, or leads it in a new epoch, or no longer.
    fn on_leadership(&self, replica: &Rc<Replica>, is_leader: bool);

    /// A replica was closed: it no longer leads anything.
    fn on_closed(&self, replica: &Replica);

    /// Topics are gone.
    fn on_topics_deleted(&self, topics: &[(StrBytes, Uuid)]);
}

impl Replicas {
    /// None yet.
    pub fn new(node_id: NodeId, metadata: Rc<MetadataView>) -> Replicas {
        Replicas {
            node_id,
            metadata,
            here: RefCell::default(),
            departed: RefCell::default(),
            is_registered: Cell::new(false),
            observer: OnceCell::new(),
            proposals: Rc::default(),
        }
    }

    /// The replica of `id` for a request, or why nothing of it is served here.
    pub fn served(&self, id: TopicIdPartition) -> Result<Rc<Replica>, Unserved> {
        match self.get(id) {
            Some(replica) => replica.unserved().map_or(Ok(replica), Err),
            None => Err(self.why_absent(id)),
        }
    }

    /// What this core knows of the cluster.
    pub fn metadata(&self) -> &MetadataView {
        &self.metadata
    }

    /// The replica of `id`, if it lives here. Requests ask [`Replicas::served`].
    pub fn get(&self, id: TopicIdPartition) -> Option<Rc<Replica>> {
        self.here.borrow().get(&id).cloned()
    }

    /// Those that are here now; there may be others while the caller goes through them.
    pub fn all(&self) -> Vec<Rc<Replica>> {
        self.here.borrow().values().cloned().collect()
    }

    /// Their ids: for who goes through many with pauses. It touches none of them, and there may be very many.
    pub fn ids(&self) -> Vec<TopicIdPartition> {
        self.here.borrow().keys().copied().collect()
    }

    /// Those of some topics. By their ids: the others aren't touched, and there may be very many.
    pub fn for_each_of_topics<T>(&self, topics: &FxHashMap<Uuid, T>, mut work: impl FnMut(&Rc<Replica>, &T)) {
        for (id, replica) in self.here.borrow().iter() {
            if let Some(topic) = topics.get(&id.topic_id) {
                work(replica, topic);
            }
        }
    }

    /// Another one lives here.
    pub fn insert(&self, replica: Rc<Replica>) {
        let id = replica.id;
        replica.set_proposals(&self.proposals);
        let before = self.here.borrow_mut().insert(id, replica);
        assert!(before.is_none(), "two replicas of {id} at a time");
    }

    /// It no longer lives here; whether it did.
    pub fn remove(&self, replica: &Rc<Replica>) -> bool {
        let mut here = self.here.borrow_mut();
        let is_here = here.get(&replica.id).is_some_and(|known| Rc::ptr_eq(known, replica));
        if is_here {
            here.remove(&replica.id);
        }
        is_here
    }

    /// The node stops: whoever waits at a replica of this core is answered.
    pub fn stop_serving(&self) {
        for replica in self.all() {
            replica.close(Unserved::NodeStopping);
        }
    }

    /// Why there is no replica of `id` on this core, which is its home.
    fn why_absent(&self, id: TopicIdPartition) -> Unserved {
        if let Some(why) = self.departed.borrow().get(&id) {
            return *why;
        }
        let image = self.metadata.image();
        let Some(partition) = image.topics.partition(id) else { return Unserved::TopicDeleted };
        if self.metadata.is_about_to_go(id.topic_id) {
            return Unserved::TopicDeleted;
        }
        // What the image shows was opened before it was taken over, if it could be.
        let was_claimed = self.is_registered.get() && partition.directory(self.node_id).is_some();
        if was_claimed { Unserved::LogDirectoryFailed } else { Unserved::NoReplicaHere }
    }

    /// It goes, while the image still shows it.
    pub fn depart(&self, replica: &Replica, why: Unserved) {
        self.departed.borrow_mut().insert(replica.id, why);
    }

    /// The image shows it no more.
    pub fn forget_departed(&self) {
        self.departed.borrow_mut().clear();
    }

    /// This process is registered, and what the image gives to it was taken over.
    pub fn set_registered(&self) {
        self.is_registered.set(true);
    }

    /// Whether it was, before.
    pub fn is_registered(&self) -> bool {
        self.is_registered.get()
    }

    /// Set once, while the core is put together.
    pub fn set_observer(&self, observer: Rc<dyn ReplicaObserver>) {
        assert!(self.observer.set(observer).is_ok(), "one observer");
    }

    /// A replica leads its partition from now on, in a new epoch perhaps, or no longer.
    pub fn leadership_changed(&self, replica: &Rc<Replica>, is_leader: bool) {
        if let Some(observer) = self.observer.get() {
            observer.on_leadership(replica, is_leader);
        }
    }

    /// A replica was closed.
    pub fn closed(&self, replica: &Replica) {
        if let Some(observer) = self.observer.get() {
            observer.on_closed(replica);
        }
    }

    /// Topics are gone.
    pub fn topics_deleted(&self, topics: &[(StrBytes, Uuid)]) {
        if let Some(observer) = self.observer.get() {
            observer.on_topics_deleted(topics);
        }
    }
}
