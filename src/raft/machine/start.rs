//! The first state, from what was found on disk.

use std::collections::BTreeSet;

use ringlog_types::{LeaderEpoch, Now, Random};

use super::fetch_server::Waiting;
use super::rebuilding::Rebuilding;
use super::requests::Requests;
use super::state::{Election, KnownLeader, LogState, Resigned, State};
use super::{LoadedState, Memory, Raft};
use crate::config::RaftConfig;
use crate::effects::Effects;
use crate::voters::Endpoints;

impl Raft {
    /// The machine as it starts from `loaded`, and its first effects. `config` must name a bootstrap server or
    /// `loaded` a voter.
    pub fn new(config: RaftConfig, loaded: LoadedState, mut random: Random, now: Now) -> (Raft, Effects) {
        assert!(
            !config.bootstrap_servers.is_empty() || !loaded.history.voters().is_empty(),
            "without bootstrap servers and voters nobody can be asked for the leader"
        );
        let log = LogState {
            start: loaded.log_start_offset,
            end: loaded.log_end_offset,
            flushed: loaded.log_end_offset,
            flush_in_flight: None,
            unflushed_bytes: 0,
            flushing_bytes: 0,
            epochs: loaded.epochs,
            snapshots: loaded.snapshots.into_iter().collect(),
        };
        let election_deadline =
            now.monotonic.plus_ms(config.election_timeout_ms + random.below(config.election_timeout_ms));
        let quorum_state = loaded.quorum_state;
        let (epoch, leader_id, voted) =
            quorum_state.map_or((LeaderEpoch(0), None, None), |state| (state.epoch, state.leader_id, state.voted));
        let mut raft = Raft {
            config,
            random,
            epoch,
            leader: leader_id.map(|id| KnownLeader { id, endpoints: Endpoints::new() }),
            voted,
            high_watermark: None,
            state: State::Unattached { election_deadline },
            log,
            history: loaded.history,
            persisted: (epoch, leader_id, voted),
            requests: Requests::default(),
            waiting: Waiting::default(),
            announced: None,
            installing: None,
            paused_download: None,
            rebuilding: (loaded.memory != Memory::Whole).then_some(Rebuilding::Unknown),
            is_blank: loaded.memory == Memory::Blank,
            suspected: None,
            leaderless: BTreeSet::new(),
            told_high_watermark: None,
            is_shutting_down: false,
            is_handing_over: false,
            deadline: None,
        };
        let mut fx = Effects::default();
        raft.choose_first_state(now, &mut fx);
        raft.finish(now, &mut fx);
        (raft, fx)
    }

    fn choose_first_state(&mut self, now: Now, fx: &mut Effects) {
        let me = self.key();
        let leader_id = self.leader_id();
        if self.epoch < self.log.last_epoch() {
            // The file was lost or is behind. A vote that was given in the log's epoch can't be given again: a
            // candidate of that epoch has no record of it yet, so its log isn't as fresh as ours.
            self.epoch = self.log.last_epoch();
            self.voted = None;
            self.leader = None;
        } else if leader_id == Some(me.id) {
            // Led before: what was promised in that epoch is not known any more, so it is never led again.
            let unacknowledged: BTreeSet<_> =
                self.voters().iter().map(|voter| voter.key).filter(|key| key.id != me.id).collect();
            let deadline = self.new_election_deadline(now);
            self.state = State::Resigned(Resigned { deadline, unacknowledged, preferred: Vec::new() });
        } else if leader_id.is_none()
            && self.may_stand()
            && self.is_voter()
            && self.voted.is_some_and(|vote| vote.id == me.id && is_same_directory(vote, me))
        {
            // Nobody is known to have won: this node may still. (With a leader, its log may hold that epoch's records
            // already, and no candidate of the epoch has those.)
            let deadline = self.new_election_deadline(now);
            self.state = State::Candidate(Election::new(self.voters().clone(), me.id, deadline, now.monotonic));
            self.check_election(now, fx);
        } else if let Some(leader_id) = leader_id {
            let endpoints = self.voters().get(leader_id).map(|voter| voter.endpoints.clone());
            if let Some(endpoints) = endpoints.filter(|known| known.contains_key(&self.config.default_listener)) {
                self.become_follower(self.epoch, KnownLeader { id: leader_id, endpoints }, now, fx);
            }
        }
        let is_alone = self.may_stand() && self.is_voter() && self.voters().len() == 1;
        if is_alone && !matches!(self.state, State::Leader(_) | State::Candidate(_)) {
            self.become_prospective(now, fx);
        }
    }
}

fn is_same_directory(vote: crate::ReplicaKey, me: crate::ReplicaKey) -> bool {
    vote.directory_id.is_none() || vote.directory_id == me.directory_id
}
