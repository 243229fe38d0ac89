//! Failures under the names of Kafka's exceptions: its administrative tools print them, and scripts look for them.

use std::io::ErrorKind;

use ringlog_client::ClientError;
use ringlog_protocol::{ApiKey, EncodeError, StrBytes};
use ringlog_types::ErrorCode;

/// The package of most of them.
const PACKAGE: &str = "org.apache.kafka.common.errors";

/// An exception of Kafka's tools and clients. It is shown as Java shows it: the class, and what happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}{}{message}", if message.is_empty() { "" } else { ": " })]
pub struct Exception {
    /// The class with its package.
    pub class: String,
    /// What happened.
    pub message: String,
}

impl Exception {
    /// An exception of this class; one without a package is one of the common errors.
    pub fn new(class: &str, message: impl Into<String>) -> Exception {
        let class = if class.contains('.') { class.to_owned() } else { format!("{PACKAGE}.{class}") };
        Exception { class, message: message.into() }
    }

    /// A configuration that can't be.
    pub fn config(message: impl Into<String>) -> Exception {
        Exception::new("org.apache.kafka.common.config.ConfigException", message)
    }

    /// An argument that can't be.
    pub fn argument(message: impl Into<String>) -> Exception {
        Exception::new("java.lang.IllegalArgumentException", message)
    }

    /// A file that can't be read.
    pub fn file(path: &str, fault: &std::io::Error) -> Exception {
        match fault.kind() {
            ErrorKind::NotFound => Exception::new("java.nio.file.NoSuchFileException", path),
            ErrorKind::PermissionDenied => Exception::new("java.nio.file.AccessDeniedException", path),
            ErrorKind::IsADirectory => Exception::new("java.io.IOException", "Is a directory"),
            _ => Exception::new("java.io.IOException", format!("{path}: {fault}")),
        }
    }

    /// That an answer, or a node to ask, didn't come in time.
    pub fn timeout(message: impl Into<String>) -> Exception {
        Exception::new("TimeoutException", message)
    }

    /// What a node's answer says, if it isn't that all went well. A node may leave the words to the client.
    pub fn check(code: i16, message: Option<&StrBytes>) -> Result<(), Exception> {
        match code {
            0 => Ok(()),
            code => Err(Exception::of_code(code, message.map(StrBytes::as_str))),
        }
    }

    fn of_code(code: i16, message: Option<&str>) -> Exception {
        let code = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
        Exception::new(&class(code), message.unwrap_or_else(|| default_message(code)))
    }

    /// Why `call`, by the name that Kafka's client gives it, got no answer.
    pub fn of_client(fault: &ClientError, call: &str) -> Exception {
        match fault {
            // Kafka's client doesn't tell either what it met while it waited.
            fault if fault.is_retriable() || matches!(fault, ClientError::OutOfTime) => {
                Exception::timeout(format!("Timed out waiting for a node assignment. Call: {call}"))
            }
            fault => Exception::of_fault(fault),
        }
    }

    /// What stands in the way of a client that doesn't wait for anything.
    pub fn of_fault(fault: &ClientError) -> Exception {
        match fault {
            ClientError::Broker { code, message, .. } => Exception::of_code(*code, message.as_deref()),
            ClientError::UnsupportedApi { api, .. } => {
                let message = format!("The node does not support {}", upper_name(*api));
                Exception::new("UnsupportedVersionException", message)
            }
            ClientError::Encode { source: EncodeError::FieldNotInVersion { field, version }, .. } => {
                let field = field.rsplit('.').next().unwrap_or_default();
                let (first, rest) = field.split_at(field.len().min(1));
                let field = first.to_ascii_lowercase() + rest;
                let message = format!("Attempted to write a non-default {field} at version {version}");
                Exception::new("UnsupportedVersionException", message)
            }
            ClientError::NoOffset(_) => {
                let class = "org.apache.kafka.clients.consumer.NoOffsetForPartitionException";
                Exception::new(class, fault.to_string())
            }
            ClientError::OffsetOutOfRange { .. } => {
                Exception::new("org.apache.kafka.clients.consumer.OffsetOutOfRangeException", fault.to_string())
            }
            ClientError::OutOfTime => Exception::timeout(""),
            ClientError::Timeout { .. } => Exception::timeout(fault.to_string()),
            ClientError::Connect { .. } | ClientError::Closed { .. } | ClientError::Io { .. } => {
                Exception::new("NetworkException", fault.to_string())
            }
            ClientError::CorruptBatch { .. } => Exception::new("CorruptRecordException", fault.to_string()),
            fault => Exception::new("UnknownServerException", fault.to_string()),
        }
    }
}

