//! What a follower takes over from its leader: batches as they are, and how far they are committed.

use ringlog_log::validator::{ReplicationError, check_replicated};
use ringlog_log::{DeletedSegment, LogAppendError, LogBatch, LogConfig, Placement};
use ringlog_protocol::records::{BatchError, BatchHeader, BatchRef};
use ringlog_types::{LeaderEpoch, NodeId, Now, Offset, TimestampMs};

use crate::{FetchPosition, Partition, Role};

/// A prefix of what was fetched from the leader, with its place. Write `bytes` of it, report
/// [`Partition::on_durable`], and go on with the rest, if any.
#[derive(Debug)]
pub struct FollowerAppend {
    /// Where it goes.
    pub placement: Placement,
    /// Length of the prefix; 0 when nothing of it may be taken.
    pub bytes: usize,
    /// The log's end after it.
    pub next_offset: Offset,
}

/// Why a follower can't take what it fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowerAppendError {
    /// This replica doesn't follow in that epoch any more.
    #[error("not a follower in leader epoch {0}")]
    NotFollower(LeaderEpoch),
    /// The bytes are no batches that continue the log: fetch again.
    #[error(transparent)]
    Invalid(#[from] ReplicationError),
    /// The log is empty and its start lies inside of the leader's first batch (the leader's start need not be a batch's):
    /// start the log anew at this offset ([`ringlog_log::Log::truncate_fully_and_start_at`]) and prepare again.
    #[error("the leader's first batch starts at {0}, below this empty log")]
    StartsBelowEmptyLog(Offset),
    /// A control batch can't be read.
    #[error("unreadable control batch: {0}")]
    Control(#[from] BatchError),
    /// It doesn't fit the log.
    #[error(transparent)]
    Log(#[from] LogAppendError),
}

impl Partition {
    /// From where to fetch; `None` when this replica has nobody to follow, or isn't done with what it fetched before. What a
    /// fetch asks for acknowledges all below, so that has to be on the device.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        let follows = self.role == Role::Follower && self.leader != NodeId::NONE && self.unserved.is_none();
        let is_written = self.durable_end_offset == self.log.log_end_offset();
        (follows && is_written).then(|| FetchPosition {
            leader_epoch: self.leader_epoch,
            fetch_offset: self.durable_end_offset,
            last_fetched_epoch: self.log.last_fetched_epoch(),
            log_start_offset: self.log.log_start_offset(),
        })
    }

    /// Where the log has to be cut before the first fetch: a log that knows no epochs is trusted up to its high watermark.
    pub fn truncation_before_following(&self) -> Option<Offset> {
        let is_doubtful =
            self.log.leader_epochs().latest_epoch().is_none() && self.high_watermark < self.log.log_end_offset();
        is_doubtful.then_some(self.high_watermark)
    }

    /// The leader's log starts above this one's end: drops everything and starts anew there. The segments that are returned
    /// are to be deleted, and an empty one made.
    pub fn restart_at(&mut self, offset: Offset, now: TimestampMs) -> Vec<DeletedSegment> {
        let deleted = self.log.truncate_fully_and_start_at(offset, now);
        (self.durable_end_offset, self.high_watermark) = (offset, offset);
        self.log.producers_mut().on_high_watermark(offset);
        deleted
    }

    /// Takes over a prefix of what was fetched from the leader in `leader_epoch`, unchanged: as many batches as one
    /// segment can take. Batches of a higher epoch than this replica knows are left out.
    pub fn follower_prepare(
        &mut self,
        records: &[u8],
        leader_epoch: LeaderEpoch,
        config: &LogConfig,
        now: Now,
    ) -> Result<FollowerAppend, FollowerAppendError> {
        // What was asked for before a node stops may come when its logs are closed already.
        if self.role != Role::Follower || self.leader_epoch != leader_epoch || self.unserved.is_some() {
            return Err(FollowerAppendError::NotFollower(leader_epoch));
        }
        let log_end_offset = self.log.log_end_offset();
        if self.log.log_start_offset() == log_end_offset
            && let Ok(first) = BatchHeader::parse(records)
            && first.base_offset < log_end_offset
            && first.last_offset() >= log_end_offset
        {
            return Err(FollowerAppendError::StartsBelowEmptyLog(first.base_offset));
        }
        let found = check_replicated(records, log_end_offset, self.leader_epoch)?;
        let mut batches = Vec::with_capacity(found.headers.len());
        let mut bytes = 0_usize;
        for header in found.headers {
            let end = bytes + header.size_in_bytes();
            // The first one goes in any case, and is refused below when it alone is too large.
            if !batches.is_empty() && end > config.segment_bytes as usize {
                break;
            }
            batches.push(replicated_batch(header, records.get(bytes..end).unwrap_or_default())?);
            bytes = end;
        }
        let placement = self.log.append(&batches, config, now.wall)?;
        Ok(FollowerAppend { placement, bytes, next_offset: self.log.log_end_offset() })
    }

    /// A follower learns the leader's high watermark and log start with each fetch; call it once what came with them
    /// is durable, and on empty answers. Returns the new high watermark if it moved, and whether the log's start did.
    pub fn follower_advance(
        &mut self,
        leader_high_watermark: Offset,
        leader_log_start_offset: Offset,
    ) -> (Option<Offset>, bool) {
        if self.role != Role::Follower {
            return (None, false);
        }
        let moved = self.raise_high_watermark(leader_high_watermark.min(self.durable_end_offset));
        let start = leader_log_start_offset.min(self.high_watermark);
        (moved, self.log.advance_log_start_offset(start))
    }
}

fn replicated_batch(header: BatchHeader, bytes: &[u8]) -> Result<LogBatch, BatchError> {
    if header.is_control() { LogBatch::of(&BatchRef { header, bytes }) } else { Ok(LogBatch::of_data(header)) }
}
