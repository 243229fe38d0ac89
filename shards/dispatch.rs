//! From a request's bytes to the handler of its API.
//!
//! ```text
//!   header: is it served? ─► body ─► admit (crate::admit) ─► handler ─► answer, counted
//! ```
//!
//! The table at the end is the list of what this node serves: an API that isn't in it is neither advertised by
//! ApiVersions nor answered. Each handler is given what it needs, and no more.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::frame::{self, Frame};
use ringlog_protocol::messages::ProduceRequest;
use ringlog_protocol::{ApiKey, Decoder, EncodeError, RequestBody, ResponseBody};
use tracing::debug;

use crate::admin::controller_apis;
use crate::admin::init_producer_id::ProducerIds;
use crate::admin::topic_creation::TopicCreation;
use crate::admit;
use crate::controller::Controller;
use crate::coordinator::Coordinators;
use crate::core::Core;
use crate::data::{DataPlane, fetch, produce};
use crate::log_dirs::LogDirs;
use crate::metadata::MetadataView;
use crate::net::request::Peer;
use crate::net::request::{AnswerMemory, RequestContext};
use crate::net::response_memory::ResponseMemory;
use crate::net::service::{Answer, CloseReason, Disposition, Service};
use crate::{admin, coordinator};

/// What the handlers of one core need, all together.
pub struct Dispatcher {
    /// The core.
    pub core: Rc<Core>,
    /// What it knows of the cluster.
    pub metadata: Rc<MetadataView>,
    /// Its records.
    pub data: Rc<DataPlane>,
    /// Its log directories.
    pub log_dirs: Rc<LogDirs>,
    /// Its groups.
    pub coordinators: Rc<Coordinators>,
    /// The way to the controller.
    pub controller: Rc<Controller>,
    /// Topics that are made because somebody asked for them.
    pub creation: Rc<TopicCreation>,
    /// Ids for idempotent producers.
    pub producer_ids: Rc<ProducerIds>,
    /// Memory for answers on their way out.
    pub response_memory: ResponseMemory,
}

impl Service for Dispatcher {
    async fn begin(self: &Rc<Self>, peer: &Peer, request: Bytes) -> Result<Disposition, CloseReason> {
        let mut input = Decoder::new(request);
        let header = frame::decode_request_header(&mut input).map_err(|source| CloseReason::Malformed {
            api: "request header".to_owned(),
            version: -1,
            source,
        })?;
        let (code, listener) = (header.api_key, &peer.listener);
        let api_key = ApiKey::from_code(code).ok_or_else(|| CloseReason::UnknownApi(code, listener.name.clone()))?;
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
            listener = listener.name,
            "request"
        );
        self.core.metrics.requests.add(1);
        if !serves(api_key, listener.is_controller) {
            return Err(CloseReason::UnknownApi(code, listener.name.clone()));
        }
        if !(api_key.min_version()..=api_key.max_version()).contains(&context.api_version) {
            return self.unsupported_version(&context);
        }
        let body = RequestBody::decode(api_key, context.api_version, &mut input).map_err(|source| {
            CloseReason::Malformed { api: api_key.name().to_owned(), version: context.api_version, source }
        })?;
        admit::admit(&context, &body, &self.response_memory).await?;
        let response = match body {
            RequestBody::Produce(request) => return self.begin_produce(context, request).await,
            body if listener.is_controller => controller_apis::handle(&self.controller, serves, &context, body).await,
            body => handle(self, &context, body).await?,
        };
        Ok(self.answered(&context, encode(&context, &response)?))
    }
}

impl Dispatcher {
    /// KIP-511: a client that asks for ApiVersions in too new a version is answered in version 0, with what it needs to ask
    /// again. Any other API's connection ends.
    fn unsupported_version(&self, context: &RequestContext) -> Result<Disposition, CloseReason> {
        if context.api_key != ApiKey::ApiVersions {
            return Err(CloseReason::UnsupportedVersion(context.api_key.name(), context.api_version));
        }
        let response = admin::api_versions::unsupported_version();
        let frame = frame::encode_response(&response, ApiKey::ApiVersions, 0, context.correlation_id)?;
        Ok(self.answered(context, frame))
    }

