//! Control records of the metadata log and of snapshots: leader change, snapshot header and footer, `kraft.version`,
//! voters.

use bytes::Bytes;

use ringlog_protocol::raft_records::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
    leader_change_message, voters_record,
};
use ringlog_protocol::records::{self, BatchError, BatchRef, ControlRecordType, Scratch};
use ringlog_protocol::{DecodeError, Message, StrBytes};
use ringlog_types::{LeaderEpoch, NodeId, Offset, TimestampMs};

use crate::voters::{Endpoint, ReplicaKey, VersionRange, Voter, VoterSet};

/// A compressed control batch may grow to this many bytes; nobody compresses them.
const MAX_CONTROL_BATCH_LEN: usize = 1024 * 1024;

/// A control record, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlRecord {
    /// First record of an epoch.
    LeaderChange {
        /// Who leads.
        leader_id: NodeId,
        /// All voters.
        voter_ids: Vec<NodeId>,
        /// Those that voted for the leader.
        granting_ids: Vec<NodeId>,
    },
    /// Begins a snapshot.
    SnapshotHeader {
        /// Time of the last record that the snapshot covers.
        last_contained_log_timestamp: TimestampMs,
    },
    /// Ends a snapshot.
    SnapshotFooter,
    /// The level of `kraft.version` from here on.
    KRaftVersion(i16),
    /// The voter set from here on.
    Voters(VoterSet),
}

/// A control record can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlRecordError {
    /// The batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The record doesn't decode.
    #[error("control record at offset {0}: {1}")]
    Decode(Offset, DecodeError),
    /// A record of another type, without a value, or with a version that this release doesn't know.
    #[error("control record at offset {0} has an unknown type or version")]
    Unknown(Offset),
    /// The voter set names a node twice, an empty host, or too many voters.
    #[error("voter set at offset {0} is invalid")]
    InvalidVoters(Offset),
}

impl ControlRecord {
    /// The type in the record's key.
    pub fn record_type(&self) -> ControlRecordType {
        match self {
            ControlRecord::LeaderChange { .. } => ControlRecordType::LeaderChange,
            ControlRecord::SnapshotHeader { .. } => ControlRecordType::SnapshotHeader,
            ControlRecord::SnapshotFooter => ControlRecordType::SnapshotFooter,
            ControlRecord::KRaftVersion(_) => ControlRecordType::KRaftVersion,
            ControlRecord::Voters(_) => ControlRecordType::KRaftVoters,
        }
    }

    /// The record's value: version 0 of each schema, as Kafka 4.3.1 writes them.
    pub fn value(&self) -> Bytes {
        let bytes = match self {
            ControlRecord::LeaderChange { leader_id, voter_ids, granting_ids } => {
                let voters = |ids: &[NodeId]| {
                    ids.iter()
                        .map(|id| leader_change_message::Voter { voter_id: id.0, ..Default::default() })
                        .collect::<Vec<_>>()
                };
                LeaderChangeMessage {
                    version: 0,
                    leader_id: leader_id.0,
                    voters: voters(voter_ids),
                    granting_voters: voters(granting_ids),
                }
                .to_bytes(0)
            }
            ControlRecord::SnapshotHeader { last_contained_log_timestamp } => {
                SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: last_contained_log_timestamp.0 }
                    .to_bytes(0)
            }
            ControlRecord::SnapshotFooter => SnapshotFooterRecord { version: 0 }.to_bytes(0),
            ControlRecord::KRaftVersion(level) => KRaftVersionRecord { version: 0, kraft_version: *level }.to_bytes(0),
            ControlRecord::Voters(voters) => voters_to_record(voters).to_bytes(0),
        };
        bytes.expect("control records have a version 0 and fit into it")
    }

    /// Reads the records of a control batch, with their offsets. The CRC isn't checked here.
    pub fn parse_batch(batch: &BatchRef<'_>) -> Result<Vec<(Offset, ControlRecord)>, ControlRecordError> {
        let mut scratch = Scratch::new(MAX_CONTROL_BATCH_LEN);
        let mut found = Vec::new();
        for record in batch.records(&mut scratch)? {
            let record = record?;
            let unknown = ControlRecordError::Unknown(record.offset);
            let record_type = record.key.and_then(ControlRecordType::parse_key).ok_or(unknown.clone())?;
            let value = Bytes::copy_from_slice(record.value.ok_or(unknown)?);
            found.push((record.offset, parse(record.offset, record_type, value)?));
        }
        Ok(found)
    }
}

