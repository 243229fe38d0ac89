//! What a replica does that leads: it appends, knows how far its followers are, and who is in sync.

use ringlog_protocol::records::BatchRef;
use ringlog_types::ErrorCode;

use super::producers::Judgement;
use super::replica::{Brokers, Proposal, Remote, Replica};

/// Where a batch is.
#[derive(Debug, Clone, Copy)]
pub struct Appended {
    /// Its first offset.
    pub base: i64,
    /// The offset behind it; what has to be committed before it is acknowledged to who wants all to have it.
    pub end: i64,
    /// Its time, where the leader gives it.
    pub append_time_ms: i64,
}

/// What the controller made of a proposal.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is so.
    Committed {
        /// The leader's epoch.
        leader_epoch: i32,
        /// The partition's epoch from now on.
        partition_epoch: i32,
        /// Those in sync.
        in_sync: Vec<i32>,
    },
    /// Somebody of those wanted may not be in sync.
    Ineligible,
    /// The metadata will tell something else.
    GivenUp,
    /// Try again.
    Later,
}

impl Remote {
    fn is_caught_up(&self, leader_end: i64, at_ms: u64, lag_max_ms: u64) -> bool {
        self.end == Some(leader_end) || at_ms.saturating_sub(self.caught_up_ms) <= lag_max_ms
    }
}

impl Replica {
    fn effective_min_in_sync(&self) -> usize {
        self.limits.min_in_sync.min(self.replicas.len())
    }

