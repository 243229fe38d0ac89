//! The active controller's decisions, as replicated state.
//!
//! [`Controller::handle`] looks at a request against the *uncommitted* state and returns records and a response. The
//! records are replayed at once, so that the next request sees them; the response is to be sent when they are
//! committed. State changes by replay alone. On loss of leadership the uncommitted state is dropped.
//!
//! One file per subject; none of them writes the image. Only heartbeats' contact times live outside of it.

mod acls;
mod alter_partition;
mod brokers;
mod config_rules;
mod configs;
mod context;
mod directories;
mod elections;
mod error;
mod features;
mod heartbeats;
mod hosted;
mod leadership;
mod limits;
mod outcome;
mod partition_change;
mod partitions;
mod periodic;
mod placement;
mod plan;
mod producer_ids;
mod quotas;
mod reassignment;
mod responses;
mod scram;
mod state;
#[cfg(test)]
mod tests;
mod tokens;
mod topics;

use std::sync::Arc;

use ringlog_protocol::RequestBody;
use ringlog_protocol::metadata_records::{
    AbortTransactionRecord, BeginTransactionRecord, ConfigRecord, EndTransactionRecord, RecordAndVersion,
};
use ringlog_types::{BrokerEpoch, LeaderEpoch, MonotonicMs, NodeId, Now, Offset};

pub use context::{
    AllowAll, Authorize, ControllerConfig, ControllerError, ControllerResult, Operation, RequestContext, Resource,
    TickResult,
};
pub use limits::MAX_BATCH_BYTES;
pub use responses::error_response;

use crate::image::{ConfigResourceType, MetadataChanges, MetadataImage};
use context::record;
use outcome::Outcome;
use plan::Portion;
use state::{ActiveController, MIN_IN_SYNC_REPLICAS};

/// How many records one operation may make if they must stand in one batch, and how many one batch may hold.
pub const MAX_RECORDS_PER_OPERATION: usize = 10_000;

/// How many periodic tasks one tick runs at most; each comes again within milliseconds if it has more.
const MAX_TASKS_PER_TICK: usize = 8;

/// A controller node's state: active with uncommitted metadata, or standing by.
#[derive(Debug)]
pub struct Controller {
    config: Arc<ControllerConfig>,
    active: Option<ActiveController>,
}

impl Controller {
    /// A controller that stands by.
    pub fn new(config: ControllerConfig) -> Controller {
        Controller { config: Arc::new(config), active: None }
    }

    /// Becomes active as leader of `epoch`. `image` is all that is in the log below `next_offset`; with
    /// `open_transaction`, the log ends in a transaction whose records are not in `image`. The records returned must be
    /// appended at `next_offset` before anything else.
    pub fn activate(
        &mut self,
        image: MetadataImage,
        open_transaction: bool,
        epoch: LeaderEpoch,
        next_offset: Offset,
        now: Now,
    ) -> TickResult {
        let mut records = Vec::new();
        if open_transaction {
            let reason = Some("failover".into());
            records.push(record(AbortTransactionRecord { reason }.into(), 0));
        }
        if image.features.metadata_version.is_none() {
            records.extend(self.bootstrap_records());
        }
        let mut active = ActiveController::new(self.config.clone(), image, epoch, next_offset, now);
        active.replay_own(&records, next_offset);
        self.active = Some(active);
        TickResult { records, is_atomic: false }
    }

    /// The first records of a new cluster, in a transaction where metadata.version has them.
    fn bootstrap_records(&self) -> Vec<RecordAndVersion> {
        let bootstrap = &self.config.bootstrap;
        let has_transactions = bootstrap.metadata_version().is_metadata_transaction_supported();
        let mut records = Vec::new();
        if has_transactions {
            records.push(record(BeginTransactionRecord { name: Some("Bootstrap records".into()) }.into(), 0));
        }
        records.extend(bootstrap.records.iter().cloned());
        if bootstrap.level(crate::features::ELIGIBLE_LEADER_REPLICAS_VERSION) >= 1 {
            // With eligible leader replicas every controller must see the same value, so it goes into the log.
            let config = ConfigRecord {
                resource_type: ConfigResourceType::Broker.code(),
                resource_name: "".into(),
                name: MIN_IN_SYNC_REPLICAS.into(),
                value: Some(self.config.min_in_sync_replicas.to_string().into()),
            };
            records.push(record(config.into(), 0));
        }
        if has_transactions {
            records.push(record(EndTransactionRecord::default().into(), 0));
        }
        records
    }

