//! A voter that lost records which it had acknowledged: it neither votes nor stands until it has again whatever anybody
//! may count on it to have.
//!
//! Its leader may still count what it acknowledged before, though not committed yet. All of that lies in the leader's
//! log, and the leader's log of one epoch only grows: so the mark to reach is that log's end, asked for with
//! DescribeQuorum after our log continued the leader's. What it acknowledged to leaders of earlier epochs is either in
//! this leader's log or can't be committed any more.
//!
//! A voter on whose disk nothing is may have lost records in the same way, and its epoch and vote besides. But when a
//! quorum begins all of its voters are like that, and have to elect somebody. So such a voter takes part in elections
//! among empty logs; with the first one it knows that it didn't forget anything.

use ringlog_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse, describe_quorum_request};
use ringlog_types::{ErrorCode, Now, Offset};

use super::Raft;
use super::requests::{Asked, Pending};
use super::state::State;
use super::wire;
use crate::effects::{Action, Effects};

/// How far such a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rebuilding {
    /// No leader of this epoch has sent what continues our log.
    Unknown,
    /// One has; where its log ends has to be asked.
    Continuing,
    /// All below this offset must be durable here: where the leader's log ended when it was asked.
    UpTo(Offset),
}

impl Raft {
    /// The leader's answer continued our log.
    pub(super) fn on_log_continued(&mut self) {
        if self.rebuilding == Some(Rebuilding::Unknown) {
            self.rebuilding = Some(Rebuilding::Continuing);
        }
    }

    /// What was to be reached was another leader's.
    pub(super) fn rebuild_from_new_leader(&mut self) {
        if self.rebuilding.is_some() {
            self.rebuilding = Some(Rebuilding::Unknown);
        }
    }

    /// Asks where the leader's log ends, if that is what is missing.
    pub(super) fn poll_rebuilding(&mut self, now: Now, fx: &mut Effects) {
        let is_asked = self.requests.any(|asked| matches!(asked, Asked::LeaderEnd));
        if self.rebuilding != Some(Rebuilding::Continuing) || is_asked {
            return;
        }
        let leader = self.leader.as_ref();
        let Some(to) = leader.and_then(|leader| wire::leader_destination(leader, &self.config.default_listener)) else {
            return;
        };
        let partitions = vec![describe_quorum_request::PartitionData { partition_index: 0 }];
        let topics = vec![describe_quorum_request::TopicData { topic_name: wire::topic(), partitions }];
        self.send(to, Asked::LeaderEnd, DescribeQuorumRequest { topics }, now, fx);
    }

    pub(super) fn on_leader_end(&mut self, pending: &Pending, response: &DescribeQuorumResponse, now: Now) {
        let partition = response.topics.first().and_then(|topic| topic.partitions.first());
        let leader_id = self.leader_id().map_or(-1, |id| id.0);
        let told = partition.filter(|it| {
            let is_good = response.error_code == 0 && it.error_code == ErrorCode::None.code();
            is_good && (it.leader_id, it.leader_epoch) == (leader_id, self.epoch.0)
        });
        let Some(told) = told else { return self.back_off(pending, now) };
        // A leader that is no voter any more stands among the observers.
        let replicas = told.current_voters.iter().chain(&told.observers);
        let leader_end = replicas.filter(|it| it.replica_id == leader_id).map(|it| it.log_end_offset).max();
        let Some(leader_end) = leader_end.filter(|end| *end >= told.high_watermark) else {
            return self.back_off(pending, now);
        };
        if self.rebuilding == Some(Rebuilding::Continuing) && matches!(self.state, State::Follower(_)) {
            self.rebuilding = Some(Rebuilding::UpTo(Offset(leader_end)));
        }
    }

    /// Everything that the leader had when it was asked is durable here again.
    pub(super) fn end_rebuilding_if_done(&mut self, fx: &mut Effects) {
        if let Some(Rebuilding::UpTo(leader_end)) = self.rebuilding
            && self.log.flushed >= leader_end
            && self.installing.is_none()
        {
            self.rebuilding = None;
            self.is_blank = false;
            fx.push(Action::Rebuilt);
        }
    }

    /// This node took part in an election of nodes without records: the quorum is new.
    pub(super) fn end_blankness(&mut self, fx: &mut Effects) {
        if std::mem::take(&mut self.is_blank) {
            self.rebuilding = None;
            fx.push(Action::Rebuilt);
        }
    }
}
