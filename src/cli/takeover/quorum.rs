//! The controllers' quorum: whether it goes on without the node that is to be replaced.

use std::collections::BTreeSet;

use ringlog_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState};

use super::findings::{Finding, counted};

/// A voter that was last caught up so long before the leader, in milliseconds, is behind.
const BEHIND_MS: i64 = 10_000;

/// What counts of the quorum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuorumState {
    /// The leader, or -1.
    pub leader: i32,
    /// All voters.
    pub voters: BTreeSet<i32>,
    /// Those that have caught up, the leader among them.
    pub current: BTreeSet<i32>,
}

impl QuorumState {
    /// What the leader says.
    pub fn from_partition(partition: &PartitionData) -> QuorumState {
        let leader = partition.current_voters.iter().find(|voter| voter.replica_id == partition.leader_id);
        let now = leader.map_or(-1, |leader| leader.last_caught_up_timestamp);
        let is_current = |voter: &&ReplicaState| {
            let last = voter.last_caught_up_timestamp;
            voter.replica_id == partition.leader_id || (last >= 0 && now.saturating_sub(last) < BEHIND_MS)
        };
        let voters = &partition.current_voters;
        QuorumState {
            leader: partition.leader_id,
            voters: voters.iter().map(|voter| voter.replica_id).collect(),
            current: voters.iter().filter(is_current).map(|voter| voter.replica_id).collect(),
        }
    }
}

/// Judges the quorum. `replaced` is the node whose place is to be taken.
pub fn judge(quorum: &QuorumState, replaced: Option<i32>) -> Vec<Finding> {
    if !quorum.voters.contains(&quorum.leader) {
        return vec![Finding::stop("the quorum of controllers has no leader: have a majority of them back first")];
    }
    let voters = counted(quorum.voters.len(), "voter", "voters");
    let mut findings = vec![Finding::ok(format!("the quorum is led by node {}, of {voters}", quorum.leader))];
    let behind: Vec<String> = quorum.voters.difference(&quorum.current).map(i32::to_string).collect();
    let majority = quorum.voters.len() / 2 + 1;
    // Without a name it may be any of them.
    let is_voter = replaced.is_none_or(|id| quorum.voters.contains(&id));
    let is_current = replaced.is_none_or(|id| quorum.current.contains(&id));
    let left = quorum.current.len() - usize::from(is_voter && is_current);
    if !is_voter {
        if !behind.is_empty() {
            findings.push(Finding::warn(format!("voters are down or behind: {}", behind.join(", "))));
        }
        return findings;
    }
    findings.extend(match (quorum.voters.len(), left >= majority) {
        (1, _) => Some(Finding::warn(
            "the only voter is away while its node is replaced: nothing can be created or elected meanwhile",
        )),
        (_, true) if behind.is_empty() => None,
        (_, true) => Some(Finding::warn(format!("voters are down or behind: {}", behind.join(", ")))),
        (2, false) if behind.is_empty() => Some(Finding::warn(
            "two voters are both needed: nothing can be created or elected while the node of one is replaced",
        )),
        (_, false) => Some(Finding::stop(format!(
            "without a voter the quorum has no majority, since others are down or behind ({}): have them back first",
            behind.join(", ")
        ))),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::super::findings::Level;
    use super::*;

    fn levels(leader: i32, voters: &[i32], current: &[i32], replaced: Option<i32>) -> Vec<Level> {
        let (voters, current) = (voters.iter().copied().collect(), current.iter().copied().collect());
        let findings = judge(&QuorumState { leader, voters, current }, replaced);
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_majority_must_be_left() {
        assert_eq!(levels(1, &[1, 2, 3], &[1, 2, 3], None), [Level::Ok]);
        assert_eq!(levels(1, &[1, 2, 3], &[1, 2], Some(1)), [Level::Ok, Level::Stop]);
        assert_eq!(levels(1, &[1, 2, 3], &[1, 2], Some(3)), [Level::Ok, Level::Warn], "the stopped one itself");
        assert_eq!(levels(1, &[1, 2, 3], &[1, 2], Some(9)), [Level::Ok, Level::Warn], "a broker");
        assert_eq!(levels(1, &[1], &[1], None), [Level::Ok, Level::Warn]);
        assert_eq!(levels(1, &[1, 2], &[1, 2], Some(2)), [Level::Ok, Level::Warn]);
        assert_eq!(levels(-1, &[1, 2, 3], &[], None), [Level::Stop]);
    }

    #[test]
    fn who_fetched_long_ago_is_behind() {
        let voter = |replica_id, last_caught_up_timestamp| ReplicaState {
            replica_id,
            last_caught_up_timestamp,
            ..ReplicaState::default()
        };
        let partition = PartitionData {
            leader_id: 1,
            current_voters: vec![voter(1, 100_000), voter(2, 95_000), voter(3, 80_000), voter(4, -1)],
            ..PartitionData::default()
        };
        let state = QuorumState::from_partition(&partition);
        assert_eq!(state.current, BTreeSet::from([1, 2]));
        assert_eq!(state.voters.len(), 4);
    }
}
