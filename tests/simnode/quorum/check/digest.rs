//! One number for a whole state: the sum of the hashes of what is in it. The model and the images of the code under
//! test are taken apart here into the same plain numbers and texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_metadata::MetadataImage;
use ringlog_metadata::image::TopicImage;
use ringlog_types::{NodeId, Uuid};

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Topic = 1,
    Partition,
    Broker,
    Controller,
    Config,
    Quota,
    ProducerId,
    Acl,
    Scram,
    Token,
    Feature,
}

/// The hash of one thing, in the making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn of(kind: Of) -> Hash {
        Hash(0).int(kind as i64)
    }

    pub(crate) fn int(self, number: i64) -> Hash {
        Hash((self.0.rotate_left(23) ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn flag(self, flag: bool) -> Hash {
        self.int(i64::from(flag))
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Hash {
        bytes.chunks(8).fold(self.int(bytes.len() as i64), |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.int(i64::from_le_bytes(word))
        })
    }

    pub(crate) fn text(self, text: &str) -> Hash {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn maybe_text(self, text: Option<&str>) -> Hash {
        match text {
            Some(text) => self.int(1).text(text),
            None => self.int(0),
        }
    }

    pub(crate) fn ints(self, numbers: impl ExactSizeIterator<Item = i32>) -> Hash {
        let hash = self.int(numbers.len() as i64);
        numbers.fold(hash, |hash, number| hash.int(number.into()))
    }

    pub(crate) fn ids(self, ids: &[Uuid]) -> Hash {
        ids.iter().fold(self.int(ids.len() as i64), |hash, id| hash.bytes(&id.0))
    }

    pub(crate) fn done(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }
}

/// A partition's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionNumbers {
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub recovery_state: i8,
}

/// Names, then the hash of everything else.
pub(crate) fn topic(id: Uuid, name: &str) -> u64 {
    Hash::of(Of::Topic).bytes(&id.0).text(name).done()
}

pub(crate) fn partition<'a>(
    topic: Uuid,
    index: i32,
    numbers: PartitionNumbers,
    directories: &[Uuid],
    lists: impl Iterator<Item = &'a [NodeId]>,
) -> u64 {
    let hash = Hash::of(Of::Partition).bytes(&topic.0).int(index.into()).ids(directories);
    let hash = hash.int(numbers.leader.into()).int(numbers.leader_epoch.into());
    let hash = hash.int(numbers.partition_epoch.into()).int(numbers.recovery_state.into());
    lists.fold(hash, |hash, list| hash.ints(list.iter().map(|id| id.0))).done()
}

pub(crate) fn config(resource_type: i8, resource: &str, name: &str, value: &str) -> u64 {
    Hash::of(Of::Config).int(resource_type.into()).text(resource).text(name).text(value).done()
}

pub(crate) fn feature(name: &str, level: i16) -> u64 {
    Hash::of(Of::Feature).text(name).int(level.into()).done()
}

pub(crate) fn producer_id(next: i64) -> u64 {
    if next < 0 { 0 } else { Hash::of(Of::ProducerId).int(next).done() }
}

pub(crate) fn quota<'a>(entity: impl Iterator<Item = (&'a str, Option<&'a str>)>, key: &str, value: f64) -> u64 {
    let hash = entity.fold(Hash::of(Of::Quota), |hash, (kind, name)| hash.text(kind).maybe_text(name));
    hash.text(key).int(value.to_bits() as i64).done()
}

/// Digests of images. Topics that an image shares with the one before are not looked at again.
#[derive(Debug, Default)]
pub(crate) struct ImageDigest {
    topics: BTreeMap<Uuid, (Arc<TopicImage>, u64)>,
}

impl ImageDigest {
    pub(crate) fn of(&mut self, image: &MetadataImage) -> u64 {
        let mut known = BTreeMap::new();
        let mut sum = 0_u64;
        for topic in image.topics.iter() {
            let entry = match self.topics.remove(&topic.id) {
                Some(entry) if Arc::ptr_eq(&entry.0, topic) => entry,
                _ => (topic.clone(), topic_of_image(topic)),
            };
            let is_found = image.topics.id(&topic.name) == Some(topic.id);
            sum = sum.wrapping_add(if is_found { entry.1 } else { 1 });
            known.insert(topic.id, entry);
        }
        self.topics = known;
        sum.wrapping_add(rest_of_image(image))
    }
}

