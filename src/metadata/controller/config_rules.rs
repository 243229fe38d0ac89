//! What the schemas of keys say about values: `ringlog_config` in the controller's words.

use std::sync::Arc;

use ringlog_config::alter::{self, AlterError, AlterOp, ResourceKind};
use ringlog_config::{BrokerLayers, ConfigMap, describe, validate as rules};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::create_topics_response::CreatableTopicConfigs;

use ringlog_types::{ErrorCode, validate_topic_name};

use super::context::ControllerConfig;
use super::error::ApiError;
use crate::image::{ConfigResource, ConfigResourceType, ConfigsImage};

fn kind_of(resource_type: ConfigResourceType) -> ResourceKind {
    match resource_type {
        ConfigResourceType::Topic => ResourceKind::Topic,
        ConfigResourceType::Broker => ResourceKind::Broker,
        ConfigResourceType::ClientMetrics => ResourceKind::ClientMetrics,
        ConfigResourceType::Group => ResourceKind::Group,
    }
}

/// What `key` holds after `op`; `None`: it is not set any more.
pub(crate) fn apply(
    resource_type: ConfigResourceType,
    key: &str,
    present: Option<&str>,
    op: AlterOp,
    value: Option<&str>,
) -> Result<Option<String>, ApiError> {
    let applied = alter::apply(kind_of(resource_type), key, present, op, value);
    applied.map_err(|error| {
        let text = match &error {
            // A broker says it otherwise, before it forwards the request.
            AlterError::NotAListOfBroker { key, .. } => {
                AlterError::NotAList { op: op.name(), key: key.clone() }.to_string()
            }
            error => error.to_string(),
        };
        ApiError::new(error.error_code(), text)
    })
}

fn owned(configs: Option<&Arc<crate::image::ConfigMap>>) -> ConfigMap {
    let pairs = configs.into_iter().flat_map(|configs| configs.iter());
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// This node's dynamic configs, which stand behind those of topics and groups.
struct Layers {
    per_broker: ConfigMap,
    cluster_default: ConfigMap,
}

impl Layers {
    fn of(configs: &ConfigsImage, config: &ControllerConfig) -> Layers {
        Layers {
            per_broker: owned(configs.get(&ConfigResource::broker(config.node_id))),
            cluster_default: owned(configs.get(&ConfigResource::broker_default())),
        }
    }

    fn view<'a>(&'a self, config: &'a ControllerConfig) -> BrokerLayers<'a> {
        BrokerLayers {
            per_broker: &self.per_broker,
            cluster_default: &self.cluster_default,
            static_config: &config.static_config,
        }
    }
}

/// Checks a resource's name, whether or not there is such a one.
pub(crate) fn validate_name(resource_type: ConfigResourceType, name: &str) -> Result<(), ApiError> {
    if resource_type == ConfigResourceType::Topic && !name.is_empty() {
        // With another code than brokers answer.
        let checked = validate_topic_name(name);
        return checked.map_err(|error| ApiError::new(ErrorCode::InvalidTopicException, error.0));
    }
    let checked = rules::resource_name(kind_of(resource_type), name);
    checked.map_err(|error| ApiError::new(error.error_code(), error.to_string()))
}

/// Checks all that a resource would have set. Broker values are not checked here: the broker has done it, which alone
/// knows its file.
pub(crate) fn validate(
    resource_type: ConfigResourceType,
    after: &ConfigMap,
    configs: &ConfigsImage,
    config: &ControllerConfig,
) -> Result<(), ApiError> {
    let layers = Layers::of(configs, config);
    let checked = match resource_type {
        ConfigResourceType::Topic => rules::topic(after, &layers.view(config)),
        ConfigResourceType::Group => rules::group(after, &layers.view(config)),
        ConfigResourceType::ClientMetrics => rules::client_metrics(after),
        ConfigResourceType::Broker => Ok(()),
    };
    checked.map_err(|error| ApiError::new(error.error_code(), error.to_string()))
}

/// The configs of a new topic as the answer shows them.
pub(crate) fn created_topic_configs(
    overrides: &ConfigMap,
    configs: &ConfigsImage,
    config: &ControllerConfig,
) -> Vec<CreatableTopicConfigs> {
    let layers = Layers::of(configs, config);
    let shown = describe::topic(overrides, &layers.view(config)).into_iter().map(|entry| CreatableTopicConfigs {
        name: StrBytes::from(entry.name),
        value: entry.value.map(StrBytes::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
    });
    shown.collect()
}
