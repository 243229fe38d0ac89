//! DescribeCluster: the nodes behind a listener (KIP-700, KIP-919, KIP-1073).

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use ringlog_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use ringlog_types::{ErrorCode, NodeId};

use super::shown::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, controller_stand_in};
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

/// Brokers, in `endpoint_type`.
const BROKERS: i8 = 1;
/// Controllers, in `endpoint_type`.
const CONTROLLERS: i8 = 2;

/// Answers on a broker's listener.
pub fn handle(
    metadata: &MetadataView,
    context: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let controller = controller_stand_in(&metadata.image(), metadata.node().id);
    respond(metadata, context, &request, controller)
}

/// Answers on the listener that the request came in by: a broker's names brokers, a controller's controllers.
/// `controller` is who is to be named as the controller: the active one, or a broker that forwards.
pub fn respond(
    metadata: &MetadataView,
    context: &RequestContext,
    request: &DescribeClusterRequest,
    controller: NodeId,
) -> DescribeClusterResponse {
    let listener = &context.peer.listener;
    let served = if listener.is_controller { CONTROLLERS } else { BROKERS };
    let mut response = DescribeClusterResponse {
        endpoint_type: served,
        cluster_authorized_operations: OPERATIONS_NOT_ASKED,
        ..Default::default()
    };
    if request.endpoint_type != served {
        let (error, message) = wrong_endpoint(served, request.endpoint_type);
        response.error_code = error.code();
        response.error_message = Some(message.into());
        return response;
    }
    let image = metadata.image();
    response.cluster_id = StrBytes::copy_from(&metadata.node().cluster_id);
    response.controller_id = controller.0;
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response.brokers = if listener.is_controller {
        let reachable = image.cluster.controllers.values().filter_map(|controller| {
            let endpoint = controller.endpoints.iter().find(|endpoint| *endpoint.listener == *listener.name)?;
            Some((controller.id, endpoint))
        });
        reachable.map(|(id, endpoint)| node(id, &endpoint.host, endpoint.port, None, false)).collect()
    } else {
        let wanted =
            image.cluster.brokers.values().filter(|broker| !broker.is_fenced || request.include_fenced_brokers);
        let reachable = wanted.filter_map(|broker| Some((broker, broker.endpoint(&listener.name)?)));
        reachable
            .map(|(broker, endpoint)| {
                node(broker.id, &endpoint.host, endpoint.port, broker.rack.as_deref(), broker.is_fenced)
            })
            .collect()
    };
    response
}

fn node(id: NodeId, host: &str, port: u16, rack: Option<&str>, is_fenced: bool) -> DescribeClusterBroker {
    DescribeClusterBroker {
        broker_id: id.0,
        host: StrBytes::copy_from(host),
        port: i32::from(port),
        rack: rack.map(StrBytes::copy_from),
        is_fenced,
    }
}

fn wrong_endpoint(served: i8, asked: i8) -> (ErrorCode, String) {
    let name = |code: i8| if code == BROKERS { "BROKER" } else { "CONTROLLER" };
    if asked != BROKERS && asked != CONTROLLERS {
        return (ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {asked}"));
    }
    let message = format!(
        "The request was sent to an endpoint of type {}, but we wanted an endpoint of type {}",
        name(served),
        name(asked)
    );
    (ErrorCode::MismatchedEndpointType, message)
}
