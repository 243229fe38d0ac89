//! Takes new metadata over on each core: which partitions live here, in which role, with which settings.
//!
//! Images come in order, from the controller's core, through the mesh; one task per core takes them over one after the
//! other. A core's own partitions follow before its [`Shard::image`] changes, so that whoever reads the image finds
//! what it promises.
//!
//! Until this process has registered as a broker the image is only looked at: what is in the log is still about its
//! former life. With the registration everything is taken over at once, and logs that the metadata doesn't know become
//! strays.

mod assignment;
mod settings;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_config::ServerConfig;
use ringlog_log::LogConfig;
use ringlog_metadata::image::{LeaderRecoveryState, PartitionImage, TopicChanges, TopicImage, directory};
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_partition::{FollowerState, LeaderState, RecoveryState, Unserved};
use ringlog_protocol::StrBytes;
use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, GROUP_METADATA_TOPIC, TopicIdPartition, TopicPartition, Uuid};
use rustc_hash::FxHashMap;
use tracing::{debug, error, warn};

use self::assignment::Assignments;
use crate::coordinator;
use crate::data::replica::Replica;
use crate::lasting::Lasting;
use crate::log_dirs::Claim;
use crate::mesh::LocalFuture;
use crate::shard::{Node, Shard};

/// Partitions that are looked at before other tasks get a turn.
const PARTITIONS_PER_TURN: usize = 16;

/// How often logs are tried again that could not be made: the disk was full.
const CLAIM_AGAIN_MS: u64 = 1_000;

/// What one core knows of the metadata beside its image.
#[derive(Default)]
pub struct Publisher {
    queue: RefCell<VecDeque<Publication>>,
    arrived: ring::Notify,
    /// This process is registered: partitions are taken over.
    is_registered: Cell<bool>,
    /// Replicas that are gone while the image still shows them.
    departed: RefCell<FxHashMap<TopicIdPartition, Unserved>>,
    /// Partitions whose logs could not be made, and may be before long.
    unmade: RefCell<FxHashMap<TopicIdPartition, Arc<str>>>,
    /// Settings of the topics that have partitions here, and of those that others write to by way of this core.
    topic_configs: RefCell<FxHashMap<Uuid, Rc<LogConfig>>>,
    /// The node's configuration with dynamic values on top; `None` as long as there are none.
    server_config: RefCell<Option<Rc<ServerConfig>>>,
    /// Partitions have more replicas than this one.
    unreplicated: Lasting,
    /// An image is being taken over: what is resolved by the one before isn't kept.
    is_taking_over: Cell<bool>,
}

struct Publication {
    image: Arc<MetadataImage>,
    changes: Arc<MetadataChanges>,
    done: ring::OneshotSender<()>,
}

/// Hands a new image to this core, in order. The future ends when it is taken over.
pub fn apply(shard: &Rc<Shard>, image: Arc<MetadataImage>, changes: Arc<MetadataChanges>) -> LocalFuture<()> {
    let (done, taken_over) = ring::oneshot();
    shard.publisher.queue.borrow_mut().push_back(Publication { image, changes, done });
    shard.publisher.arrived.notify_all();
    Box::pin(async move {
        // Dropped only when the node stops.
        let _ = taken_over.await;
    })
}

/// Begins to take images over. To be called once this core's logs are open.
pub fn start(shard: &Rc<Shard>) {
    let shard = shard.clone();
    ring::spawn_detached(async move {
        while !shard.gate.is_closed() {
            let next = shard.publisher.queue.borrow_mut().pop_front();
            match next {
                Some(Publication { image, changes, done }) => {
                    take_over(&shard, image, &changes).await;
                    let _ = done.send(());
                }
                None => idle(&shard).await,
            }
        }
    });
}

/// Waits for the next image, and meanwhile tries again to make the logs that could not be made.
async fn idle(shard: &Rc<Shard>) {
    let arrived = shard.publisher.arrived.wait();
    if shard.publisher.unmade.borrow().is_empty() {
        return arrived.await;
    }
    if ring::timeout_ms(CLAIM_AGAIN_MS, arrived).await.is_ok() {
        return;
    }
    let mut changes = MetadataChanges::default();
    for (id, name) in shard.publisher.unmade.take() {
        let topic = changes.topics.entry(id.topic_id).or_insert_with(|| TopicChanges {
            name,
            is_created: false,
            partitions: BTreeSet::new(),
        });
        topic.partitions.insert(id.partition);
    }
    let image = shard.image();
    let update = Update { shard, old: image.clone(), new: &image, assignments: RefCell::default() };
    update.partitions(&changes).await;
    update.assignments.take().send(shard);
}

