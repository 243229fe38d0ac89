//! BrokerRegistration, BrokerHeartbeat, UnregisterBroker and ControllerRegistration.

use std::sync::Arc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    ControllerRegistrationRequest, ControllerRegistrationResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use ringlog_protocol::metadata_records::{
    RecordAndVersion, RegisterBrokerRecord, RegisterControllerRecord, register_broker_record,
    register_controller_record,
};
use ringlog_types::{BrokerEpoch, ErrorCode, NodeId, Offset, Uuid};

use super::context::{Operation, RequestContext, Resource, record};
use super::error::{ApiError, code_and_text};
use super::leadership::registration_change;
use super::outcome::Outcome;
use super::plan::Plan;
use super::state::ActiveController;
use crate::features::{FEATURES, KRAFT_VERSION, METADATA_VERSION};
use crate::image::{BrokerImage, directory};

/// What a broker is told to be next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextState {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

impl ActiveController {
    pub(crate) fn register_broker(&self, request: &BrokerRegistrationRequest, context: &RequestContext<'_>) -> Outcome {
        let mut plan = Plan::default();
        match self.try_register_broker(request, context, &mut plan) {
            Ok(epoch) => {
                Outcome::planned(plan, BrokerRegistrationResponse { broker_epoch: epoch.0, ..Default::default() })
            }
            Err(error) => Outcome::answer(BrokerRegistrationResponse {
                error_code: error.code(),
                broker_epoch: -1,
                ..Default::default()
            }),
        }
    }

    fn try_register_broker(
        &self,
        request: &BrokerRegistrationRequest,
        context: &RequestContext<'_>,
        plan: &mut Plan,
    ) -> Result<BrokerEpoch, ErrorCode> {
        if !context.authorizer.allows(Operation::ClusterAction, Resource::Cluster) {
            return Err(ErrorCode::ClusterAuthorizationFailed);
        }
        if request.cluster_id != self.config.cluster_id.as_str() {
            return Err(ErrorCode::InconsistentClusterId);
        }
        let id = NodeId(request.broker_id);
        if id.0 < 0 {
            return Err(ErrorCode::InvalidRequest);
        }
        let existing = self.image.cluster.broker(id);
        let is_new_incarnation = existing.is_none_or(|broker| broker.incarnation_id != request.incarnation_id);
        if let Some(existing) = existing {
            let is_alive = self.heartbeats.has_valid_session(id, existing.epoch, context.now.monotonic);
            if is_new_incarnation && is_alive {
                return Err(ErrorCode::DuplicateBrokerRegistration);
            }
        }
        if request.is_migrating_zk_broker {
            return Err(ErrorCode::BrokerIdNotRegistered);
        }
        self.check_directories(id, &request.log_dirs)?;
        self.check_features(request, context)?;
        let epoch = match existing {
            Some(existing) if !is_new_incarnation => existing.epoch,
            // The first record of the result gets this offset, which need not be that of the registration.
            _ => BrokerEpoch(context.next_offset.0),
        };
        if is_new_incarnation {
            // Who was unregistered may be eligible somewhere still.
            let was_clean = context.api_version >= 3
                && existing.is_some_and(|existing| request.previous_broker_epoch == existing.epoch.0);
            self.on_previous_life_ended(id, was_clean, plan);
        }
        let kept = existing.filter(|_| !is_new_incarnation).map(Arc::as_ref);
        plan.record(self.registration_record(request, epoch, kept));
        Ok(epoch)
    }

    fn check_directories(&self, id: NodeId, directories: &[Uuid]) -> Result<(), ErrorCode> {
        if !self.metadata_version().is_directory_assignment_supported() {
            return Ok(());
        }
        let mut sorted = directories.to_vec();
        sorted.sort_unstable();
        let has_duplicates = sorted.windows(2).any(|pair| pair[0] == pair[1]);
        if directories.is_empty() || has_duplicates || directories.iter().any(|it| directory::is_reserved(*it)) {
            return Err(ErrorCode::InvalidRegistration);
        }
        let others = self.image.cluster.brokers.values().filter(|broker| broker.id != id);
        let owns =
            |broker: &Arc<BrokerImage>| directories.iter().any(|it| broker.directories.binary_search(it).is_ok());
        if others.into_iter().any(owns) { Err(ErrorCode::InvalidRegistration) } else { Ok(()) }
    }