    async fn begin_produce(
        &self,
        context: RequestContext,
        request: ProduceRequest,
    ) -> Result<Disposition, CloseReason> {
        let acks = request.acks;
        let pending = produce::begin(&self.data, &context, request).await;
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
    fn answered(&self, context: &RequestContext, frame: Frame) -> Disposition {
        let memory = match context.answer_memory.take() {
            Some(mut memory) => {
                memory.set(frame.len);
                memory
            }
            None => self.response_memory.hold(frame.len),
        };
        Disposition::Answered(Answer { frame, memory })
    }
}

fn encode(context: &RequestContext, response: &ResponseBody) -> Result<Frame, EncodeError> {
    frame::encode_response_body(response, context.api_version, context.correlation_id)
}

/// Whether this node answers `api` on a listener of that kind.
pub fn serves(api: ApiKey, on_controller_listener: bool) -> bool {
    if on_controller_listener {
        api.on_controller() && controller_apis::serves(api)
    } else {
        api.on_broker() && served(api)
    }
}

/// Calls the handler of every API that brokers serve. Produce has its own way, see [`Dispatcher::begin_produce`].
macro_rules! broker_apis {
    ($($request:ident => |$to:ident, $context:ident, $body:ident| $handler:expr),+ $(,)?) => {
        fn served(api: ApiKey) -> bool {
            matches!(api, ApiKey::Produce $(| ApiKey::$request)+)
        }

        async fn handle(
            to: &Rc<Dispatcher>,
            context: &RequestContext,
            body: RequestBody,
        ) -> Result<ResponseBody, CloseReason> {
            Ok(match body {
                $(RequestBody::$request($body) => {
                    let ($to, $context) = (to, context);
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
    ApiVersions => |to, context, body| admin::api_versions::handle(&to.controller, serves, context, &body).await,
    SaslHandshake => |_to, _context, _body| admin::sasl::handshake(),
    SaslAuthenticate => |_to, _context, _body| admin::sasl::authenticate(),
    Metadata => |to, context, body| admin::metadata::handle(&to.metadata, &to.creation, context, body),
    DescribeTopicPartitions => |to, context, body| admin::describe_topic_partitions::handle(&to.metadata, context, body),
    OffsetForLeaderEpoch => |to, context, body| admin::offset_for_leader_epoch::handle(&to.data, context, body).await,
    DeleteRecords => |to, context, body| admin::delete_records::handle(&to.log_dirs, context, body).await,
    DescribeProducers => |to, context, body| admin::describe_producers::handle(&to.data, context, body).await,
    DescribeLogDirs => |to, context, body| admin::describe_log_dirs::handle(&to.log_dirs, context, body).await,
    AlterReplicaLogDirs => |to, context, body| admin::alter_replica_log_dirs::handle(&to.log_dirs, context, body).await,
    DescribeConfigs => |to, context, body| admin::describe_configs::handle(&to.metadata, context, body),
    ListConfigResources => |to, context, body| admin::list_config_resources::handle(&to.metadata, context, body),
    AlterConfigs => |to, context, body| admin::alter_configs::legacy(&to.metadata, &to.controller, context, body).await,
    IncrementalAlterConfigs => |to, context, body| admin::alter_configs::incremental(&to.metadata, &to.controller, context, body).await,
    DescribeClientQuotas => |to, _context, body| admin::describe_client_quotas::handle(&to.metadata, body),
    DescribeUserScramCredentials => |to, _context, body| admin::describe_scram::handle(&to.metadata, body),
    DescribeAcls => |_to, _context, _body| admin::acls::describe(),
    ListTransactions => |_to, _context, body| admin::transactions::list(body),
    DescribeTransactions => |_to, _context, body| admin::transactions::describe(body),
    CreateDelegationToken => |_to, context, body| admin::delegation_tokens::create(body, context.api_version),
    RenewDelegationToken => |_to, _context, _body| admin::delegation_tokens::renew(),
    ExpireDelegationToken => |_to, _context, _body| admin::delegation_tokens::expire(),
    DescribeDelegationToken => |_to, _context, _body| admin::delegation_tokens::describe(),
    CreateAcls => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    DeleteAcls => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    DescribeCluster => |to, context, body| admin::describe_cluster::handle(&to.metadata, context, body),
    Fetch => |to, context, body| fetch::handle(&to.data, context, body).await,
    ListOffsets => |to, context, body| admin::list_offsets::handle(&to.data, context, body).await,
    InitProducerId => |to, _context, body| admin::init_producer_id::handle(&to.producer_ids, body).await,
    FindCoordinator => |to, context, body| admin::find_coordinator::handle(&to.metadata, &to.creation, context, body),
    CreateTopics => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    DeleteTopics => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    CreatePartitions => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    AlterClientQuotas => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    AlterUserScramCredentials => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    AlterPartitionReassignments => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    ListPartitionReassignments => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    ElectLeaders => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    UpdateFeatures => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    UnregisterBroker => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    DescribeQuorum => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    AddRaftVoter => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    RemoveRaftVoter => |to, context, body| admin::forward::to_controller(&to.controller, context, body.into()).await,
    JoinGroup => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    SyncGroup => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    Heartbeat => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    LeaveGroup => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    OffsetCommit => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    OffsetFetch => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    OffsetDelete => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    ListGroups => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    DescribeGroups => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
    DeleteGroups => |to, context, body| coordinator::handle(&to.coordinators, context, body.into()).await,
}