/// `DescribeQuorum` as `DESCRIBE_QUORUM`.
fn upper_name(api: ApiKey) -> String {
    let mut name = String::new();
    for letter in api.name().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The exception of a code: most are called as the code is, these aren't.
fn class(code: ErrorCode) -> String {
    use ErrorCode as Code;
    let irregular = match code {
        Code::UnknownServerError => "UnknownServerException",
        Code::CorruptMessage => "CorruptRecordException",
        Code::RequestTimedOut => "TimeoutException",
        Code::MessageTooLarge => "RecordTooLargeException",
        Code::StaleControllerEpoch => "ControllerMovedException",
        Code::OffsetMetadataTooLarge => "OffsetMetadataTooLarge",
        Code::RecordListTooLarge => "RecordBatchTooLargeException",
        Code::TopicAlreadyExists => "TopicExistsException",
        Code::InvalidConfig => "InvalidConfigurationException",
        Code::OutOfOrderSequenceNumber => "OutOfOrderSequenceException",
        Code::DuplicateSequenceNumber => "DuplicateSequenceException",
        Code::InvalidProducerIdMapping => "InvalidPidMappingException",
        Code::InvalidTransactionTimeout => "InvalidTxnTimeoutException",
        Code::DelegationTokenAuthDisabled => "DelegationTokenDisabledException",
        Code::DelegationTokenRequestNotAllowed => "UnsupportedByAuthenticationException",
        Code::FeatureUpdateFailed => "FeatureUpdateFailedException",
        Code::NonEmptyGroup => "GroupNotEmptyException",
        Code::InvalidRegularExpression => "InvalidRegularExpression",
        _ => "",
    };
    if !irregular.is_empty() {
        return irregular.to_owned();
    }
    let capitalized = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_owned() + &rest.to_ascii_lowercase()
    };
    let name: String = code.name().split('_').map(capitalized).collect();
    let stem = ["Failed", "Failure", "Error", "Exception"].iter().find_map(|end| name.strip_suffix(end));
    format!("{}Exception", stem.unwrap_or(&name))
}

/// What Kafka's client says where the node said nothing, for the codes that administrative requests meet.
fn default_message(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UnknownServerError => "The server experienced an unexpected error when processing the request.",
        ErrorCode::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        ErrorCode::NotLeaderOrFollower => {
            "For requests intended only for the leader, this error indicates that the broker is not the current leader. \
             For requests intended for any replica, this error indicates that the broker is not a replica of the topic \
             partition."
        }
        ErrorCode::RequestTimedOut => "The request timed out.",
        ErrorCode::BrokerNotAvailable => "The broker is not available.",
        ErrorCode::ClusterAuthorizationFailed => "Cluster authorization failed.",
        ErrorCode::UnsupportedVersion => "The version of API is not supported.",
        ErrorCode::InvalidRequest => {
            "This most likely occurs because of a request being malformed by the client library or the message was sent \
             to an incompatible broker. See the broker logs for more details."
        }
        ErrorCode::InvalidUpdateVersion => "The given update version was invalid.",
        ErrorCode::InconsistentClusterId => "The clusterId in the request does not match that found on the server.",
        ErrorCode::DuplicateVoter => "The voter is already part of the set of voters.",
        ErrorCode::VoterNotFound => "The voter is not part of the set of voters.",
        ErrorCode::KafkaStorageError => "Disk error when trying to access log file on the disk.",
        ErrorCode::LogDirNotFound => "The user-specified log directory is not found in the broker config.",
        code => code.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_kafkas_clients() {
        for (code, expected) in [
            (ErrorCode::VoterNotFound, "VoterNotFoundException"),
            (ErrorCode::ClusterAuthorizationFailed, "ClusterAuthorizationException"),
            (ErrorCode::InvalidTopicException, "InvalidTopicException"),
            (ErrorCode::KafkaStorageError, "KafkaStorageException"),
            (ErrorCode::FetchSessionTopicIdError, "FetchSessionTopicIdException"),
            (ErrorCode::PrincipalDeserializationFailure, "PrincipalDeserializationException"),
            (ErrorCode::NetworkException, "NetworkException"),
            (ErrorCode::MismatchedEndpointType, "MismatchedEndpointTypeException"),
            (ErrorCode::RequestTimedOut, "TimeoutException"),
        ] {
            assert_eq!(class(code), expected);
        }
    }

    #[test]
    fn a_node_may_leave_the_words_to_the_client() {
        let fault = Exception::check(ErrorCode::DuplicateVoter.code(), None).expect_err("it is an error");
        assert_eq!(
            fault.to_string(),
            "org.apache.kafka.common.errors.DuplicateVoterException: The voter is already part of the set of voters."
        );
        let fault = Exception::check(999, Some(&StrBytes::from("never heard of"))).expect_err("it is an error");
        assert_eq!(fault, Exception::new("UnknownServerException", "never heard of"));
        assert_eq!(Exception::check(0, None), Ok(()));
        assert_eq!(upper_name(ApiKey::AddRaftVoter), "ADD_RAFT_VOTER");
    }
}