    /// Lost the leadership: drops the uncommitted state and answers NotActive until activated again.
    pub fn resign(&mut self) {
        self.active = None;
    }

    /// The epoch in which this controller is active.
    pub fn active_epoch(&self) -> Option<LeaderEpoch> {
        self.active.as_ref().map(|active| active.epoch)
    }

    /// The newest state, uncommitted records included, if active.
    pub fn uncommitted_image(&self) -> Option<&MetadataImage> {
        self.active.as_ref().map(|active| &active.image)
    }

    /// The newest committed image was published as `committed`, by `changes`: the uncommitted state shares its memory
    /// where they are equal. See [`MetadataImage::share_with`].
    pub fn share_with(&mut self, committed: &MetadataImage, changes: &MetadataChanges) {
        if let Some(active) = &mut self.active {
            active.image.share_with(committed, changes);
        }
    }

    /// Notes a heartbeat's arrival before it is handled, so that a slow queue fences nobody. A broker or epoch that is
    /// not registered is ignored.
    pub fn on_heartbeat_received(&mut self, broker: NodeId, epoch: BrokerEpoch, at: MonotonicMs) {
        if let Some(active) = &mut self.active
            && active.is_current_epoch(broker.0, epoch.0)
        {
            active.heartbeats.touch(broker, epoch, at);
        }
    }

    /// Notes that a broker's process is gone: it is fenced with the next periodic work, which is due at once.
    pub fn on_broker_gone(&mut self, broker: NodeId, epoch: BrokerEpoch, at: MonotonicMs) {
        if let Some(active) = &mut self.active
            && active.is_current_epoch(broker.0, epoch.0)
        {
            active.on_broker_gone(broker, epoch, at);
        }
    }

    /// Decides a request. The records are replayed into the uncommitted state and must go into the log at the
    /// context's `next_offset`; if that fails, [`Controller::resign`].
    pub fn handle(
        &mut self,
        request: &RequestBody,
        context: &RequestContext<'_>,
    ) -> Result<ControllerResult, ControllerError> {
        let active = self.active.as_mut().ok_or(ControllerError::NotActive)?;
        assert!(active.unfinished.is_none(), "one thing is decided after the other");
        let mut outcome = active.decide(request, context).ok_or(ControllerError::NotMine)?;
        let checked = limits::check(outcome.records.iter(), outcome.is_atomic).and_then(|()| outcome.plan.check());
        if let Err(error) = checked {
            let refused = responses::refusal(request, error, context.api_version);
            outcome = Outcome::answer(refused.ok_or(ControllerError::NotMine)?);
        }
        let Outcome { records, is_atomic, kraft_version, plan } = outcome;
        if !plan.is_done() {
            active.unfinished = Some(plan);
            return Ok(active.go_on(context.next_offset));
        }
        active.replay_own(&records, context.next_offset);
        Ok(ControllerResult { records, is_atomic, response: plan.answer, kraft_version })
    }

