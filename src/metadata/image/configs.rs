//! Dynamic configs by resource, and client quotas.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CowMap;

/// What kind of thing has dynamic configs in the metadata log, by Kafka's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ConfigResourceType {
    /// A topic, by name.
    Topic = 2,
    /// A broker by id in decimal, or the cluster-wide default with an empty name.
    Broker = 4,
    /// A client metrics subscription (KIP-714).
    ClientMetrics = 16,
    /// A consumer, share or streams group.
    Group = 32,
}

impl ConfigResourceType {
    /// The type that travels as `code`; loggers (8) are never recorded.
    pub fn from_code(code: i8) -> Option<ConfigResourceType> {
        match code {
            2 => Some(ConfigResourceType::Topic),
            4 => Some(ConfigResourceType::Broker),
            16 => Some(ConfigResourceType::ClientMetrics),
            32 => Some(ConfigResourceType::Group),
            _ => None,
        }
    }

    /// The number on the wire and in records.
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// A thing with dynamic configs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    /// Its kind.
    pub resource_type: ConfigResourceType,
    /// Its name; empty is the cluster-wide default of brokers.
    pub name: Arc<str>,
}

impl ConfigResource {
    /// The resource of this kind and name.
    pub fn new(resource_type: ConfigResourceType, name: &str) -> ConfigResource {
        ConfigResource { resource_type, name: Arc::from(name) }
    }

    /// The topic of this name.
    pub fn topic(name: &str) -> ConfigResource {
        ConfigResource::new(ConfigResourceType::Topic, name)
    }

    /// The broker of this id.
    pub fn broker(id: ringlog_types::NodeId) -> ConfigResource {
        ConfigResource::new(ConfigResourceType::Broker, &id.to_string())
    }

    /// The default of all brokers.
    pub fn broker_default() -> ConfigResource {
        ConfigResource::new(ConfigResourceType::Broker, "")
    }

    /// The group of this id.
    pub fn group(name: &str) -> ConfigResource {
        ConfigResource::new(ConfigResourceType::Group, name)
    }
}

/// The dynamic configs of one resource.
pub type ConfigMap = BTreeMap<Arc<str>, Arc<str>>;

/// Dynamic configs of all resources. A resource without configs is not there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigsImage {
    pub(super) by_resource: CowMap<ConfigResource, Arc<ConfigMap>>,
}

impl ConfigsImage {
    /// The configs of `resource`; `None` when it has none.
    pub fn get(&self, resource: &ConfigResource) -> Option<&Arc<ConfigMap>> {
        self.by_resource.get(resource)
    }

    /// One value.
    pub fn value(&self, resource: &ConfigResource, key: &str) -> Option<&Arc<str>> {
        self.by_resource.get(resource)?.get(key)
    }

    /// All resources with configs, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&ConfigResource, &Arc<ConfigMap>)> {
        self.by_resource.iter()
    }
}

/// Whom a client quota is for: entity types (`user`, `client-id`, `ip`) with a name each, `None` being the default.
pub type QuotaEntity = BTreeMap<Arc<str>, Option<Arc<str>>>;

/// Quota values by key, such as `producer_byte_rate`.
pub type QuotaMap = BTreeMap<Arc<str>, f64>;

/// All client quotas. An entity without values is not there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientQuotasImage {
    /// Values by entity.
    pub entities: BTreeMap<QuotaEntity, QuotaMap>,
}