/// The epoch of this process's registration, as far as this core knows.
pub fn broker_epoch(shard: &Shard) -> Option<BrokerEpoch> {
    own_epoch(&shard.node, &shard.image())
}

fn own_epoch(node: &Node, image: &MetadataImage) -> Option<BrokerEpoch> {
    let own = image.cluster.broker(node.id).filter(|broker| broker.incarnation_id == node.incarnation_id);
    own.map(|broker| broker.epoch)
}

/// Why there is no replica of `id` on this core, which is its home.
pub fn why_absent(shard: &Shard, id: TopicIdPartition) -> Unserved {
    if let Some(why) = shard.publisher.departed.borrow().get(&id) {
        return *why;
    }
    let image = shard.image();
    let Some(partition) = image.topics.partition(id) else { return Unserved::TopicDeleted };
    // What the image shows was opened before it was taken over, if it could be.
    let was_claimed = shard.publisher.is_registered.get() && partition.directory(shard.node.id).is_some();
    if was_claimed { Unserved::LogDirectoryFailed } else { Unserved::NoReplicaHere }
}

/// The node's configuration with the dynamic values of the image on top.
pub fn with_server_config<R>(shard: &Shard, read: impl FnOnce(&ServerConfig) -> R) -> R {
    let dynamic = shard.publisher.server_config.borrow().clone();
    read(dynamic.as_deref().unwrap_or(&shard.node.config))
}

/// A topic's settings, wherever its partitions are.
pub fn topic_config(shard: &Shard, image: &MetadataImage, topic: &TopicImage) -> Rc<LogConfig> {
    let publisher = &shard.publisher;
    if let Some(known) = publisher.topic_configs.borrow().get(&topic.id) {
        return known.clone();
    }
    let config = Rc::new(settings::topic_config(shard, image, &topic.name));
    if !publisher.is_taking_over.get() {
        publisher.topic_configs.borrow_mut().insert(topic.id, config.clone());
    }
    config
}

async fn take_over(shard: &Rc<Shard>, image: Arc<MetadataImage>, changes: &MetadataChanges) {
    let is_registered = own_epoch(&shard.node, &image).is_some();
    if shard.index >= shard.node.shards || !is_registered {
        shard.replace_image(image);
        return;
    }
    let is_first = !shard.publisher.is_registered.replace(true);
    let everything = is_first.then(|| MetadataChanges::between(&MetadataImage::empty(), &image));
    let changes = everything.as_ref().unwrap_or(changes);
    shard.publisher.is_taking_over.set(true);
    let update = Update { shard, old: shard.image(), new: &image, assignments: RefCell::default() };
    update.configs(changes);
    update.deletions(changes).await;
    update.partitions(changes).await;
    if is_first {
        let is_known = |id: TopicIdPartition| {
            image.topics.partition(id).is_some_and(|partition| partition.directory(shard.node.id).is_some())
        };
        shard.log_dirs.mark_strays(shard, &is_known).await;
    }
    let assignments = update.assignments.take();
    shard.replace_image(image.clone());
    shard.publisher.departed.borrow_mut().clear();
    shard.publisher.is_taking_over.set(false);
    assignments.send(shard);
}

/// One step from an image to the next.
struct Update<'a> {
    shard: &'a Rc<Shard>,
    old: Arc<MetadataImage>,
    new: &'a Arc<MetadataImage>,
    assignments: RefCell<Assignments>,
}

