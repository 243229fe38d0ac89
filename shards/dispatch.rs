//! From a request's bytes to the handler of its API.
//!
//! The table at the end is the list of what this node serves: an API that isn't in it is neither advertised by
//! ApiVersions nor answered.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::frame::{self, Frame};
use ringlog_protocol::messages::ProduceRequest;
use ringlog_protocol::{ApiKey, DecodeError, Decoder, EncodeError, RequestBody, ResponseBody, StrBytes};
use ringlog_ring::BytePermit;
use tracing::debug;

use crate::data::{fetch, produce};
use crate::mesh::LocalFuture;
use crate::net::connection::Peer;
use crate::shard::Shard;
use crate::{admin, controller, coordinator};

/// What a handler knows of its request beside the body.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Who sent it and by which listener.
    pub peer: Peer,
    /// The API.
    pub api_key: ApiKey,
    /// The version of request and response.
    pub api_version: i16,
    /// The client's number of the request.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
    /// For handlers that took memory for their answer.
    pub answer_memory: AnswerMemory,
}

/// What an answer has taken of the core's [`crate::net::response_memory`], until it is sent. Clones share it.
#[derive(Clone, Default)]
pub struct AnswerMemory(Rc<RefCell<Option<BytePermit>>>);

impl AnswerMemory {
    /// The answer's records, or whatever is large in it, lie in this memory.
    pub fn keep(&self, permit: BytePermit) {
        *self.0.borrow_mut() = Some(permit);
    }

    /// There is no answer yet after all.
    pub fn give_back(&self) {
        self.0.take();
    }
}

impl std::fmt::Debug for AnswerMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerMemory")
    }
}

/// What is to happen to a request that was begun.
pub enum Disposition {
    /// A Produce; the future gives the response.
    Produced(LocalFuture<Option<Frame>>),
    /// Any other; here is the response.
    Answered(Answer),
    /// There is nothing to send.
    Silent,
}

/// A response, and its part of the core's [`crate::net::response_memory`].
pub struct Answer {
    /// What to send.
    pub frame: Frame,
    /// To be dropped when it is sent.
    pub memory: BytePermit,
}

