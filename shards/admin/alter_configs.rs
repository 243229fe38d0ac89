//! AlterConfigs and IncrementalAlterConfigs: a broker checks what concerns itself, the controller decides (KIP-226,
//! KIP-339). BROKER_LOGGER resources are a node's own affair: it does what is asked for, and nobody else hears of it
//! (KIP-412).

use std::rc::Rc;

use ringlog_config::alter::{self, AlterOp, ResourceKind};
use ringlog_config::logger::LoggerError;
use ringlog_config::{ConfigMap, validate};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_configs_request::{self, AlterConfigsRequest};
use ringlog_protocol::messages::alter_configs_response::{self, AlterConfigsResponse};
use ringlog_protocol::messages::incremental_alter_configs_request::{self, IncrementalAlterConfigsRequest};
use ringlog_protocol::messages::incremental_alter_configs_response::{self, IncrementalAlterConfigsResponse};
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_types::ErrorCode;
use rustc_hash::{FxHashMap, FxHashSet};

use super::forward;
use super::shown::{BROKER_LOGGER, broker_layers};
use crate::controller::{self, Controller};
use crate::log_levels;
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

/// An error and its text, for one resource.
type Refusal = (ErrorCode, String);
/// A resource by type and name.
type ResourceKey = (i8, StrBytes);

fn refuse<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err((ErrorCode::InvalidRequest, text.into()))
}

