//! AlterConfigs and IncrementalAlterConfigs (KIP-339).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ringlog_config::alter::AlterOp;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use ringlog_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    alter_configs_response, incremental_alter_configs_response,
};
use ringlog_protocol::metadata_records::{ClearElrRecord, ConfigRecord, MetadataRecord, RecordAndVersion};
use ringlog_types::{ErrorCode, NodeId, sort_as_hash_map};

use super::config_rules;
use super::context::{Operation, RequestContext, Resource, record, repeated};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::state::{ActiveController, MIN_IN_SYNC_REPLICAS};
use crate::features::MetadataVersion;
use crate::image::{ConfigResource, ConfigResourceType};

const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";
/// The longest value in characters, as records of older versions had 16-bit lengths.
const MAX_VALUE_LENGTH: usize = 32_767;

/// What a request does to each key of a resource; `None` removes it.
type Edits = Vec<(String, Option<String>)>;
/// A resource as a request names it, and what became of it.
type Altered<'a> = (i8, &'a str, Result<(), ApiError>);

impl ActiveController {
    pub(crate) fn incremental_alter_configs(
        &self,
        request: &IncrementalAlterConfigsRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let mut records = Vec::new();
        let resources = request.resources.iter().map(|it| (it.resource_type, it.resource_name.as_str(), &it.configs));
        let results = self.alter_each(resources, context, &mut records, |target, configs| self.edits(target, configs));
        let answer = |(resource_type, resource_name, result): Altered<'_>| {
            let (error_code, error_message) = code_and_text(result);
            incremental_alter_configs_response::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type,
                resource_name: StrBytes::copy_from(resource_name),
            }
        };
        let mut responses: Vec<_> = results.into_iter().map(answer).collect();
        // Kafka fails as a whole at an operation that it doesn't know.
        let failure = ErrorCode::UnknownServerError.code();
        if responses.iter().any(|response| response.error_code == failure) {
            responses.iter_mut().for_each(|it| (it.error_code, it.error_message) = (failure, None));
            records.clear();
        }
        if request.validate_only {
            records.clear();
        }
        self.clear_elr(&mut records);
        Outcome::atomic(records, IncrementalAlterConfigsResponse { responses, ..Default::default() })
    }

    pub(crate) fn alter_configs(&self, request: &AlterConfigsRequest, context: &RequestContext<'_>) -> Outcome {
        let mut records = Vec::new();
        let resources = request.resources.iter().map(|it| (it.resource_type, it.resource_name.as_str(), &it.configs));
        let results = self.alter_each(resources, context, &mut records, |target, configs| {
            let mut edits = Edits::new();
            for config in configs {
                let value = config.value.as_ref().ok_or_else(|| {
                    let text = format!("Null value not supported for : {}", config.name);
                    ApiError::new(ErrorCode::InvalidRequest, text)
                })?;
                edits.push((config.name.to_string(), Some(value.to_string())));
            }
            // What the request doesn't name goes.
            if let Some(present) = self.image.configs.get(target) {
                let is_named = |name: &str| configs.iter().any(|config| config.name == name);
                edits.extend(present.keys().filter(|name| !is_named(name)).map(|name| (name.to_string(), None)));
            }
            Ok(edits)
        });
        let answer = |(resource_type, resource_name, result): Altered<'_>| {
            let (error_code, error_message) = code_and_text(result);
            alter_configs_response::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type,
                resource_name: StrBytes::copy_from(resource_name),
            }
        };
        let responses = results.into_iter().map(answer).collect();
        if request.validate_only {
            records.clear();
        }
        self.clear_elr(&mut records);
        Outcome::atomic(records, AlterConfigsResponse { responses, ..Default::default() })
    }

    /// What becomes of each resource that a request names: `edits_of` says what to do to it. One that is named again is
    /// answered once, unless Kafka doesn't know its kind.
    fn alter_each<'a, C>(
        &self,
        resources: impl Iterator<Item = (i8, &'a str, &'a C)> + Clone,
        context: &RequestContext<'_>,
        records: &mut Vec<RecordAndVersion>,
        edits_of: impl Fn(&ConfigResource, &C) -> Result<Edits, ApiError>,
    ) -> Vec<Altered<'a>>
    where
        C: 'a,
    {
        let duplicates = repeated(resources.clone().map(|(kind, name, _)| (kind, name)));
        let mut answered = BTreeSet::new();
        let mut results = Vec::new();
        for (kind, name, configs) in resources {
            let key = (kind, name);
            let is_known = ConfigResourceType::from_code(kind).is_some();
            if !answered.insert(key) && is_known {
                continue;
            }
            let result = self.target(key, duplicates.contains(&key), context).and_then(|target| {
                let edits = edits_of(&target, configs)?;
                self.edit_configs(&target, edits, context, records)
            });
            results.push((kind, name, result));
        }
        results
    }

    /// The resource, if the requester may change its configs. It need not exist.
    fn target(
        &self,
        (resource_type, name): (i8, &str),
        is_duplicate: bool,
        context: &RequestContext<'_>,
    ) -> Result<ConfigResource, ApiError> {
        if resource_type == 8 {
            return Err(invalid("Unexpected resource type BROKER_LOGGER."));
        }
        let Some(kind) = ConfigResourceType::from_code(resource_type) else {
            let text = format!("Unknown resource type {resource_type}.");
            return Err(ApiError::new(ErrorCode::UnsupportedVersion, text));
        };
        if is_duplicate {
            return Err(invalid("Duplicate resource."));
        }
        let (resource, refusal) = match kind {
            ConfigResourceType::Topic => (Resource::Topic(name), ErrorCode::TopicAuthorizationFailed),
            ConfigResourceType::Group => (Resource::Group(name), ErrorCode::GroupAuthorizationFailed),
            ConfigResourceType::Broker | ConfigResourceType::ClientMetrics => {
                (Resource::Cluster, ErrorCode::ClusterAuthorizationFailed)
            }
        };
        if !context.authorizer.allows(Operation::AlterConfigs, resource) {
            return Err(refusal.into());
        }
        Ok(ConfigResource::new(kind, name))
    }

    /// What the operations make of the present values.
    fn edits(&self, target: &ConfigResource, operations: &[AlterableConfig]) -> Result<Edits, ApiError> {
        // Of a key that is named twice the last counts, in the place of the first.
        let mut by_key: Vec<&AlterableConfig> = Vec::with_capacity(operations.len());
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for operation in operations {
            match places.entry(&operation.name) {
                Entry::Occupied(place) => by_key[*place.get()] = operation,
                Entry::Vacant(place) => {
                    place.insert(by_key.len());
                    by_key.push(operation);
                }
            }
        }
        // Of several errors the first one found is told, and Kafka looks in this order.
        sort_as_hash_map(&mut by_key, |it| it.name.as_str());
        let mut edits = Edits::new();
        for config in by_key {
            let op = AlterOp::from_code(config.config_operation).ok_or(ErrorCode::UnknownServerError)?;
            let present = self.image.configs.value(target, &config.name).map(|value| &**value);
            let value = config.value.as_deref();
            let after = config_rules::apply(target.resource_type, &config.name, present, op, value)?;
            edits.push((config.name.to_string(), after));
        }
        Ok(edits)
    }

    /// Only what exists has configs, but groups and client metrics, whose configs may come first.
    fn check_exists(&self, target: &ConfigResource) -> Result<(), ApiError> {
        let name = &*target.name;
        match target.resource_type {
            ConfigResourceType::Topic if self.image.topics.id(name).is_none() => {
                let text = format!("The topic '{name}' does not exist.");
                Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, text))
            }
            ConfigResourceType::Broker => name.parse().map_or(Ok(()), |id| self.check_node_exists(NodeId(id))),
            _ => Ok(()),
        }
    }

    fn check_node_exists(&self, id: NodeId) -> Result<(), ApiError> {
        let cluster = &self.image.cluster;
        let is_known =
            cluster.brokers.contains_key(&id) || cluster.controllers.contains_key(&id) || id == self.config.node_id;
        if is_known {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, format!("No node with id {id} found.")))
    }

    /// Checks the edits together and makes their records.
    fn edit_configs(
        &self,
        target: &ConfigResource,
        edits: Edits,
        context: &RequestContext<'_>,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<(), ApiError> {
        let present: BTreeMap<String, String> = self.image.configs.get(target).map_or_else(BTreeMap::new, |configs| {
            configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        });
        let mut after = present.clone();
        for (name, value) in &edits {
            self.check_edit(target, name, value.as_deref(), &present, context)?;
            match value {
                Some(value) => drop(after.insert(name.clone(), value.clone())),
                None => drop(after.remove(name)),
            }
        }
        config_rules::validate_name(target.resource_type, &target.name)?;
        config_rules::validate(target.resource_type, &after, &self.image.configs, &self.config)?;
        self.check_exists(target)?;
        for (name, value) in edits {
            if target.resource_type != ConfigResourceType::Broker && present.get(&name) == value.as_ref() {
                continue;
            }
            records.push(config_record(target, &name, value));
        }
        Ok(())
    }

    /// With another min.insync.replicas, eligible sets mean nothing any more: records that empty them, at the end.
    fn clear_elr(&self, records: &mut Vec<RecordAndVersion>) {
        if !self.image.features.is_elr_enabled() {
            return;
        }
        let changed = records.iter().filter_map(|it| match &it.record {
            MetadataRecord::Config(config) if config.name == MIN_IN_SYNC_REPLICAS => Some(config),
            _ => None,
        });
        // An empty name is that of all topics.
        let topic = |config: &ConfigRecord| match ConfigResourceType::from_code(config.resource_type) {
            Some(ConfigResourceType::Topic) => config.resource_name.clone(),
            _ => StrBytes::default(),
        };
        let cleared: Vec<StrBytes> = changed.map(topic).collect();
        records.extend(cleared.into_iter().map(|topic_name| record(ClearElrRecord { topic_name }.into(), 0)));
    }

    /// Rules that the schema of keys doesn't know.
    fn check_edit(
        &self,
        target: &ConfigResource,
        name: &str,
        value: Option<&str>,
        present: &BTreeMap<String, String>,
        context: &RequestContext<'_>,
    ) -> Result<(), ApiError> {
        let refuse = |text: &str| Err(ApiError::new(ErrorCode::InvalidConfig, text));
        if value.is_some_and(|value| value.encode_utf16().count() > MAX_VALUE_LENGTH) {
            return refuse(
                "The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes.",
            );
        }
        if target.resource_type != ConfigResourceType::Broker {
            return Ok(());
        }
        if name == MIN_IN_SYNC_REPLICAS && self.image.features.is_elr_enabled() {
            if !target.name.is_empty() {
                return refuse("Broker-level min.insync.replicas cannot be altered while ELR is enabled.");
            }
            if value.is_none() {
                return refuse("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.");
            }
        }
        if name == CORDONED_LOG_DIRS {
            if !self.metadata_version().is_cordoned_log_dirs_supported() {
                let text = format!(
                    "The cordoned.log.dirs configuration value cannot be set because it requires metadata.version >= {}",
                    MetadataVersion(30)
                );
                return refuse(&text);
            }
            let elements = |text: &str| text.split(',').map(|it| it.trim().to_owned()).collect::<BTreeSet<_>>();
            let before = present.get(name).map(|text| elements(text)).unwrap_or_default();
            let is_subset =
                value.is_none_or(|text| elements(text).iter().all(|it| it.is_empty() || before.contains(it)));
            if !context.is_forwarded && !is_subset {
                return refuse(
                    "When updating cordoned.log.dirs via controllers,  the new value must be a subset of the current \
                     configuration value.",
                );
            }
        }
        Ok(())
    }

    /// What switching eligible leader replicas on needs: a value of min.insync.replicas for the whole cluster, and none
    /// of single brokers.
    pub(crate) fn elr_safety_records(&self, records: &mut Vec<RecordAndVersion>) {
        let default = ConfigResource::broker_default();
        if self.image.configs.value(&default, MIN_IN_SYNC_REPLICAS).is_none() {
            let value = self.config.min_in_sync_replicas.to_string();
            records.push(config_record(&default, MIN_IN_SYNC_REPLICAS, Some(value)));
        }
        let is_of_broker = |it: &&ConfigResource| it.resource_type == ConfigResourceType::Broker && !it.name.is_empty();
        for resource in self.image.configs.iter().map(|(resource, _)| resource).filter(is_of_broker) {
            if self.image.configs.value(resource, MIN_IN_SYNC_REPLICAS).is_some() {
                records.push(config_record(resource, MIN_IN_SYNC_REPLICAS, None));
            }
        }
    }
}

fn invalid(text: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

fn config_record(target: &ConfigResource, name: &str, value: Option<String>) -> RecordAndVersion {
    let config = ConfigRecord {
        resource_type: target.resource_type.code(),
        resource_name: StrBytes::copy_from(&target.name),
        name: StrBytes::copy_from(name),
        value: value.map(StrBytes::from),
    };
    record(config.into(), 0)
}
