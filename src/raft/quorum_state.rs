//! The `quorum-state` file: what a node must not forget about elections. One line of JSON, byte for byte as Kafka
//! writes it, in its versions 0 (`kraft.version` 0) and 1.

use ringlog_types::{LeaderEpoch, NodeId, Uuid};
use serde::{Deserialize, Serialize};

use crate::voters::ReplicaKey;

/// The file's name in the metadata log's directory. Replace it by writing `quorum-state.tmp`, fsync, rename, fsync
/// of the directory.
pub const FILE_NAME: &str = "quorum-state";

/// Longest file that is read, in bytes. Kafka's are about 100, plus 15 per voter in version 0.
const MAX_FILE_LEN: usize = 64 * 1024;

/// The durable part of the election state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumState {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The leader of the epoch, if known.
    pub leader_id: Option<NodeId>,
    /// Who got our vote in this epoch.
    pub voted: Option<ReplicaKey>,
    /// Version of the file.
    pub version: QuorumStateVersion,
}

/// Which layout the file has or gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuorumStateVersion {
    /// `data_version` 0, with the ids of the voters.
    V0 {
        /// Ids of the voters, informational.
        voter_ids: Vec<NodeId>,
    },
    /// `data_version` 1, with the directory id of the voted-for.
    V1,
}

/// The file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuorumStateError {
    /// Not the JSON that it should be.
    #[error("quorum-state is damaged: {0}")]
    Damaged(String),
    /// Written by something newer.
    #[error("quorum-state has data_version {0}, this release reads 0 and 1")]
    UnknownVersion(i64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileV0 {
    cluster_id: String,
    leader_id: i32,
    leader_epoch: i32,
    voted_id: i32,
    applied_offset: i64,
    current_voters: Option<Vec<FileVoter>>,
    #[serde(rename = "data_version")]
    data_version: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileVoter {
    voter_id: i32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileV1 {
    leader_id: i32,
    leader_epoch: i32,
    voted_id: i32,
    voted_directory_id: String,
    #[serde(rename = "data_version")]
    data_version: i64,
}

#[derive(Deserialize)]
struct FileVersion {
    data_version: i64,
}

impl QuorumState {
    /// The file's bytes.
    pub fn to_json(&self) -> String {
        let leader_id = self.leader_id.unwrap_or(NodeId::NONE).0;
        let leader_epoch = self.epoch.0;
        let voted_id = self.voted.map_or(-1, |key| key.id.0);
        let json = match &self.version {
            QuorumStateVersion::V0 { voter_ids } => serde_json::to_string(&FileV0 {
                cluster_id: String::new(),
                leader_id,
                leader_epoch,
                voted_id,
                applied_offset: 0,
                current_voters: Some(voter_ids.iter().map(|id| FileVoter { voter_id: id.0 }).collect()),
                data_version: 0,
            }),
            QuorumStateVersion::V1 => serde_json::to_string(&FileV1 {
                leader_id,
                leader_epoch,
                voted_id,
                voted_directory_id: self.voted.map_or(Uuid::ZERO, ReplicaKey::wire_directory_id).to_string(),
                data_version: 1,
            }),
        };
        json.expect("plain structs of numbers and strings serialize")
    }

    /// Reads the file's bytes, either version.
    pub fn from_json(bytes: &[u8]) -> Result<QuorumState, QuorumStateError> {
        let damaged = |error: &dyn std::fmt::Display| QuorumStateError::Damaged(error.to_string());
        if bytes.len() > MAX_FILE_LEN {
            return Err(damaged(&format_args!("{} bytes long", bytes.len())));
        }
        let version: FileVersion = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        let (leader_id, epoch, voted, version) = match version.data_version {
            0 => {
                let file: FileV0 = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
                let voter_ids = file.current_voters.unwrap_or_default().iter().map(|v| NodeId(v.voter_id)).collect();
                let voted = ReplicaKey { id: NodeId(file.voted_id), directory_id: None };
                (file.leader_id, file.leader_epoch, voted, QuorumStateVersion::V0 { voter_ids })
            }
            1 => {
                let file: FileV1 = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
                let directory_id: Uuid = file.voted_directory_id.parse().map_err(|error| damaged(&error))?;
                let voted = ReplicaKey::from_wire(file.voted_id, directory_id);
                (file.leader_id, file.leader_epoch, voted, QuorumStateVersion::V1)
            }
            other => return Err(QuorumStateError::UnknownVersion(other)),
        };
        if epoch < 0 || leader_id < -1 || voted.id.0 < -1 {
            return Err(damaged(&"a negative epoch or id"));
        }
        Ok(QuorumState {
            epoch: LeaderEpoch(epoch),
            leader_id: (leader_id >= 0).then_some(NodeId(leader_id)),
            voted: (voted.id.0 >= 0).then_some(voted),
            version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = r#"{"clusterId":"","leaderId":1,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#;
    const V1: &str =
        r#"{"leaderId":2,"leaderEpoch":2,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;

    #[test]
    fn kafkas_files_come_back_byte_for_byte() {
        let state = QuorumState::from_json(V0.as_bytes()).unwrap();
        assert_eq!((state.epoch, state.leader_id, state.voted), (LeaderEpoch(1), Some(NodeId(1)), None));
        assert_eq!(state.to_json(), V0);
        let state = QuorumState::from_json(V1.as_bytes()).unwrap();
        assert_eq!((state.epoch, state.leader_id, state.voted), (LeaderEpoch(2), Some(NodeId(2)), None));
        assert_eq!(state.to_json(), V1);
    }

    #[test]
    fn a_vote_keeps_its_directory_in_version_1_only() {
        let voted = ReplicaKey { id: NodeId(3), directory_id: Some("JEXY6aqzQY-32P5TStzaFg".parse().unwrap()) };
        let mut state =
            QuorumState { epoch: LeaderEpoch(7), leader_id: None, voted: Some(voted), version: QuorumStateVersion::V1 };
        assert_eq!(QuorumState::from_json(state.to_json().as_bytes()).unwrap().voted, Some(voted));
        state.version = QuorumStateVersion::V0 { voter_ids: vec![NodeId(3)] };
        let read = QuorumState::from_json(state.to_json().as_bytes()).unwrap();
        assert_eq!(read.voted, Some(ReplicaKey { id: NodeId(3), directory_id: None }));
    }

    #[test]
    fn damaged_files_are_refused() {
        for text in ["", "{}", "null", &V0[..40], &V1.replace("\"leaderEpoch\":2", "\"leaderEpoch\":-3")] {
            assert!(matches!(QuorumState::from_json(text.as_bytes()), Err(QuorumStateError::Damaged(_))), "{text}");
        }
        let newer = V1.replace("\"data_version\":1", "\"data_version\":2");
        assert_eq!(QuorumState::from_json(newer.as_bytes()), Err(QuorumStateError::UnknownVersion(2)));
    }
}
