//! Reads: which bytes a fetch may see.

use ringlog_log::{EpochEndOffset, Location};
use ringlog_types::{ErrorCode, LeaderEpoch, NodeId, Offset};

use crate::{Partition, Role, Unserved};

/// What a consumer wants to see of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset, with a list of aborted transactions to skip.
    ReadCommitted,
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A consumer.
    Consumer {
        /// How it sees transactions.
        isolation: IsolationLevel,
        /// Fetch version 11 on: a follower may answer too.
        from_follower: bool,
    },
    /// A follower: sees everything, from the leader only. What the leader has in memory the follower writes at the same
    /// time; it counts as committed when both have it on their devices.
    Follower {
        /// Which one.
        replica: NodeId,
        /// Its broker epoch is older than the one in metadata.
        stale_broker_epoch: bool,
    },
    /// This broker itself (a coordinator that loads, a tool): everything durable, whatever the role.
    Internal,
}

/// One partition of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// The first offset wanted.
    pub fetch_offset: Offset,
    /// Who reads.
    pub reader: Reader,
    /// The leader epoch that the reader knows.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the record before `fetch_offset` in the reader's view.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// Offsets that go with every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadInfo {
    /// The high watermark.
    pub high_watermark: Offset,
    /// The last stable offset.
    pub last_stable_offset: Offset,
    /// The log's start.
    pub log_start_offset: Offset,
    /// The end, of what isn't on the device yet, too.
    pub log_end_offset: Offset,
}

impl ReadInfo {
    /// Whether a reader of this kind finds something that it didn't see in `before`: a follower, what was appended; others,
    /// what is committed.
    pub fn has_news(&self, before: &ReadInfo, is_follower: bool) -> bool {
        let what_is_there = |info: &ReadInfo| match is_follower {
            true => (info.log_end_offset, info.log_end_offset),
            false => (info.high_watermark, info.last_stable_offset),
        };
        what_is_there(self) != what_is_there(before) || self.log_start_offset != before.log_start_offset
    }
}

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPlan<P = Location> {
    /// Whole batches from the one that holds the fetch offset, up to `limit` (see [`ringlog_log::Log::read_end`]).
    Records {
        /// Where to start.
        location: P,
        /// No batch at or above this offset.
        limit: Offset,
        /// The answer lists aborted transactions (see [`ringlog_log::Log::transaction_index_segments`]).
        read_committed: bool,
        /// The offsets.
        info: ReadInfo,
    },
    /// Nothing to read yet.
    Empty(ReadInfo),
    /// The reader's history differs: it must truncate (KIP-595). No records, and its state is not noted.
    Diverging {
        /// The largest common epoch and where it ends here.
        diverging_epoch: EpochEndOffset,
        /// The offsets.
        info: ReadInfo,
    },
}

impl ReadPlan {
    /// The same plan, with its location as whoever keeps the bytes says it.
    pub fn located<P>(self, place: impl FnOnce(Location) -> P) -> ReadPlan<P> {
        match self {
            ReadPlan::Records { location, limit, read_committed, info } => {
                ReadPlan::Records { location: place(location), limit, read_committed, info }
            }
            ReadPlan::Empty(info) => ReadPlan::Empty(info),
            ReadPlan::Diverging { diverging_epoch, info } => ReadPlan::Diverging { diverging_epoch, info },
        }
    }
}

/// Why a read, or a question about offsets, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing is served from this replica.
    #[error("{0}")]
    Unserved(Unserved),
    /// This replica doesn't lead, or a follower asks that must not.
    #[error("not the leader, or not its follower")]
    NotLeaderOrFollower,
    /// The reader's leader epoch is behind.
    #[error("the reader's leader epoch is older than {0}")]
    FencedLeaderEpoch(LeaderEpoch),
    /// The reader's leader epoch is ahead.
    #[error("the reader's leader epoch is newer than {0}")]
    UnknownLeaderEpoch(LeaderEpoch),
    /// Outside of the log.
    #[error("offset {0} is out of range")]
    OffsetOutOfRange(Offset),
}

