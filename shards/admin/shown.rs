//! What several answers show alike: brokers and replicas as a listener's clients see them, configs, operations, texts.

use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use ringlog_config::ConfigMap;
use ringlog_metadata::MetadataImage;
use ringlog_metadata::image::{BrokerImage, ConfigResource, Endpoint, PartitionImage};
use ringlog_types::NodeId;
use rustc_hash::FxHashMap;

/// Operations on a cluster as the bits of `cluster_authorized_operations`: without an authorizer, all that there are
/// (KIP-430): 5 create, 7 alter, 8 describe, 9 cluster action, 10 and 11 describe and alter configs, 12 idempotent
/// write.
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// The same for a topic: 3 read, 4 write, 5 create, 6 delete, 7 alter, 8 describe, 10 and 11 describe and alter configs.
pub(super) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Kafka's "was not asked for" in fields of authorized operations.
pub(super) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;
/// Kafka's text for the error code of that name.
pub(super) const INVALID_REQUEST: &str = "This most likely occurs because of a request being malformed by the client library or the \
    message was sent to an incompatible broker. See the broker logs for more details.";
/// The resource type of a broker's loggers, which are configured on the broker alone.
pub(super) const BROKER_LOGGER: i8 = 8;

/// Items with the same key as one, in the place of the first: `unite` takes a later one into it.
pub(super) fn united_by<T, K: Hash + Eq>(
    items: Vec<T>,
    key: impl Fn(&T) -> K,
    mut unite: impl FnMut(&mut T, T),
) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let mut places = FxHashMap::default();
    let mut united: Vec<T> = Vec::with_capacity(items.len());
    for item in items {
        match places.entry(key(&item)) {
            Entry::Occupied(place) => unite(&mut united[*place.get()], item),
            Entry::Vacant(place) => {
                place.insert(united.len());
                united.push(item);
            }
        }
    }
    united
}

/// Where clients of `listener` reach a broker, if it is registered and has that listener.
pub(super) fn endpoint<'a>(
    image: &'a MetadataImage,
    broker: NodeId,
    listener: &str,
) -> Option<(&'a BrokerImage, &'a Endpoint)> {
    let broker = image.cluster.broker(broker)?;
    Some((broker, broker.endpoint(listener)?))
}

/// Brokers that clients of `listener` may use.
pub(super) fn unfenced_brokers<'a>(
    image: &'a MetadataImage,
    listener: &'a str,
) -> impl Iterator<Item = (&'a Arc<BrokerImage>, &'a Endpoint)> {
    let usable = image.cluster.brokers.values().filter(|broker| !broker.is_fenced);
    usable.filter_map(move |broker| Some((broker, broker.endpoint(listener)?)))
}

/// What brokers name as controller: any unfenced broker, as each of them forwards. `own` if it is one.
pub(super) fn controller_stand_in(image: &MetadataImage, own: NodeId) -> NodeId {
    let unfenced = |id: &NodeId| image.cluster.broker(*id).is_some_and(|broker| !broker.is_fenced);
    if unfenced(&own) {
        return own;
    }
    image.cluster.brokers.keys().copied().find(unfenced).unwrap_or(NodeId::NONE)
}

/// Replicas of a partition that clients of `listener` can't reach.
pub(super) fn offline_replicas(image: &MetadataImage, partition: &PartitionImage, listener: &str) -> Vec<i32> {
    let is_offline = |id: &NodeId| match image.cluster.broker(*id) {
        None => true,
        Some(broker) => {
            broker.is_fenced
                || broker.endpoint(listener).is_none()
                || partition.directory(*id).is_some_and(|directory| !broker.has_online_directory(directory))
        }
    };
    partition.replicas().iter().filter(|id| is_offline(id)).map(|id| id.0).collect()
}

pub(super) fn node_ids(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}

/// The dynamic configs of a resource; empty when it has none.
pub(super) fn dynamic_configs(image: &MetadataImage, resource: &ConfigResource) -> ConfigMap {
    let configs = image.configs.get(resource).into_iter().flat_map(|configs| configs.iter());
    configs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// The dynamic layers of a broker's configuration: its own, and that of all brokers.
pub(super) fn broker_layers(image: &MetadataImage, broker: NodeId) -> (ConfigMap, ConfigMap) {
    let own = dynamic_configs(image, &ConfigResource::broker(broker));
    (own, dynamic_configs(image, &ConfigResource::broker_default()))
}
