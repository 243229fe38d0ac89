//! Reads of one partition, by followers and consumers, and questions about its offsets.

use bytes::Bytes;
use ringlog_types::ErrorCode;

use super::log::TimeAndOffset;
use super::replica::{Brokers, Replica};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const LATEST_TIME: i64 = -3;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A follower, in an epoch of its broker.
    Follower(i32, i64),
    /// A consumer.
    Consumer,
}

/// From where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The leader epoch that the reader knows; -1 for none.
    pub leader_epoch: i32,
    /// From there on.
    pub offset: i64,
    /// The epoch of what the reader has before that; -1 for none.
    pub last_epoch: i32,
    /// Where a follower's log starts.
    pub start: i64,
    /// So many bytes.
    pub bytes_max: usize,
}

/// What is there.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Records.
    Records(Bytes),
    /// The reader's log parts from this one: the epoch below, and where it ends.
    Diverging(i32, i64),
}

impl Replica {
    /// The check of KIP-320, and of who may ask whom.
    pub fn check(&self, leader_epoch: i32, is_leader_meant: bool) -> Result<(), ErrorCode> {
        match leader_epoch {
            _ if self.leader_epoch < 0 => return Err(ErrorCode::NotLeaderOrFollower),
            -1 => {}
            epoch if epoch < self.leader_epoch => return Err(ErrorCode::FencedLeaderEpoch),
            epoch if epoch > self.leader_epoch => return Err(ErrorCode::UnknownLeaderEpoch),
            _ => {}
        }
        if is_leader_meant && !self.leads() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(())
    }

    /// Reads; `is_whole`: a batch that is longer than wanted comes all the same.
    pub fn read(&self, reader: Reader, wanted: &Wanted, brokers: &Brokers, is_whole: bool) -> Result<Found, ErrorCode> {
        self.check(wanted.leader_epoch, reader != Reader::Consumer)?;
        if let Reader::Follower(id, epoch) = reader {
            if !self.remotes.contains_key(&id) {
                let is_ahead = wanted.leader_epoch >= 0;
                return Err(if is_ahead { ErrorCode::UnknownLeaderEpoch } else { ErrorCode::NotLeaderOrFollower });
            }
            if brokers.is_stale(id, epoch) {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
        }
        let log = self.log.borrow();
        if wanted.last_epoch >= 0 {
            let Some((epoch, end)) = log.epochs.end_for(wanted.last_epoch, log.end()) else {
                return Err(ErrorCode::OffsetOutOfRange);
            };
            if wanted.offset < log.start() {
                return Err(ErrorCode::OffsetOutOfRange);
            }
            if epoch < wanted.last_epoch || end < wanted.offset {
                return Ok(Found::Diverging(epoch, end));
            }
        }
        if wanted.offset < log.start() || wanted.offset > log.end() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let limit = if reader == Reader::Consumer { self.high_watermark } else { log.end() };
        Ok(Found::Records(log.read(wanted.offset, limit, wanted.bytes_max, is_whole)))
    }

    /// Time and offset of what is asked for, and its epoch; -1 for what isn't there.
    pub fn list_offset(&self, at_ms: i64, leader_epoch: i32, is_consumer: bool) -> Result<(i64, i64, i32), ErrorCode> {
        self.check(leader_epoch, true)?;
        let log = self.log.borrow();
        let end = if is_consumer { self.high_watermark } else { log.end() };
        // A leader that was elected doesn't know yet that what it had is committed.
        let is_unsure = is_consumer && self.high_watermark < self.epoch_start;
        let found: Option<TimeAndOffset> = match at_ms {
            LATEST if is_unsure => return Err(ErrorCode::OffsetNotAvailable),
            LATEST => return Ok((-1, end, self.leader_epoch)),
            EARLIEST => return Ok((-1, log.start(), log.epochs.at(log.start()).unwrap_or(-1))),
            LATEST_TIME => log.latest(),
            at_ms => log.first_at(at_ms),
        };
        match found.filter(|(_, offset)| *offset < end) {
            Some((time, offset)) => Ok((time, offset, log.epochs.at(offset).unwrap_or(-1))),
            None if is_unsure => Err(ErrorCode::OffsetNotAvailable),
            None => Ok((-1, -1, -1)),
        }
    }
}