impl Update<'_> {
    /// Dynamic settings of this broker and of topics.
    fn configs(&self, changes: &MetadataChanges) {
        let publisher = &self.shard.publisher;
        let broker_changed = settings::broker_changed(self.shard.node.id, changes);
        if broker_changed {
            let config = settings::server_config(&self.shard.node, self.new);
            *publisher.server_config.borrow_mut() = Some(Rc::new(config));
        }
        let known: Vec<Uuid> = publisher.topic_configs.borrow().keys().copied().collect();
        let mut changed = FxHashMap::default();
        for topic_id in known {
            let Some(topic) = self.new.topics.by_id(topic_id) else { continue };
            if broker_changed || settings::topic_changed(&topic.name, changes) {
                let config = Rc::new(settings::topic_config(self.shard, self.new, &topic.name));
                changed.insert(topic_id, config.clone());
                publisher.topic_configs.borrow_mut().insert(topic_id, config);
            }
        }
        if changed.is_empty() {
            return;
        }
        // By their ids: the replicas of other topics aren't touched, and there may be very many.
        let replicas = self.shard.replicas.borrow();
        for (id, replica) in replicas.iter() {
            if let Some(config) = changed.get(&id.topic_id) {
                replica.set_config(config.clone());
            }
        }
    }

    fn topic_config(&self, topic: &TopicImage) -> Rc<LogConfig> {
        let mut configs = self.shard.publisher.topic_configs.borrow_mut();
        let config = configs
            .entry(topic.id)
            .or_insert_with(|| Rc::new(settings::topic_config(self.shard, self.new, &topic.name)));
        config.clone()
    }

    async fn deletions(&self, changes: &MetadataChanges) {
        if changes.deleted_topics.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        for topic_id in changes.deleted_topics.keys() {
            ring::yield_if_needed().await;
            self.shard.publisher.topic_configs.borrow_mut().remove(topic_id);
            let Some(topic) = self.old.topics.by_id(*topic_id) else { continue };
            let partitions = topic.partitions.keys();
            let ids = partitions.map(|index| TopicIdPartition { topic_id: *topic_id, partition: index });
            gone.extend(ids.filter_map(|id| self.shard.replica(id)));
        }
        self.remove(gone, Unserved::TopicDeleted).await;
        let topics = changes.deleted_topics.iter().map(|(id, name)| (StrBytes::copy_from(name), *id));
        coordinator::on_topics_deleted(self.shard, &topics.collect::<Vec<_>>());
    }

    /// Replicas that this broker no longer has.
    async fn remove(&self, replicas: Vec<Rc<Replica>>, why: Unserved) {
        if replicas.is_empty() {
            return;
        }
        for replica in &replicas {
            ring::yield_if_needed().await;
            self.shard.publisher.departed.borrow_mut().insert(replica.id, why);
            coordinator::on_closed(self.shard, replica);
        }
        self.shard.log_dirs.delete(self.shard, replicas, why).await;
    }

    async fn partitions(&self, changes: &MetadataChanges) {
        let local = self.local(changes).await;
        self.warn_of_replicas(&local);
        self.claim(&local).await;
        let mut gone = Vec::new();
        for (looked_at, Local { id, partition, directory, .. }) in local.iter().enumerate() {
            if looked_at % PARTITIONS_PER_TURN == 0 {
                ring::yield_if_needed().await;
            }
            let Some(replica) = self.shard.replica(*id) else { continue };
            match directory {
                Some(directory) => {
                    self.check_directory(&replica, *directory);
                    set_role(self.shard, &replica, partition);
                }
                None => gone.push(replica),
            }
        }
        self.remove(gone, Unserved::NoReplicaHere).await;
    }

    /// Until partitions are copied between brokers, an operator has to know what becomes of those that should be.
    fn warn_of_replicas(&self, local: &[Local<'_>]) {
        let replicated = local.iter().find(|local| local.directory.is_some() && local.partition.replicas().len() > 1);
        let Some(Local { id, topic, partition, .. }) = replicated else { return };
        if self.shard.publisher.unreplicated.holds(ring::now().monotonic).is_some() {
            let replicas: Vec<i32> = partition.replicas().iter().map(|broker| broker.0).collect();
            warn!(
                "partition {}-{} has replicas on brokers {replicas:?}, but this release doesn't copy partitions between \
                 brokers yet: this replica stays empty while another broker leads, and while this one leads nobody leaves \
                 or joins the in-sync replicas on its word, so that acks=all may wait in vain. Give topics on Ringlog \
                 brokers one replica",
                topic.name, id.partition
            );
        }
    }

    /// The changed partitions whose home is this core.
    async fn local<'c>(&'c self, changes: &'c MetadataChanges) -> Vec<Local<'c>> {
        let mut local = Vec::new();
        for (topic_id, topic_changes) in &changes.topics {
            let Some(topic) = self.new.topics.by_id(*topic_id) else { continue };
            for (looked_at, index) in topic_changes.partitions.iter().enumerate() {
                if looked_at % PARTITIONS_PER_TURN == 0 {
                    ring::yield_if_needed().await;
                }
                let id = TopicIdPartition { topic_id: *topic_id, partition: *index };
                if self.shard.home_of(id) != self.shard.index {
                    continue;
                }
                if let Some(partition) = topic.partitions.get(index) {
                    let directory = partition.directory(self.shard.node.id);
                    local.push(Local { id, topic, partition, directory });
                }
            }
        }
        local
    }

    /// Opens or makes the logs of partitions that are new here.
    async fn claim(&self, local: &[Local<'_>]) {
        let mut claims = Vec::new();
        for (looked_at, Local { id, topic, directory, .. }) in local.iter().enumerate() {
            if looked_at % PARTITIONS_PER_TURN == 0 {
                ring::yield_if_needed().await;
            }
            let Some(directory) = *directory else { continue };
            if self.shard.replica(*id).is_some() {
                continue;
            }
            let name = TopicPartition { topic: topic.name.clone(), partition: id.partition };
            let directory = Some(directory).filter(|directory| !directory::is_reserved(*directory));
            claims.push(Claim { id: *id, name, directory, config: self.topic_config(topic) });
        }
        if claims.is_empty() {
            return;
        }
        for (claim, fault) in self.shard.log_dirs.claim_all(self.shard, claims).await {
            if fault.passes() {
                debug!(partition = %claim.name, "the replica can't be opened for now: {fault}");
                self.shard.publisher.unmade.borrow_mut().insert(claim.id, claim.name.topic);
            } else {
                error!(partition = %claim.name, "the replica can't be opened: {fault}");
            }
        }
    }

    /// Tells the controller where the replica lies, if it believes something else (KIP-858).
    fn check_directory(&self, replica: &Replica, believed: Uuid) {
        let directories = &self.shard.node.log_dirs.directories;
        let Some(actual) = directories.get(replica.log_dir()).map(|directory| directory.id) else { return };
        let is_supported = self.new.metadata_version().is_directory_assignment_supported();
        if is_supported && believed != actual && !directory::is_reserved(actual) {
            self.assignments.borrow_mut().add(actual, replica.id);
        }
    }
}

/// A changed partition whose home is this core.
struct Local<'a> {
    id: TopicIdPartition,
    topic: &'a TopicImage,
    partition: &'a PartitionImage,
    /// Where this broker's replica lies, as the metadata has it; `None`: there is none.
    directory: Option<Uuid>,
}

