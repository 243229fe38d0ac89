//! The state that committed records describe, interpreted here a second time and in the plainest way. The rules that
//! records have to keep are checked on the way.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::metadata_records::{
    BrokerRegistrationChangeRecord, ClientQuotaRecord, MetadataRecord, RegisterBrokerRecord, RegisterControllerRecord,
};
use ringlog_types::{NodeId, Uuid};

use super::digest::{self, Hash, Of};
use super::ensure;
use super::partitions::Partition;

/// What is wrong with a record.
pub(crate) type Breach = String;

#[derive(Debug, Clone, Default)]
pub(crate) struct Topic {
    pub name: String,
    pub partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub epoch: i64,
    pub incarnation: Uuid,
    pub is_fenced: bool,
    pub is_shutting_down: bool,
    pub directories: Vec<Uuid>,
    cordoned: Option<Vec<Uuid>>,
    rack: Option<String>,
    endpoints: Vec<(String, String, u16)>,
    features: BTreeMap<String, (i16, i16)>,
}

impl Broker {
    fn hash(&self, id: i32) -> u64 {
        let hash = Hash::of(Of::Broker).int(id.into()).int(self.epoch).bytes(&self.incarnation.0);
        let hash = hash.flag(self.is_fenced).flag(self.is_shutting_down).maybe_text(self.rack.as_deref());
        let hash = hash.ids(&self.directories).flag(self.cordoned.is_some());
        let hash = hash.ids(self.cordoned.as_deref().unwrap_or_default());
        let hash =
            self.endpoints.iter().fold(hash, |hash, (name, host, port)| hash.text(name).text(host).int((*port).into()));
        let features = self.features.iter();
        features.fold(hash, |hash, (name, (min, max))| hash.text(name).int((*min).into()).int((*max).into())).done()
    }

    pub(crate) fn is_active(&self) -> bool {
        !self.is_fenced && !self.is_shutting_down
    }
}

type QuotaEntity = BTreeMap<String, Option<String>>;

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// The broker that was unfenced last, until the next change of a registration.
    pub(super) unfenced_last: Option<i32>,
    pub topics: BTreeMap<Uuid, Topic>,
    pub names: BTreeMap<String, Uuid>,
    pub brokers: BTreeMap<i32, Broker>,
    pub controllers: BTreeMap<i32, u64>,
    pub features: BTreeMap<String, i16>,
    /// Values by resource type, resource and name.
    pub configs: BTreeMap<(i8, String, String), String>,
    pub quotas: BTreeMap<(QuotaEntity, String), f64>,
    pub next_producer_id: i64,
    pub acls: BTreeMap<Uuid, u64>,
    scram: BTreeMap<(i8, String), u64>,
    pub tokens: BTreeMap<String, u64>,
    pub digest: u64,
    pub history: History,
}

/// What once was.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// All topics that there ever were.
    pub topics: BTreeSet<Uuid>,
    /// Broker and incarnation by the epoch that they got.
    pub registrations: BTreeMap<i64, (i32, Uuid)>,
}

fn sorted(ids: &[Uuid]) -> Vec<Uuid> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

impl Model {
    pub(crate) fn new() -> Model {
        Model { next_producer_id: -1, ..Model::default() }
    }

    pub(super) fn add(&mut self, hash: u64) {
        self.digest = self.digest.wrapping_add(hash);
    }

    pub(super) fn drop(&mut self, hash: u64) {
        self.digest = self.digest.wrapping_sub(hash);
    }

    fn replace(&mut self, old: Option<u64>, new: Option<u64>) {
        self.drop(old.unwrap_or(0));
        self.add(new.unwrap_or(0));
    }

    pub(crate) fn is_elr_on(&self) -> bool {
        self.features.get("eligible.leader.replicas.version").is_some_and(|level| *level >= 1)
    }

