//! DescribeConfigs: what topics, brokers, groups and client metrics subscriptions are configured with, and from where
//! each value comes.

use ringlog_config::{ConfigEntryDescription, describe};
use ringlog_metadata::image::{ConfigResource, ConfigResourceType};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use ringlog_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use ringlog_types::{ErrorCode, NodeId, validate_topic_name};

use super::shown::{BROKER_LOGGER, INVALID_REQUEST, broker_layers, dynamic_configs};
use crate::log_levels;
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

/// An error with the text that the tools show.
type Refusal = (ErrorCode, Option<String>);

/// Answers DescribeConfigs from the metadata that reached this core.
pub fn handle(
    metadata: &MetadataView,
    _context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let is_known = |code| code == BROKER_LOGGER || ConfigResourceType::from_code(code).is_some();
    if !request.resources.iter().all(|resource| is_known(resource.resource_type)) {
        return refusal(request);
    }
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let results = request.resources.into_iter().map(|resource| {
        let described = describe_resource(metadata, &resource);
        let DescribeConfigsResource { resource_type, resource_name, configuration_keys } = resource;
        let mut result = DescribeConfigsResult { resource_type, resource_name, ..Default::default() };
        match described {
            Ok(entries) => {
                let keys = configuration_keys.filter(|keys| !keys.is_empty());
                let wanted = |entry: &ConfigEntryDescription| {
                    keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
                };
                let wanted = entries.into_iter().filter(wanted);
                result.configs = wanted.map(|entry| to_wire(entry, synonyms, documentation)).collect();
                result.error_message = Some(StrBytes::default());
            }
            Err((error, message)) => {
                result.error_code = error.code();
                // Kafka has an empty text where there is nothing to say.
                result.error_message = Some(message.map(StrBytes::from).unwrap_or_default());
            }
        }
        result
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

/// What Kafka says to all resources where one is of a kind that it doesn't know.
fn refusal(request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| DescribeConfigsResult {
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: Some(StrBytes::from_static(INVALID_REQUEST)),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        ..Default::default()
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

fn refuse<T>(text: String) -> Result<T, Refusal> {
    Err((ErrorCode::InvalidRequest, Some(text)))
}

fn describe_resource(
    metadata: &MetadataView,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntryDescription>, Refusal> {
    let name = resource.resource_name.as_str();
    let image = metadata.image();
    if resource.resource_type == BROKER_LOGGER {
        if name.is_empty() {
            return refuse("Broker id must not be empty".to_owned());
        }
        check_broker(name, metadata.node().id, "")?;
        return Ok(log_levels::describe());
    }
    let Some(kind) = ConfigResourceType::from_code(resource.resource_type) else {
        return refuse(INVALID_REQUEST.to_owned());
    };
    let overrides = dynamic_configs(&image, &ConfigResource::new(kind, name));
    let (own, default) = broker_layers(&image, metadata.node().id);
    let layers = metadata.node().config.layers(&own, &default);
    match kind {
        ConfigResourceType::Topic => {
            validate_topic_name(name).map_err(|error| (ErrorCode::InvalidTopicException, Some(error.to_string())))?;
            if image.topics.by_name(name).is_none() {
                return Err((ErrorCode::UnknownTopicOrPartition, None));
            }
            Ok(describe::topic(&overrides, &layers))
        }
        ConfigResourceType::Broker if name.is_empty() => Ok(describe::broker_default(&default)),
        ConfigResourceType::Broker => {
            check_broker(name, metadata.node().id, " or empty string,")?;
            Ok(describe::broker(&layers))
        }
        ConfigResourceType::ClientMetrics if name.is_empty() => {
            refuse("Client metrics subscription name must not be empty".to_owned())
        }
        ConfigResourceType::ClientMetrics => Ok(describe::client_metrics(&overrides)),
        ConfigResourceType::Group if name.is_empty() => refuse("Group name must not be empty".to_owned()),
        ConfigResourceType::Group => Ok(describe::group(&overrides, &layers)),
    }
}

fn check_broker(name: &str, own: NodeId, or: &str) -> Result<(), Refusal> {
    match name.parse::<i32>() {
        Err(_) => refuse(format!("Broker id must be an integer, but it is: {name}")),
        Ok(id) if id != own.0 => refuse(format!("Unexpected broker id, expected {own}{or} but received {name}")),
        Ok(_) => Ok(()),
    }
}

fn to_wire(
    entry: ConfigEntryDescription,
    include_synonyms: bool,
    include_documentation: bool,
) -> DescribeConfigsResourceResult {
    let config_type = entry.type_code();
    let synonyms = if include_synonyms { entry.synonyms } else { Vec::new() };
    DescribeConfigsResourceResult {
        name: entry.name.into(),
        value: entry.value.map(StrBytes::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
        synonyms: synonyms
            .into_iter()
            .map(|synonym| DescribeConfigsSynonym {
                name: synonym.name.into(),
                value: synonym.value.map(StrBytes::from),
                source: synonym.source.code(),
            })
            .collect(),
        config_type,
        // Loggers have an empty text, asked for or not.
        documentation: entry.documentation.filter(|text| include_documentation || text.is_empty()).map(StrBytes::from),
    }
}
