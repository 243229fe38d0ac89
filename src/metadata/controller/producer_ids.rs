//! AllocateProducerIds: blocks of producer ids for brokers (KIP-730).

use ringlog_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};
use ringlog_protocol::metadata_records::ProducerIdsRecord;
use ringlog_types::ErrorCode;

use super::context::{Operation, RequestContext, Resource, record};
use super::outcome::Outcome;
use super::state::ActiveController;

/// How many ids a broker gets at once.
const BLOCK_SIZE: i32 = 1_000;

impl ActiveController {
    pub(crate) fn allocate_producer_ids(
        &self,
        request: &AllocateProducerIdsRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let refuse = |error: ErrorCode| {
            Outcome::answer(AllocateProducerIdsResponse { error_code: error.code(), ..Default::default() })
        };
        if !context.authorizer.allows(Operation::ClusterAction, Resource::Cluster) {
            return refuse(ErrorCode::ClusterAuthorizationFailed);
        }
        if !self.is_current_epoch(request.broker_id, request.broker_epoch) {
            return refuse(ErrorCode::StaleBrokerEpoch);
        }
        let start = self.image.next_producer_id.0.max(0);
        let Some(next_producer_id) = start.checked_add(BLOCK_SIZE.into()) else {
            return refuse(ErrorCode::UnknownServerError);
        };
        let (broker_id, broker_epoch) = (request.broker_id, request.broker_epoch);
        let records = vec![record(ProducerIdsRecord { broker_id, broker_epoch, next_producer_id }.into(), 0)];
        let response =
            AllocateProducerIdsResponse { producer_id_start: start, producer_id_len: BLOCK_SIZE, ..Default::default() };
        Outcome::atomic(records, response)
    }
}
