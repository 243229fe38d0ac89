//! What happens to topics and partitions, by chance. Where replicas go is always said, as controllers roll dice.

use ringlog_metadata::image::MetadataImage;
use ringlog_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ringlog_protocol::messages::create_topics_request::CreatableTopic;
use ringlog_protocol::messages::elect_leaders_request::TopicPartitions;
use ringlog_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use ringlog_protocol::messages::*;
use ringlog_types::{NodeId, PartitionIndex, TopicIdPartition, Uuid};

use super::chance::{Chance, Found};
use super::requests::{self, text};

impl Chance {
    pub fn creation(&mut self, image: &MetadataImage) -> CreateTopicsRequest {
        let topics = (0..1 + self.below(2)).map(|_| self.new_topic(image)).collect();
        CreateTopicsRequest { validate_only: self.percent(5), ..requests::create(topics) }
    }

    fn new_topic(&mut self, image: &MetadataImage) -> CreatableTopic {
        let name = self.new_topic_name();
        let first = self.replicas(image);
        let mut assignments = vec![first.clone()];
        for _ in 0..self.below(4) {
            let replicas = self.replicas(image);
            // All partitions of a new topic have as many.
            assignments.push(if replicas.len() == first.len() || self.percent(3) { replicas } else { first.clone() });
        }
        let assignments: Vec<&[i32]> = assignments.iter().map(Vec::as_slice).collect();
        let mut topic = requests::topic(&name, &assignments, &[]);
        for _ in 0..self.below(3) {
            let (name, value) = self.topic_config(topic.configs.is_empty());
            let value = (!topic.configs.is_empty() || !self.percent(2)).then(|| text(value));
            topic.configs.push(create_topics_request::CreatableTopicConfig { name: text(name), value });
        }
        match self.below(50) {
            0 => topic.assignments[0].partition_index += 1,
            1 => topic.assignments.iter_mut().for_each(|it| it.partition_index = 0),
            2 => topic.num_partitions = 1,
            3 => topic.replication_factor = 1,
            // Such as are refused, whatever the dice say.
            4 => (topic.assignments, topic.num_partitions) = (Vec::new(), -2 + 2 * self.below(2) as i32),
            5 => (topic.assignments, topic.replication_factor) = (Vec::new(), 30),
            _ => {}
        }
        topic
    }

    pub fn more_partitions(&mut self, image: &MetadataImage) -> CreatePartitionsRequest {
        let name = self.topic_name(image);
        let topic = image.topics.by_name(&name);
        let present = topic.map_or(0, |topic| topic.partitions.len());
        let more = usize::from(present < 5 || self.percent(5)) * (1 + self.below(2));
        let count = present as i32 + more as i32 - i32::from(self.percent(8));
        let mut sizes: Vec<usize> =
            topic.iter().flat_map(|topic| topic.partitions.values()).map(|it| it.replicas().len()).collect();
        sizes.dedup();
        // Which partition tells how many there shall be is up to a hash map.
        let more = if sizes.len() > 1 { 0 } else { more };
        let count = if sizes.len() > 1 { present as i32 } else { count };
        let size = sizes.first().copied().unwrap_or(1);
        let assignments = (0..more).map(|_| {
            let mut replicas = self.replicas(image);
            if !self.percent(5) {
                let known: Vec<i32> = image.cluster.brokers.keys().map(|id| id.0).collect();
                let others = self.some(&known, size);
                let others: Vec<i32> = others.into_iter().filter(|id| !replicas.contains(id)).collect();
                replicas.extend(others);
                replicas.truncate(size);
            }
            replicas
        });
        let mut request = requests::create_partitions(&name, count, Some(assignments.collect()));
        if self.percent(5) {
            request.topics.extend(request.topics.clone());
        }
        request.validate_only = self.percent(5);
        request
    }

    pub fn deletion(&mut self, image: &MetadataImage) -> DeleteTopicsRequest {
        let name = self.topic_to_delete(image);
        let id = image.topics.id(&name).unwrap_or(Uuid([78; 16]));
        let mut request = match self.below(20) {
            0 => requests::delete_topic(Some(&name), id),
            1 => requests::delete_topic(None, Uuid::ZERO),
            2..8 => requests::delete_topic(None, id),
            _ => requests::delete_topic(Some(&name), Uuid::ZERO),
        };
        if self.percent(10) {
            let other = self.topic_to_delete(image);
            let other_id = image.topics.id(&other).filter(|_| self.percent(30));
            let named = other_id.is_none().then_some(other.as_str());
            request.topics.extend(requests::delete_topic(named, other_id.unwrap_or(Uuid::ZERO)).topics);
        }
        request
    }

    /// Kafka 4.3.1 doesn't forget where replicas of deleted topics lay and who was eligible for them, and fails when such
    /// a directory goes offline or such a broker goes.
    fn topic_to_delete(&mut self, image: &MetadataImage) -> String {
        let name = self.topic_name(image);
        let Some(topic) = image.topics.by_name(&name) else { return name };
        let is_eligible = topic.partitions.values().any(|partition| !partition.eligible_leader_replicas().is_empty());
        if is_eligible || self.not_to_be_deleted.contains(&topic.id) {
            return "nothing".to_owned();
        }
        self.left_behind.extend(topic.partitions.values().flat_map(|partition| partition.directories().to_vec()));
        name
    }