    /// Each finalized feature must lie in the announced range; one that is not announced counts as 0 to 0.
    fn check_features(
        &self,
        request: &BrokerRegistrationRequest,
        context: &RequestContext<'_>,
    ) -> Result<(), ErrorCode> {
        let announced = |name: &str| request.features.iter().find(|feature| feature.name == name);
        if announced(METADATA_VERSION).is_none() {
            return Err(ErrorCode::InvalidRegistration);
        }
        for feature in FEATURES {
            let level = match feature.name {
                KRAFT_VERSION => context.kraft_version,
                name => self.image.features.level(name),
            };
            let range =
                announced(feature.name).map_or((0, 0), |it| (it.min_supported_version, it.max_supported_version));
            if level != 0 && (level < range.0 || range.1 < level) {
                return Err(ErrorCode::UnsupportedVersion);
            }
        }
        Ok(())
    }

    fn registration_record(
        &self,
        request: &BrokerRegistrationRequest,
        epoch: BrokerEpoch,
        kept: Option<&BrokerImage>,
    ) -> RecordAndVersion {
        let version = self.metadata_version().register_broker_record_version();
        let end_points = request.listeners.iter().map(|listener| register_broker_record::BrokerEndpoint {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port: listener.port,
            security_protocol: listener.security_protocol,
        });
        let features = request.features.iter().map(|feature| register_broker_record::BrokerFeature {
            name: feature.name.clone(),
            min_supported_version: feature.min_supported_version,
            max_supported_version: feature.max_supported_version,
        });
        let registration = RegisterBrokerRecord {
            broker_id: request.broker_id,
            is_migrating_zk_broker: false,
            incarnation_id: request.incarnation_id,
            broker_epoch: epoch.0,
            end_points: end_points.collect(),
            features: features.collect(),
            rack: request.rack.clone(),
            fenced: kept.is_none_or(|broker| broker.is_fenced),
            in_controlled_shutdown: kept.is_some_and(|broker| broker.is_in_controlled_shutdown),
            log_dirs: if version >= 3 { request.log_dirs.clone() } else { Vec::new() },
            // The broker states them anew with its next heartbeat.
            cordoned_log_dirs: None,
        };
        record(registration.into(), version)
    }

    pub(crate) fn heartbeat(&mut self, request: &BrokerHeartbeatRequest, context: &RequestContext<'_>) -> Outcome {
        let refuse = |error: ErrorCode| {
            Outcome::split(Vec::new(), BrokerHeartbeatResponse { error_code: error.code(), ..Default::default() })
        };
        if !context.authorizer.allows(Operation::ClusterAction, Resource::Cluster) {
            return refuse(ErrorCode::ClusterAuthorizationFailed);
        }
        let id = NodeId(request.broker_id);
        let Some(broker) = self.image.cluster.broker(id).filter(|it| it.epoch.0 == request.broker_epoch).cloned()
        else {
            return refuse(ErrorCode::StaleBrokerEpoch);
        };
        self.heartbeats.touch(id, broker.epoch, context.received_at);
        let registered_at = self.register_record_offsets.get(&id).copied().unwrap_or(Offset(broker.epoch.0));
        let is_caught_up = request.current_metadata_offset >= registered_at.0;
        let next = self.next_state(&broker, request, is_caught_up);
        let mut plan = Plan::default();
        match next {
            NextState::Fenced if !broker.is_fenced => self.fence_broker(&broker, &mut plan),
            // Of a fenced broker too: it is fenced once more.
            NextState::ShutdownNow => self.fence_broker(&broker, &mut plan),
            NextState::Unfenced if broker.is_fenced => self.unfence_broker(&broker, &mut plan),
            NextState::ControlledShutdown if !self.heartbeats.is_shutting_down(id) => {
                self.begin_controlled_shutdown(&broker, &mut plan);
                if plan.is_done() {
                    // The registration says it already, and nobody has it in sync.
                    self.heartbeats.on_controlled_shutdown(id, Offset(context.next_offset.0 - 1));
                }
            }
            _ => {}
        }
        self.heartbeats.report_offset(id, Offset(request.current_metadata_offset));
        self.update_directories(&broker, request, &mut plan);
        let response = BrokerHeartbeatResponse {
            is_caught_up,
            is_fenced: matches!(next, NextState::Fenced | NextState::ShutdownNow),
            should_shut_down: next == NextState::ShutdownNow,
            ..Default::default()
        };
        Outcome::planned(plan, response)
    }

