//! Delegation tokens (KIP-48): refused, as only authenticated connections may ask for them and there are none.

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenResponse,
    ExpireDelegationTokenResponse, RenewDelegationTokenResponse,
};
use ringlog_types::ErrorCode;

/// Tokens may be for somebody else from this version of CreateDelegationToken on (KIP-373).
const REQUESTER_SINCE: i16 = 3;
const NOT_ALLOWED: i16 = ErrorCode::DelegationTokenRequestNotAllowed.code();

/// Answers CreateDelegationToken.
pub fn create(request: CreateDelegationTokenRequest, api_version: i16) -> CreateDelegationTokenResponse {
    // Who asks: without authentication nobody is known by name.
    let (requester_type, requester_name) = (StrBytes::from_static("User"), StrBytes::from_static("ANONYMOUS"));
    let owner = match (request.owner_principal_type, request.owner_principal_name) {
        (Some(owner_type), Some(name)) if !name.is_empty() => (owner_type, name),
        _ => (requester_type.clone(), requester_name.clone()),
    };
    let is_told = api_version >= REQUESTER_SINCE;
    let requester = if is_told { (requester_type, requester_name) } else { Default::default() };
    CreateDelegationTokenResponse {
        error_code: NOT_ALLOWED,
        principal_type: owner.0,
        principal_name: owner.1,
        token_requester_principal_type: requester.0,
        token_requester_principal_name: requester.1,
        issue_timestamp_ms: -1,
        expiry_timestamp_ms: -1,
        max_timestamp_ms: -1,
        ..Default::default()
    }
}

/// Answers RenewDelegationToken.
pub fn renew() -> RenewDelegationTokenResponse {
    RenewDelegationTokenResponse { error_code: NOT_ALLOWED, expiry_timestamp_ms: -1, ..Default::default() }
}

/// Answers ExpireDelegationToken.
pub fn expire() -> ExpireDelegationTokenResponse {
    ExpireDelegationTokenResponse { error_code: NOT_ALLOWED, expiry_timestamp_ms: -1, ..Default::default() }
}

/// Answers DescribeDelegationToken.
pub fn describe() -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse { error_code: NOT_ALLOWED, ..Default::default() }
}
