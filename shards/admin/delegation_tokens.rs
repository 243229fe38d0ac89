//! Delegation tokens (KIP-48): refused, as only authenticated connections may ask for them and there are none.

use ringlog_protocol::messages::{
    CreateDelegationTokenResponse, DescribeDelegationTokenResponse, ExpireDelegationTokenResponse,
    RenewDelegationTokenResponse,
};
use ringlog_types::ErrorCode;

const NOT_ALLOWED: i16 = ErrorCode::DelegationTokenRequestNotAllowed.code();

/// Answers CreateDelegationToken.
pub fn create() -> CreateDelegationTokenResponse {
    CreateDelegationTokenResponse { error_code: NOT_ALLOWED, ..Default::default() }
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
