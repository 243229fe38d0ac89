//! ListConfigResources: what there is to configure (KIP-1142); version 0 knows client metrics only (KIP-1000).

use std::collections::BTreeSet;

use ringlog_metadata::MetadataImage;
use ringlog_metadata::image::ConfigResourceType;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::list_config_resources_request::ListConfigResourcesRequest;
use ringlog_protocol::messages::list_config_resources_response::{ConfigResource, ListConfigResourcesResponse};
use ringlog_types::ErrorCode;

use super::shown::{BROKER_LOGGER, unfenced_brokers};
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

const TOPIC: i8 = ConfigResourceType::Topic as i8;
const BROKER: i8 = ConfigResourceType::Broker as i8;
const CLIENT_METRICS: i8 = ConfigResourceType::ClientMetrics as i8;
const GROUP: i8 = ConfigResourceType::Group as i8;

/// Answers ListConfigResources.
pub fn handle(
    metadata: &MetadataView,
    context: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let types = match context.api_version {
        0 => vec![CLIENT_METRICS],
        _ if request.resource_types.is_empty() => vec![GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC],
        _ => request.resource_types,
    };
    let types: BTreeSet<i8> = types.into_iter().collect();
    let image = metadata.image();
    let mut response = ListConfigResourcesResponse::default();
    for resource_type in types {
        let Some(names) = names(&image, &context.peer.listener.name, resource_type) else {
            return ListConfigResourcesResponse {
                error_code: ErrorCode::UnsupportedVersion.code(),
                ..Default::default()
            };
        };
        let resources = names.into_iter().map(|resource_name| ConfigResource { resource_name, resource_type });
        response.config_resources.extend(resources);
    }
    response
}

fn names(image: &MetadataImage, listener: &str, resource_type: i8) -> Option<Vec<StrBytes>> {
    Some(match resource_type {
        TOPIC => image.topics.iter().map(|topic| StrBytes::copy_from(&topic.name)).collect(),
        BROKER | BROKER_LOGGER => {
            unfenced_brokers(image, listener).map(|(broker, _)| broker.id.to_string().into()).collect()
        }
        CLIENT_METRICS | GROUP => {
            let of_type = image.configs.iter().filter(|(resource, _)| resource.resource_type.code() == resource_type);
            of_type.map(|(resource, _)| StrBytes::copy_from(&resource.name)).collect()
        }
        _ => return None,
    })
}
