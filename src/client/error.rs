use std::io;

use ringlog_protocol::{ApiKey, DecodeError, EncodeError};
use ringlog_types::ErrorCode;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The bootstrap list isn't `HOST:PORT[,HOST:PORT]…`.
    #[error("Invalid url in bootstrap.servers: {0}")]
    InvalidBootstrap(String),
    /// A port of the bootstrap list is too large.
    #[error("Invalid port in bootstrap.servers: {0}")]
    InvalidBootstrapPort(String),
    /// None of the bootstrap list's hosts has an address.
    #[error("No resolvable bootstrap urls given in bootstrap.servers")]
    UnresolvableBootstrap,
    /// No socket to this address.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// `HOST:PORT`.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// None of the bootstrap servers could be reached.
    #[error("none of the bootstrap servers can be reached: {0}")]
    NoBootstrapServer(String),
    /// The answer did not come in time.
    #[error("{address} did not answer {api} within {timeout_ms} ms")]
    Timeout {
        /// The node's `HOST:PORT`.
        address: String,
        /// What was asked, or what was awaited.
        api: &'static str,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The node closed the connection.
    #[error("{address} closed the connection")]
    Closed {
        /// The node's `HOST:PORT`.
        address: String,
    },
    /// The socket failed.
    #[error("the connection to {address} failed: {source}")]
    Io {
        /// The node's `HOST:PORT`.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The size in front of an answer is negative or larger than the limit.
    #[error("{address} announces an answer of {size} bytes; from 0 to {limit} are taken")]
    FrameSize {
        /// The node's `HOST:PORT`.
        address: String,
        /// What it announced.
        size: i32,
        /// [`crate::ClientOptions::max_frame_bytes`].
        limit: usize,
    },
    /// The answer can't be read.
    #[error("{address} answers {api} with something that is no such answer: {source}")]
    Decode {
        /// The node's `HOST:PORT`.
        address: String,
        /// What was asked.
        api: ApiKey,
        /// What is wrong.
        source: DecodeError,
    },
    /// The answer is for another request than the oldest one.
    #[error("{address} answers request {found} where {expected} is the oldest")]
    Correlation {
        /// The node's `HOST:PORT`.
        address: String,
        /// The oldest request's number.
        expected: i32,
        /// The answer's number.
        found: i32,
    },
    /// The request can't be said in the version that both sides speak.
    #[error("{api} version {version} can't carry this request: {source}")]
    Encode {
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// What is wrong.
        source: EncodeError,
    },
    /// No version of the API is spoken by both sides.
    #[error("{address} doesn't support {api} in a version that this client speaks ({client_min} to {client_max})")]
    UnsupportedApi {
        /// The node's `HOST:PORT`.
        address: String,
        /// The API.
        api: ApiKey,
        /// Lowest version of the client.
        client_min: i16,
        /// Highest version of the client for this call.
        client_max: i16,
    },
    /// Every node that was asked said that another one is the controller.
    #[error("no node takes {api} as the controller")]
    NoController {
        /// The API.
        api: ApiKey,
    },
    /// The node isn't in the cluster's metadata.
    #[error("node {0} is not in the cluster's metadata")]
    UnknownNode(i32),
    /// The node answered with an error.
    #[error("{context}: {}", describe_code(*.code, .message.as_deref()))]
    Broker {
        /// What failed.
        context: String,
        /// Kafka's error code; see [`ErrorCode::from_code`].
        code: i16,
        /// The node's own words.
        message: Option<String>,
    },
    /// A batch of records that was fetched is damaged.
    #[error("{partition}: the fetched batch at offset {offset} can't be read: {reason}")]
    CorruptBatch {
        /// `topic-partition`.
        partition: String,
        /// Where.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// The partition has no committed offset and may not start anywhere else.
    #[error("Undefined offset with no reset policy for partitions: [{0}]")]
    NoOffset(String),
    /// The offset isn't there, and nothing says where to go on.
    #[error("Fetch position {offset} is out of range for partition {partition}")]
    OffsetOutOfRange {
        /// `topic-partition`.
        partition: String,
        /// Where it was to be read.
        offset: i64,
    },
    /// The client's deadline has passed.
    #[error("the time is up")]
    OutOfTime,
    /// [`crate::ClientOptions::stop`] was set.
    #[error("stopped")]
    Stopped,
}

fn describe_code(code: i16, message: Option<&str>) -> String {
    let name = ErrorCode::from_code(code).map_or_else(|| format!("error {code}"), |code| code.name().to_owned());
    match message {
        Some(message) if !message.is_empty() => format!("{message} ({name})"),
        _ => name,
    }
}

impl ClientError {
    /// Ok for code 0, else [`ClientError::Broker`].
    pub fn check(code: i16, message: Option<&str>, context: impl FnOnce() -> String) -> Result<(), ClientError> {
        match code {
            0 => Ok(()),
            // Some of Kafka's answers have an empty text, which says nothing: the code's own is better.
            code => Err(ClientError::Broker {
                context: context(),
                code,
                message: message.filter(|text| !text.is_empty()).map(str::to_owned),
            }),
        }
    }

    /// Kafka's error code, if a node answered with one that is known.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Broker { code, .. } => ErrorCode::from_code(*code),
            _ => None,
        }
    }

    /// Whether the same call may succeed a little later or on another connection.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Connect { .. }
            | ClientError::NoBootstrapServer(_)
            | ClientError::Timeout { .. }
            | ClientError::Closed { .. }
            | ClientError::Io { .. }
            | ClientError::NoController { .. }
            | ClientError::UnknownNode(_) => true,
            ClientError::Broker { .. } => self.code().is_some_and(ErrorCode::is_retriable),
            ClientError::InvalidBootstrap(_)
            | ClientError::InvalidBootstrapPort(_)
            | ClientError::UnresolvableBootstrap
            | ClientError::FrameSize { .. }
            | ClientError::Decode { .. }
            | ClientError::Correlation { .. }
            | ClientError::Encode { .. }
            | ClientError::UnsupportedApi { .. }
            | ClientError::CorruptBatch { .. }
            | ClientError::NoOffset(_)
            | ClientError::OffsetOutOfRange { .. }
            | ClientError::OutOfTime
            | ClientError::Stopped => false,
        }
    }

    /// Whether no node could be reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, ClientError::Connect { .. } | ClientError::NoBootstrapServer(_)) || self.is_connection_lost()
    }

    /// Whether the connection that it came from is of no more use. A wait that ended early leaves an answer behind.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(
            self,
            ClientError::Timeout { .. }
                | ClientError::Closed { .. }
                | ClientError::Io { .. }
                | ClientError::FrameSize { .. }
                | ClientError::Decode { .. }
                | ClientError::Correlation { .. }
                | ClientError::OutOfTime
                | ClientError::Stopped
        )
    }
}
