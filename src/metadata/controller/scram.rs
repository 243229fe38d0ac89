//! AlterUserScramCredentials (KIP-554).

use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use ringlog_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use ringlog_protocol::messages::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};
use ringlog_protocol::metadata_records::{
    MetadataRecord, RecordAndVersion, RemoveUserScramCredentialRecord, UserScramCredentialRecord,
};
use ringlog_types::ErrorCode;

use super::context::{Operation, RequestContext, Resource, record};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::state::ActiveController;
use crate::image::ScramMechanism;
use crate::scram::{MAX_ITERATIONS, MIN_ITERATIONS, keys_of};

/// One wish of a request.
enum Change<'a> {
    Deletion(&'a ScramCredentialDeletion),
    Upsertion(&'a ScramCredentialUpsertion),
}

impl<'a> Change<'a> {
    fn user(&self) -> &'a str {
        match self {
            Change::Deletion(it) => &it.name,
            Change::Upsertion(it) => &it.name,
        }
    }
}

impl ActiveController {
    pub(crate) fn alter_scram_credentials(
        &self,
        request: &AlterUserScramCredentialsRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let may_alter = context.authorizer.allows(Operation::Alter, Resource::Cluster);
        // Not even another mechanism of the same user may be altered.
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        // One result per user; the first failure of a user stands, and then nothing of that user is changed.
        let mut results: BTreeMap<&str, Result<Vec<RecordAndVersion>, ApiError>> = BTreeMap::new();
        let deletions = request.deletions.iter().map(Change::Deletion);
        for change in deletions.chain(request.upsertions.iter().map(Change::Upsertion)) {
            let user = change.user();
            let result = results.entry(user).or_insert_with(|| Ok(Vec::new()));
            let Ok(records) = result else { continue };
            let made = if !may_alter {
                Err(ErrorCode::ClusterAuthorizationFailed.into())
            } else if !asked.insert(user) {
                let text = "A user credential cannot be altered twice in the same request";
                Err(ApiError::new(ErrorCode::DuplicateResource, text))
            } else if !self.metadata_version().is_scram_supported() {
                let text = "The current metadata.version does not support SCRAM";
                Err(ApiError::new(ErrorCode::UnsupportedVersion, text))
            } else {
                match change {
                    Change::Deletion(deletion) => self.delete_credential(deletion),
                    Change::Upsertion(upsertion) => upsert_credential(upsertion),
                }
            };
            match made {
                Ok(record) => records.push(record),
                Err(error) => *result = Err(error),
            }
        }
        // Kafka's cryptography takes no empty key and fails, of which it tells no more.
        for upsertion in request.upsertions.iter().filter(|it| it.salted_password.is_empty()) {
            if let Some(result @ Ok(_)) = results.get_mut(&*upsertion.name) {
                *result = Err(ErrorCode::UnknownServerError.into());
            }
        }
        let mut records = Vec::new();
        let answers = results.into_iter().map(|(user, result)| {
            let result = result.map(|made| records.extend(made));
            let (error_code, error_message) = code_and_text(result);
            AlterUserScramCredentialsResult { user: StrBytes::copy_from(user), error_code, error_message }
        });
        let results = answers.collect();
        // First all removals.
        records.sort_by_key(|it| matches!(it.record, MetadataRecord::UserScramCredential(_)));
        Outcome::atomic(records, AlterUserScramCredentialsResponse { results, ..Default::default() })
    }

    fn delete_credential(&self, deletion: &ScramCredentialDeletion) -> Result<RecordAndVersion, ApiError> {
        let mechanism = check(&deletion.name, deletion.mechanism)?;
        if !self.image.scram.credentials.contains_key(&(mechanism, deletion.name.as_str().into())) {
            let text = "Attempt to delete a user credential that does not exist";
            return Err(ApiError::new(ErrorCode::ResourceNotFound, text));
        }
        let gone = RemoveUserScramCredentialRecord { name: deletion.name.clone(), mechanism: deletion.mechanism };
        Ok(record(gone.into(), 0))
    }
}

fn check(user: &str, mechanism: i8) -> Result<ScramMechanism, ApiError> {
    if user.is_empty() {
        return Err(ApiError::new(ErrorCode::UnacceptableCredential, "Username must not be empty"));
    }
    let unknown = || ApiError::new(ErrorCode::UnsupportedSaslMechanism, "Unknown SCRAM mechanism");
    ScramMechanism::from_code(mechanism).ok_or_else(unknown)
}

fn upsert_credential(upsertion: &ScramCredentialUpsertion) -> Result<RecordAndVersion, ApiError> {
    let mechanism = check(&upsertion.name, upsertion.mechanism)?;
    if upsertion.iterations < MIN_ITERATIONS {
        return Err(ApiError::new(ErrorCode::UnacceptableCredential, "Too few iterations"));
    }
    if upsertion.iterations > MAX_ITERATIONS {
        return Err(ApiError::new(ErrorCode::UnacceptableCredential, "Too many iterations"));
    }
    let keys = keys_of(mechanism, &upsertion.salted_password);
    let credential = UserScramCredentialRecord {
        name: upsertion.name.clone(),
        mechanism: upsertion.mechanism,
        salt: upsertion.salt.clone(),
        stored_key: keys.stored_key,
        server_key: keys.server_key,
        iterations: upsertion.iterations,
    };
    Ok(record(credential.into(), 0))
}
