//! CreateAcls and DeleteAcls.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::create_acls_request::AclCreation;
use ringlog_protocol::messages::create_acls_response::AclCreationResult;
use ringlog_protocol::messages::delete_acls_request::DeleteAclsFilter;
use ringlog_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use ringlog_protocol::messages::{CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse};
use ringlog_protocol::metadata_records::{AccessControlEntryRecord, RemoveAccessControlEntryRecord};
use ringlog_types::{ErrorCode, Uuid};

use super::MAX_RECORDS_PER_OPERATION;
use super::context::{Operation, RequestContext, Resource, record};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::state::ActiveController;
use crate::image::AclEntry;

/// In filters: any value.
const ANY: i8 = 1;
/// As pattern type in filters: whatever would apply to the named resource.
const MATCH: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const CLUSTER: i8 = 4;

impl ActiveController {
    fn check_acl_access(&self, context: &RequestContext<'_>) -> Result<(), ApiError> {
        if !self.config.has_authorizer {
            return Err(ApiError::new(ErrorCode::SecurityDisabled, "No Authorizer is configured."));
        }
        if !context.authorizer.allows(Operation::Alter, Resource::Cluster) {
            return Err(ErrorCode::ClusterAuthorizationFailed.into());
        }
        Ok(())
    }

    pub(crate) fn create_acls(&mut self, request: &CreateAclsRequest, context: &RequestContext<'_>) -> Outcome {
        let access = self.check_acl_access(context);
        let mut known: BTreeSet<AclEntry> = BTreeSet::new();
        if access.is_ok() && !request.creations.is_empty() {
            known.extend(self.image.acls.entries.values().map(|entry| AclEntry::clone(entry)));
        }
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(request.creations.len());
        for creation in &request.creations {
            let result = access.clone().and_then(|()| check_creation(creation));
            if result.is_ok() && known.insert(entry_of(creation)) {
                let acl = AccessControlEntryRecord {
                    id: self.new_acl_id(),
                    resource_type: creation.resource_type,
                    resource_name: creation.resource_name.clone(),
                    pattern_type: creation.resource_pattern_type,
                    principal: creation.principal.clone(),
                    host: creation.host.clone(),
                    operation: creation.operation,
                    permission_type: creation.permission_type,
                };
                records.push(record(acl.into(), 0));
            }
            let (error_code, error_message) = code_and_text(result);
            results.push(AclCreationResult { error_code, error_message });
        }
        Outcome::atomic(records, CreateAclsResponse { results, ..Default::default() })
    }

