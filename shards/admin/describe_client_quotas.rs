//! DescribeClientQuotas: the quotas of users, clients and addresses that match a filter (KIP-546).

use std::collections::BTreeMap;

use ringlog_metadata::image::{ClientQuotasImage, QuotaEntity, QuotaMap};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_client_quotas_request::{ComponentData, DescribeClientQuotasRequest};
use ringlog_protocol::messages::describe_client_quotas_response::{
    DescribeClientQuotasResponse, EntityData, EntryData, ValueData,
};
use ringlog_types::ErrorCode;

use crate::metadata::MetadataView;

const IP: &str = "ip";
const ENTITY_TYPES: [&str; 3] = ["user", "client-id", IP];

/// What one part of an entity must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Match {
    /// This name.
    Exact(StrBytes),
    /// The default.
    Default,
    /// Anything, but there.
    Any,
}

/// What is wrong with a filter.
type Refusal = (ErrorCode, String);

/// Answers DescribeClientQuotas.
pub fn handle(metadata: &MetadataView, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    answer(&metadata.image().client_quotas, &request)
}

fn answer(quotas: &ClientQuotasImage, request: &DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    match filter(&request.components) {
        Ok(filter) => {
            let matching = quotas.entities.iter().filter(|(entity, _)| matches(&filter, request.strict, entity));
            let entries = matching.map(|(entity, values)| to_wire(entity, values)).collect();
            DescribeClientQuotasResponse { entries: Some(entries), ..Default::default() }
        }
        Err((error, message)) => DescribeClientQuotasResponse {
            error_code: error.code(),
            error_message: Some(message.into()),
            entries: None,
            ..Default::default()
        },
    }
}

fn filter(components: &[ComponentData]) -> Result<BTreeMap<&str, Match>, Refusal> {
    let refuse = |text: String| Err((ErrorCode::InvalidRequest, text));
    let mut filter = BTreeMap::new();
    for component in components {
        let entity_type = component.entity_type.as_str();
        if entity_type.is_empty() {
            return refuse("Invalid empty entity type.".to_owned());
        }
        if filter.contains_key(entity_type) {
            return refuse(format!("Entity type {entity_type} cannot appear more than once in the filter."));
        }
        if !ENTITY_TYPES.contains(&entity_type) {
            let text = format!("Unsupported entity type {entity_type}");
            return Err((ErrorCode::UnsupportedVersion, text));
        }
        let wanted = match (component.match_type, &component.match_) {
            (0, Some(name)) => Match::Exact(name.clone()),
            (1, None) => Match::Default,
            (2, None) => Match::Any,
            (0, None) => {
                return refuse("Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned());
            }
            (1, Some(_)) => {
                return refuse("Request specified MATCH_TYPE_DEFAULT, but also specified a match string.".to_owned());
            }
            (2, Some(_)) => {
                return refuse("Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.".to_owned());
            }
            (other, _) => return refuse(format!("Unknown match type {other}")),
        };
        filter.insert(entity_type, wanted);
    }
    if filter.contains_key(IP) && filter.len() > 1 {
        return refuse(
            "Invalid entity filter component combination. IP filter component should not be used with \
                       user or clientId filter component."
                .to_owned(),
        );
    }
    Ok(filter)
}

fn matches(filter: &BTreeMap<&str, Match>, strict: bool, entity: &QuotaEntity) -> bool {
    let fits = |(entity_type, wanted): (&&str, &Match)| match (wanted, entity.get(*entity_type)) {
        (Match::Exact(name), Some(Some(actual))) => name.as_str() == &**actual,
        (Match::Default, Some(None)) | (Match::Any, Some(_)) => true,
        _ => false,
    };
    filter.iter().all(fits) && (!strict || entity.len() == filter.len())
}

fn to_wire(entity: &QuotaEntity, values: &QuotaMap) -> EntryData {
    EntryData {
        entity: entity
            .iter()
            .map(|(entity_type, name)| EntityData {
                entity_type: StrBytes::copy_from(entity_type),
                entity_name: name.as_deref().map(StrBytes::copy_from),
            })
            .collect(),
        values: values.iter().map(|(key, value)| ValueData { key: StrBytes::copy_from(key), value: *value }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn found(components: &[(&str, i8, Option<&str>)], strict: bool) -> Result<usize, i16> {
        let entity = |parts: &[(&str, Option<&str>)]| -> QuotaEntity {
            parts.iter().map(|(kind, name)| (Arc::from(*kind), name.map(Arc::from))).collect()
        };
        let values: QuotaMap = [(Arc::from("producer_byte_rate"), 1024.0)].into();
        let entities = [
            entity(&[("user", Some("alice"))]),
            entity(&[("user", Some("alice")), ("client-id", None)]),
            entity(&[("user", None)]),
            entity(&[("ip", Some("10.0.0.1"))]),
        ];
        let quotas = ClientQuotasImage { entities: entities.into_iter().map(|it| (it, values.clone())).collect() };
        let components = components.iter().map(|(kind, match_type, name)| ComponentData {
            entity_type: StrBytes::copy_from(kind),
            match_type: *match_type,
            match_: name.map(StrBytes::copy_from),
        });
        let request = DescribeClientQuotasRequest { components: components.collect(), strict };
        let response = answer(&quotas, &request);
        response.entries.map(|entries| entries.len()).ok_or(response.error_code)
    }

    #[test]
    fn filters_match_names_defaults_and_presence() {
        assert_eq!(found(&[], false), Ok(4));
        assert_eq!(found(&[("user", 0, Some("alice"))], false), Ok(2));
        assert_eq!(found(&[("user", 0, Some("alice"))], true), Ok(1));
        assert_eq!(found(&[("user", 1, None)], false), Ok(1));
        assert_eq!(found(&[("user", 2, None)], false), Ok(3));
        assert_eq!(found(&[("user", 2, None), ("client-id", 1, None)], true), Ok(1));
        assert_eq!(found(&[("ip", 2, None), ("user", 2, None)], false), Err(42));
        assert_eq!(found(&[("user", 0, None)], false), Err(42));
        assert_eq!(found(&[("planet", 2, None)], false), Err(35));
    }
}
