//! An error code with the text that Kafka's tools print.

use ringlog_protocol::StrBytes;
use ringlog_types::ErrorCode;

/// What a response says of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<String>,
}

impl ApiError {
    /// An error with its own text.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: Some(message.into()) }
    }

    /// An error with the code's own text, where Kafka sends it. (Most answers leave it to the client, which knows it.)
    pub(crate) fn spelled(code: ErrorCode) -> ApiError {
        let text = match code {
            ErrorCode::UnknownTopicOrPartition => "This server does not host this topic-partition.",
            ErrorCode::UnsupportedVersion => "The version of API is not supported.",
            ErrorCode::UnknownTopicId => "This server does not host this topic ID.",
            ErrorCode::TopicAuthorizationFailed => "Topic authorization failed.",
            ErrorCode::PreferredLeaderNotAvailable => "The preferred leader was not available.",
            ErrorCode::EligibleLeadersNotAvailable => "Eligible topic partition leaders are not available.",
            ErrorCode::ElectionNotNeeded => "Leader election not needed for topic partition.",
            _ => return code.into(),
        };
        ApiError::new(code, text)
    }

    /// The text as it travels.
    pub(crate) fn text(self) -> Option<StrBytes> {
        self.message.map(StrBytes::from)
    }
}

impl From<ErrorCode> for ApiError {
    /// The code alone; clients show the code's own text.
    fn from(code: ErrorCode) -> ApiError {
        ApiError { code, message: None }
    }
}

/// Code and text of a result, for a response's two fields.
pub(crate) fn code_and_text(result: Result<(), ApiError>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(()) => (0, None),
        Err(error) => (error.code.code(), error.text()),
    }
}