    /// Whether the last thing that was decided is not worked out to its end. Until it is, [`Controller::go_on`] is to be
    /// called, and neither [`Controller::handle`] nor [`Controller::on_tick`].
    pub fn is_unfinished(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.unfinished.is_some())
    }

    /// Works out the next batch of an unfinished change; with the last one comes the answer, if somebody waits for it.
    /// `None` if there is nothing unfinished.
    pub fn go_on(&mut self, next_offset: Offset) -> Option<ControllerResult> {
        let active = self.active.as_mut().filter(|active| active.unfinished.is_some())?;
        Some(active.go_on(next_offset))
    }

    /// When [`Controller::on_tick`] has work next; `None` while standing by.
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        self.active.as_ref().and_then(|active| active.deadlines.next())
    }

    /// Runs the periodic tasks that are due. The records of all results go into the log in order, the first at
    /// `next_offset`.
    pub fn on_tick(&mut self, now: Now, next_offset: Offset) -> Vec<TickResult> {
        let mut results = Vec::new();
        let Some(active) = &mut self.active else { return results };
        let mut offset = next_offset;
        for _ in 0..MAX_TASKS_PER_TICK {
            let Some(task) = active.take_due_task(now.monotonic) else { break };
            let plan = active.run_task(task, now);
            if plan.is_done() {
                continue;
            }
            active.unfinished = Some(plan);
            let ControllerResult { records, is_atomic, .. } = active.go_on(offset);
            offset = offset.plus(records.len() as i64);
            if !records.is_empty() {
                results.push(TickResult { records, is_atomic });
            }
            if active.unfinished.is_some() {
                break;
            }
        }
        results
    }
}

impl ActiveController {
    /// The next batch of what is unfinished.
    fn go_on(&mut self, next_offset: Offset) -> ControllerResult {
        let mut plan = self.unfinished.take().expect("called for what is unfinished");
        let Portion { records, is_atomic } = self.work_out(&mut plan, MAX_RECORDS_PER_OPERATION);
        self.replay_own(&records, next_offset);
        let mut result = ControllerResult { records, is_atomic, response: None, kraft_version: None };
        if !plan.is_done() {
            self.unfinished = Some(plan);
            return result;
        }
        if let Some(id) = plan.shutting_down {
            let last = next_offset.plus(result.records.len() as i64 - 1);
            self.heartbeats.on_controlled_shutdown(id, last);
        }
        result.response = plan.answer;
        result
    }

    /// The subject file that decides each API; `None` for what is not the controller's.
    fn decide(&mut self, request: &RequestBody, context: &RequestContext<'_>) -> Option<Outcome> {
        Some(match request {
            RequestBody::BrokerRegistration(request) => self.register_broker(request, context),
            RequestBody::BrokerHeartbeat(request) => self.heartbeat(request, context),
            RequestBody::UnregisterBroker(request) => self.unregister_broker(request, context),
            RequestBody::ControllerRegistration(request) => self.register_controller(request, context),
            RequestBody::CreateTopics(request) => self.create_topics(request, context),
            RequestBody::DeleteTopics(body) => match self.delete_topics(body, context) {
                Ok(outcome) => outcome,
                Err(error) => Outcome::answer(error_response(request, error, context.api_version)?),
            },
            RequestBody::CreatePartitions(request) => self.create_partitions(request, context),
            RequestBody::AlterPartition(request) => self.alter_partition(request, context),
            RequestBody::ElectLeaders(request) => self.elect_leaders(request, context),
            RequestBody::AlterPartitionReassignments(request) => self.alter_reassignments(request, context),
            RequestBody::ListPartitionReassignments(request) => self.list_reassignments(request, context),
            RequestBody::AssignReplicasToDirs(request) => self.assign_replicas_to_dirs(request, context),
            RequestBody::AllocateProducerIds(request) => self.allocate_producer_ids(request, context),
            RequestBody::AlterConfigs(request) => self.alter_configs(request, context),
            RequestBody::IncrementalAlterConfigs(request) => self.incremental_alter_configs(request, context),
            RequestBody::UpdateFeatures(request) => self.update_features(request, context),
            RequestBody::AlterClientQuotas(request) => self.alter_client_quotas(request, context),
            RequestBody::CreateAcls(request) => self.create_acls(request, context),
            RequestBody::DeleteAcls(request) => self.delete_acls(request, context),
            RequestBody::AlterUserScramCredentials(request) => self.alter_scram_credentials(request, context),
            RequestBody::CreateDelegationToken(request) => self.create_delegation_token(request, context),
            RequestBody::RenewDelegationToken(request) => self.renew_delegation_token(request, context),
            RequestBody::ExpireDelegationToken(request) => self.expire_delegation_token(request, context),
            _ => return None,
        })
    }
}
