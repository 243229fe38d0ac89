//! IncrementalAlterConfigs: what an operation makes of a key's present value.

use ringlog_types::ErrorCode;

use crate::definition::ConfigType;
use crate::registry::{self, Registry};

/// A resource that can be configured dynamically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum ResourceKind {
    /// A topic.
    Topic = 2,
    /// A broker by its id, or all brokers by the empty name.
    Broker = 4,
    /// A client metrics subscription.
    ClientMetrics = 16,
    /// A group.
    Group = 32,
}

impl ResourceKind {
    /// The code on the wire.
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// The kind of that code. Code 8, a broker's logger, is none: it has no configuration in the metadata log.
    pub fn from_code(code: i8) -> Option<ResourceKind> {
        let all = [ResourceKind::Topic, ResourceKind::Broker, ResourceKind::ClientMetrics, ResourceKind::Group];
        all.into_iter().find(|kind| kind.code() == code)
    }

    /// The keys of this kind.
    pub fn registry(self) -> &'static Registry {
        match self {
            ResourceKind::Topic => registry::topic(),
            ResourceKind::Broker => registry::broker(),
            ResourceKind::ClientMetrics => registry::client_metrics(),
            ResourceKind::Group => registry::group(),
        }
    }
}

/// What an IncrementalAlterConfigs request does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum AlterOp {
    /// Sets the value.
    Set = 0,
    /// Removes it, so that a weaker layer or the default holds.
    Delete = 1,
    /// Adds elements to a list.
    Append = 2,
    /// Takes elements from a list.
    Subtract = 3,
}

impl AlterOp {
    /// The operation of that code on the wire.
    pub fn from_code(code: i8) -> Option<AlterOp> {
        [AlterOp::Set, AlterOp::Delete, AlterOp::Append, AlterOp::Subtract].into_iter().find(|op| *op as i8 == code)
    }

    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            AlterOp::Set => "SET",
            AlterOp::Delete => "DELETE",
            AlterOp::Append => "APPEND",
            AlterOp::Subtract => "SUBTRACT",
        }
    }
}

/// Why an operation can't be done. The texts are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// The operation needs a value. Error INVALID_REQUEST.
    #[error("Null value not supported for : {0}")]
    NullValue(String),
    /// Only lists have elements. Error INVALID_CONFIG.
    #[error("Can't {op} to key {key} because its type is not LIST.")]
    NotAList {
        /// The operation.
        op: &'static str,
        /// The key.
        key: String,
    },
    /// The same of a broker's key. Error INVALID_CONFIG.
    #[error("Config value {op} is not allowed for config key: {key}")]
    NotAListOfBroker {
        /// The operation, in lower case.
        op: &'static str,
        /// The key.
        key: String,
    },
}

impl AlterError {
    /// The error code that goes with it.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            AlterError::NullValue(_) => ErrorCode::InvalidRequest,
            AlterError::NotAList { .. } | AlterError::NotAListOfBroker { .. } => ErrorCode::InvalidConfig,
        }
    }
}

/// What `key` holds after `op` with `value`; none: it is no longer set. An appended element that is there already isn't
/// added again; without a present value a list begins with the key's default. As in Kafka, lists of client metrics
/// subscriptions can't be appended to.
pub fn apply(
    kind: ResourceKind,
    key: &str,
    present: Option<&str>,
    op: AlterOp,
    value: Option<&str>,
) -> Result<Option<String>, AlterError> {
    let value = match (op, value) {
        (AlterOp::Delete, _) => return Ok(None),
        (_, None) => return Err(AlterError::NullValue(key.to_owned())),
        (AlterOp::Set, Some(value)) => return Ok(Some(value.to_owned())),
        (_, Some(value)) => value,
    };
    let definition = kind.registry().get(key).filter(|_| kind != ResourceKind::ClientMetrics);
    let Some(definition) = definition.filter(|definition| definition.config_type == ConfigType::List) else {
        let key = key.to_owned();
        return Err(match (kind, op) {
            (ResourceKind::Broker, AlterOp::Append) => AlterError::NotAListOfBroker { op: "append", key },
            (ResourceKind::Broker, _) => AlterError::NotAListOfBroker { op: "subtract", key },
            _ => AlterError::NotAList { op: op.name(), key },
        });
    };
    let present = present.or(definition.default.value()).unwrap_or_default();
    let mut elements: Vec<&str> = present.split(',').filter(|element| !element.is_empty()).collect();
    for element in value.split(',') {
        let position = elements.iter().position(|one| *one == element);
        match (op, position) {
            (AlterOp::Append, None) => elements.push(element),
            (AlterOp::Subtract, Some(position)) => drop(elements.remove(position)),
            _ => {}
        }
    }
    Ok(Some(elements.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(key: &str, present: Option<&str>, op: AlterOp, value: Option<&str>) -> Result<Option<String>, String> {
        apply(ResourceKind::Topic, key, present, op, value).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_grow_from_their_default_and_shrink_to_nothing() {
        let ok = |text: &str| Ok(Some(text.to_owned()));
        let policy = "cleanup.policy";
        assert_eq!(run(policy, None, AlterOp::Append, Some("compact")), ok("delete,compact"));
        assert_eq!(run(policy, None, AlterOp::Append, Some("delete")), ok("delete"));
        assert_eq!(run(policy, Some("delete,compact"), AlterOp::Subtract, Some("delete,compact")), ok(""));
        assert_eq!(run(policy, None, AlterOp::Subtract, Some("nothere")), ok("delete"));
        let throttled = "leader.replication.throttled.replicas";
        assert_eq!(run(throttled, None, AlterOp::Append, Some("0:1")), ok("0:1"));
        assert_eq!(run(throttled, Some("0:1"), AlterOp::Append, Some("")), ok("0:1,"));
    }

    #[test]
    fn set_and_delete_take_any_key() {
        assert_eq!(run("retention.ms", Some("1"), AlterOp::Set, Some("2")), Ok(Some("2".to_owned())));
        assert_eq!(run("retention.ms", Some("1"), AlterOp::Delete, None), Ok(None));
        assert_eq!(run("nope", None, AlterOp::Delete, Some("")), Ok(None));
    }

    #[test]
    fn refusals_are_kafkas() {
        let text = "Can't APPEND to key retention.ms because its type is not LIST.";
        assert_eq!(run("retention.ms", None, AlterOp::Append, Some("5")), Err(text.to_owned()));
        let text = "Can't SUBTRACT to key nope because its type is not LIST.";
        assert_eq!(run("nope", None, AlterOp::Subtract, Some("5")), Err(text.to_owned()));
        for op in [AlterOp::Set, AlterOp::Append] {
            let text = "Null value not supported for : cleanup.policy";
            assert_eq!(run("cleanup.policy", None, op, None), Err(text.to_owned()));
        }
        let text = "Config value append is not allowed for config key: num.io.threads";
        let refused = apply(ResourceKind::Broker, "num.io.threads", None, AlterOp::Append, Some("1"));
        assert_eq!(refused.map_err(|error| error.to_string()), Err(text.to_owned()));
        let refused = apply(ResourceKind::ClientMetrics, "metrics", None, AlterOp::Append, Some("x"));
        assert_eq!(refused.map_err(|error| error.error_code()), Err(ErrorCode::InvalidConfig));
        assert_eq!(AlterOp::from_code(3), Some(AlterOp::Subtract));
        assert_eq!(AlterOp::from_code(4), None);
    }
}