/// Answers IncrementalAlterConfigs on a broker's listener.
pub async fn incremental(
    metadata: &MetadataView,
    controller: &Rc<Controller>,
    context: &RequestContext,
    mut request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    use incremental_alter_configs_response::AlterConfigsResourceResponse;
    let validate_only = request.validate_only;
    let keys: Vec<ResourceKey> =
        request.resources.iter().map(|it| (it.resource_type, it.resource_name.clone())).collect();
    let repeated = repeated(&keys);
    let mut answers: FxHashMap<ResourceKey, (i16, Option<StrBytes>)> = FxHashMap::default();
    request.resources.retain(|resource| {
        let key = (resource.resource_type, resource.resource_name.clone());
        let checked = if repeated.contains(&key) { refuse(REPEATED) } else { check_incremental(metadata, resource) };
        let done = match checked {
            Ok(Checked::Elsewhere) => return true,
            Ok(Checked::Here) => alter_loggers(resource, validate_only),
            Err(refusal) => Err(refusal),
        };
        answers.insert(key, answer(done));
        false
    });
    if !request.resources.is_empty() {
        let body: RequestBody = request.into();
        if let ResponseBody::IncrementalAlterConfigs(response) = forward::to_controller(controller, context, body).await
        {
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

/// Answers IncrementalAlterConfigs on a controller's listener: loggers are this controller's, the rest is for the active
/// one. As in Kafka the latter's answers come first.
pub async fn incremental_on_controller(
    metadata: &MetadataView,
    controller: &Rc<Controller>,
    context: &RequestContext,
    mut request: IncrementalAlterConfigsRequest,
) -> ResponseBody {
    use incremental_alter_configs_response::AlterConfigsResourceResponse;
    let (loggers, others): (Vec<_>, Vec<_>) =
        request.resources.into_iter().partition(|resource| resource.resource_type == BROKER_LOGGER);
    let validate_only = request.validate_only;
    let mut answers = loggers.iter().map(|resource| {
        let outcome = check_logger_node(metadata, &resource.resource_name).and_then(|()| {
            match resource.configs.iter().any(sets_nothing) {
                // Kafka's controllers, unlike its brokers, don't expect it.
                true => Err((ErrorCode::UnknownServerError, UNEXPECTED.to_owned())),
                false => alter_loggers(resource, validate_only),
            }
        });
        let (error_code, error_message) = answer(outcome);
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    if others.is_empty() {
        return IncrementalAlterConfigsResponse { responses: answers.collect(), ..Default::default() }.into();
    }
    request.resources = others;
    let mut response = controller::request_here(controller, forward::request_of(context, request.into())).await;
    if let ResponseBody::IncrementalAlterConfigs(response) = &mut response {
        response.responses.extend(answers.by_ref());
    }
    response
}

/// A value is missing, or nobody knows what is to be done with it.
fn sets_nothing(config: &incremental_alter_configs_request::AlterableConfig) -> bool {
    match AlterOp::from_code(config.config_operation) {
        None => true,
        Some(AlterOp::Set) => config.value.is_none(),
        Some(_) => false,
    }
}

const UNEXPECTED: &str = "The server experienced an unexpected error when processing the request.";

fn answer(outcome: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (ErrorCode::None.code(), None),
        Err((error, text)) => (error.code(), Some(text.into()).filter(|text: &StrBytes| !text.is_empty())),
    }
}

fn alter_loggers(
    resource: &incremental_alter_configs_request::AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let edit = |config: &incremental_alter_configs_request::AlterableConfig| {
        let op = AlterOp::from_code(config.config_operation).ok_or((ErrorCode::UnknownServerError, String::new()))?;
        Ok((config.name.clone(), op, config.value.clone()))
    };
    let edits = resource.configs.iter().map(edit).collect::<Result<Vec<_>, Refusal>>()?;
    let edits: Vec<_> = edits.iter().map(|(name, op, value)| (name.as_str(), *op, value.as_deref())).collect();
    log_levels::alter(&edits, validate_only).map_err(|fault: LoggerError| (fault.error_code(), fault.to_string()))
}

/// Answers AlterConfigs, which replaces all configs of a resource.
pub async fn legacy(
    metadata: &MetadataView,
    controller: &Rc<Controller>,
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
        let checked = if repeated.contains(&key) { refuse(REPEATED) } else { check_legacy(metadata, resource) };
        checked.map_err(|refusal| answers.insert(key, answer(Err(refusal)))).is_ok()
    });
    if !request.resources.is_empty() {
        let body: RequestBody = request.into();
        if let ResponseBody::AlterConfigs(response) = forward::to_controller(controller, context, body).await {
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

/// The answers in the order of the request, one each time that it names a resource.
fn in_order(
    keys: Vec<ResourceKey>,
    answers: &FxHashMap<ResourceKey, (i16, Option<StrBytes>)>,
) -> impl Iterator<Item = (ResourceKey, (i16, Option<StrBytes>))> {
    keys.into_iter().map(|key| {
        let answer = answers.get(&key).cloned().unwrap_or((ErrorCode::UnknownServerError.code(), None));
        (key, answer)
    })
}

fn null_values<'a>(keys: impl Iterator<Item = (&'a StrBytes, bool)>) -> Result<(), Refusal> {
    let keys: Vec<&str> = keys.filter(|(_, is_null)| *is_null).map(|(key, _)| key.as_str()).collect();
    if keys.is_empty() { Ok(()) } else { refuse(format!("Null value not supported for : {}", keys.join(", "))) }
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

/// Checks what this broker knows, and says whose it is to do what is asked for.
fn check_incremental(
    metadata: &MetadataView,
    resource: &incremental_alter_configs_request::AlterConfigsResource,
) -> Result<Checked, Refusal> {
    no_repeated_key(resource.configs.iter().map(|config| &config.name))?;
    let delete = AlterOp::Delete as i8;
    null_values(
        resource
            .configs
            .iter()
            .map(|config| (&config.name, config.value.is_none() && config.config_operation != delete)),
    )?;
    let name = resource.resource_name.as_str();
    if resource.resource_type == BROKER_LOGGER {
        return check_logger_node(metadata, name).map(|()| Checked::Here);
    }
    if check_kind(metadata, resource.resource_type, name)? == ResourceKind::Broker {
        let mut configs = present(metadata, name);
        for config in &resource.configs {
            let key = config.name.as_str();
            let Some(op) = AlterOp::from_code(config.config_operation) else {
                return refuse(format!("Unknown operation type {}", config.config_operation));
            };
            let present = configs.get(key).map(String::as_str);
            let value = alter::apply(ResourceKind::Broker, key, present, op, config.value.as_deref());
            match value.map_err(|error| (error.error_code(), error.to_string()))? {
                Some(value) => drop(configs.insert(key.to_owned(), value)),
                None => drop(configs.remove(key)),
            }
        }
        check_broker(metadata, name, &configs)?;
    }
    Ok(Checked::Elsewhere)
}

fn check_legacy(
    metadata: &MetadataView,
    resource: &alter_configs_request::AlterConfigsResource,
) -> Result<(), Refusal> {
    no_repeated_key(resource.configs.iter().map(|config| &config.name))?;
    null_values(resource.configs.iter().map(|config| (&config.name, config.value.is_none())))?;
    let name = resource.resource_name.as_str();
    // Loggers are unknown to it.
    if check_kind(metadata, resource.resource_type, name)? == ResourceKind::Broker {
        let configs = resource.configs.iter();
        let configs = configs.filter_map(|it| Some((it.name.to_string(), it.value.as_ref()?.to_string())));
        check_broker(metadata, name, &configs.collect())?;
    }
    Ok(())
}

/// Whose it is to do what is asked for.
enum Checked {
    /// This node's alone.
    Here,
    /// The controller's.
    Elsewhere,
}

fn check_kind(metadata: &MetadataView, resource_type: i8, name: &str) -> Result<ResourceKind, Refusal> {
    let Some(kind) = ResourceKind::from_code(resource_type) else {
        return refuse(format!("Unknown resource type {resource_type}"));
    };
    let own = metadata.node().id;
    if kind == ResourceKind::Broker && !name.is_empty() && node_id(name)? != own.0 {
        return refuse(format!("Unexpected broker id, expected {own}, but received {name}"));
    }
    Ok(kind)
}

fn check_logger_node(metadata: &MetadataView, name: &str) -> Result<(), Refusal> {
    let own = metadata.node().id;
    match node_id(name)? == own.0 {
        true => Ok(()),
        false => refuse(format!("Unexpected node id. Expected {own}, but received {name}")),
    }
}

fn node_id(name: &str) -> Result<i32, Refusal> {
    name.parse().or_else(|_| refuse(format!("Node id must be an integer, but it is: {name}")))
}

/// What the broker, or with an empty name all brokers, has now.
fn present(metadata: &MetadataView, name: &str) -> ConfigMap {
    let (own, default) = broker_layers(&metadata.image(), metadata.node().id);
    if name.is_empty() { default } else { own }
}

fn check_broker(metadata: &MetadataView, name: &str, configs: &ConfigMap) -> Result<(), Refusal> {
    let (own, default) = broker_layers(&metadata.image(), metadata.node().id);
    let layers = metadata.node().config.layers(&own, &default);
    validate::broker(configs, !name.is_empty(), &layers).map_err(|error| (error.error_code(), error.to_string()))
}
