//! What the controller's listener serves: raft's requests, brokers' requests, admin requests from brokers (in an
//! Envelope) and from clients that know the controller's address (`bootstrap.controllers`).

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use ringlog_metadata::controller::error_response;
use ringlog_protocol::messages::{DefaultPrincipalData, EnvelopeRequest, EnvelopeResponse};
use ringlog_protocol::{ApiKey, Decoder, Message, Records, RequestBody, ResponseBody, frame};
use ringlog_types::ErrorCode;
use tracing::debug;

use super::api_versions::Serves;
use super::forward::request_of;
use super::{
    acls, alter_configs, api_versions, delegation_tokens, describe_cluster, describe_configs, describe_scram, sasl,
};
use crate::controller::{self, Controller, ControllerRequest};
use crate::net::request::RequestContext;

/// Whether the controller listener serves the API.
pub fn serves(api: ApiKey) -> bool {
    controller::takes(api)
        || matches!(
            api,
            ApiKey::ApiVersions
                | ApiKey::SaslHandshake
                | ApiKey::SaslAuthenticate
                | ApiKey::Envelope
                | ApiKey::DescribeCluster
                | ApiKey::DescribeConfigs
                | ApiKey::DescribeAcls
                | ApiKey::DescribeUserScramCredentials
                | ApiKey::DescribeDelegationToken
        )
}

/// Answers a request; it is of an API that [`serves`] knows.
pub async fn handle(
    controller: &Rc<Controller>,
    serves: Serves,
    context: &RequestContext,
    body: RequestBody,
) -> ResponseBody {
    let metadata = controller.metadata();
    match body {
        RequestBody::ApiVersions(request) => api_versions::handle(controller, serves, context, &request).await.into(),
        RequestBody::SaslHandshake(_) => sasl::handshake().into(),
        RequestBody::SaslAuthenticate(_) => sasl::authenticate().into(),
        RequestBody::Envelope(request) => envelope(controller, context, request).await.into(),
        RequestBody::DescribeCluster(request) => {
            let leader = controller::quorum(controller).await.leader_id;
            let leader = leader.unwrap_or(ringlog_types::NodeId::NONE);
            describe_cluster::respond(metadata, context, &request, leader).into()
        }
        RequestBody::DescribeConfigs(request) => describe_configs::handle(metadata, context, request).into(),
        RequestBody::DescribeAcls(_) => acls::describe().into(),
        RequestBody::DescribeUserScramCredentials(request) => describe_scram::handle(metadata, request).into(),
        RequestBody::DescribeDelegationToken(_) => delegation_tokens::describe().into(),
        RequestBody::IncrementalAlterConfigs(request) => {
            alter_configs::incremental_on_controller(metadata, controller, context, request).await
        }
        body => controller::request_here(controller, request_of(context, body)).await,
    }
}

/// A broker passes a client's request on (KIP-590): the request's own bytes, and who the client is.
async fn envelope(controller: &Rc<Controller>, context: &RequestContext, request: EnvelopeRequest) -> EnvelopeResponse {
    match unwrap(context, request) {
        Ok(inner) => answer(controller, inner).await,
        Err(error) => {
            debug!(peer = %context.peer.address, ?error, "an envelope can't be opened");
            refusal(error)
        }
    }
}

fn refusal(error: ErrorCode) -> EnvelopeResponse {
    EnvelopeResponse { error_code: error.code(), ..EnvelopeResponse::default() }
}

struct Inner {
    request: ControllerRequest,
    correlation_id: i32,
}

async fn answer(controller: &Rc<Controller>, inner: Inner) -> EnvelopeResponse {
    let Inner { request, correlation_id } = inner;
    let version = request.api_version;
    let not_controller = error_response(&request.body, ErrorCode::NotController, version);
    let response = controller::request_here(controller, request).await;
    if not_controller.as_ref() == Some(&response) {
        // The broker is to look for the active controller, not the client.
        return refusal(ErrorCode::NotController);
    }
    match frame::encode_response_body(&response, version, correlation_id) {
        Ok(frame) => {
            let mut bytes = Records::from_chunks(frame.chunks).into_contiguous();
            bytes.advance(frame::SIZE_LENGTH);
            EnvelopeResponse { response_data: Some(bytes), error_code: ErrorCode::None.code() }
        }
        Err(error) => {
            debug!(%error, "the answer to a forwarded request can't be encoded");
            refusal(ErrorCode::UnknownServerError)
        }
    }
}

fn unwrap(context: &RequestContext, envelope: EnvelopeRequest) -> Result<Inner, ErrorCode> {
    let mut input = Decoder::new(envelope.request_data);
    let header = frame::decode_request_header(&mut input).map_err(|_| ErrorCode::InvalidRequest)?;
    let (api, version) = (header.key, header.api_version);
    if !api.is_forwardable() || !controller::takes(api) {
        return Err(ErrorCode::InvalidRequest);
    }
    if !api.is_stable_version(version) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let body = RequestBody::decode(api, version, &mut input).map_err(|_| ErrorCode::InvalidRequest)?;
    let principal = principal(envelope.request_principal)?;
    let address = address(&envelope.client_host_address).ok_or(ErrorCode::InvalidRequest)?;
    let request = ControllerRequest {
        principal: format!("{}:{}", principal.type_, principal.name),
        is_token_authenticated: principal.token_authenticated,
        client_id: header.client_id,
        client_address: Some(SocketAddr::new(address, 0)),
        ..controller::request_of_client(body, version, &context.peer, true)
    };
    Ok(Inner { request, correlation_id: header.correlation_id })
}

/// The client's principal: a version and the fields.
fn principal(bytes: Option<Bytes>) -> Result<DefaultPrincipalData, ErrorCode> {
    let undecodable = ErrorCode::PrincipalDeserializationFailure;
    let mut bytes = bytes.ok_or(undecodable)?;
    let version = bytes.try_get_i16().map_err(|_| undecodable)?;
    DefaultPrincipalData::from_bytes(bytes, version).map_err(|_| undecodable)
}

/// The client's address: the 4 bytes of IPv4 or the 16 of IPv6.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_and_addresses_are_checked() {
        let alice = DefaultPrincipalData { type_: "User".into(), name: "alice".into(), token_authenticated: true };
        let mut bytes = vec![0, 0];
        bytes.extend(alice.to_bytes(0).expect("encodes"));
        assert_eq!(principal(Some(bytes.clone().into())), Ok(alice));
        for bad in [None, Some(vec![]), Some(vec![0, 9, 1]), Some(bytes[..4].to_vec())] {
            let outcome = principal(bad.map(Bytes::from));
            assert_eq!(outcome, Err(ErrorCode::PrincipalDeserializationFailure));
        }
        assert_eq!(address(&[127, 0, 0, 1]), Some(IpAddr::from([127, 0, 0, 1])));
        assert!(address(&[0; 16]).is_some_and(|address| address.is_ipv6()));
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
