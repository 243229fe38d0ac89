//! The records of `__consumer_offsets`: their bytes, and which of them this crate understands.

use bytes::{BufMut as _, Bytes, BytesMut};
use ringlog_protocol::coordinator_records::group::{
    GroupMetadataKey, GroupMetadataValue, LegacyOffsetCommitKey, LegacyOffsetCommitValue, OffsetCommitKey,
    OffsetCommitValue,
};
use ringlog_protocol::{Message, StrBytes};

use super::api::LogRecord;

/// `GroupMetadataValue` as Kafka 4.3.1 writes it, though it reads version 4 too.
const GROUP_METADATA_VERSION: i16 = 3;
/// `OffsetCommitValue` with the topic id as a tagged field.
const OFFSET_COMMIT_VERSION: i16 = 4;
/// The only version of `OffsetCommitValue` that has an explicit expiry (`RetentionTimeMs` of OffsetCommit 2 to 4).
const OFFSET_COMMIT_EXPIRY_VERSION: i16 = 1;

/// A record that the log holds and this crate can't read; loading fails, as in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A record without a key, which a compacted topic can't have.
    #[error("a record of __consumer_offsets has no key")]
    NoKey,
    /// The key doesn't follow its schema.
    #[error("malformed key of a record of type {type_id} in __consumer_offsets: {reason}")]
    Key {
        /// The record type.
        type_id: i16,
        /// What the decoder says.
        reason: String,
    },
    /// The value doesn't follow its schema, or its version is unknown.
    #[error("malformed value of a record of type {type_id} in __consumer_offsets: {reason}")]
    Value {
        /// The record type.
        type_id: i16,
        /// What the decoder says.
        reason: String,
    },
}

/// Which protocol a group follows, by the name that ListGroups uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GroupType {
    Classic,
    Consumer,
    Share,
    Streams,
}

impl GroupType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Consumer => "consumer",
            GroupType::Share => "share",
            GroupType::Streams => "streams",
        }
    }

    /// The protocol type that ListGroups shows.
    pub(crate) fn protocol_type(self) -> &'static str {
        match self {
            GroupType::Classic | GroupType::Consumer => "consumer",
            GroupType::Share => "share",
            GroupType::Streams => "streams",
        }
    }
}

/// A record of a group of another protocol, of which only the outline is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OtherRecord {
    pub(crate) group_type: GroupType,
    pub(crate) group: StrBytes,
    /// Set for the record that makes a member.
    pub(crate) member: Option<StrBytes>,
    pub(crate) key: Bytes,
    pub(crate) deleted: bool,
}

/// A decoded record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GroupRecord {
    Offset(OffsetCommitKey, Option<OffsetCommitValue>),
    Group(GroupMetadataKey, Option<GroupMetadataValue>),
    Other(OtherRecord),
}

impl GroupRecord {
    pub(crate) fn group(&self) -> &StrBytes {
        match self {
            GroupRecord::Offset(key, _) => &key.group,
            GroupRecord::Group(key, _) => &key.group,
            GroupRecord::Other(record) => &record.group,
        }
    }

