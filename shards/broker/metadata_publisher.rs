//! Takes new metadata over on each core: which partitions live here, in which role, with which settings.
//!
//! Images come in order, from the controller's core, through the mesh; one task per core takes them over one after the
//! other. A core's own partitions follow before its [`MetadataView::image`] changes, so that whoever reads the image finds
//! what it promises.
//!
//! Until this process has registered as a broker the image is only looked at: what is in the log is still about its
//! former life. With the registration everything is taken over at once, and logs that the metadata doesn't know become
//! strays.

mod assignment;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use ringlog_log::LogConfig;
use ringlog_metadata::image::{LeaderRecoveryState, PartitionImage, TopicChanges, TopicImage, directory};
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_partition::{FollowerState, LeaderState, RecoveryState, Unserved};
use ringlog_protocol::StrBytes;
use ringlog_ring as ring;
use ringlog_types::{NodeId, TopicIdPartition, TopicPartition, Uuid};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tracing::{debug, error};

use self::assignment::Assignments;
use crate::broker::in_sync_replicas;
use crate::controller::Controller;
use crate::core::{Core, Room};
use crate::data::replica::Replica;
use crate::data::replica_fetcher::ReplicaFetcher;
use crate::data::replicas::Replicas;
use crate::log_dirs::{Claim, LogDirs, WantedAssignments};
use crate::metadata::{MetadataView, Publication, own_epoch};

/// How often logs are tried again that could not be made: the disk was full.
const CLAIM_AGAIN_MS: u64 = 1_000;

/// What takes new metadata over on one core.
pub struct Publisher {
    core: Rc<Core>,
    metadata: Rc<MetadataView>,
    replicas: Rc<Replicas>,
    fetcher: Rc<ReplicaFetcher>,
    log_dirs: Rc<LogDirs>,
    controller: Rc<Controller>,
    /// Partitions whose logs could not be made, and may be before long.
    unmade: RefCell<FxHashMap<TopicIdPartition, Arc<str>>>,
}

impl Publisher {
    /// Nothing is taken over before [`start`].
    pub fn new(
        core: Rc<Core>,
        metadata: Rc<MetadataView>,
        replicas: Rc<Replicas>,
        fetcher: Rc<ReplicaFetcher>,
        log_dirs: Rc<LogDirs>,
        controller: Rc<Controller>,
    ) -> Publisher {
        Publisher { core, metadata, replicas, fetcher, log_dirs, controller, unmade: RefCell::default() }
    }
}

