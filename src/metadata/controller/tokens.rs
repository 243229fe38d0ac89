//! CreateDelegationToken, RenewDelegationToken, ExpireDelegationToken (KIP-48) and the removal of expired tokens.

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, ExpireDelegationTokenRequest,
    ExpireDelegationTokenResponse, RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};
use ringlog_protocol::metadata_records::{DelegationTokenRecord, RecordAndVersion, RemoveDelegationTokenRecord};
use ringlog_types::{ErrorCode, TimestampMs, Uuid};

use super::context::{Operation, RequestContext, Resource, record};
use super::outcome::Outcome;
use super::state::ActiveController;
use crate::image::DelegationToken;
use crate::scram::hmac_sha512;

/// How many tokens one run of the expiry task removes at most.
const MAX_REMOVALS_PER_RUN: usize = 1_000;

fn text(value: &str) -> StrBytes {
    StrBytes::copy_from(value)
}

fn token_record(token: &DelegationToken, expiration: i64) -> RecordAndVersion {
    let changed = DelegationTokenRecord {
        owner: text(&token.owner),
        requester: text(&token.requester),
        renewers: token.renewers.iter().map(|renewer| text(renewer)).collect(),
        issue_timestamp: token.issue_timestamp.0,
        max_timestamp: token.max_timestamp.0,
        expiration_timestamp: expiration,
        token_id: text(&token.token_id),
    };
    record(changed.into(), 0)
}

fn removal(token: &DelegationToken) -> RecordAndVersion {
    record(RemoveDelegationTokenRecord { token_id: text(&token.token_id) }.into(), 0)
}

impl ActiveController {
    fn token_secret(&self, context: &RequestContext<'_>) -> Result<&str, ErrorCode> {
        if context.is_token_authenticated {
            return Err(ErrorCode::DelegationTokenRequestNotAllowed);
        }
        let secret = self.config.delegation_token_secret.as_deref().ok_or(ErrorCode::DelegationTokenAuthDisabled)?;
        if !self.metadata_version().is_delegation_token_supported() {
            return Err(ErrorCode::UnsupportedVersion);
        }
        Ok(secret)
    }

    pub(crate) fn create_delegation_token(
        &mut self,
        request: &CreateDelegationTokenRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let mut records = Vec::new();
        let response = self.try_create_token(request, context, &mut records).unwrap_or_else(|error| {
            let (kind, name) = context.principal.split_once(':').unwrap_or(("User", context.principal));
            CreateDelegationTokenResponse {
                error_code: error.code(),
                principal_type: text(kind),
                principal_name: text(name),
                token_requester_principal_type: text(kind),
                token_requester_principal_name: text(name),
                issue_timestamp_ms: -1,
                expiry_timestamp_ms: -1,
                max_timestamp_ms: -1,
                ..Default::default()
            }
        });
        Outcome::atomic(records, response)
    }

    fn try_create_token(
        &mut self,
        request: &CreateDelegationTokenRequest,
        context: &RequestContext<'_>,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<CreateDelegationTokenResponse, ErrorCode> {
        let secret = self.token_secret(context)?.to_owned();
        let requester = context.principal;
        let owner = match (&request.owner_principal_type, &request.owner_principal_name) {
            (Some(kind), Some(name)) if !name.is_empty() => format!("{kind}:{name}"),
            _ => requester.to_owned(),
        };
        if owner != requester && !context.authorizer.allows(Operation::CreateTokens, Resource::User(&owner)) {
            return Err(ErrorCode::DelegationTokenAuthorizationFailed);
        }
        if request.renewers.iter().any(|renewer| renewer.principal_type != "User") {
            return Err(ErrorCode::InvalidPrincipalType);
        }
        let now = context.now.wall.0;
        let longest = self.config.delegation_token_max_lifetime_ms;
        let life = if request.max_lifetime_ms > 0 { longest.min(request.max_lifetime_ms) } else { longest };
        let max_timestamp = now.saturating_add(life);
        let expiration = max_timestamp.min(now.saturating_add(self.config.delegation_token_expiry_time_ms));
        let token_id = Uuid::random(&mut self.random).to_string();
        let hmac = hmac_sha512(secret.as_bytes(), token_id.as_bytes());
        let renewers = request.renewers.iter();
        let token = DelegationTokenRecord {
            owner: owner.clone().into(),
            requester: text(requester),
            renewers: renewers.map(|it| format!("{}:{}", it.principal_type, it.principal_name).into()).collect(),
            issue_timestamp: now,
            max_timestamp,
            expiration_timestamp: expiration,
            token_id: token_id.clone().into(),
        };
        records.push(record(token.into(), 0));
        let (owner_kind, owner_name) = owner.split_once(':').unwrap_or(("User", &owner));
        let (kind, name) = requester.split_once(':').unwrap_or(("User", requester));
        Ok(CreateDelegationTokenResponse {
            error_code: 0,
            principal_type: text(owner_kind),
            principal_name: text(owner_name),
            token_requester_principal_type: text(kind),
            token_requester_principal_name: text(name),
            issue_timestamp_ms: now,
            expiry_timestamp_ms: expiration,
            max_timestamp_ms: max_timestamp,
            token_id: token_id.into(),
            hmac: hmac.into(),
            throttle_time_ms: 0,
        })
    }

