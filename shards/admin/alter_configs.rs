//! AlterConfigs and IncrementalAlterConfigs: this broker checks what concerns itself (BROKER and BROKER_LOGGER
//! resources), the controller decides the rest (KIP-226, KIP-339, KIP-412).

use std::rc::Rc;

use ringlog_config::alter::{self, AlterOp, ResourceKind};
use ringlog_config::{ConfigMap, validate};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_configs_request::{self, AlterConfigsRequest};
use ringlog_protocol::messages::alter_configs_response::{self, AlterConfigsResponse};
use ringlog_protocol::messages::incremental_alter_configs_request::{self, IncrementalAlterConfigsRequest};
use ringlog_protocol::messages::incremental_alter_configs_response::{self, IncrementalAlterConfigsResponse};
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_types::ErrorCode;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{BROKER_LOGGER, broker_layers, forward};
use crate::dispatch::RequestContext;
use crate::shard::Shard;

/// An error and its text, for one resource.
type Refusal = (ErrorCode, String);
/// A resource by type and name.
type ResourceKey = (i8, StrBytes);

fn refuse<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err((ErrorCode::InvalidRequest, text.into()))
}

/// Answers IncrementalAlterConfigs.
pub async fn incremental(
    shard: &Rc<Shard>,
    context: &RequestContext,
    mut request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    use incremental_alter_configs_response::AlterConfigsResourceResponse;
    let keys: Vec<ResourceKey> =
        request.resources.iter().map(|it| (it.resource_type, it.resource_name.clone())).collect();
    let repeated = repeated(&keys);
    let mut answers: FxHashMap<ResourceKey, (i16, Option<StrBytes>)> = FxHashMap::default();
    request.resources.retain(|resource| {
        let key = (resource.resource_type, resource.resource_name.clone());
        let checked = if repeated.contains(&key) { refuse(REPEATED) } else { check_incremental(shard, resource) };
        checked.map_err(|(error, text)| answers.insert(key, (error.code(), Some(text.into())))).is_ok()
    });
    if !request.resources.is_empty() {
        let body: RequestBody = request.into();
        if let ResponseBody::IncrementalAlterConfigs(response) = forward::to_controller(shard, context, body).await {
            for it in response.responses {
                answers.insert((it.resource_type, it.resource_name), (it.error_code, it.error_message));
            }
        }
    }
    let responses = in_order(keys, &answers).map(|((resource_type, resource_name), (error_code, error_message))| {
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// Answers AlterConfigs, which replaces all configs of a resource.
pub async fn legacy(
    shard: &Rc<Shard>,
    context: &RequestContext,
    mut request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    use alter_configs_response::AlterConfigsResourceResponse;
    let keys: Vec<ResourceKey> =
        request.resources.iter().map(|it| (it.resource_type, it.resource_name.clone())).collect();
    let repeated = repeated(&keys);
    let mut answers: FxHashMap<ResourceKey, (i16, Option<StrBytes>)> = FxHashMap::default();
    request.resources.retain(|resource| {
        let key = (resource.resource_type, resource.resource_name.clone());
        let checked = if repeated.contains(&key) { refuse(REPEATED) } else { check_legacy(shard, resource) };
        checked.map_err(|(error, text)| answers.insert(key, (error.code(), Some(text.into())))).is_ok()
    });
    if !request.resources.is_empty() {
        let body: RequestBody = request.into();
        if let ResponseBody::AlterConfigs(response) = forward::to_controller(shard, context, body).await {
            for it in response.responses {
                answers.insert((it.resource_type, it.resource_name), (it.error_code, it.error_message));
            }
        }
    }
    let responses = in_order(keys, &answers).map(|((resource_type, resource_name), (error_code, error_message))| {
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

const REPEATED: &str = "Each resource must appear at most once.";

fn repeated(keys: &[ResourceKey]) -> FxHashSet<ResourceKey> {
    let mut seen = FxHashSet::default();
    keys.iter().filter(|key| !seen.insert(*key)).cloned().collect()
}

/// The answers in the order of the request, one for each resource.
fn in_order(
    keys: Vec<ResourceKey>,
    answers: &FxHashMap<ResourceKey, (i16, Option<StrBytes>)>,
) -> impl Iterator<Item = (ResourceKey, (i16, Option<StrBytes>))> {
    let mut answered = FxHashSet::default();
    let once = keys.into_iter().filter(move |key| answered.insert(key.clone()));
    once.map(|key| {
        let answer = answers.get(&key).cloned().unwrap_or((ErrorCode::UnknownServerError.code(), None));
        (key, answer)
    })
}

fn null_values<'a>(keys: impl Iterator<Item = (&'a StrBytes, bool)>) -> Result<(), Refusal> {
    let keys: Vec<&str> = keys.filter(|(_, is_null)| *is_null).map(|(key, _)| key.as_str()).collect();
    if keys.is_empty() { Ok(()) } else { refuse(format!("Null value not supported for : {}", keys.join(","))) }
}

fn no_repeated_key<'a>(keys: impl Iterator<Item = &'a StrBytes>) -> Result<(), Refusal> {
    let mut seen = FxHashSet::default();
    for key in keys {
        if !seen.insert(key) {
            return refuse("Error due to duplicate config keys");
        }
    }
    Ok(())
}

fn check_incremental(
    shard: &Shard,
    resource: &incremental_alter_configs_request::AlterConfigsResource,
) -> Result<(), Refusal> {
    no_repeated_key(resource.configs.iter().map(|config| &config.name))?;
    let delete = AlterOp::Delete as i8;
    null_values(
        resource
            .configs
            .iter()
            .map(|config| (&config.name, config.value.is_none() && config.config_operation != delete)),
    )?;
    let name = resource.resource_name.as_str();
    match check_kind(shard, resource.resource_type, name)? {
        Checked::Elsewhere => Ok(()),
        Checked::Here => {
            let mut configs = present(shard, name);
            for config in &resource.configs {
                let key = config.name.as_str();
                let Some(op) = AlterOp::from_code(config.config_operation) else {
                    return refuse(format!("Unknown operation type {}", config.config_operation));
                };
                let kind = ResourceKind::Broker;
                let present = configs.get(key).map(String::as_str);
                let value = alter::apply(kind, key, present, op, config.value.as_deref());
                match value.map_err(|error| (error.error_code(), error.to_string()))? {
                    Some(value) => drop(configs.insert(key.to_owned(), value)),
                    None => drop(configs.remove(key)),
                }
            }
            check_broker(shard, name, &configs)
        }
    }
}

fn check_legacy(shard: &Shard, resource: &alter_configs_request::AlterConfigsResource) -> Result<(), Refusal> {
    no_repeated_key(resource.configs.iter().map(|config| &config.name))?;
    null_values(resource.configs.iter().map(|config| (&config.name, config.value.is_none())))?;
    let name = resource.resource_name.as_str();
    match check_kind(shard, resource.resource_type, name)? {
        Checked::Elsewhere => Ok(()),
        Checked::Here => {
            let configs = resource.configs.iter();
            let configs = configs.filter_map(|it| Some((it.name.to_string(), it.value.as_ref()?.to_string())));
            check_broker(shard, name, &configs.collect())
        }
    }
}

/// Whose it is to check the values.
enum Checked {
    /// This broker's.
    Here,
    /// The controller's.
    Elsewhere,
}

fn check_kind(shard: &Shard, resource_type: i8, name: &str) -> Result<Checked, Refusal> {
    if resource_type == BROKER_LOGGER {
        check_node(shard, name)?;
        return refuse("Log levels can't be changed while this node runs: start it with another log filter.");
    }
    match ResourceKind::from_code(resource_type) {
        Some(ResourceKind::Broker) => {
            if !name.is_empty() {
                check_node(shard, name)?;
            }
            Ok(Checked::Here)
        }
        Some(ResourceKind::Topic | ResourceKind::Group | ResourceKind::ClientMetrics) => Ok(Checked::Elsewhere),
        None => refuse(format!("Unknown resource type {resource_type}")),
    }
}

fn check_node(shard: &Shard, name: &str) -> Result<(), Refusal> {
    let own = shard.node.id;
    match name.parse::<i32>() {
        Err(_) => refuse(format!("Node id must be an integer, but it is: {name}")),
        Ok(id) if id != own.0 => refuse(format!("Unexpected broker id, expected {own}, but received {name}")),
        Ok(_) => Ok(()),
    }
}

/// What the broker, or with an empty name all brokers, has now.
fn present(shard: &Shard, name: &str) -> ConfigMap {
    let (own, default) = broker_layers(&shard.image(), shard.node.id);
    if name.is_empty() { default } else { own }
}

fn check_broker(shard: &Shard, name: &str, configs: &ConfigMap) -> Result<(), Refusal> {
    let (own, default) = broker_layers(&shard.image(), shard.node.id);
    let layers = shard.node.config.layers(&own, &default);
    validate::broker(configs, !name.is_empty(), &layers).map_err(|error| (error.error_code(), error.to_string()))
}