impl Room for Publisher {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

/// Begins to take images over. To be called once this core's logs are open.
pub fn start(publisher: &Rc<Publisher>) {
    in_sync_replicas::start(&publisher.replicas, &publisher.controller);
    publisher
        .core
        .spawn_until_stop(tell_of_moves(publisher.log_dirs.wanted_assignments(), publisher.controller.clone()));
    let publisher = publisher.clone();
    let core = publisher.core.clone();
    core.spawn(async move {
        while !publisher.core.gate.is_closed() {
            let next = publisher.metadata.next_publication();
            match next {
                Some(Publication { image, changes, done }) => {
                    take_over(&publisher, image, &changes).await;
                    let _ = done.send(());
                }
                None => idle(&publisher).await,
            }
        }
    });
}

/// Tells the controller where replicas are about to lie.
async fn tell_of_moves(wanted: Rc<WantedAssignments>, controller: Rc<Controller>) {
    loop {
        let mut assignments = Assignments::default();
        wanted.take().await.into_iter().for_each(|(directory, id)| assignments.add(directory, id));
        assignments.send(&controller);
    }
}

/// Waits for the next image, and meanwhile tries again to make the logs that could not be made.
async fn idle(publisher: &Rc<Publisher>) {
    let arrived = futures_lite::future::or(publisher.metadata.publication_arrived(), publisher.core.gate.closing());
    if publisher.unmade.borrow().is_empty() {
        return arrived.await;
    }
    if ring::timeout_ms(CLAIM_AGAIN_MS, arrived).await.is_ok() {
        return;
    }
    let mut changes = MetadataChanges::default();
    for (id, name) in publisher.unmade.take() {
        let topic = changes.topics.entry(id.topic_id).or_insert_with(|| TopicChanges {
            name,
            is_created: false,
            partitions: BTreeSet::new(),
        });
        topic.partitions.insert(id.partition);
    }
    let image = publisher.metadata.image();
    let update = Update { publisher, old: image.clone(), new: &image, assignments: RefCell::default() };
    update.partitions(&changes).await;
    update.assignments.take().send(&publisher.controller);
}

async fn take_over(publisher: &Rc<Publisher>, image: Arc<MetadataImage>, changes: &MetadataChanges) {
    let node = &publisher.core.node;
    let is_registered = own_epoch(node, &image).is_some();
    if publisher.core.index >= node.shards || !is_registered {
        publisher.metadata.replace_image(image);
        return;
    }
    let is_first = !publisher.replicas.is_registered();
    let everything = is_first.then(|| MetadataChanges::between(&MetadataImage::empty(), &image));
    let changes = everything.as_ref().unwrap_or(changes);
    let configs = publisher.metadata.begin_taking_over(&image, changes);
    let old = publisher.metadata.image();
    let update = Update { publisher, old, new: &image, assignments: RefCell::default() };
    update.configs(&configs);
    update.deletions(changes).await;
    update.partitions(changes).await;
    if is_first {
        let is_known = |id: TopicIdPartition| {
            image.topics.partition(id).is_some_and(|partition| partition.directory(node.id).is_some())
        };
        publisher.log_dirs.mark_strays(&is_known).await;
    }
    let assignments = update.assignments.take();
    publisher.metadata.replace_image(image.clone());
    // Not before: the image until now may show partitions of a former life that were only looked at.
    publisher.replicas.set_registered();
    publisher.replicas.forget_departed();
    assignments.send(&publisher.controller);
}

/// One step from an image to the next.
struct Update<'a> {
    publisher: &'a Rc<Publisher>,
    old: Arc<MetadataImage>,
    new: &'a Arc<MetadataImage>,
    assignments: RefCell<Assignments>,
}

