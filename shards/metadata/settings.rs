//! Settings of node and topics as the image changes them.

use ringlog_config::{ConfigMap, ServerConfig, TopicConfig};
use ringlog_metadata::image::{ConfigResource, ConfigResourceType};
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_types::NodeId;

use crate::node::Node;

/// Whether dynamic settings of this broker, its own or the cluster's, changed.
pub fn broker_changed(id: NodeId, changes: &MetadataChanges) -> bool {
    changes.configs.contains(&ConfigResource::broker(id)) || changes.configs.contains(&ConfigResource::broker_default())
}

/// Whether the topic's own settings changed.
pub fn topic_changed(name: &str, changes: &MetadataChanges) -> bool {
    // The common publication has no config change: don't build the key for each topic.
    let any = changes.configs.iter().any(|resource| resource.resource_type == ConfigResourceType::Topic);
    any && changes.configs.contains(&ConfigResource::topic(name))
}

/// What the image says of one resource.
pub fn overrides(image: &MetadataImage, resource: &ConfigResource) -> ConfigMap {
    let configs = image.configs.get(resource).map(|configs| configs.iter());
    configs.into_iter().flatten().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// The node's configuration with its dynamic part.
pub fn server_config(node: &Node, image: &MetadataImage) -> ServerConfig {
    let own = overrides(image, &ConfigResource::broker(node.id));
    let default = overrides(image, &ConfigResource::broker_default());
    node.config.with_dynamic(&own, &default)
}

/// A topic's settings: its own, else the broker's dynamic ones, else the file's, else Kafka's.
pub fn topic_config(node: &Node, image: &MetadataImage, topic: &str) -> TopicConfig {
    let own = overrides(image, &ConfigResource::broker(node.id));
    let default = overrides(image, &ConfigResource::broker_default());
    let layers = node.config.layers(&own, &default);
    TopicConfig::resolve(&overrides(image, &ConfigResource::topic(topic)), &layers)
}
