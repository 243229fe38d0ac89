//! AlterClientQuotas (KIP-546).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_client_quotas_request::{EntityData as AskedEntity, OpData};
use ringlog_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use ringlog_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use ringlog_protocol::metadata_records::{ClientQuotaRecord, RecordAndVersion, client_quota_record};
use ringlog_types::{ErrorCode, sort_as_sized_hash_map};

use super::context::{Operation, RequestContext, Resource, record};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::state::ActiveController;
use crate::image::QuotaEntity;

/// An entity's parts as they were named: type and name, none for the default.
type Asked = Vec<(StrBytes, Option<StrBytes>)>;

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
        // One answer for each entity, the last one; what an entity's first entry wrote stays written.
        let mut results: Vec<(Asked, Result<(), ApiError>)> = Vec::new();
        let mut places: BTreeMap<Asked, usize> = BTreeMap::new();
        for entry in &request.entries {
            let asked = asked_entity(&entry.entity);
            let known = places.get(&asked).copied();
            let mut keys = BTreeSet::new();
            let result = if !may_alter {
                Err(ErrorCode::ClusterAuthorizationFailed.into())
            } else if known.is_some() || !entry.ops.iter().all(|op| keys.insert(op.key.as_str())) {
                Err(invalid(format!("Ignoring duplicate entity {}", shown(&asked))))
            } else {
                self.alter_entity(&asked, &entry.ops, &mut records)
            };
            match known {
                Some(position) => results[position].1 = result,
                None => {
                    places.insert(asked.clone(), results.len());
                    results.push((asked, result));
                }
            }
        }
        let entries = results.into_iter().map(|(asked, result)| {
            let (error_code, error_message) = code_and_text(result);
            let entity = asked.into_iter().map(|(entity_type, entity_name)| EntityData { entity_type, entity_name });
            EntryData { error_code, error_message, entity: entity.collect() }
        });
        let entries = entries.collect();
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, AlterClientQuotasResponse { entries, ..Default::default() })
    }

    fn alter_entity(&self, asked: &Asked, ops: &[OpData], records: &mut Vec<RecordAndVersion>) -> Result<(), ApiError> {
        let entity = entity(asked)?;
        let present = self.image.client_quotas.entities.get(&entity);
        let mut changes = Vec::new();
        for op in ops {
            // What isn't there can be removed, whatever it is.
            if !op.remove {
                let kind = quota_type(entity.contains_key("ip"), &op.key)
                    .ok_or_else(|| invalid(format!("Invalid configuration key {}", op.key)))?;
                check_value(&op.key, kind, op.value)?;
            }
            let value = (!op.remove).then_some(op.value);
            if present.and_then(|values| values.get(op.key.as_str())).copied() == value {
                continue;
            }
            let parts = asked.iter().map(|(entity_type, entity_name)| client_quota_record::EntityData {
                entity_type: entity_type.clone(),
                entity_name: entity_name.clone(),
            });
            let change = ClientQuotaRecord {
                entity: parts.collect(),
                key: op.key.clone(),
                value: value.unwrap_or(0.0),
                remove: value.is_none(),
            };
            changes.push(record(change.into(), 0));
        }
        records.extend(changes);
        Ok(())
    }
}

/// Type and name of each part, as a hash map of Kafka has them: of a type that is named twice, the last name.
fn asked_entity(parts: &[AskedEntity]) -> Asked {
    let mut asked = Asked::new();
    let mut places: BTreeMap<&StrBytes, usize> = BTreeMap::new();
    for part in parts {
        match places.entry(&part.entity_type) {
            Entry::Occupied(place) => asked[*place.get()].1.clone_from(&part.entity_name),
            Entry::Vacant(place) => {
                place.insert(asked.len());
                asked.push((part.entity_type.clone(), part.entity_name.clone()));
            }
        }
    }
    sort_as_sized_hash_map(&mut asked, |(entity_type, _)| entity_type.as_str());
    asked
}

/// The entity as Kafka's texts show it.
fn shown(asked: &Asked) -> String {
    let part = |(entity_type, name): &(StrBytes, Option<StrBytes>)| {
        format!("{entity_type}={}", name.as_deref().unwrap_or("null"))
    };
    format!("ClientQuotaEntity(entries={{{}}})", asked.iter().map(part).collect::<Vec<_>>().join(", "))
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

fn entity(asked: &Asked) -> Result<QuotaEntity, ApiError> {
    if asked.is_empty() {
        return Err(invalid("Invalid empty client quota entity"));
    }
    let mut entity = QuotaEntity::new();
    for (entity_type, name) in asked {
        if !matches!(entity_type.as_str(), "user" | "client-id" | "ip") {
            return Err(invalid(format!("Unhandled client quota entity type: {entity_type}")));
        }
        if name.as_deref() == Some("") {
            return Err(invalid(format!("Empty {entity_type} not supported")));
        }
        let name: Option<Arc<str>> = name.as_deref().map(Arc::from);
        entity.insert(entity_type.as_str().into(), name);
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
