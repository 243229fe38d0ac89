//! Reads of a replica, as far as its role and the reader allow (`ringlog_partition`), from its log
//! ([`crate::storage::log_read`]).

use std::rc::Rc;

use ringlog_log::time_index::TimeIndex;
use ringlog_log::transaction_index::{AbortedTransaction, TransactionIndex};
use ringlog_log::{EpochEndOffset, ListOffsetPlan, Log};
use ringlog_partition::{
    IsolationLevel, ListOffsetsRequest, OffsetError, ReadError, ReadInfo, ReadPlan, ReadRequest, Unserved,
};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, LeaderEpoch, NodeId, Offset};
use tracing::error;

use super::Replica;
use crate::storage::log_read::{self, LogReadError, Place, Read, ReadRange, StoredLog};
use crate::storage::segment_store::{Segment, SegmentStore};

impl StoredLog for Replica {
    fn with_log<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(self.partition.borrow().log())
    }

    fn store(&self) -> Rc<SegmentStore> {
        self.store.borrow().clone()
    }
}

impl Replica {
    /// Where log and high watermark are, as a reader is told.
    pub fn read_info(&self) -> ReadInfo {
        self.partition.borrow().read_info()
    }

    /// Plans an answer to ListOffsets. Where it lies in the log, say so by [`StoredLog::place`] before anything is awaited.
    pub fn plan_list_offsets(&self, question: &ListOffsetsRequest) -> Result<ListOffsetPlan, OffsetError> {
        self.partition.borrow().list_offsets(question)
    }

    /// Whether an offset that a search found may be shown.
    pub fn is_visible(&self, offset: Offset, isolation: Option<IsolationLevel>) -> Result<bool, OffsetError> {
        self.partition.borrow().filter_found_offset(offset, isolation)
    }

    /// The largest epoch at or below `requested`, and where it ends. Only the leader tells.
    pub fn offset_for_leader_epoch(
        &self,
        requested: LeaderEpoch,
        current: Option<LeaderEpoch>,
    ) -> Result<EpochEndOffset, ReadError> {
        self.partition.borrow().offset_for_leader_epoch(requested, current, true)
    }

    /// Plans a read: what [`Replica::read`] is to be asked for.
    pub fn plan_read(&self, request: &ReadRequest) -> Result<ReadPlan<Place>, ReadError> {
        Ok(self.partition.borrow().read(request)?.located(|location| self.place(location)))
    }

    /// The replica that a consumer is sent to instead, as [`ringlog_partition::Partition::preferred_read_replica`] says.
    pub fn preferred_read_replica(&self, fetch_offset: Offset, is_near: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        self.partition.borrow().preferred_read_replica(fetch_offset, ring::now().monotonic, is_near)
    }

    /// Reads batches.
    pub async fn read(&self, range: &ReadRange) -> Result<Read, LogReadError> {
        self.read_within(range, usize::MAX).await
    }

    /// [`Replica::read`]; a first batch that was asked for whatever its size may still not have more than `memory` bytes.
    pub async fn read_within(&self, range: &ReadRange, memory: usize) -> Result<Read, LogReadError> {
        let read = log_read::read(self, range, memory).await?;
        // Its files are given up, and what is asked for isn't gone: the answer says why nothing is read.
        if read.slices.is_empty() && !self.partition.borrow().is_written() {
            return Err(LogReadError::Replaced);
        }
        Ok(read)
    }

    /// The time index of the sealed segment in which the place is.
    pub async fn time_index(&self, place: Place) -> Result<TimeIndex, LogReadError> {
        Ok(self.store().time_index(place.segment()?).await?)
    }

    /// Aborted transactions that overlap the offsets `from..limit`, for a reader with `read_committed`.
    pub async fn aborted_transactions(
        &self,
        from: Offset,
        limit: Offset,
    ) -> Result<Vec<AbortedTransaction>, LogReadError> {
        // Retention may take a segment, and then those before it: those that are left are asked again.
        let mut segments = self.transaction_index_segments(from);
        loop {
            match self.aborted_in(&segments, from, limit).await {
                Err(LogReadError::Replaced) => {
                    let left = self.transaction_index_segments(from);
                    if left == segments {
                        return Err(LogReadError::Replaced);
                    }
                    segments = left;
                }
                outcome => return outcome,
            }
        }
    }

    fn transaction_index_segments(&self, from: Offset) -> Vec<Option<Segment>> {
        let partition = self.partition.borrow();
        let segments = partition.log().transaction_index_segments(from);
        segments.map(|base_offset| self.store().segment(base_offset)).collect()
    }

    async fn aborted_in(
        &self,
        segments: &[Option<Segment>],
        from: Offset,
        limit: Offset,
    ) -> Result<Vec<AbortedTransaction>, LogReadError> {
        let mut aborted = Vec::new();
        for segment in segments {
            let segment = segment.ok_or(LogReadError::Replaced)?;
            let found = self.store().transaction_index(segment).await?.collect_aborted(from, limit);
            aborted.extend(found.transactions);
            if found.is_complete {
                return Ok(aborted);
            }
        }
        let partition = self.partition.borrow();
        let active: &TransactionIndex = &partition.log().active_segment().transaction_index;
        aborted.extend(active.collect_aborted(from, limit).transactions);
        Ok(aborted)
    }

    /// What clients are told when something of the log couldn't be read. Files that went with the replica are no fault.
    pub fn on_read_fault(&self, what: &str, fault: &dyn std::error::Error) -> ErrorCode {
        let unserved = self.unserved();
        if unserved.is_none() {
            error!(partition = %self.name, directory = %self.store().directory().display(), "{what}: {fault}");
        }
        unserved.unwrap_or(Unserved::LogDirectoryFailed).error_code()
    }
}