    /// Those who are in sync, or would be if the controller agreed: all of them must have what is committed.
    fn maximal_in_sync(&self) -> Vec<i32> {
        let proposed = self.proposal.iter().flat_map(|proposal| proposal.in_sync.iter().map(|(id, _)| *id));
        let mut all: Vec<i32> = self.in_sync.iter().copied().chain(proposed).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether so few are in sync that what is acknowledged by all isn't safe.
    pub fn lacks_in_sync(&self) -> bool {
        self.maximal_in_sync().len() < self.effective_min_in_sync()
    }

    /// A producer's batch.
    pub fn append(&mut self, batch: &BatchRef<'_>, acks: i16, now_ms: i64) -> Result<Appended, ErrorCode> {
        if !self.leads() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if acks == -1 && self.in_sync.len() < self.effective_min_in_sync() {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        let mut log = self.log.borrow_mut();
        match log.producers.judge(&batch.header) {
            Judgement::Refused(error) => Err(error),
            Judgement::Duplicate(base) => {
                let end = base + i64::from(batch.header.last_offset_delta) + 1;
                Ok(Appended { base, end, append_time_ms: -1 })
            }
            Judgement::New => {
                let append_time_ms = self.is_append_time.then_some(now_ms);
                let base = log.append_as_leader(batch, self.leader_epoch, append_time_ms);
                Ok(Appended { base, end: log.end(), append_time_ms: append_time_ms.unwrap_or(-1) })
            }
        }
    }

    /// What is committed rises with what all in sync have, and stands still while too few are.
    pub fn advance(&mut self, brokers: &Brokers, at_ms: u64) {
        if !self.leads() || self.in_sync.len() < self.effective_min_in_sync() {
            return;
        }
        let (in_sync, end) = (self.maximal_in_sync(), self.log.borrow().end());
        let counts = |id: i32, remote: &Remote| {
            // Who is about to join is waited for.
            let joins =
                remote.is_caught_up(end, at_ms, self.limits.lag_max_ms) && brokers.is_eligible(id, remote.broker_epoch);
            in_sync.contains(&id) || joins
        };
        let ends = self.remotes.iter().filter(|(id, remote)| counts(**id, remote));
        let least = ends.map(|(_, remote)| remote.end.unwrap_or(-1)).fold(end, i64::min);
        self.high_watermark = self.high_watermark.max(least);
    }

    /// A follower has all below `offset`.
    pub fn on_follower_fetch(
        &mut self,
        id: i32,
        broker_epoch: i64,
        (offset, start): (i64, i64),
        brokers: &Brokers,
        at_ms: u64,
    ) {
        let end = self.log.borrow().end();
        let Some(remote) = self.remotes.get_mut(&id) else { return };
        if offset >= end {
            remote.caught_up_ms = remote.caught_up_ms.max(at_ms);
        } else if offset >= remote.leader_end {
            remote.caught_up_ms = remote.caught_up_ms.max(remote.fetched_ms);
        }
        (remote.end, remote.start, remote.broker_epoch) = (Some(offset), start, broker_epoch);
        (remote.fetched_ms, remote.leader_end) = (at_ms, end);
        let is_in_range = offset >= self.high_watermark && offset >= self.epoch_start;
        if self.proposal.is_none()
            && !self.in_sync.contains(&id)
            && is_in_range
            && brokers.is_eligible(id, broker_epoch)
        {
            let wanted = self.in_sync.iter().copied().chain([id]).collect();
            self.propose(wanted);
        }
        self.advance(brokers, at_ms);
    }

    /// Who has been behind for too long is to be out of sync.
    pub fn propose_shrink(&mut self, at_ms: u64) {
        if !self.leads() || self.proposal.is_some() {
            return;
        }
        let end = self.log.borrow().end();
        let is_behind = |id: &i32| {
            let remote = self.remotes.get(id);
            remote.is_some_and(|remote| !remote.is_caught_up(end, at_ms, self.limits.lag_max_ms))
        };
        let wanted: Vec<i32> = self.in_sync.iter().copied().filter(|id| !is_behind(id)).collect();
        if wanted.len() < self.in_sync.len() {
            self.propose(wanted);
        }
    }

    fn propose(&mut self, wanted: Vec<i32>) {
        let epoch_of = |id: i32| self.remotes.get(&id).map_or(-1, |remote| remote.broker_epoch);
        self.proposal = Some(Proposal {
            in_sync: wanted.into_iter().map(|id| (id, epoch_of(id))).collect(),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            is_sent: false,
        });
    }

    /// What is to be asked for, once.
    pub fn take_proposal(&mut self) -> Option<Proposal> {
        let proposal = self.proposal.as_mut().filter(|proposal| !proposal.is_sent)?;
        proposal.is_sent = true;
        Some(proposal.clone())
    }

    /// The controller's word for it.
    pub fn on_answer(&mut self, asked: &Proposal, answer: &Answer, brokers: &Brokers, at_ms: u64) {
        if self.proposal.as_ref() != Some(asked) {
            return;
        }
        match answer {
            Answer::Committed { leader_epoch, partition_epoch, in_sync } => {
                if *leader_epoch == self.leader_epoch && *partition_epoch >= self.partition_epoch {
                    self.partition_epoch = *partition_epoch;
                    self.in_sync.clone_from(in_sync);
                    self.proposal = None;
                }
            }
            Answer::Ineligible => self.proposal = None,
            // The next image makes an end of it.
            Answer::GivenUp => {}
            Answer::Later => {
                if let Some(proposal) = &mut self.proposal {
                    proposal.is_sent = false;
                }
            }
        }
        self.advance(brokers, at_ms);
    }

    /// Records below are to be gone; -1 says all that are committed. Where the log is to start.
    pub fn delete_below(&mut self, offset: i64) -> Result<i64, ErrorCode> {
        if !self.leads() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let offset = if offset == -1 { self.high_watermark } else { offset };
        if offset < 0 || offset > self.high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        self.log.borrow_mut().advance_start(offset);
        Ok(offset)
    }

    /// Where the log starts on all that are alive.
    pub fn low_watermark(&self, brokers: &Brokers) -> i64 {
        let remotes = self.remotes.iter().filter(|(id, _)| brokers.is_alive(**id)).map(|(_, remote)| remote.start);
        remotes.fold(self.log.borrow().start(), i64::min)
    }
}