impl Update<'_> {
    /// Settings of topics that have partitions here.
    fn configs(&self, changed: &FxHashMap<Uuid, Rc<LogConfig>>) {
        if changed.is_empty() {
            return;
        }
        self.publisher.replicas.for_each_of_topics(changed, |replica, config| replica.set_config(config.clone()));
    }

    async fn deletions(&self, changes: &MetadataChanges) {
        if changes.deleted_topics.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        let mut turns = ring::Turns::begin();
        for topic_id in changes.deleted_topics.keys() {
            self.publisher.metadata.forget_topic(*topic_id);
            let Some(topic) = self.old.topics.by_id(*topic_id) else { continue };
            for partition in topic.partitions.keys() {
                turns.step().await;
                let id = TopicIdPartition { topic_id: *topic_id, partition };
                gone.extend(self.publisher.replicas.get(id));
            }
        }
        self.remove(gone, Unserved::TopicDeleted).await;
        let topics = changes.deleted_topics.iter().map(|(id, name)| (StrBytes::copy_from(name), *id));
        self.publisher.replicas.topics_deleted(&topics.collect::<Vec<_>>());
    }

    /// Replicas that this broker no longer has.
    async fn remove(&self, replicas: Vec<Rc<Replica>>, why: Unserved) {
        if replicas.is_empty() {
            return;
        }
        let mut turns = ring::Turns::begin();
        for replica in &replicas {
            turns.step().await;
            self.publisher.fetcher.unfollow(replica.id);
            self.publisher.replicas.depart(replica, why);
            self.publisher.replicas.closed(replica);
        }
        self.publisher.log_dirs.delete(replicas, why).await;
    }

    async fn partitions(&self, changes: &MetadataChanges) {
        let local = self.local(changes).await;
        self.claim(&local).await;
        let mut gone = Vec::new();
        let mut turns = ring::Turns::begin();
        for Local { id, partition, directory, .. } in &local {
            turns.step().await;
            let Some(replica) = self.publisher.replicas.get(*id) else { continue };
            match directory {
                Some(directory) => {
                    self.check_directory(&replica, *directory);
                    set_role(self.publisher, self.new, &replica, partition).await;
                }
                None => gone.push(replica),
            }
        }
        self.remove(gone, Unserved::NoReplicaHere).await;
    }

    /// The changed partitions whose home is this core.
    async fn local<'c>(&'c self, changes: &'c MetadataChanges) -> Vec<Local<'c>> {
        let mut local = Vec::new();
        let mut turns = ring::Turns::begin();
        for (topic_id, topic_changes) in &changes.topics {
            let Some(topic) = self.new.topics.by_id(*topic_id) else { continue };
            for index in &topic_changes.partitions {
                turns.step().await;
                let id = TopicIdPartition { topic_id: *topic_id, partition: *index };
                if self.publisher.core.node.home_of(id) != self.publisher.core.index {
                    continue;
                }
                if let Some(partition) = topic.partitions.get(index) {
                    let directory = partition.directory(self.publisher.core.node.id);
                    local.push(Local { id, topic, partition, directory });
                }
            }
        }
        local
    }

    /// Opens or makes the logs of partitions that are new here.
    async fn claim(&self, local: &[Local<'_>]) {
        let mut claims = Vec::new();
        let mut turns = ring::Turns::begin();
        for Local { id, topic, directory, .. } in local {
            turns.step().await;
            let Some(directory) = *directory else { continue };
            if self.publisher.replicas.get(*id).is_some() {
                continue;
            }
            let name = TopicPartition { topic: topic.name.clone(), partition: id.partition };
            let directory = Some(directory).filter(|directory| !directory::is_reserved(*directory));
            claims.push(Claim {
                id: *id,
                name,
                directory,
                config: self.publisher.metadata.new_topic_config(self.new, topic),
            });
        }
        if claims.is_empty() {
            return;
        }
        let is_outdated = |topic_id| self.publisher.metadata.is_about_to_go(topic_id);
        for (claim, fault) in self.publisher.log_dirs.claim_all(claims, &is_outdated).await {
            if fault.is_outdated() {
                debug!(partition = %claim.name, "no log is made: {fault}");
            } else if fault.passes() {
                debug!(partition = %claim.name, "the replica can't be opened for now: {fault}");
                self.publisher.unmade.borrow_mut().insert(claim.id, claim.name.topic);
            } else {
                error!(partition = %claim.name, "the replica can't be opened: {fault}");
            }
        }
    }

    /// Tells the controller where the replica lies, if it believes something else (KIP-858).
    fn check_directory(&self, replica: &Replica, believed: Uuid) {
        let directories = &self.publisher.core.node.log_dirs.directories;
        let Some(actual) = directories.get(replica.log_dir()).map(|directory| directory.id) else { return };
        let is_supported = self.new.metadata_version().is_directory_assignment_supported();
        let is_on_its_way = self.publisher.log_dirs.is_moving_to(replica.id, believed);
        if is_supported && believed != actual && !is_on_its_way && !directory::is_reserved(actual) {
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

/// Tells a replica what it is now. A log that is being cut is so first.
async fn set_role(publisher: &Rc<Publisher>, image: &MetadataImage, replica: &Rc<Replica>, partition: &PartitionImage) {
    let _turn = replica.role_turn().await;
    let (before, standing) = (replica.led_epoch(), replica.standing());
    if partition.leader == publisher.core.node.id {
        publisher.fetcher.unfollow(replica.id);
        let is_active = |id: NodeId| image.cluster.broker(id).is_some_and(|broker| broker.is_active());
        let inactive: SmallVec<[NodeId; 4]> =
            partition.replicas().iter().copied().filter(|replica| !is_active(*replica)).collect();
        let state = LeaderState {
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            replicas: partition.replicas(),
            isr: partition.in_sync_replicas(),
            inactive: &inactive,
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
        if partition.leader == NodeId::NONE {
            publisher.fetcher.unfollow(replica.id);
        } else if replica.standing() != standing {
            publisher.fetcher.follow(replica, partition.leader, partition.leader_epoch);
        }
    }
    let now = replica.led_epoch();
    if before != now {
        let (leader, epoch) = (partition.leader.0, partition.leader_epoch.0);
        debug!(target: "state.change.logger", partition = %replica.name, leader, epoch, "new leader");
        publisher.replicas.leadership_changed(replica, now.is_some());
    }
}
