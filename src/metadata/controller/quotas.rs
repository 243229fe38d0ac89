//! AlterClientQuotas (KIP-546).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringlog_protocol::messages::alter_client_quotas_request::{EntityData as AskedEntity, OpData};
use ringlog_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use ringlog_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use ringlog_protocol::metadata_records::{ClientQuotaRecord, RecordAndVersion, client_quota_record};
use ringlog_types::ErrorCode;

use super::context::{Operation, RequestContext, Resource, record};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::state::ActiveController;
use crate::image::QuotaEntity;

/// What a quota's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuotaType {
    Int,
    Long,
    Double,
}

fn quota_type(is_ip: bool, key: &str) -> Option<QuotaType> {
    match (is_ip, key) {
        (true, "connection_creation_rate") => Some(QuotaType::Int),
        (false, "producer_byte_rate" | "consumer_byte_rate") => Some(QuotaType::Long),
        (false, "request_percentage" | "controller_mutation_rate") => Some(QuotaType::Double),
        _ => None,
    }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

impl ActiveController {
    pub(crate) fn alter_client_quotas(
        &self,
        request: &AlterClientQuotasRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let may_alter = context.authorizer.allows(Operation::AlterConfigs, Resource::Cluster);
        let mut records = Vec::new();
        let mut seen = BTreeSet::new();
        let entries = request.entries.iter().map(|entry| {
            let result = if may_alter {
                entity(&entry.entity).and_then(|entity| {
                    if !seen.insert(entity.clone()) {
                        return Err(invalid("Ignoring duplicate entity"));
                    }
                    self.alter_entity(&entity, &entry.entity, &entry.ops, &mut records)
                })
            } else {
                Err(ErrorCode::ClusterAuthorizationFailed.into())
            };
            let (error_code, error_message) = code_and_text(result);
            let entity = entry.entity.iter().map(|part| EntityData {
                entity_type: part.entity_type.clone(),
                entity_name: part.entity_name.clone(),
            });
            EntryData { error_code, error_message, entity: entity.collect() }
        });
        let entries = entries.collect();
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, AlterClientQuotasResponse { entries, ..Default::default() })
    }

    fn alter_entity(
        &self,
        entity: &QuotaEntity,
        asked: &[AskedEntity],
        ops: &[OpData],
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<(), ApiError> {
        let present = self.image.client_quotas.entities.get(entity);
        let mut changes = BTreeMap::new();
        for op in ops {
            let kind = quota_type(entity.contains_key("ip"), &op.key)
                .ok_or_else(|| invalid(format!("Invalid configuration key {}", op.key)))?;
            if !op.remove {
                check_value(&op.key, kind, op.value)?;
            }
            let value = (!op.remove).then_some(op.value);
            if changes.insert(op.key.clone(), value).is_some() {
                return Err(invalid(format!(
                    "Duplicate quota key {} not updating quota for this entity {}",
                    op.key, ""
                )));
            }
        }
        for (key, value) in changes {
            if present.and_then(|values| values.get(key.as_str())).copied() == value {
                continue;
            }
            let entity = asked.iter().map(|part| client_quota_record::EntityData {
                entity_type: part.entity_type.clone(),
                entity_name: part.entity_name.clone(),
            });
            let change = ClientQuotaRecord {
                entity: entity.collect(),
                key,
                value: value.unwrap_or(0.0),
                remove: value.is_none(),
            };
            records.push(record(change.into(), 0));
        }
        Ok(())
    }
}

fn check_value(key: &str, kind: QuotaType, value: f64) -> Result<(), ApiError> {
    if value.is_nan() || value <= 0.0 {
        return Err(invalid(format!("Quota {key} must be greater than 0")));
    }
    let (limit, name) = match kind {
        QuotaType::Double => return Ok(()),
        QuotaType::Int => (f64::from(i32::MAX), "an INT"),
        QuotaType::Long => (i64::MAX as f64, "a LONG"),
    };
    if value > limit {
        return Err(invalid(format!("Proposed value for {key} is too large for {name}.")));
    }
    if (value - value.round()).abs() > 1e-6 {
        return Err(invalid(format!("{key} cannot be a fractional value.")));
    }
    Ok(())
}

fn entity(parts: &[AskedEntity]) -> Result<QuotaEntity, ApiError> {
    if parts.is_empty() {
        return Err(invalid("Invalid empty client quota entity"));
    }
    let mut entity = QuotaEntity::new();
    for part in parts {
        let entity_type = part.entity_type.as_str();
        if !matches!(entity_type, "user" | "client-id" | "ip") {
            return Err(invalid(format!("Unhandled client quota entity type: {entity_type}")));
        }
        if part.entity_name.as_deref() == Some("") {
            return Err(invalid(format!("Empty {entity_type} not supported")));
        }
        let name: Option<Arc<str>> = part.entity_name.as_ref().map(|name| name.as_str().into());
        if entity.insert(entity_type.into(), name).is_some() {
            return Err(invalid(format!("Invalid client quota entity, duplicate entity entry {entity_type}")));
        }
    }
    if let Some(ip) = entity.get("ip") {
        if entity.len() > 1 {
            return Err(invalid(
                "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId",
            ));
        }
        // Kafka resolves names; without a resolver here, an address must be one, or a name must look like one.
        let is_name = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
                && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        };
        if let Some(ip) = ip.as_deref().filter(|ip| ip.parse::<IpAddr>().is_err() && !is_name(ip)) {
            return Err(invalid(format!("{ip} is not a valid IP or resolvable host.")));
        }
    }
    Ok(entity)
}