    pub fn alteration(&mut self, image: &MetadataImage) -> AlterPartitionRequest {
        let any = self.percent(4);
        let Some(first) = self.partition(image, |it| any || it.has_leader()) else {
            return AlterPartitionRequest { broker_id: 11, ..AlterPartitionRequest::default() };
        };
        let sender = if self.percent(3) { self.broker(image) } else { first.partition.leader.0 };
        let mut found = vec![first];
        for _ in 0..self.below(3) {
            let other = self.partition(image, |it| it.leader.0 == sender);
            found.extend(other.filter(|other| found.iter().all(|it| it.id != other.id)));
        }
        let topics = found.iter().map(|found| TopicData {
            topic_id: self.about_id(found.id.topic_id),
            partitions: vec![self.wanted(image, found)],
        });
        let topics = topics.collect();
        AlterPartitionRequest { broker_id: sender, broker_epoch: self.epoch(image, sender), topics }
    }

    /// The state of a partition that its leader would like.
    fn wanted(&mut self, image: &MetadataImage, found: &Found<'_>) -> PartitionData {
        let partition = found.partition;
        let mut members: Vec<NodeId> = partition.in_sync_replicas().to_vec();
        match self.below(20) {
            // Somebody catches up, or all that are there do.
            0..9 => {
                let can = |id: &&NodeId| !members.contains(id) && image.cluster.is_active(**id);
                let others: Vec<NodeId> = partition.replicas().iter().filter(can).copied().collect();
                let count = if self.percent(40) { 1 } else { others.len() };
                members.extend(self.some(&others, count));
            }
            9..15 => {
                if let Some(gone) = self.pick_if_any(members.clone()).filter(|id| *id != partition.leader) {
                    members.retain(|id| *id != gone);
                }
            }
            15 => members = self.some(partition.replicas(), 3),
            16 => members.push(NodeId(self.broker(image))),
            17 if self.percent(30) => members.clear(),
            _ => {}
        }
        let leader_recovery_state = if self.percent(4) {
            self.below(2) as i8
        } else {
            i8::from(self.percent(10)) * partition.leader_recovery_state as i8
        };
        let with_epoch = |id: &NodeId| BrokerState { broker_id: id.0, broker_epoch: self.epoch(image, id.0) };
        PartitionData {
            new_isr_with_epochs: members.iter().map(with_epoch).collect(),
            partition_index: found.id.partition.0,
            leader_epoch: self.about(partition.leader_epoch.0),
            partition_epoch: self.about(partition.partition_epoch.0),
            leader_recovery_state,
            ..PartitionData::default()
        }
    }

    pub fn election(&mut self, image: &MetadataImage) -> ElectLeadersRequest {
        let election_type = self.pick(&[0, 0, 0, 1, 1, 1, 1, 7]);
        if self.percent(20) {
            return requests::elect(election_type, None);
        }
        let mut topics: Vec<TopicPartitions> = Vec::new();
        for _ in 0..1 + self.below(3) {
            let any = self.percent(20);
            let found = self.partition(image, |it| any || !it.has_leader() || !it.has_preferred_leader());
            let Some(found) = found else { continue };
            let name = if self.percent(3) { self.topic_name(image) } else { found.topic.to_owned() };
            if topics.iter().all(|topic| topic.topic != *name) {
                topics.push(TopicPartitions { topic: text(&name), partitions: vec![self.about(found.id.partition.0)] });
            }
        }
        ElectLeadersRequest { election_type, topic_partitions: Some(topics), timeout_ms: 10_000 }
    }

    pub fn reassignment(&mut self, image: &MetadataImage) -> AlterPartitionReassignmentsRequest {
        let is_cancelled = self.percent(25);
        let any = !is_cancelled || self.percent(10);
        let Some(found) = self.partition(image, |it| any || it.is_reassigning()) else {
            return requests::reassign("nothing", 0, Some(&[11]), true);
        };
        let mut replicas = self.replicas(image);
        if self.percent(20) {
            let present: Vec<i32> = found.partition.replicas().iter().map(|id| id.0).collect();
            replicas = self.some(&present, present.len());
        }
        let index = self.about(found.id.partition.0);
        let id = TopicIdPartition { partition: PartitionIndex(index), ..found.id };
        if let Some(partition) = image.topics.partition(id) {
            // Kafka may elect who was removed while it was eligible, or led last, and has nothing in its log any more.
            let known = partition.eligible_leader_replicas().iter().chain(partition.last_known_elr());
            let gone: Vec<NodeId> = known.copied().filter(|id| !partition.replicas().contains(id)).collect();
            replicas.retain(|id| !gone.contains(&NodeId(*id)));
        }
        let replicas = (!is_cancelled).then_some(replicas);
        requests::reassign(found.topic, index, replicas.as_deref(), !self.percent(15))
    }

    pub fn list(&mut self, image: &MetadataImage) -> ListPartitionReassignmentsRequest {
        let topics = (0..2).map(|_| ListPartitionReassignmentsTopics {
            name: text(&self.topic_name(image)),
            partition_indexes: vec![0, 1, 9],
        });
        let mut topics: Vec<_> = topics.collect();
        topics.dedup();
        let topics = (!self.percent(50)).then_some(topics);
        ListPartitionReassignmentsRequest { timeout_ms: 10_000, topics }
    }
}
