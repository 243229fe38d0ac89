//! Topics' partitions in the model, and the rules that their changes have to keep.

use ringlog_protocol::metadata_records::{PartitionChangeRecord, PartitionRecord};
use ringlog_types::{NodeId, Uuid};

use super::digest::{self, PartitionNumbers};
use super::ensure;
use super::model::{Breach, Model};

/// In a PartitionChange: the leader stays, and its epoch.
const NO_LEADER_CHANGE: i32 = -2;
/// No leader.
const NO_LEADER: i32 = -1;
/// The id of a directory that isn't assigned yet ends so.
const MIGRATING: Uuid = Uuid::ZERO;

/// A partition's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    pub replicas: Vec<NodeId>,
    pub directories: Vec<Uuid>,
    pub in_sync_replicas: Vec<NodeId>,
    pub eligible: Vec<NodeId>,
    pub last_known: Vec<NodeId>,
    pub removing: Vec<NodeId>,
    pub adding: Vec<NodeId>,
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub recovery_state: i8,
}

fn ids(numbers: &[i32]) -> Vec<NodeId> {
    numbers.iter().map(|id| NodeId(*id)).collect()
}

fn is_distinct(ids: &[NodeId]) -> bool {
    (1..ids.len()).all(|i| !ids[..i].contains(&ids[i]))
}

impl Partition {
    pub(super) fn hash(&self, topic: Uuid, index: i32) -> u64 {
        let numbers = PartitionNumbers {
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            recovery_state: self.recovery_state,
        };
        let lists: [&[NodeId]; 6] =
            [&self.replicas, &self.in_sync_replicas, &self.eligible, &self.last_known, &self.removing, &self.adding];
        digest::partition(topic, index, numbers, &self.directories, lists.into_iter())
    }

    /// What always holds.
    fn check(&self) -> Result<(), Breach> {
        let is_replica = |id: &NodeId| self.replicas.contains(id);
        ensure!(!self.replicas.is_empty() && is_distinct(&self.replicas), "replicas {:?}", self.replicas);
        ensure!(self.directories.len() == self.replicas.len(), "{} directories", self.directories.len());
        let isr = &self.in_sync_replicas;
        ensure!(is_distinct(isr) && isr.iter().all(is_replica), "in sync {isr:?} of {:?}", self.replicas);
        let is_apart = self.eligible.iter().all(|id| !isr.contains(id));
        ensure!(is_apart && is_distinct(&self.eligible), "in sync {isr:?}, but eligible {:?}", self.eligible);
        ensure!(self.last_known.len() <= 1, "last known leaders {:?}", self.last_known);
        ensure!(self.adding.iter().all(is_replica), "adding {:?} to {:?}", self.adding, self.replicas);
        ensure!(self.removing.iter().all(is_replica), "removing {:?} from {:?}", self.removing, self.replicas);
        let is_led_in_sync = self.leader == NO_LEADER || isr.contains(&NodeId(self.leader));
        ensure!(is_led_in_sync, "leader {} isn't in sync: {isr:?}", self.leader);
        ensure!(self.recovery_state == 0 || isr.len() <= 1, "recovering, with {isr:?} in sync");
        Ok(())
    }
}

impl Model {
    /// A new partition begins at epoch 0; one of a snapshot may have any.
    pub(super) fn new_partition(&mut self, record: &PartitionRecord, is_snapshot: bool) -> Result<(), Breach> {
        let (topic_id, index) = (record.topic_id, record.partition_id);
        let replicas = ids(&record.replicas);
        let given = &record.directories;
        let partition = Partition {
            directories: if given.is_empty() { vec![MIGRATING; replicas.len()] } else { given.clone() },
            replicas,
            in_sync_replicas: ids(&record.isr),
            eligible: ids(record.eligible_leader_replicas.as_deref().unwrap_or_default()),
            last_known: ids(record.last_known_elr.as_deref().unwrap_or_default()),
            removing: ids(&record.removing_replicas),
            adding: ids(&record.adding_replicas),
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            recovery_state: record.leader_recovery_state,
        };
        let topic = self.topics.get(&topic_id);
        let topic = topic.ok_or_else(|| format!("a partition of topic {topic_id}, which isn't there"))?;
        let what = || format!("{}-{index}", topic.name);
        ensure!(!topic.partitions.contains_key(&index), "{} is there already", what());
        ensure!(index == topic.partitions.len() as i32, "{} comes before others", what());
        partition.check().map_err(|breach| format!("{}: {breach}", what()))?;
        if !is_snapshot {
            let is_fresh = (record.leader_epoch, record.partition_epoch) == (0, 0);
            ensure!(is_fresh && record.leader >= 0, "{} begins with {partition:?}", what());
            self.check_leads(record.leader).map_err(|breach| format!("{}: {breach}", what()))?;
        }
        self.add(partition.hash(topic_id, index));
        if let Some(topic) = self.topics.get_mut(&topic_id) {
            topic.partitions.insert(index, partition);
        }
        Ok(())
    }

