//! CreateTopics and DeleteTopics.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::create_topics_request::CreatableTopic;
use ringlog_protocol::messages::create_topics_response::CreatableTopicResult;
use ringlog_protocol::messages::delete_topics_response::DeletableTopicResult;
use ringlog_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use ringlog_protocol::metadata_records::{
    ClearElrRecord, ConfigRecord, PartitionRecord, RecordAndVersion, RemoveTopicRecord, TopicRecord,
};
use ringlog_types::{
    CLUSTER_METADATA_TOPIC, ErrorCode, NodeId, PartitionIndex, Uuid, sort_as_hash_map, validate_topic_name,
};

use super::MAX_RECORDS_PER_OPERATION;
use super::config_rules;
use super::context::{Operation, RequestContext, Resource, record, repeated};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::placement::place;
use super::state::{ActiveController, MIN_IN_SYNC_REPLICAS};
use crate::image::{ConfigResourceType, directory};

/// A topic that can be created.
struct NewTopic {
    records: Vec<RecordAndVersion>,
    partitions: usize,
    replication_factor: usize,
    id: Uuid,
}

impl ActiveController {
    pub(crate) fn create_topics(&mut self, request: &CreateTopicsRequest, context: &RequestContext<'_>) -> Outcome {
        let mut names: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
        let duplicates = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        let mut records = Vec::new();
        let mut results = Vec::new();
        let mut new_names: BTreeSet<&str> = BTreeSet::new();
        let asked =
            |topic: &&CreatableTopic| i64::from(topic.num_partitions).max(topic.assignments.len() as i64).max(1);
        let is_excessive =
            request.topics.iter().map(|topic| asked(&topic)).sum::<i64>() > MAX_RECORDS_PER_OPERATION as i64;
        for topic in &request.topics {
            if duplicates.contains(topic.name.as_str()) {
                if names.remove(topic.name.as_str()) {
                    let error = ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
                    results.push(failed_topic(&topic.name, error));
                }
                continue;
            }
            let result = if is_excessive {
                let text = "Excessively large number of partitions per request.";
                Err(ApiError::new(ErrorCode::PolicyViolation, text))
            } else {
                self.create_topic(topic, &new_names, context)
            };
            results.push(match result {
                Ok(new_topic) => {
                    new_names.insert(topic.name.as_str());
                    let result = self.created_topic(topic, &new_topic, context);
                    records.extend(new_topic.records);
                    result
                }
                Err(error) => failed_topic(&topic.name, error),
            });
        }
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, CreateTopicsResponse { topics: results, ..Default::default() })
    }

    fn created_topic(
        &self,
        topic: &CreatableTopic,
        new_topic: &NewTopic,
        context: &RequestContext<'_>,
    ) -> CreatableTopicResult {
        let mut result = CreatableTopicResult {
            name: topic.name.clone(),
            topic_id: new_topic.id,
            error_message: None,
            ..CreatableTopicResult::default()
        };
        if context.authorizer.allows(Operation::DescribeConfigs, Resource::Topic(&topic.name)) {
            let overrides = topic_configs(topic);
            result.num_partitions = new_topic.partitions as i32;
            result.replication_factor = new_topic.replication_factor as i16;
            result.configs = Some(config_rules::created_topic_configs(&overrides, &self.image.configs, &self.config));
        } else {
            result.topic_config_error_code = ErrorCode::TopicAuthorizationFailed.code();
        }
        result
    }

    fn create_topic(
        &mut self,
        topic: &CreatableTopic,
        new_names: &BTreeSet<&str>,
        context: &RequestContext<'_>,
    ) -> Result<NewTopic, ApiError> {
        self.check_name(topic, new_names, context)?;
        let mut without: Vec<&str> =
            topic.configs.iter().filter(|config| config.value.is_none()).map(|config| config.name.as_str()).collect();
        if !without.is_empty() {
            sort_as_hash_map(&mut without, |name| name);
            without.dedup();
            let text = format!("Null value not supported for topic configs: {}", without.join(","));
            return Err(ApiError::new(ErrorCode::InvalidConfig, text));
        }
        let configs = topic_configs(topic);
        config_rules::validate(ConfigResourceType::Topic, &configs, &self.image.configs, &self.config)?;
        let assignments =
            if topic.assignments.is_empty() { self.place_topic(topic)? } else { self.manual_assignments(topic)? };
        let id = self.new_topic_id();
        let mut records = Vec::with_capacity(assignments.len() + configs.len() + 1);
        records.push(record(TopicRecord { name: topic.name.clone(), topic_id: id }.into(), 0));
        for (name, value) in &configs {
            let config = ConfigRecord {
                resource_type: ConfigResourceType::Topic.code(),
                resource_name: topic.name.clone(),
                name: StrBytes::copy_from(name),
                value: Some(StrBytes::copy_from(value)),
            };
            records.push(record(config.into(), 0));
        }
        if configs.contains_key(MIN_IN_SYNC_REPLICAS) && self.image.features.is_elr_enabled() {
            records.push(record(ClearElrRecord { topic_name: topic.name.clone() }.into(), 0));
        }
        let replication_factor = assignments.first().map_or(0, Vec::len);
        for (index, replicas) in assignments.iter().enumerate() {
            records.push(self.new_partition_record(id, PartitionIndex(index as i32), replicas));
        }
        Ok(NewTopic { records, partitions: assignments.len(), replication_factor, id })
    }

    fn check_name(
        &self,
        topic: &CreatableTopic,
        new_names: &BTreeSet<&str>,
        context: &RequestContext<'_>,
    ) -> Result<(), ApiError> {
        let name = topic.name.as_str();
        if name == CLUSTER_METADATA_TOPIC {
            let text = "Creation of internal topic __cluster_metadata is prohibited.";
            return Err(ApiError::new(ErrorCode::InvalidRequest, text));
        }
        let may_create = context.authorizer.allows(Operation::Create, Resource::Cluster)
            || context.authorizer.allows(Operation::Create, Resource::Topic(name));
        if !may_create {
            return Err(ApiError::new(ErrorCode::TopicAuthorizationFailed, "Authorization failed."));
        }
        validate_topic_name(name).map_err(|error| ApiError::new(ErrorCode::InvalidTopicException, error.0))?;
        let collides_in_request = new_names.iter().find(|other| ringlog_types::topics_collide(name, other)).copied();
        if let Some(other) = self.indexes.colliding_topic(name).map(|other| &**other).or(collides_in_request) {
            let text = format!("Topic '{name}' collides with existing topic: {other}");
            return Err(ApiError::new(ErrorCode::InvalidTopicException, text));
        }
        if self.image.topics.id(name).is_some() {
            return Err(ApiError::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        Ok(())
    }

    fn place_topic(&mut self, topic: &CreatableTopic) -> Result<Vec<Vec<NodeId>>, ApiError> {
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            let text = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, text));
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            let text = "Number of partitions was set to an invalid non-positive value.";
            return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
        }
        let or_default = |value: i64, default: i64| if value == -1 { default.max(1) as usize } else { value as usize };
        let partitions = or_default(topic.num_partitions.into(), self.config.num_partitions.into());
        let replication_factor =
            or_default(topic.replication_factor.into(), self.config.default_replication_factor.into());
        self.place_partitions(partitions, replication_factor)
    }

    /// Automatic placement; refuses partitions that would begin without any active replica.
    pub(crate) fn place_partitions(
        &mut self,
        partitions: usize,
        replication_factor: usize,
    ) -> Result<Vec<Vec<NodeId>>, ApiError> {
        let is_shutting_down = |id: NodeId| self.heartbeats.is_shutting_down(id);
        let placed = place(&self.image.cluster, &is_shutting_down, partitions, replication_factor, &mut self.random);
        let refusal = |why: &str| {
            let text = format!("Unable to replicate the partition {replication_factor} time(s): {why}");
            ApiError::new(ErrorCode::InvalidReplicationFactor, text)
        };
        let placed = placed.map_err(|error| refusal(&error.0))?;
        // The heartbeats of a new controller don't know who was shutting down under another one.
        if placed.iter().any(|replicas| !replicas.iter().any(|id| self.is_active(*id))) {
            return Err(refusal("All brokers are currently fenced or in controlled shutdown."));
        }
        Ok(placed)
    }

    fn manual_assignments(&self, topic: &CreatableTopic) -> Result<Vec<Vec<NodeId>>, ApiError> {
        let invalid = |text: &str| Err(ApiError::new(ErrorCode::InvalidRequest, text));
        if topic.replication_factor != -1 {
            return invalid("A manual partition assignment was specified, but replication factor was not set to -1.");
        }
        if topic.num_partitions != -1 {
            return invalid("A manual partition assignment was specified, but numPartitions was not set to -1.");
        }
        let mut by_index: BTreeMap<i32, Vec<NodeId>> = BTreeMap::new();
        let mut replication_factor = None;
        for assignment in &topic.assignments {
            let index = assignment.partition_index;
            if by_index.contains_key(&index) {
                let text = format!("Found multiple manual partition assignments for partition {index}");
                return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
            }
            let replicas: Vec<NodeId> = assignment.broker_ids.iter().map(|id| NodeId(*id)).collect();
            self.check_manual_assignment(&replicas, replication_factor)?;
            replication_factor = Some(replicas.len());
            self.check_any_active(&replicas, index)?;
            by_index.insert(index, replicas);
        }
        if by_index.keys().enumerate().any(|(expected, index)| *index != expected as i32) {
            let text = "partitions should be a consecutive 0-based integer sequence";
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
        }
        Ok(by_index.into_values().collect())
    }

    /// Refuses a partition that would begin without any active replica.
    pub(crate) fn check_any_active(&self, replicas: &[NodeId], index: i32) -> Result<(), ApiError> {
        if replicas.iter().any(|id| self.is_active(*id)) {
            return Ok(());
        }
        let text = format!(
            "All brokers specified in the manual partition assignment for partition {index} are fenced or in \
             controlled shutdown."
        );
        Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text))
    }

    /// Checks a list of replicas that somebody chose by hand.
    pub(crate) fn check_manual_assignment(
        &self,
        replicas: &[NodeId],
        replication_factor: Option<usize>,
    ) -> Result<(), ApiError> {
        let refuse = |text: String| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
        if replicas.is_empty() {
            return refuse("The manual partition assignment includes an empty replica list.".to_owned());
        }
        let mut sorted = replicas.to_vec();
        sorted.sort_unstable();
        for (position, id) in sorted.iter().enumerate() {
            if self.image.cluster.broker(*id).is_none() {
                return refuse(format!(
                    "The manual partition assignment includes broker {id}, but no such broker is registered."
                ));
            }
            if position > 0 && sorted[position - 1] == *id {
                return refuse(format!("The manual partition assignment includes the broker {id} more than once."));
            }
        }
        if let Some(expected) = replication_factor.filter(|expected| *expected != replicas.len()) {
            return refuse(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not consistent \
                 with previous partitions, which have {expected} replica(s).",
                replicas.len()
            ));
        }
        Ok(())
    }

    /// The record of a new partition: in sync are the active replicas, and the first of them leads.
    pub(crate) fn new_partition_record(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
        replicas: &[NodeId],
    ) -> RecordAndVersion {
        let version = self.metadata_version().partition_record_version();
        let in_sync: Vec<i32> = replicas.iter().filter(|id| self.is_active(**id)).map(|id| id.0).collect();
        let default_directory = |id: &NodeId| {
            self.image.cluster.broker(*id).map_or(directory::UNASSIGNED, |broker| broker.default_directory())
        };
        let partition = PartitionRecord {
            partition_id: index.0,
            topic_id,
            replicas: replicas.iter().map(|id| id.0).collect(),
            leader: in_sync.first().copied().unwrap_or(-1),
            isr: in_sync,
            leader_epoch: 0,
            partition_epoch: 0,
            directories: if version >= 1 { replicas.iter().map(default_directory).collect() } else { Vec::new() },
            ..PartitionRecord::default()
        };
        record(partition.into(), version)
    }

    fn new_topic_id(&mut self) -> Uuid {
        loop {
            let id = Uuid::random(&mut self.random);
            if !directory::is_reserved(id) && self.image.topics.by_id(id).is_none() {
                return id;
            }
        }
    }

    pub(crate) fn delete_topics(
        &mut self,
        request: &DeleteTopicsRequest,
        context: &RequestContext<'_>,
    ) -> Result<Outcome, ErrorCode> {
        if !self.config.delete_topic_enable {
            // Clients before version 3 don't know the code of its own.
            let code =
                if context.api_version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
            return Err(code);
        }
        let asked = deletions(request, context.api_version);
        let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for topic in asked.iter().filter(|(name, id)| name.is_some() == id.is_zero()) {
            if !once.insert(topic) {
                twice.insert(topic);
            }
        }
        let ids: BTreeSet<Uuid> = asked.iter().filter(|(name, _)| name.is_none()).map(|(_, id)| *id).collect();
        let mut records = Vec::new();
        let mut responses = Vec::new();
        for topic in &asked {
            let (name, id) = topic;
            if twice.contains(topic) {
                // Nothing is deleted then, and the first one gets the answer for all.
                if once.remove(topic) {
                    responses.push(duplicate(name, *id));
                }
                continue;
            }
            let by_name = name.is_none().then(|| self.image.topics.name(*id)).flatten();
            if by_name.is_some_and(|name| once.contains(&(Some(StrBytes::copy_from(name)), Uuid::ZERO))) {
                // The name has the answer.
                continue;
            }
            let result = self.delete_topic(name, *id, context).and_then(|topic_id| {
                if name.is_some() && ids.contains(&topic_id) {
                    let text = "The provided topic name maps to an ID that was already supplied.";
                    return Err(ApiError::new(ErrorCode::InvalidRequest, text));
                }
                records.push(record(RemoveTopicRecord { topic_id }.into(), 0));
                Ok(())
            });
            responses.push(self.deletion_result(name.clone(), *id, result, context));
        }
        Ok(Outcome::atomic(records, DeleteTopicsResponse { responses, ..Default::default() }))
    }

    /// The id of the topic to be deleted.
    fn delete_topic(&self, name: &Option<StrBytes>, id: Uuid, context: &RequestContext<'_>) -> Result<Uuid, ApiError> {
        let invalid = |text: &str| Err(ApiError::new(ErrorCode::InvalidRequest, text));
        let topic = match (name, id.is_zero()) {
            (None, true) => return invalid("Neither topic name nor id were specified."),
            (Some(_), false) => return invalid("You may not specify both topic name and topic id."),
            (Some(name), true) => self.image.topics.by_name(name),
            (None, false) => self.image.topics.by_id(id),
        };
        let known_name = topic.map(|topic| &*topic.name).or(name.as_deref());
        if let Some(known_name) = known_name {
            let resource = Resource::Topic(known_name);
            let may_describe = context.authorizer.allows(Operation::Describe, resource);
            if name.is_none() && topic.is_some() && !may_describe {
                return Err(ApiError::spelled(ErrorCode::TopicAuthorizationFailed));
            }
            if !context.authorizer.allows(Operation::Delete, resource) {
                return Err(ApiError::spelled(ErrorCode::TopicAuthorizationFailed));
            }
        }
        let unknown = if name.is_some() { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::UnknownTopicId };
        let topic = topic.ok_or_else(|| ApiError::spelled(unknown))?;
        Ok(topic.id)
    }

    fn deletion_result(
        &self,
        name: Option<StrBytes>,
        id: Uuid,
        result: Result<(), ApiError>,
        context: &RequestContext<'_>,
    ) -> DeletableTopicResult {
        let topic = match &name {
            Some(name) => self.image.topics.by_name(name),
            None => self.image.topics.by_id(id),
        };
        let is_hidden = |name: &str| !context.authorizer.allows(Operation::Describe, Resource::Topic(name));
        let (error_code, error_message) = code_and_text(result);
        let shown_name = topic.filter(|topic| !is_hidden(&topic.name)).map(|topic| StrBytes::copy_from(&topic.name));
        let shown_id = topic.filter(|topic| id.is_zero() && !is_hidden(&topic.name)).map_or(id, |topic| topic.id);
        DeletableTopicResult { name: name.or(shown_name), topic_id: shown_id, error_code, error_message }
    }
}

/// The answer for a topic that is named more than once.
fn duplicate(name: &Option<StrBytes>, topic_id: Uuid) -> DeletableTopicResult {
    let text = if name.is_some() { "Duplicate topic name." } else { "Duplicate topic id." };
    DeletableTopicResult {
        name: name.clone(),
        topic_id,
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: Some(text.into()),
    }
}

/// What the request asks to delete, by name or id, whatever its version.
fn deletions(request: &DeleteTopicsRequest, api_version: i16) -> Vec<(Option<StrBytes>, Uuid)> {
    if api_version >= 6 {
        request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id)).collect()
    } else {
        request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::ZERO)).collect()
    }
}

fn topic_configs(topic: &CreatableTopic) -> BTreeMap<String, String> {
    let set =
        topic.configs.iter().filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())));
    set.collect()
}

fn failed_topic(name: &StrBytes, error: ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.clone(),
        error_code: error.code.code(),
        error_message: error.text(),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}
