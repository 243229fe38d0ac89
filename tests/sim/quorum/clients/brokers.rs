//! Brokers: they register, send heartbeats, lead partitions, lose directories, stop in order or die.

use std::rc::Rc;

use ringlog_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, AssignReplicasToDirsRequest, BrokerHeartbeatRequest,
    BrokerRegistrationRequest, alter_partition_request, assign_replicas_to_dirs_request, broker_registration_request,
};
use ringlog_protocol::{ApiKey, RequestBody, ResponseBody};
use ringlog_types::{ErrorCode, NodeId, Uuid};

use super::super::host::CLUSTER_ID;
use super::super::shared::Shared;
use super::super::time::{MS, Us};
use super::super::world::World;
use super::Answer;
use super::requests::features;

/// Ids of brokers begin here.
pub(super) const FIRST_ID: i32 = 200;

/// What a broker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Down { until: Us },
    Registering,
    Running,
    Stopping,
}

/// One broker.
pub(super) struct Broker {
    pub id: i32,
    incarnation: Uuid,
    epoch: i64,
    /// The epoch of the life before, if that ended in order.
    previous_epoch: i64,
    directories: Vec<Uuid>,
    offline: Vec<Uuid>,
    life: Life,
    heartbeat_at: Us,
}

impl Broker {
    pub(super) fn new(index: usize, shared: &Rc<Shared>) -> Broker {
        let mut random = shared.workload.borrow_mut();
        let directories = (0..=random.below(2)).map(|_| Uuid::random(&mut random)).collect();
        Broker {
            id: FIRST_ID + index as i32,
            incarnation: Uuid::random(&mut random),
            epoch: -1,
            previous_epoch: -1,
            directories,
            offline: Vec::new(),
            life: Life::Registering,
            heartbeat_at: 0,
        }
    }

    fn registration(&self) -> BrokerRegistrationRequest {
        BrokerRegistrationRequest {
            broker_id: self.id,
            cluster_id: CLUSTER_ID.into(),
            incarnation_id: self.incarnation,
            listeners: vec![broker_registration_request::Listener {
                name: "PLAINTEXT".into(),
                host: format!("b{}", self.id).into(),
                port: 9092,
                security_protocol: 0,
            }],
            features: features(|name, min_supported_version, max_supported_version| {
                broker_registration_request::Feature { name, min_supported_version, max_supported_version }
            }),
            rack: (self.id % 2 == 0).then(|| "even".into()),
            is_migrating_zk_broker: false,
            log_dirs: self.directories.iter().copied().filter(|id| !self.offline.contains(id)).collect(),
            previous_broker_epoch: self.previous_epoch,
        }
    }
}

impl World {
    /// What a broker does next; returns when its turn comes again.
    pub(super) fn broker_turn(&mut self, client: usize) -> Us {
        let now = self.shared.now();
        let interval = self.shared.plan.session_timeout_ms * MS / 5;
        let chance = self.shared.work(1_000);
        let is_quiet = self.clients.are_quiet;
        let broker = &mut self.clients.brokers[client];
        match broker.life {
            Life::Down { until } if until > now => until - now,
            Life::Down { .. } => {
                broker.incarnation = Uuid::random(&mut self.shared.workload.borrow_mut());
                broker.life = Life::Registering;
                1
            }
            Life::Registering => {
                let request = broker.registration();
                self.ask_leader(client, &request.into());
                200 * MS
            }
            Life::Running | Life::Stopping if broker.heartbeat_at <= now => {
                broker.heartbeat_at = now + interval;
                self.heartbeat(client);
                // Its next doing comes before its next heartbeat, or it would never do anything else.
                self.shared.plan.think_us.min(interval)
            }
            Life::Running if chance < 5 && !is_quiet => {
                // It dies.
                broker.previous_epoch = -1;
                broker.life =
                    Life::Down { until: now + self.shared.work(3 * self.shared.plan.session_timeout_ms) * MS };
                broker.offline.clear();
                1
            }
            Life::Running if chance < 10 && !is_quiet => {
                broker.life = Life::Stopping;
                1
            }
            Life::Running if chance < 15 && !is_quiet && broker.directories.len() > 1 => {
                broker.offline = vec![broker.directories[0]];
                1
            }
            Life::Running if !is_quiet => {
                let request = match chance % 5 {
                    0 => self.producer_ids(client),
                    1 => self.assign_directory(client),
                    _ => self.alter_partition(client),
                };
                match request {
                    Some(request) => self.ask_leader(client, &request),
                    None => return self.shared.plan.think_us,
                }
                self.shared.plan.think_us
            }
            Life::Running | Life::Stopping => interval / 4,
        }
    }