    /// A leader is elected that is up.
    fn check_leads(&self, leader: i32) -> Result<(), Breach> {
        let broker = self.brokers.get(&leader);
        // Who has begun to stop and is unfenced all the same, by a heartbeat that comes late, is elected as in Kafka.
        let is_unfenced_now = self.unfenced_last == Some(leader);
        let may_lead = broker.is_some_and(|broker| broker.is_active() || is_unfenced_now && !broker.is_fenced);
        ensure!(may_lead, "leader {leader} is not active: {broker:?}");
        Ok(())
    }

    pub(super) fn change_partition(&mut self, record: &PartitionChangeRecord) -> Result<(), Breach> {
        let (topic_id, index) = (record.topic_id, record.partition_id);
        let topic = self.topics.get(&topic_id);
        let topic = topic.ok_or_else(|| format!("a change in topic {topic_id}, which isn't there"))?;
        let what = format!("{}-{index}", topic.name);
        let old = topic.partitions.get(&index).ok_or_else(|| format!("{what} changes and isn't there"))?;
        let list = |new: &Option<Vec<i32>>, old: &Vec<NodeId>| new.as_deref().map_or_else(|| old.clone(), ids);
        let replicas = list(&record.replicas, &old.replicas);
        let directories = match &record.directories {
            Some(given) if !given.is_empty() => given.clone(),
            // As many replicas in the same directories: the list isn't written again.
            _ if replicas.len() == old.directories.len() => old.directories.clone(),
            _ => vec![MIGRATING; replicas.len()],
        };
        let is_elected = record.leader != NO_LEADER_CHANGE;
        let new = Partition {
            directories,
            in_sync_replicas: list(&record.isr, &old.in_sync_replicas),
            eligible: list(&record.eligible_leader_replicas, &old.eligible),
            last_known: list(&record.last_known_elr, &old.last_known),
            removing: list(&record.removing_replicas, &old.removing),
            adding: list(&record.adding_replicas, &old.adding),
            leader: if is_elected { record.leader } else { old.leader },
            leader_epoch: old.leader_epoch + i32::from(is_elected),
            partition_epoch: old.partition_epoch + 1,
            recovery_state: if record.leader_recovery_state < 0 {
                old.recovery_state
            } else {
                record.leader_recovery_state
            },
            replicas,
        };
        let described = |breach: Breach| format!("{what}: {breach}, after {old:?}");
        new.check().map_err(described)?;
        if is_elected && new.leader >= 0 && new.leader != old.leader {
            self.check_leads(new.leader).map_err(described)?;
            // The last step of a reassignment may bring in the new leader.
            let is_reassigned = old.adding != new.adding || old.removing != new.removing;
            // A leader that is shutting down may say that another one is in sync, which leads from then on.
            let is_reported = new.in_sync_replicas.contains(&NodeId(old.leader))
                && new.in_sync_replicas.contains(&NodeId(new.leader));
            let was_good = old.in_sync_replicas.contains(&NodeId(new.leader))
                || old.eligible.contains(&NodeId(new.leader))
                || new.recovery_state == 1
                || is_reported
                || is_reassigned;
            ensure!(was_good, "{what}: {} is elected as if it were clean, after {old:?}", new.leader);
        }
        let (before, after) = (old.hash(topic_id, index), new.hash(topic_id, index));
        self.drop(before);
        self.add(after);
        if let Some(topic) = self.topics.get_mut(&topic_id) {
            topic.partitions.insert(index, new);
        }
        Ok(())
    }

    pub(super) fn remove_topic(&mut self, id: Uuid) -> Result<(), Breach> {
        let topic = self.topics.remove(&id).ok_or_else(|| format!("topic {id} is removed and isn't there"))?;
        self.names.remove(&topic.name);
        self.drop(digest::topic(id, &topic.name));
        for (index, partition) in &topic.partitions {
            self.drop(partition.hash(id, *index));
        }
        let of_topic = (2, topic.name.clone(), String::new());
        let configs =
            self.configs.range(of_topic..).take_while(|((kind, name, _), _)| *kind == 2 && *name == topic.name);
        let configs: Vec<_> = configs.map(|(key, _)| key.clone()).collect();
        configs.into_iter().for_each(|key| self.set_config(key, None));
        Ok(())
    }

    pub(super) fn clear_elr(&mut self, name: &str) {
        let mut change = 0_u64;
        for (id, topic) in &mut self.topics {
            if !name.is_empty() && topic.name != name {
                continue;
            }
            for (index, partition) in &mut topic.partitions {
                if !partition.eligible.is_empty() || !partition.last_known.is_empty() {
                    change = change.wrapping_sub(partition.hash(*id, *index));
                    partition.eligible.clear();
                    partition.last_known.clear();
                    partition.partition_epoch += 1;
                    change = change.wrapping_add(partition.hash(*id, *index));
                }
            }
        }
        self.add(change);
    }
}