/// A request that Kafka, too, answers by closing the connection.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// The header or body can't be read.
    #[error("{api} version {version}: {source}")]
    Malformed {
        /// The API's name or number.
        api: String,
        /// As in the header; -1 when the header itself is damaged.
        version: i16,
        /// What is wrong.
        source: DecodeError,
    },
    /// No such API, or not on this listener.
    #[error("API key {0} is not served on listener {1}")]
    UnknownApi(i16, String),
    /// The API exists but not at this version.
    #[error("{0} version {1} is not supported")]
    UnsupportedVersion(&'static str, i16),
    /// A request about ACLs with a number that stands for nothing.
    #[error("{0} contains unknown elements")]
    UnknownElements(&'static str),
    /// The response doesn't fit the version: a fault of this node.
    #[error("the response could not be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// Produce with acks 0 failed: Kafka closes so that the client refreshes its metadata.
    #[error("a Produce request with acks=0 failed")]
    UnacknowledgedProduce,
}

/// Reads one request and starts it. When this returns, a Produce has its place in the log.
pub async fn begin(shard: &Rc<Shard>, peer: &Peer, request: Bytes) -> Result<Disposition, CloseReason> {
    let mut input = Decoder::new(request);
    let header = frame::decode_request_header(&mut input).map_err(|source| CloseReason::Malformed {
        api: "request header".to_owned(),
        version: -1,
        source,
    })?;
    let unknown = || CloseReason::UnknownApi(header.api_key, peer.listener.name.clone());
    let api_key = ApiKey::from_code(header.api_key).ok_or_else(unknown)?;
    let context = RequestContext {
        peer: peer.clone(),
        api_key,
        api_version: header.api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
        answer_memory: AnswerMemory::default(),
    };
    debug!(
        target: "kafka.request.logger",
        api = api_key.name(),
        version = context.api_version,
        client = context.client_id.as_deref(),
        correlation.id = context.correlation_id,
        peer = %peer.address,
        listener = peer.listener.name,
        "request"
    );
    shard.metrics.requests.add(1);
    if !serves(api_key, peer.listener.is_controller) {
        return Err(unknown());
    }
    if !supported_version(api_key, context.api_version) {
        if api_key == ApiKey::ApiVersions {
            return respond_unsupported_api_versions(shard, &context);
        }
        return Err(CloseReason::UnsupportedVersion(api_key.name(), context.api_version));
    }
    let body = RequestBody::decode(api_key, context.api_version, &mut input).map_err(|source| {
        CloseReason::Malformed { api: api_key.name().to_owned(), version: context.api_version, source }
    })?;
    if admin::acls::has_unknown_elements(&body) {
        return Err(CloseReason::UnknownElements(api_key.name()));
    }
    match body {
        RequestBody::Produce(request) => begin_produce(shard, context, request).await,
        body => {
            let response = if peer.listener.is_controller {
                // The quorum doesn't wait for clients that take no answers.
                controller::api::handle(shard, &context, body).await
            } else {
                shard.response_memory.has_room().await;
                handle(shard, &context, body).await?
            };
            Ok(answered(shard, &context, encode(&context, &response)?))
        }
    }
}

/// KIP-511: a client that asks in too new a version is answered in version 0, with what it needs to ask again.
fn respond_unsupported_api_versions(shard: &Shard, context: &RequestContext) -> Result<Disposition, CloseReason> {
    let response = admin::api_versions::unsupported_version();
    let frame = frame::encode_response(&response, ApiKey::ApiVersions, 0, context.correlation_id)?;
    Ok(answered(shard, context, frame))
}

async fn begin_produce(
    shard: &Rc<Shard>,
    context: RequestContext,
    request: ProduceRequest,
) -> Result<Disposition, CloseReason> {
    let acks = request.acks;
    let pending = produce::begin(shard, &context, request).await;
    if acks == 0 {
        // Bounded like the others: the next request waits until these records are in the log.
        let response = pending.await;
        let failed = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        if failed.into_iter().any(|partition| partition.error_code != 0) {
            return Err(CloseReason::UnacknowledgedProduce);
        }
        return Ok(Disposition::Silent);
    }
    Ok(Disposition::Produced(Box::pin(async move {
        let response = pending.await;
        frame::encode_response(&response, context.api_key, context.api_version, context.correlation_id).ok()
    })))
}

/// An answer that is there is counted, whatever its size.
fn answered(shard: &Shard, context: &RequestContext, frame: Frame) -> Disposition {
    let memory = match context.answer_memory.0.take() {
        Some(mut memory) => {
            memory.set(frame.len);
            memory
        }
        None => shard.response_memory.hold(frame.len),
    };
    Disposition::Answered(Answer { frame, memory })
}

fn encode(context: &RequestContext, response: &ResponseBody) -> Result<Frame, EncodeError> {
    frame::encode_response_body(response, context.api_version, context.correlation_id)
}

fn supported_version(api: ApiKey, version: i16) -> bool {
    (api.min_version()..=api.max_version()).contains(&version)
}

/// Whether this node answers `api` on a listener of that kind.
pub fn serves(api: ApiKey, on_controller_listener: bool) -> bool {
    if on_controller_listener {
        api.on_controller() && controller::api::serves(api)
    } else {
        api.on_broker() && served(api)
    }
}

/// Calls the handler of every API that brokers serve. Produce has its own way, see [`begin`].
macro_rules! broker_apis {
    ($($request:ident => |$shard:ident, $context:ident, $body:ident| $handler:expr),+ $(,)?) => {
        fn served(api: ApiKey) -> bool {
            matches!(api, ApiKey::Produce $(| ApiKey::$request)+)
        }

        async fn handle(
            shard: &Rc<Shard>,
            context: &RequestContext,
            body: RequestBody,
        ) -> Result<ResponseBody, CloseReason> {
            Ok(match body {
                $(RequestBody::$request($body) => {
                    let ($shard, $context) = (shard, context);
                    $handler.into()
                })+
                other => {
                    return Err(CloseReason::UnknownApi(other.api_key().code(), context.peer.listener.name.clone()));
                }
            })
        }
    };
}

broker_apis! {
    ApiVersions => |shard, context, body| admin::api_versions::handle(shard, context, &body).await,
    SaslHandshake => |_shard, _context, _body| admin::sasl::handshake(),
    SaslAuthenticate => |_shard, _context, _body| admin::sasl::authenticate(),
    Metadata => |shard, context, body| admin::metadata::handle(shard, context, body),
    DescribeTopicPartitions =>
        |shard, context, body| admin::describe_topic_partitions::handle(shard, context, body),
    OffsetForLeaderEpoch => |shard, context, body| admin::offset_for_leader_epoch::handle(shard, context, body).await,
    DeleteRecords => |shard, context, body| admin::delete_records::handle(shard, context, body).await,
    DescribeProducers => |shard, context, body| admin::describe_producers::handle(shard, context, body).await,
    DescribeLogDirs => |shard, context, body| admin::describe_log_dirs::handle(shard, context, body).await,
    DescribeConfigs => |shard, context, body| admin::describe_configs::handle(shard, context, body),
    ListConfigResources => |shard, context, body| admin::list_config_resources::handle(shard, context, body),
    AlterConfigs => |shard, context, body| admin::alter_configs::legacy(shard, context, body).await,
    IncrementalAlterConfigs => |shard, context, body| admin::alter_configs::incremental(shard, context, body).await,
    DescribeClientQuotas => |shard, _context, body| admin::describe_client_quotas::handle(shard, body),
    DescribeUserScramCredentials => |shard, _context, body| admin::describe_scram::handle(shard, body),
    DescribeAcls => |_shard, _context, _body| admin::acls::describe(),
    ListTransactions => |_shard, _context, body| admin::transactions::list(body),
    DescribeTransactions => |_shard, _context, body| admin::transactions::describe(body),
    CreateDelegationToken =>
        |_shard, context, body| admin::delegation_tokens::create(body, context.api_version),
    RenewDelegationToken => |_shard, _context, _body| admin::delegation_tokens::renew(),
    ExpireDelegationToken => |_shard, _context, _body| admin::delegation_tokens::expire(),
    DescribeDelegationToken => |_shard, _context, _body| admin::delegation_tokens::describe(),
    CreateAcls => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    DeleteAcls => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    DescribeCluster => |shard, context, body| admin::describe_cluster::handle(shard, context, body),
    Fetch => |shard, context, body| fetch::handle(shard, context, body).await,
    ListOffsets => |shard, context, body| admin::list_offsets::handle(shard, context, body).await,
    InitProducerId => |shard, context, body| admin::init_producer_id::handle(shard, context, body).await,
    FindCoordinator => |shard, context, body| admin::find_coordinator::handle(shard, context, body),
    CreateTopics => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    DeleteTopics => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    CreatePartitions => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    AlterClientQuotas => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    AlterUserScramCredentials =>
        |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    AlterPartitionReassignments =>
        |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    ListPartitionReassignments =>
        |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    ElectLeaders => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    UpdateFeatures => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    UnregisterBroker => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    DescribeQuorum => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    AddRaftVoter => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    RemoveRaftVoter => |shard, context, body| admin::forward::to_controller(shard, context, body.into()).await,
    JoinGroup => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    SyncGroup => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    Heartbeat => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    LeaveGroup => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    OffsetCommit => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    OffsetFetch => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    OffsetDelete => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    ListGroups => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    DescribeGroups => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
    DeleteGroups => |shard, context, body| coordinator::handle(shard, context, body.into()).await,
}