/// Tells a replica what it is now.
fn set_role(shard: &Rc<Shard>, replica: &Rc<Replica>, partition: &PartitionImage) {
    let before = replica.led_epoch();
    if partition.leader == shard.node.id {
        let state = LeaderState {
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            replicas: partition.replicas(),
            isr: partition.in_sync_replicas(),
            recovery_state: match partition.leader_recovery_state {
                LeaderRecoveryState::Recovered => RecoveryState::Recovered,
                LeaderRecoveryState::Recovering => RecoveryState::Recovering,
            },
        };
        replica.become_leader(&state);
    } else {
        replica.become_follower(&FollowerState {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
        });
    }
    let now = replica.led_epoch();
    if before != now {
        let (leader, epoch) = (partition.leader.0, partition.leader_epoch.0);
        debug!(target: "state.change.logger", partition = %replica.name, leader, epoch, "new leader");
        persist_leader_epochs(replica.clone());
        tell_coordinators(shard, replica, now.is_some());
    }
}

/// Group state lives where the partition of its topic is led.
fn tell_coordinators(shard: &Rc<Shard>, replica: &Rc<Replica>, is_leader: bool) {
    if &*replica.name.topic == GROUP_METADATA_TOPIC {
        coordinator::on_leadership(shard, replica, is_leader);
    }
}

/// Writes the checkpoint of leader epochs beside other work: appends of the new epoch wait for their own.
fn persist_leader_epochs(replica: Rc<Replica>) {
    ring::spawn_detached(async move {
        if let Err(fault) = replica.persist_leader_epochs().await {
            error!(partition = %replica.name, "leader epochs can't be written: {fault}");
        }
    });
}
