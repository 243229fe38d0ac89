//! What brokers ask for, by chance.

use ringlog_metadata::image::{MetadataImage, directory};
use ringlog_protocol::messages::*;
use ringlog_types::{NodeId, Uuid};

use super::chance::{BROKERS, Chance};
use super::names::{LOG_END, LOG_ENDS};
use super::requests::{self, text};

impl Chance {
    pub fn registration(&mut self, image: &MetadataImage) -> BrokerRegistrationRequest {
        let broker = BROKERS.start() + self.below(6) as i32;
        let known = image.cluster.broker(NodeId(broker));
        let is_next = known.is_none() || self.percent(70);
        let life = self.lives.entry(broker).or_default();
        *life += u32::from(is_next);
        let life = *life;
        let directories = 1 + self.below(3) as u8;
        let mut request = requests::registration(broker, life, directories);
        let is_clean = self.percent(50) || self.once_eligible.contains(&NodeId(broker));
        request.previous_broker_epoch = if is_clean { super::script::epoch(image, broker) } else { -1 };
        match self.below(60) {
            0 => request.cluster_id = text("another"),
            1 => request.log_dirs.clear(),
            2 => request.log_dirs.push(requests::directory(broker, 1)),
            3 => request.log_dirs.push(requests::directory(11, 1)),
            4 => request.log_dirs.push(directory::LOST),
            5 => request.features.clear(),
            6 => request.features.retain(|_| !self.percent(30)),
            7 => {
                let index = self.below(request.features.len());
                request.features[index].max_supported_version -= 1;
            }
            8 => request.is_migrating_zk_broker = true,
            10 => request.rack = Some(text("odd")),
            _ => {}
        }
        request
    }

    pub fn heartbeat(&mut self, image: &MetadataImage) -> BrokerHeartbeatRequest {
        let broker = self.broker(image);
        let mut request = BrokerHeartbeatRequest {
            broker_id: broker,
            broker_epoch: self.epoch(image, broker),
            current_metadata_offset: match self.below(20) {
                0 => -1,
                1 | 2 => LOG_END - self.below(LOG_ENDS as usize) as i64,
                3 if self.registered.contains(&broker) => super::script::epoch(image, broker),
                _ => LOG_END,
            },
            ..BrokerHeartbeatRequest::default()
        };
        let mine = |numbers: Vec<u8>| numbers.into_iter().map(|number| requests::directory(broker, number)).collect();
        match self.below(100) {
            0..8 => request.want_fence = true,
            8..17 => request.want_shut_down = true,
            17..19 => (request.want_fence, request.want_shut_down) = (true, true),
            19..25 => {
                request.offline_log_dirs = mine(self.some(&[1, 2, 3, 4], 1));
                request.offline_log_dirs.retain(|id| !self.left_behind.contains(id));
            }
            25..31 => {
                let count = self.below(3);
                request.cordoned_log_dirs = Some(mine(self.some(&[1, 2, 3, 4], count)));
            }
            _ => {}
        }
        request
    }

    pub fn unregistration(&mut self, image: &MetadataImage) -> UnregisterBrokerRequest {
        let broker_id = self.broker(image);
        UnregisterBrokerRequest {
            broker_id: if self.once_eligible.contains(&NodeId(broker_id)) { 99 } else { broker_id },
        }
    }

    pub fn producer_ids(&mut self, image: &MetadataImage) -> AllocateProducerIdsRequest {
        let broker_id = self.broker(image);
        AllocateProducerIdsRequest { broker_id, broker_epoch: self.epoch(image, broker_id) }
    }

    pub fn directories(&mut self, image: &MetadataImage) -> AssignReplicasToDirsRequest {
        use ringlog_protocol::messages::assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
        let broker = self.broker(image);
        let is_here = |id: &NodeId| id.0 == broker;
        let mut directories = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..1 + self.below(2) {
            let id = match self.below(30) {
                0 => directory::UNASSIGNED,
                1 => directory::LOST,
                2 => directory::MIGRATING,
                _ => requests::directory(broker, 1 + self.below(4) as u8),
            };
            let mut topics = Vec::new();
            for _ in 0..1 + self.below(2) {
                let anywhere = self.percent(4);
                let found = self.partition(image, |it| anywhere || it.replicas().iter().any(is_here));
                let Some(found) = found.filter(|found| !seen.contains(&found.id)) else { continue };
                seen.push(found.id);
                let partitions = vec![PartitionData { partition_index: self.about(found.id.partition.0) }];
                topics.push(TopicData { topic_id: self.about_id(found.id.topic_id), partitions });
            }
            directories.push(DirectoryData { id, topics });
        }
        AssignReplicasToDirsRequest { broker_id: broker, broker_epoch: self.epoch(image, broker), directories }
    }

    pub fn controller(&mut self) -> ControllerRegistrationRequest {
        use ringlog_protocol::messages::controller_registration_request::{Feature, Listener};
        let like = requests::registration(0, 1, 1);
        let feature = |it: broker_registration_request::Feature| Feature {
            name: it.name,
            min_supported_version: it.min_supported_version,
            max_supported_version: it.max_supported_version,
        };
        ControllerRegistrationRequest {
            controller_id: 2 + self.below(2) as i32,
            incarnation_id: Uuid([1 + self.below(200) as u8; 16]),
            zk_migration_ready: false,
            listeners: vec![Listener {
                name: text("CONTROLLER"),
                host: text("localhost"),
                port: 9_093,
                security_protocol: 0,
            }],
            features: like.features.into_iter().map(feature).collect(),
        }
    }
}
