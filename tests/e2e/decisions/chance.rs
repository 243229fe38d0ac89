//! Requests by chance, drawn from what there is: mostly such as a controller allows, and all kinds that it refuses.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_metadata::image::{MetadataImage, PartitionImage};
use ringlog_protocol::RequestBody;
use ringlog_types::{NodeId, Random, TopicIdPartition, Uuid};

/// Brokers that may come and go. A hash set of less than 16 keeps them in order, and with others Kafka 4.3.1 loses track of
/// who is eligible.
pub const BROKERS: std::ops::RangeInclusive<i32> = 10..=15;

/// What the next request follows from.
pub struct Chance {
    random: Random,
    /// The present life of each broker.
    pub lives: BTreeMap<i32, u32>,
    /// Brokers whose registration this life of the controllers has seen.
    pub registered: BTreeSet<i32>,
    /// Directories that deleted topics had replicas in.
    pub left_behind: BTreeSet<Uuid>,
    /// Brokers that were eligible somewhere and are not any more.
    pub once_eligible: BTreeSet<NodeId>,
    /// Topics that they were eligible for.
    pub not_to_be_deleted: BTreeSet<Uuid>,
}

/// A partition, and the names of what it belongs to.
pub struct Found<'a> {
    /// Its topic's name.
    pub topic: &'a str,
    /// Its topic's id and its index.
    pub id: TopicIdPartition,
    /// Its state.
    pub partition: &'a PartitionImage,
}

impl Chance {
    /// Everything follows from the seed.
    pub fn new(seed: u64) -> Chance {
        Chance {
            random: Random::from_seed(seed),
            lives: BTreeMap::new(),
            registered: BTreeSet::new(),
            left_behind: BTreeSet::new(),
            once_eligible: BTreeSet::new(),
            not_to_be_deleted: BTreeSet::new(),
        }
    }

    /// Kafka 4.3.1 loses track of who was eligible once, at least where a change of `min.insync.replicas` cleared that: it
    /// may write more than is due when such a broker goes, and fails when the topic is gone then.
    pub fn note_cleared(&mut self, before: &MetadataImage, after: &MetadataImage) {
        for topic in before.topics.iter() {
            for (index, partition) in topic.partitions.iter() {
                let id = TopicIdPartition { topic_id: topic.id, partition: index };
                let is_clear = after.topics.partition(id).is_some_and(|it| it.eligible_leader_replicas().is_empty());
                if is_clear && !partition.eligible_leader_replicas().is_empty() {
                    self.once_eligible.extend(partition.eligible_leader_replicas());
                    self.not_to_be_deleted.insert(topic.id);
                }
            }
        }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    /// Yes in so many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these, of which there is one.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// One of these, if there is any.
    pub fn pick_if_any<T, I: IntoIterator<Item = T>>(&mut self, items: I) -> Option<T> {
        let mut items: Vec<T> = items.into_iter().collect();
        let index = self.below(items.len());
        (!items.is_empty()).then(|| items.swap_remove(index))
    }

    /// So many of these at most, in an order by chance.
    pub fn some<T: Clone>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut items = items.to_vec();
        for index in (1..items.len()).rev() {
            let other = self.below(index + 1);
            items.swap(index, other);
        }
        items.truncate(count);
        items
    }

    /// The number, or, rarely, one near it.
    pub fn about(&mut self, number: i32) -> i32 {
        match self.below(24) {
            0 => number - 1,
            1 => number + 1,
            _ => number,
        }
    }

    /// A broker, as a rule one that is registered.
    pub fn broker(&mut self, image: &MetadataImage) -> i32 {
        let known = self.pick_if_any(image.cluster.brokers.keys().map(|id| id.0));
        match known {
            Some(id) if !self.percent(3) => id,
            _ => BROKERS.start() + self.below(6) as i32,
        }
    }

    /// The broker's epoch, or, rarely, another.
    pub fn epoch(&mut self, image: &MetadataImage, broker: i32) -> i64 {
        let known = super::script::epoch(image, broker);
        match self.below(40) {
            0 => -1,
            1 => known - super::names::EPOCH_STEP,
            _ => known,
        }
    }

    /// Replicas for a new assignment; rarely such as can't be.
    pub fn replicas(&mut self, image: &MetadataImage) -> Vec<i32> {
        let is_up = |id: &NodeId| image.cluster.is_active(*id);
        let known = image.cluster.brokers.keys().filter(|id| is_up(id) || self.random.below(12) == 0);
        let known: Vec<i32> = known.map(|id| id.0).collect();
        let count = 1 + self.below(4);
        let mut replicas = self.some(&known, count);
        match self.below(60) {
            0 => replicas.push(99),
            1 => replicas.extend(replicas.first().copied()),
            2 => replicas.clear(),
            _ => {}
        }
        replicas
    }

    /// A partition that fits, if there is one.
    pub fn partition<'a>(
        &mut self,
        image: &'a MetadataImage,
        fits: impl Fn(&PartitionImage) -> bool,
    ) -> Option<Found<'a>> {
        let topics = image.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|(index, partition)| Found {
                topic: &topic.name,
                id: TopicIdPartition { topic_id: topic.id, partition: index },
                partition,
            })
        });
        // The order in the image is that of ids, which are the same in each run.
        self.pick_if_any(topics.filter(|found| fits(found.partition)))
    }

    /// The name of a topic, as a rule of one that exists.
    pub fn topic_name(&mut self, image: &MetadataImage) -> String {
        let known = self.pick_if_any(image.topics.iter().map(|topic| topic.name.to_string()));
        match known {
            Some(name) if !self.percent(4) => name,
            _ => self.new_topic_name(),
        }
    }

    /// A name for a new topic; there may be one.
    pub fn new_topic_name(&mut self) -> String {
        let number = self.below(12);
        match self.below(60) {
            0 => format!("t_{number}"),
            1 => format!("t.{number}"),
            2 => self.pick(&["", ".", "bad name", "__cluster_metadata", "ü", "__consumer_offsets"]).to_owned(),
            _ => format!("t{number}"),
        }
    }

    /// The topic's id, or, rarely, one that nobody has.
    pub fn about_id(&mut self, id: Uuid) -> Uuid {
        if self.percent(2) { Uuid([77; 16]) } else { id }
    }

    /// The next request, given what there is.
    pub fn request(&mut self, image: &MetadataImage) -> RequestBody {
        if image.cluster.brokers.len() < 3 || !image.cluster.brokers.values().any(|broker| broker.is_active()) {
            return if self.percent(50) { self.registration(image).into() } else { self.heartbeat(image).into() };
        }
        match self.below(106) {
            0..6 => self.registration(image).into(),
            6..28 => self.heartbeat(image).into(),
            28 => self.unregistration(image).into(),
            29..35 => self.creation(image).into(),
            35..38 => self.more_partitions(image).into(),
            38..40 => self.deletion(image).into(),
            40..60 => self.alteration(image).into(),
            60..65 => self.election(image).into(),
            65..75 => self.reassignment(image).into(),
            75 => self.list(image).into(),
            76..83 => self.configs(image).into(),
            83..86 => self.all_configs(image).into(),
            86..89 => self.quotas().into(),
            89..91 => self.scram().into(),
            91..93 => self.new_acls().into(),
            93 => self.removed_acls().into(),
            94..97 => self.features(image).into(),
            97 => self.producer_ids(image).into(),
            98..105 => self.directories(image).into(),
            _ => self.controller().into(),
        }
    }
}