fn topic_of_image(image: &TopicImage) -> u64 {
    let mut sum = topic(image.id, &image.name);
    for (index, it) in image.partitions.iter() {
        let numbers = PartitionNumbers {
            leader: it.leader.0,
            leader_epoch: it.leader_epoch.0,
            partition_epoch: it.partition_epoch.0,
            recovery_state: it.leader_recovery_state as i8,
        };
        let lists: [&[NodeId]; 6] = [
            it.replicas(),
            it.in_sync_replicas(),
            it.eligible_leader_replicas(),
            it.last_known_elr(),
            it.removing_replicas(),
            it.adding_replicas(),
        ];
        sum = sum.wrapping_add(partition(image.id, index.0, numbers, it.directories(), lists.into_iter()));
    }
    sum
}

/// All but topics.
fn rest_of_image(image: &MetadataImage) -> u64 {
    let mut sum = producer_id(image.next_producer_id.0);
    let mut add = |hash: u64| sum = sum.wrapping_add(hash);
    if let Some(version) = image.features.metadata_version {
        add(feature("metadata.version", version.0));
    }
    image.features.levels.iter().for_each(|(name, level)| add(feature(name, *level)));
    for it in image.cluster.brokers.values() {
        let hash = Hash::of(Of::Broker).int(it.id.0.into()).int(it.epoch.0).bytes(&it.incarnation_id.0);
        let hash = hash.flag(it.is_fenced).flag(it.is_in_controlled_shutdown).maybe_text(it.rack.as_deref());
        let hash = hash.ids(&it.directories).flag(it.cordoned_directories.is_some());
        let hash = hash.ids(it.cordoned_directories.as_deref().unwrap_or_default());
        let hash = it
            .endpoints
            .iter()
            .fold(hash, |hash, endpoint| hash.text(&endpoint.listener).text(&endpoint.host).int(endpoint.port.into()));
        let features = it.features.iter();
        let hash = features.fold(hash, |hash, (name, it)| hash.text(name).int(it.min.into()).int(it.max.into()));
        add(hash.done());
    }
    for it in image.cluster.controllers.values() {
        let hash = Hash::of(Of::Controller).int(it.id.0.into()).bytes(&it.incarnation_id.0);
        add(hash.int(it.endpoints.len() as i64).int(it.features.len() as i64).done());
    }
    for (resource, values) in image.configs.iter() {
        let resource_type = resource.resource_type.code();
        values.iter().for_each(|(name, value)| add(config(resource_type, &resource.name, name, value)));
    }
    for (entity, values) in &image.client_quotas.entities {
        let parts = || entity.iter().map(|(kind, name)| (&**kind, name.as_deref()));
        values.iter().for_each(|(key, value)| add(quota(parts(), key, *value)));
    }
    for (id, it) in &image.acls.entries {
        let hash = Hash::of(Of::Acl).bytes(&id.0).int(it.resource_type.into()).text(&it.resource_name);
        let hash = hash.int(it.pattern_type.into()).text(&it.principal).text(&it.host);
        add(hash.int(it.operation.into()).int(it.permission_type.into()).done());
    }
    for ((mechanism, name), it) in &image.scram.credentials {
        let hash = Hash::of(Of::Scram).int(*mechanism as i64).text(name).bytes(&it.salt);
        add(hash.bytes(&it.stored_key).bytes(&it.server_key).int(it.iterations.into()).done());
    }
    for it in image.tokens.tokens.values() {
        let hash = Hash::of(Of::Token).text(&it.token_id).text(&it.owner).text(&it.requester);
        let hash = it.renewers.iter().fold(hash, |hash, renewer| hash.text(renewer));
        let hash = hash.int(it.issue_timestamp.0).int(it.max_timestamp.0);
        add(hash.int(it.expiration_timestamp.0).done());
    }
    sum
}
