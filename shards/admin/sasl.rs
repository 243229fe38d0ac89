//! SaslHandshake and SaslAuthenticate on a listener without SASL, where nothing is left to negotiate.

use ringlog_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use ringlog_types::ErrorCode;

/// The answer to SaslHandshake.
pub fn handshake() -> SaslHandshakeResponse {
    SaslHandshakeResponse { error_code: ErrorCode::IllegalSaslState.code(), ..SaslHandshakeResponse::default() }
}

/// The answer to SaslAuthenticate.
pub fn authenticate() -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some("SaslAuthenticate request received after successful authentication".into()),
        ..SaslAuthenticateResponse::default()
    }
}