    fn heartbeat(&mut self, client: usize) {
        let committed = self.shared.checks.borrow().committed.end();
        let broker = &self.clients.brokers[client];
        let lag = if self.shared.work(4) == 0 { self.shared.work(5) as i64 } else { 0 };
        let request = BrokerHeartbeatRequest {
            broker_id: broker.id,
            broker_epoch: broker.epoch,
            current_metadata_offset: (committed - 1 - lag).max(-1),
            want_fence: false,
            want_shut_down: broker.life == Life::Stopping,
            offline_log_dirs: broker.offline.clone(),
            cordoned_log_dirs: Some(Vec::new()),
        };
        self.ask_leader(client, &request.into());
    }

    fn producer_ids(&self, client: usize) -> Option<RequestBody> {
        let broker = &self.clients.brokers[client];
        Some(AllocateProducerIdsRequest { broker_id: broker.id, broker_epoch: broker.epoch }.into())
    }

    /// A replica of this broker is said to lie in one of its directories.
    fn assign_directory(&self, client: usize) -> Option<RequestBody> {
        let broker = &self.clients.brokers[client];
        let checks = self.shared.checks.borrow();
        let mut hosted = Vec::new();
        for (topic, it) in &checks.model.topics {
            let here = it.partitions.iter().filter(|(_, partition)| partition.replicas.contains(&NodeId(broker.id)));
            hosted.extend(here.map(|(index, _)| (*topic, *index)));
        }
        let (topic_id, partition_index) = *hosted.get(self.shared.work(hosted.len() as u64) as usize)?;
        let id = broker.directories[self.shared.work(broker.directories.len() as u64) as usize];
        let partitions = vec![assign_replicas_to_dirs_request::PartitionData { partition_index }];
        let topics = vec![assign_replicas_to_dirs_request::TopicData { topic_id, partitions }];
        let directories = vec![assign_replicas_to_dirs_request::DirectoryData { id, topics }];
        let (broker_id, broker_epoch) = (broker.id, broker.epoch);
        Some(AssignReplicasToDirsRequest { broker_id, broker_epoch, directories }.into())
    }

    /// A partition that this broker leads gains a replica in sync, or loses one.
    fn alter_partition(&self, client: usize) -> Option<RequestBody> {
        let broker = &self.clients.brokers[client];
        let checks = self.shared.checks.borrow();
        let mut led = Vec::new();
        for (topic, it) in &checks.model.topics {
            let here = it.partitions.iter().filter(|(_, partition)| partition.leader == broker.id);
            led.extend(here.map(|(index, partition)| (*topic, *index, partition)));
        }
        let (topic_id, partition_index, partition) = *led.get(self.shared.work(led.len() as u64) as usize)?;
        let mut members = partition.in_sync_replicas.clone();
        let epoch_of = |id: NodeId| checks.model.brokers.get(&id.0).map_or(-1, |broker| broker.epoch);
        let missing: Vec<NodeId> = partition.replicas.iter().copied().filter(|id| !members.contains(id)).collect();
        let grows = !missing.is_empty() && self.shared.work(3) > 0;
        if grows {
            members.push(missing[self.shared.work(missing.len() as u64) as usize]);
        } else {
            let gone = members[self.shared.work(members.len() as u64) as usize];
            members.retain(|id| *id != gone || id.0 == broker.id);
        }
        // The leader has recovered by then.
        let partition = alter_partition_request::PartitionData {
            partition_index,
            leader_epoch: partition.leader_epoch,
            new_isr_with_epochs: (members.iter())
                .map(|id| alter_partition_request::BrokerState { broker_id: id.0, broker_epoch: epoch_of(*id) })
                .collect(),
            new_isr: Vec::new(),
            leader_recovery_state: 0,
            partition_epoch: partition.partition_epoch,
        };
        let topics = vec![alter_partition_request::TopicData { topic_id, partitions: vec![partition] }];
        let request = AlterPartitionRequest { broker_id: broker.id, broker_epoch: broker.epoch, topics };
        Some(request.into())
    }

    pub(super) fn on_broker_answer(&mut self, client: usize, api: ApiKey, answer: Answer) {
        let now = self.shared.now();
        let rest = 1 + self.shared.work(2_000) * MS;
        let broker = &mut self.clients.brokers[client];
        let stale = ErrorCode::StaleBrokerEpoch.code();
        match answer {
            Answer::Response(response) => match *response {
                ResponseBody::BrokerRegistration(it) if broker.life == Life::Registering && it.error_code == 0 => {
                    broker.epoch = it.broker_epoch;
                    broker.life = Life::Running;
                    broker.heartbeat_at = now;
                }
                ResponseBody::BrokerHeartbeat(it) if it.error_code == stale => {
                    // Unregistered, or somebody else registered: as after a crash.
                    broker.previous_epoch = -1;
                    broker.life = Life::Down { until: now + rest };
                }
                ResponseBody::BrokerHeartbeat(it) if broker.life == Life::Stopping && it.should_shut_down => {
                    broker.previous_epoch = broker.epoch;
                    broker.life = Life::Down { until: now + rest };
                }
                _ => {}
            },
            Answer::Lost | Answer::Elsewhere if api == ApiKey::BrokerHeartbeat => broker.heartbeat_at = now,
            Answer::Lost | Answer::Elsewhere => {}
        }
    }
}