    fn new_acl_id(&mut self) -> Uuid {
        loop {
            let id = Uuid::random(&mut self.random);
            if !self.image.acls.entries.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn delete_acls(&self, request: &DeleteAclsRequest, context: &RequestContext<'_>) -> Outcome {
        let access = self.check_acl_access(context);
        let mut removed = BTreeSet::new();
        let mut filter_results = Vec::with_capacity(request.filters.len());
        for filter in &request.filters {
            let result = access.clone().and_then(|()| check_filter(filter));
            let matching: Vec<(&Uuid, &Arc<AclEntry>)> = match &result {
                Ok(()) => self.image.acls.entries.iter().filter(|(_, entry)| matches(filter, entry)).collect(),
                Err(_) => Vec::new(),
            };
            removed.extend(matching.iter().map(|(id, _)| **id));
            let matching_acls = matching.iter().map(|(_, entry)| deleted(entry)).collect();
            let (error_code, error_message) = code_and_text(result);
            filter_results.push(DeleteAclsFilterResult { error_code, error_message, matching_acls });
        }
        if removed.len() > MAX_RECORDS_PER_OPERATION {
            let text = "Cannot remove more than 10000 acls in a single delete operation.";
            let error = ApiError::new(ErrorCode::InvalidRequest, text);
            for result in &mut filter_results {
                let (error_code, error_message) = code_and_text(Err(error.clone()));
                *result = DeleteAclsFilterResult { error_code, error_message, matching_acls: Vec::new() };
            }
            removed.clear();
        }
        let records = removed.into_iter().map(|id| record(RemoveAccessControlEntryRecord { id }.into(), 0)).collect();
        Outcome::atomic(records, DeleteAclsResponse { filter_results, ..Default::default() })
    }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// Kafka's names of the two values that are for filters only.
fn filter_only(value: i8) -> &'static str {
    match value {
        ANY => "ANY",
        MATCH => "MATCH",
        _ => "UNKNOWN",
    }
}

fn check_creation(creation: &AclCreation) -> Result<(), ApiError> {
    if creation.resource_type == CLUSTER && creation.resource_name != "kafka-cluster" {
        return Err(invalid("The only valid name for the CLUSTER resource is kafka-cluster"));
    }
    if creation.resource_name.is_empty() {
        return Err(invalid("Invalid empty resource name"));
    }
    if !(2..=7).contains(&creation.resource_type) {
        return Err(invalid(format!("Invalid resourceType {}", filter_only(creation.resource_type))));
    }
    if !matches!(creation.resource_pattern_type, LITERAL | PREFIXED) {
        return Err(invalid(format!("Invalid patternType {}", filter_only(creation.resource_pattern_type))));
    }
    if !(2..=15).contains(&creation.operation) {
        return Err(invalid(format!("Invalid operation {}", filter_only(creation.operation))));
    }
    if !matches!(creation.permission_type, 2 | 3) {
        return Err(invalid(format!("Invalid permissionType {}", filter_only(creation.permission_type))));
    }
    if !creation.principal.contains(':') {
        return Err(invalid(format!(
            "Could not parse principal from `{}` (no colon is present separating the principal type from the principal \
             name)",
            creation.principal
        )));
    }
    Ok(())
}

fn entry_of(creation: &AclCreation) -> AclEntry {
    AclEntry {
        resource_type: creation.resource_type,
        resource_name: creation.resource_name.as_str().into(),
        pattern_type: creation.resource_pattern_type,
        principal: creation.principal.as_str().into(),
        host: creation.host.as_str().into(),
        operation: creation.operation,
        permission_type: creation.permission_type,
    }
}

fn check_filter(filter: &DeleteAclsFilter) -> Result<(), ApiError> {
    if !(ANY..=7).contains(&filter.resource_type_filter) || !(ANY..=PREFIXED).contains(&filter.pattern_type_filter) {
        return Err(invalid("Unknown patternFilter."));
    }
    if !(ANY..=15).contains(&filter.operation) || !(ANY..=3).contains(&filter.permission_type) {
        return Err(invalid("Unknown entryFilter."));
    }
    Ok(())
}

fn matches(filter: &DeleteAclsFilter, entry: &AclEntry) -> bool {
    let number = |wanted: i8, actual: i8| wanted == ANY || wanted == actual;
    let text = |wanted: &Option<StrBytes>, actual: &str| wanted.as_ref().is_none_or(|wanted| *wanted == *actual);
    let pattern = match (&filter.resource_name_filter, filter.pattern_type_filter) {
        (name, ANY) => text(name, &entry.resource_name),
        (None, MATCH) => true,
        (Some(name), MATCH) => match entry.pattern_type {
            LITERAL => *entry.resource_name == **name || &*entry.resource_name == "*",
            _ => name.starts_with(&*entry.resource_name),
        },
        (name, pattern_type) => pattern_type == entry.pattern_type && text(name, &entry.resource_name),
    };
    pattern
        && number(filter.resource_type_filter, entry.resource_type)
        && text(&filter.principal_filter, &entry.principal)
        && text(&filter.host_filter, &entry.host)
        && number(filter.operation, entry.operation)
        && number(filter.permission_type, entry.permission_type)
}

fn deleted(entry: &AclEntry) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl {
        error_code: 0,
        error_message: None,
        resource_type: entry.resource_type,
        resource_name: StrBytes::copy_from(&entry.resource_name),
        pattern_type: entry.pattern_type,
        principal: StrBytes::copy_from(&entry.principal),
        host: StrBytes::copy_from(&entry.host),
        operation: entry.operation,
        permission_type: entry.permission_type,
    }
}
