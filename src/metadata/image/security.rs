//! Access control entries, SCRAM credentials and delegation tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_types::{TimestampMs, Uuid};

/// One access control entry. The numbers are those of Kafka's enums.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclEntry {
    /// 2 topic, 3 group, 4 cluster, 5 transactional id, 6 delegation token, 7 user.
    pub resource_type: i8,
    /// The resource's name, or its prefix.
    pub resource_name: Arc<str>,
    /// 3 literal, 4 prefixed.
    pub pattern_type: i8,
    /// Such as `User:alice`.
    pub principal: Arc<str>,
    /// An address, or `*`.
    pub host: Arc<str>,
    /// 2 all, 3 read, 4 write...
    pub operation: i8,
    /// 2 deny, 3 allow.
    pub permission_type: i8,
}

/// All access control entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AclsImage {
    /// Entries by id.
    pub entries: BTreeMap<Uuid, Arc<AclEntry>>,
}

/// A SCRAM mechanism by Kafka's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256 = 1,
    /// SCRAM-SHA-512.
    Sha512 = 2,
}

impl ScramMechanism {
    /// The mechanism that travels as `code`.
    pub fn from_code(code: i8) -> Option<ScramMechanism> {
        match code {
            1 => Some(ScramMechanism::Sha256),
            2 => Some(ScramMechanism::Sha512),
            _ => None,
        }
    }

    /// Its SASL name.
    pub fn name(self) -> &'static str {
        match self {
            ScramMechanism::Sha256 => "SCRAM-SHA-256",
            ScramMechanism::Sha512 => "SCRAM-SHA-512",
        }
    }
}

/// What the server keeps of a SCRAM password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// Salt of the password's hash.
    pub salt: Bytes,
    /// Hash of the client key.
    pub stored_key: Bytes,
    /// The server key.
    pub server_key: Bytes,
    /// Rounds of the hash.
    pub iterations: i32,
}

/// All SCRAM credentials.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScramImage {
    /// Credentials by mechanism and user.
    pub credentials: BTreeMap<(ScramMechanism, Arc<str>), ScramCredential>,
}

/// A delegation token (KIP-48). Its HMAC follows from the id and the cluster's secret, and is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationToken {
    /// The token's id.
    pub token_id: Arc<str>,
    /// The principal for whom it stands, such as `User:alice`.
    pub owner: Arc<str>,
    /// Who asked for it.
    pub requester: Arc<str>,
    /// Who else may renew it.
    pub renewers: Vec<Arc<str>>,
    /// When it was made.
    pub issue_timestamp: TimestampMs,
    /// When it ends at the latest.
    pub max_timestamp: TimestampMs,
    /// When it ends unless renewed.
    pub expiration_timestamp: TimestampMs,
}

/// All delegation tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokensImage {
    /// Tokens by id.
    pub tokens: BTreeMap<Arc<str>, Arc<DelegationToken>>,
}