    /// Takes in a record; `offset` is where it lies, `None` in a snapshot.
    pub(crate) fn apply(&mut self, record: &MetadataRecord, offset: Option<i64>) -> Result<(), Breach> {
        match record {
            MetadataRecord::RegisterBroker(record) => return self.register_broker(record, offset),
            MetadataRecord::UnregisterBroker(record) => {
                self.broker(record.broker_id, record.broker_epoch)?;
                let gone = self.brokers.remove(&record.broker_id).map(|broker| broker.hash(record.broker_id));
                self.replace(gone, None);
            }
            MetadataRecord::BrokerRegistrationChange(record) => return self.change_registration(record),
            MetadataRecord::RegisterController(record) => self.register_controller(record),
            MetadataRecord::Topic(record) => {
                let is_new = self.history.topics.insert(record.topic_id);
                ensure!(is_new, "topic id {} is used again", record.topic_id);
                let name = record.name.as_str().to_owned();
                let other = self.names.insert(name.clone(), record.topic_id);
                ensure!(other.is_none(), "there is a topic {name} already");
                self.add(digest::topic(record.topic_id, &name));
                self.topics.insert(record.topic_id, Topic { name, partitions: BTreeMap::new() });
            }
            MetadataRecord::Partition(record) => return self.new_partition(record, offset.is_none()),
            MetadataRecord::PartitionChange(record) => return self.change_partition(record),
            MetadataRecord::RemoveTopic(record) => return self.remove_topic(record.topic_id),
            MetadataRecord::ClearElr(record) => self.clear_elr(&record.topic_name),
            MetadataRecord::Config(record) => {
                let key = (record.resource_type, record.resource_name.to_string(), record.name.to_string());
                let value = record.value.as_ref().map(|value| value.to_string());
                self.set_config(key, value);
            }
            MetadataRecord::FeatureLevel(record) => {
                let (name, level) = (record.name.to_string(), record.feature_level);
                ensure!(level >= 0, "feature {name} has level {level}");
                let old = self.features.remove(&name).map(|level| digest::feature(&name, level));
                if level > 0 {
                    self.features.insert(name.clone(), level);
                }
                self.replace(old, (level > 0).then(|| digest::feature(&name, level)));
            }
            MetadataRecord::ClientQuota(record) => self.set_quota(record),
            MetadataRecord::ProducerIds(record) => {
                let next = record.next_producer_id;
                ensure!(next > self.next_producer_id, "producer ids go from {} to {next}", self.next_producer_id);
                self.replace(Some(digest::producer_id(self.next_producer_id)), Some(digest::producer_id(next)));
                self.next_producer_id = next;
            }
            MetadataRecord::NoOp(_) => {}
            record => return self.apply_security(record),
        }
        Ok(())
    }

    fn broker(&mut self, id: i32, epoch: i64) -> Result<&mut Broker, Breach> {
        let broker = self.brokers.get_mut(&id).filter(|broker| broker.epoch == epoch);
        broker.ok_or_else(|| format!("broker {id} isn't registered with epoch {epoch}"))
    }

    fn register_broker(&mut self, record: &RegisterBrokerRecord, offset: Option<i64>) -> Result<(), Breach> {
        let (id, epoch) = (record.broker_id, record.broker_epoch);
        let old = self.brokers.get(&id);
        if let Some(offset) = offset {
            let known = *self.history.registrations.entry(epoch).or_insert((id, record.incarnation_id));
            let is_same = known == (id, record.incarnation_id);
            ensure!(is_same, "broker epoch {epoch} of broker {} is given to broker {id}, too", known.0);
            ensure!(epoch <= offset, "broker {id} gets epoch {epoch} by the record at {offset}");
            ensure!(old.is_none_or(|old| old.epoch <= epoch), "the epoch of broker {id} falls to {epoch}");
            let is_new = old.is_none_or(|old| old.incarnation != record.incarnation_id);
            ensure!(!is_new || record.fenced, "broker {id} begins unfenced");
            // (A reassignment that was taken back may have left a replica in sync that wasn't registered at all.)
            if is_new && old.is_some() {
                self.check_out_of_isr(id)?;
            }
        }
        let broker = Broker {
            epoch,
            incarnation: record.incarnation_id,
            is_fenced: record.fenced,
            is_shutting_down: record.in_controlled_shutdown,
            directories: sorted(&record.log_dirs),
            cordoned: record.cordoned_log_dirs.as_deref().map(sorted),
            rack: record.rack.as_ref().map(|rack| rack.to_string()),
            endpoints: record.end_points.iter().map(|it| (it.name.to_string(), it.host.to_string(), it.port)).collect(),
            features: (record.features.iter())
                .map(|it| (it.name.to_string(), (it.min_supported_version, it.max_supported_version)))
                .collect(),
        };
        let hash = broker.hash(id);
        let old = self.brokers.insert(id, broker).map(|broker| broker.hash(id));
        self.replace(old, Some(hash));
        Ok(())
    }

    fn change_registration(&mut self, record: &BrokerRegistrationChangeRecord) -> Result<(), Breach> {
        let id = record.broker_id;
        let broker = self.broker(id, record.broker_epoch)?;
        let before = broker.hash(id);
        match record.fenced {
            0 => {}
            fenced => broker.is_fenced = fenced > 0,
        }
        let unfenced = (record.fenced < 0).then_some(id);
        broker.is_shutting_down |= record.in_controlled_shutdown == 1;
        if !record.log_dirs.is_empty() {
            broker.directories = sorted(&record.log_dirs);
        }
        if let Some(cordoned) = &record.cordoned_log_dirs {
            broker.cordoned = Some(sorted(cordoned));
        }
        let after = broker.hash(id);
        let is_fenced_now = record.fenced > 0;
        self.unfenced_last = unfenced;
        self.replace(Some(before), Some(after));
        if is_fenced_now { self.check_out_of_isr(id) } else { Ok(()) }
    }