    /// A tombstone for a committed offset.
    pub(crate) fn offset_tombstone(group: &StrBytes, topic: &StrBytes, partition: i32) -> GroupRecord {
        GroupRecord::Offset(OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition }, None)
    }

    /// A tombstone for a classic group.
    pub(crate) fn group_tombstone(group: &StrBytes) -> GroupRecord {
        GroupRecord::Group(GroupMetadataKey { group: group.clone() }, None)
    }

    /// The bytes to write. `None` if a field is too long for its format, such as a group id beyond 32 KiB.
    pub(crate) fn encode(&self) -> Option<LogRecord> {
        Some(match self {
            GroupRecord::Offset(key, value) => LogRecord {
                key: prefixed(1, 0, key)?,
                value: match value {
                    Some(value) if value.expire_timestamp != -1 => Some(prefixed(
                        OFFSET_COMMIT_EXPIRY_VERSION,
                        OFFSET_COMMIT_EXPIRY_VERSION,
                        &OffsetCommitValue { leader_epoch: -1, topic_id: Default::default(), ..value.clone() },
                    )?),
                    Some(value) => Some(prefixed(OFFSET_COMMIT_VERSION, OFFSET_COMMIT_VERSION, value)?),
                    None => None,
                },
            },
            GroupRecord::Group(key, value) => LogRecord {
                key: prefixed(2, 0, key)?,
                value: match value {
                    Some(value) => Some(prefixed(GROUP_METADATA_VERSION, GROUP_METADATA_VERSION, value)?),
                    None => None,
                },
            },
            GroupRecord::Other(record) => LogRecord { key: record.key.clone(), value: None },
        })
    }

    /// Reads a record. `Ok(Err(note))` for one to be skipped.
    pub(crate) fn decode(key: Bytes, value: Option<Bytes>) -> Result<Result<GroupRecord, String>, ReplayError> {
        let Some((type_id, fields)) = split_prefix(&key) else {
            return Err(ReplayError::Key { type_id: -1, reason: "shorter than a record type".to_owned() });
        };
        Ok(Ok(match type_id {
            0 => {
                let key: LegacyOffsetCommitKey = decode_key(type_id, fields)?;
                let value: Option<LegacyOffsetCommitValue> = decode_value(type_id, value)?;
                GroupRecord::Offset(
                    OffsetCommitKey { group: key.group, topic: key.topic, partition: key.partition },
                    value.map(|value| OffsetCommitValue {
                        offset: value.offset,
                        metadata: value.metadata,
                        commit_timestamp: value.commit_timestamp,
                        ..Default::default()
                    }),
                )
            }
            1 => GroupRecord::Offset(decode_key(type_id, fields)?, decode_value(type_id, value)?),
            2 => GroupRecord::Group(decode_key(type_id, fields)?, decode_value(type_id, value)?),
            3..=8 | 10..=17 | 19..=23 => GroupRecord::Other(other_record(type_id, key, fields, value.is_none())?),
            _ => {
                return Ok(Err(format!(
                    "a record of unknown type {type_id} in __consumer_offsets is skipped: it may come from a newer \
                     version"
                )));
            }
        }))
    }
}

fn prefixed<M: Message>(prefix: i16, version: i16, message: &M) -> Option<Bytes> {
    let body = message.to_bytes(version).ok()?;
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_i16(prefix);
    bytes.put_slice(&body);
    Some(bytes.freeze())
}

fn split_prefix(bytes: &Bytes) -> Option<(i16, Bytes)> {
    let prefix = bytes.first_chunk::<2>()?;
    Some((i16::from_be_bytes(*prefix), bytes.slice(2..)))
}

fn decode_key<M: Message>(type_id: i16, fields: Bytes) -> Result<M, ReplayError> {
    M::from_bytes(fields, 0).map_err(|error| ReplayError::Key { type_id, reason: error.to_string() })
}

fn decode_value<M: Message>(type_id: i16, value: Option<Bytes>) -> Result<Option<M>, ReplayError> {
    let Some(value) = value else { return Ok(None) };
    let fault = |reason: String| ReplayError::Value { type_id, reason };
    let (version, fields) = split_prefix(&value).ok_or_else(|| fault("shorter than a version".to_owned()))?;
    if !(M::MIN_VERSION..=M::MAX_VERSION).contains(&version) {
        return Err(fault(format!("version {version} is not known")));
    }
    M::from_bytes(fields, version).map(Some).map_err(|error| fault(error.to_string()))
}

/// The keys of all these types begin with the group's id; those of members go on with the member's.
fn other_record(type_id: i16, key: Bytes, mut fields: Bytes, deleted: bool) -> Result<OtherRecord, ReplayError> {
    let group_type = match type_id {
        10..=15 => GroupType::Share,
        17..=23 => GroupType::Streams,
        _ => GroupType::Consumer,
    };
    let mut string = || -> Result<StrBytes, ReplayError> {
        let fault = |reason: &str| ReplayError::Key { type_id, reason: reason.to_owned() };
        let (length, rest) = split_prefix(&fields).ok_or_else(|| fault("cut off"))?;
        let length = usize::try_from(length).map_err(|_| fault("negative length"))?;
        if length > rest.len() {
            return Err(fault("cut off"));
        }
        fields = rest.slice(length..);
        let text = std::str::from_utf8(&rest[..length]).map_err(|_| fault("not UTF-8"))?;
        Ok(StrBytes::copy_from(text))
    };
    let group = string()?;
    let member = if matches!(type_id, 5 | 10 | 19) { Some(string()?) } else { None };
    Ok(OtherRecord { group_type, group, member, key, deleted })
}