impl ReadError {
    /// The code for the response.
    pub fn error_code(self) -> ErrorCode {
        match self {
            ReadError::Unserved(why) => why.error_code(),
            ReadError::NotLeaderOrFollower => ErrorCode::NotLeaderOrFollower,
            ReadError::FencedLeaderEpoch(_) => ErrorCode::FencedLeaderEpoch,
            ReadError::UnknownLeaderEpoch(_) => ErrorCode::UnknownLeaderEpoch,
            ReadError::OffsetOutOfRange(_) => ErrorCode::OffsetOutOfRange,
        }
    }
}

impl Partition {
    /// The offsets that go with an answer.
    pub fn read_info(&self) -> ReadInfo {
        ReadInfo {
            high_watermark: self.high_watermark,
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: self.log.log_start_offset(),
            log_end_offset: self.log.log_end_offset(),
        }
    }

    /// Compares the reader's leader epoch with ours, then checks the role (KIP-320).
    pub(crate) fn check_epoch_and_role(
        &self,
        current_leader_epoch: Option<LeaderEpoch>,
        leader_only: bool,
    ) -> Result<(), ReadError> {
        if let Some(why) = self.unserved {
            return Err(ReadError::Unserved(why));
        }
        if let Some(epoch) = current_leader_epoch {
            if epoch < self.leader_epoch {
                return Err(ReadError::FencedLeaderEpoch(self.leader_epoch));
            }
            if epoch > self.leader_epoch {
                return Err(ReadError::UnknownLeaderEpoch(self.leader_epoch));
            }
        }
        match self.role {
            Role::Leader => Ok(()),
            Role::Follower if !leader_only => Ok(()),
            Role::Follower | Role::Unassigned => Err(ReadError::NotLeaderOrFollower),
        }
    }

    /// Plans a read. Offsets above what the reader may see, but within the log, give an empty answer.
    pub fn read(&self, request: &ReadRequest) -> Result<ReadPlan, ReadError> {
        let epoch = request.current_leader_epoch;
        let (limit, read_committed) = match request.reader {
            Reader::Consumer { isolation, from_follower } => {
                self.check_epoch_and_role(epoch, !from_follower)?;
                match isolation {
                    IsolationLevel::ReadUncommitted => (self.high_watermark, false),
                    IsolationLevel::ReadCommitted => (self.last_stable_offset(), true),
                }
            }
            Reader::Follower { replica, stale_broker_epoch } => {
                self.check_epoch_and_role(epoch, true)?;
                if !self.knows_replica(replica) {
                    // Its metadata may be newer than ours.
                    return Err(match epoch {
                        Some(_) => ReadError::UnknownLeaderEpoch(self.leader_epoch),
                        None => ReadError::NotLeaderOrFollower,
                    });
                }
                if stale_broker_epoch {
                    return Err(ReadError::NotLeaderOrFollower);
                }
                (self.log.log_end_offset(), false)
            }
            Reader::Internal => {
                self.check_epoch_and_role(epoch, false)?;
                (self.durable_end_offset, false)
            }
        };
        let offset = request.fetch_offset;
        let info = self.read_info();
        if let Some(last_fetched_epoch) = request.last_fetched_epoch {
            let end = self.log.leader_epochs().end_offset_for(last_fetched_epoch, info.log_end_offset);
            if end == EpochEndOffset::UNDEFINED || offset < info.log_start_offset {
                return Err(ReadError::OffsetOutOfRange(offset));
            }
            if end.epoch < last_fetched_epoch || end.end_offset < offset {
                return Ok(ReadPlan::Diverging { diverging_epoch: end, info });
            }
        }
        let location = self.log.locate(offset).map_err(|error| ReadError::OffsetOutOfRange(error.offset))?;
        if offset >= limit {
            return Ok(ReadPlan::Empty(info));
        }
        Ok(ReadPlan::Records { location, limit, read_committed, info })
    }
}