    fn next_state(&self, broker: &BrokerImage, request: &BrokerHeartbeatRequest, is_caught_up: bool) -> NextState {
        if broker.is_fenced {
            return match (request.want_shut_down, request.want_fence) {
                (true, _) => NextState::ShutdownNow,
                // Also one that has begun to stop, as in Kafka: what says so came late.
                (false, false) if is_caught_up => NextState::Unfenced,
                _ => NextState::Fenced,
            };
        }
        if self.heartbeats.is_shutting_down(broker.id) {
            let may_stop = !self.indexes.leads_partitions(broker.id)
                && self.heartbeats.may_shut_down(broker.id, &self.image.cluster);
            return if may_stop { NextState::ShutdownNow } else { NextState::ControlledShutdown };
        }
        match (request.want_fence, request.want_shut_down) {
            (true, true) => NextState::ShutdownNow,
            (true, false) => NextState::Fenced,
            (false, true) if self.indexes.leads_partitions(broker.id) => NextState::ControlledShutdown,
            (false, true) => NextState::ShutdownNow,
            (false, false) => NextState::Unfenced,
        }
    }

    fn update_directories(&self, broker: &BrokerImage, request: &BrokerHeartbeatRequest, plan: &mut Plan) {
        let version = self.metadata_version();
        if version.is_directory_assignment_supported() {
            self.on_directories_offline(broker, &request.offline_log_dirs, plan);
        }
        if let Some(cordoned) = request.cordoned_log_dirs.as_ref().filter(|_| version.is_cordoned_log_dirs_supported())
        {
            let mut sorted = cordoned.clone();
            sorted.sort_unstable();
            if broker.cordoned_directories.as_ref() != Some(&sorted) {
                let change = registration_change(broker, |change| change.cordoned_log_dirs = Some(cordoned.clone()), 3);
                plan.record(change);
            }
        }
    }

    pub(crate) fn unregister_broker(&self, request: &UnregisterBrokerRequest, context: &RequestContext<'_>) -> Outcome {
        let mut plan = Plan::default();
        let result = if !context.authorizer.allows(Operation::Alter, Resource::Cluster) {
            Err(ErrorCode::ClusterAuthorizationFailed.into())
        } else if let Some(broker) = self.image.cluster.broker(NodeId(request.broker_id)) {
            self.unregister(broker, &mut plan);
            Ok(())
        } else {
            let text = format!("Broker ID {} is not currently registered", request.broker_id);
            Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, text))
        };
        let (error_code, error_message) = code_and_text(result);
        // Without an error Kafka sends an empty text here, not none.
        let error_message = error_message.or_else(|| Some(StrBytes::default()));
        Outcome::planned(plan, UnregisterBrokerResponse { error_code, error_message, ..Default::default() })
    }

    pub(crate) fn register_controller(
        &self,
        request: &ControllerRegistrationRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let mut records = Vec::new();
        let result = if !context.authorizer.allows(Operation::ClusterAction, Resource::Cluster) {
            Err(ErrorCode::ClusterAuthorizationFailed.into())
        } else if !self.metadata_version().is_controller_registration_supported() {
            Err(ApiError::spelled(ErrorCode::UnsupportedVersion))
        } else {
            let end_points = request.listeners.iter().map(|listener| register_controller_record::ControllerEndpoint {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
                security_protocol: listener.security_protocol,
            });
            let features = request.features.iter().map(|feature| register_controller_record::ControllerFeature {
                name: feature.name.clone(),
                min_supported_version: feature.min_supported_version,
                max_supported_version: feature.max_supported_version,
            });
            let registration = RegisterControllerRecord {
                controller_id: request.controller_id,
                incarnation_id: request.incarnation_id,
                zk_migration_ready: request.zk_migration_ready,
                end_points: end_points.collect(),
                features: features.collect(),
            };
            records.push(record(registration.into(), 0));
            Ok(())
        };
        let (error_code, error_message) = code_and_text(result);
        let error_message = error_message.or_else(|| Some(StrBytes::default()));
        Outcome::atomic(records, ControllerRegistrationResponse { error_code, error_message, ..Default::default() })
    }
}