fn parse(offset: Offset, record_type: ControlRecordType, value: Bytes) -> Result<ControlRecord, ControlRecordError> {
    // The schema's first field is the version, which says how the rest is laid out.
    let unknown = ControlRecordError::Unknown(offset);
    let version = value.first_chunk::<2>().map(|bytes| i16::from_be_bytes(*bytes)).ok_or(unknown.clone())?;
    fn read<M: Message>(value: Bytes, version: i16, offset: Offset) -> Result<M, ControlRecordError> {
        if version < M::MIN_VERSION || version > M::MAX_VERSION {
            return Err(ControlRecordError::Unknown(offset));
        }
        M::from_bytes(value, version).map_err(|error| ControlRecordError::Decode(offset, error))
    }
    Ok(match record_type {
        ControlRecordType::LeaderChange => {
            let message: LeaderChangeMessage = read(value, version, offset)?;
            let ids = |voters: &[leader_change_message::Voter]| voters.iter().map(|v| NodeId(v.voter_id)).collect();
            ControlRecord::LeaderChange {
                leader_id: NodeId(message.leader_id),
                voter_ids: ids(&message.voters),
                granting_ids: ids(&message.granting_voters),
            }
        }
        ControlRecordType::SnapshotHeader => {
            let header: SnapshotHeaderRecord = read(value, version, offset)?;
            let last_contained_log_timestamp = TimestampMs(header.last_contained_log_timestamp);
            ControlRecord::SnapshotHeader { last_contained_log_timestamp }
        }
        ControlRecordType::SnapshotFooter => {
            read::<SnapshotFooterRecord>(value, version, offset)?;
            ControlRecord::SnapshotFooter
        }
        ControlRecordType::KRaftVersion => {
            ControlRecord::KRaftVersion(read::<KRaftVersionRecord>(value, version, offset)?.kraft_version)
        }
        ControlRecordType::KRaftVoters => {
            let record: VotersRecord = read(value, version, offset)?;
            ControlRecord::Voters(voters_from_record(&record).ok_or(ControlRecordError::InvalidVoters(offset))?)
        }
        ControlRecordType::Abort | ControlRecordType::Commit => return Err(unknown),
    })
}

fn voters_to_record(voters: &VoterSet) -> VotersRecord {
    let voter = |voter: &Voter| voters_record::Voter {
        voter_id: voter.key.id.0,
        voter_directory_id: voter.key.wire_directory_id(),
        endpoints: voter
            .endpoints
            .iter()
            .map(|(name, endpoint)| voters_record::Endpoint {
                name: StrBytes::copy_from(name),
                host: StrBytes::copy_from(&endpoint.host),
                port: endpoint.port,
            })
            .collect(),
        kraft_version_feature: voters_record::KRaftVersionFeature {
            min_supported_version: voter.kraft_version.min,
            max_supported_version: voter.kraft_version.max,
        },
    };
    VotersRecord { version: 0, voters: voters.iter().map(voter).collect() }
}

fn voters_from_record(record: &VotersRecord) -> Option<VoterSet> {
    let voter = |voter: &voters_record::Voter| Voter {
        key: ReplicaKey::from_wire(voter.voter_id, voter.voter_directory_id),
        endpoints: voter
            .endpoints
            .iter()
            .map(|e| (e.name.as_str().to_owned(), Endpoint { host: e.host.as_str().to_owned(), port: e.port }))
            .collect(),
        kraft_version: VersionRange {
            min: voter.kraft_version_feature.min_supported_version,
            max: voter.kraft_version_feature.max_supported_version,
        },
    };
    if record.voters.iter().any(|voter| voter.voter_id < 0) {
        return None;
    }
    VoterSet::new(record.voters.iter().map(voter)).filter(|set| !set.is_empty())
}

/// One control batch with these records.
pub fn control_batch(
    base_offset: Offset,
    epoch: LeaderEpoch,
    timestamp: TimestampMs,
    control_records: &[ControlRecord],
) -> Bytes {
    let values: Vec<Bytes> = control_records.iter().map(ControlRecord::value).collect();
    let pairs: Vec<_> =
        control_records.iter().zip(&values).map(|(record, value)| (record.record_type(), &value[..])).collect();
    records::control_batch(base_offset, epoch, timestamp, &pairs)
}