    /// A broker that is fenced has left all in-sync sets before.
    fn check_out_of_isr(&self, id: i32) -> Result<(), Breach> {
        if !self.is_elr_on() {
            return Ok(());
        }
        for topic in self.topics.values() {
            for (index, partition) in &topic.partitions {
                let is_out = !partition.in_sync_replicas.contains(&NodeId(id));
                ensure!(is_out, "broker {id} is fenced, but in sync in {}-{index}", topic.name);
            }
        }
        Ok(())
    }

    fn register_controller(&mut self, record: &RegisterControllerRecord) {
        let hash = Hash::of(Of::Controller).int(record.controller_id.into()).bytes(&record.incarnation_id.0);
        let hash = hash.int(record.end_points.len() as i64).int(record.features.len() as i64).done();
        let old = self.controllers.insert(record.controller_id, hash);
        self.replace(old, Some(hash));
    }

    pub(super) fn set_config(&mut self, key: (i8, String, String), value: Option<String>) {
        let hash = |key: &(i8, String, String), value: &str| digest::config(key.0, &key.1, &key.2, value);
        let new = value.as_deref().map(|value| hash(&key, value));
        let old = match value {
            Some(value) => self.configs.insert(key.clone(), value),
            None => self.configs.remove(&key),
        };
        let old = old.map(|old| hash(&key, &old));
        self.replace(old, new);
    }

    fn set_quota(&mut self, record: &ClientQuotaRecord) {
        let entity: QuotaEntity = record
            .entity
            .iter()
            .map(|it| (it.entity_type.to_string(), it.entity_name.as_ref().map(|name| name.to_string())))
            .collect();
        let key = record.key.to_string();
        let hash =
            |value: f64| digest::quota(entity.iter().map(|(kind, name)| (kind.as_str(), name.as_deref())), &key, value);
        let place = (entity.clone(), key.clone());
        let old = if record.remove { self.quotas.remove(&place) } else { self.quotas.insert(place, record.value) };
        let new = (!record.remove).then(|| hash(record.value));
        let old = old.map(hash);
        self.replace(old, new);
    }

    fn apply_security(&mut self, record: &MetadataRecord) -> Result<(), Breach> {
        match record {
            MetadataRecord::AccessControlEntry(it) => {
                let hash = Hash::of(Of::Acl).bytes(&it.id.0).int(it.resource_type.into()).text(&it.resource_name);
                let hash = hash.int(it.pattern_type.into()).text(&it.principal).text(&it.host);
                let hash = hash.int(it.operation.into()).int(it.permission_type.into()).done();
                let old = self.acls.insert(it.id, hash);
                self.replace(old, Some(hash));
            }
            MetadataRecord::RemoveAccessControlEntry(it) => {
                let old = self.acls.remove(&it.id);
                ensure!(old.is_some(), "there is no access control entry {}", it.id);
                self.replace(old, None);
            }
            MetadataRecord::UserScramCredential(it) => {
                let hash = Hash::of(Of::Scram).int(it.mechanism.into()).text(&it.name).bytes(&it.salt);
                let hash = hash.bytes(&it.stored_key).bytes(&it.server_key).int(it.iterations.into()).done();
                let old = self.scram.insert((it.mechanism, it.name.to_string()), hash);
                self.replace(old, Some(hash));
            }
            MetadataRecord::RemoveUserScramCredential(it) => {
                let old = self.scram.remove(&(it.mechanism, it.name.to_string()));
                self.replace(old, None);
            }
            MetadataRecord::DelegationToken(it) => {
                let hash = Hash::of(Of::Token).text(&it.token_id).text(&it.owner).text(&it.requester);
                let hash = it.renewers.iter().fold(hash, |hash, renewer| hash.text(renewer));
                let hash = hash.int(it.issue_timestamp).int(it.max_timestamp).int(it.expiration_timestamp).done();
                let old = self.tokens.insert(it.token_id.to_string(), hash);
                self.replace(old, Some(hash));
            }
            MetadataRecord::RemoveDelegationToken(it) => {
                let old = self.tokens.remove(it.token_id.as_str());
                self.replace(old, None);
            }
            other => return Err(format!("a {} isn't written in such a cluster", other.name())),
        }
        Ok(())
    }
}