    /// The token whose HMAC was presented, if the requester may renew it.
    fn renewable_token(&self, hmac: &[u8], context: &RequestContext<'_>) -> Result<&DelegationToken, ErrorCode> {
        let secret = self.token_secret(context)?.as_bytes();
        let has_hmac =
            |token: &&std::sync::Arc<DelegationToken>| hmac_sha512(secret, token.token_id.as_bytes()) == hmac;
        let token = self.image.tokens.tokens.values().find(has_hmac).ok_or(ErrorCode::DelegationTokenNotFound)?;
        let requester = context.principal;
        let may_renew = *token.owner == *requester || token.renewers.iter().any(|renewer| **renewer == *requester);
        if may_renew { Ok(token) } else { Err(ErrorCode::DelegationTokenOwnerMismatch) }
    }

    pub(crate) fn renew_delegation_token(
        &self,
        request: &RenewDelegationTokenRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let now = context.now.wall.0;
        let renewed = self.renewable_token(&request.hmac, context).and_then(|token| {
            if token.expiration_timestamp.0 < now || token.max_timestamp.0 < now {
                return Err(ErrorCode::DelegationTokenExpired);
            }
            let usual = self.config.delegation_token_expiry_time_ms;
            let period = if request.renew_period_ms < 0 { usual } else { usual.min(request.renew_period_ms) };
            let expiration = token.max_timestamp.0.min(now.saturating_add(period));
            Ok((token_record(token, expiration), expiration))
        });
        let (records, error_code, expiry_timestamp_ms) = match renewed {
            Ok((change, expiration)) => (vec![change], 0, expiration),
            Err(error) => (Vec::new(), error.code(), -1),
        };
        Outcome::atomic(records, RenewDelegationTokenResponse { error_code, expiry_timestamp_ms, throttle_time_ms: 0 })
    }

    pub(crate) fn expire_delegation_token(
        &self,
        request: &ExpireDelegationTokenRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let now = context.now.wall.0;
        let expired = self.renewable_token(&request.hmac, context).and_then(|token| {
            if request.expiry_time_period_ms < 0 {
                return Ok((removal(token), now));
            }
            if token.expiration_timestamp.0 < now || token.max_timestamp.0 < now {
                return Err(ErrorCode::DelegationTokenExpired);
            }
            let expiration = token.max_timestamp.0.min(now.saturating_add(request.expiry_time_period_ms));
            Ok((token_record(token, expiration), expiration))
        });
        let (records, error_code, expiry_timestamp_ms) = match expired {
            Ok((change, expiration)) => (vec![change], 0, expiration),
            Err(error) => (Vec::new(), error.code(), -1),
        };
        Outcome::atomic(records, ExpireDelegationTokenResponse { error_code, expiry_timestamp_ms, throttle_time_ms: 0 })
    }

    /// A run of the expiry task: removals of at most [`MAX_REMOVALS_PER_RUN`] tokens.
    pub(crate) fn expire_tokens(&self, now: TimestampMs) -> Vec<RecordAndVersion> {
        let tokens = self.image.tokens.tokens.values();
        let expired = tokens.filter(|token| token.expiration_timestamp < now || token.max_timestamp < now);
        expired.take(MAX_REMOVALS_PER_RUN).map(|token| removal(token)).collect()
    }
}
