//! What a replica takes over from its leader: batches as they come ([`Replica::append_fetched`]), how far they are committed
//! ([`Replica::advance`]), and where its log goes back or begins anew because the leader's is another
//! ([`Replica::truncate`], [`Replica::restart_at`]).
//!
//! A log that is being cut is nobody else's: appends come from who has it cut, and the role doesn't change meanwhile
//! ([`Replica::role_turn`]).

use std::io;
use std::rc::Rc;

use ringlog_log::names::{FileKind, FileState, SegmentFile};
use ringlog_log::{DeletedSegment, EpochEndOffset, Log, Recovery, TruncationPlan};
use ringlog_partition::{FetchPosition, FollowerAppend, FollowerAppendError, Role, Truncation};
use ringlog_ring::{self as ring, BytePermit};
use ringlog_types::{LeaderEpoch, Now, Offset};
use tracing::info;

use super::Replica;
use crate::storage::disk_space::Writer;
use crate::storage::log_read::StoredLog as _;
use crate::storage::log_recovery::{apply_recovery, deleted_segments, read_for_recovery, remove_segment};

/// A log was cut, as its leader's is another. Shown to who looks on.
#[derive(Debug)]
pub struct LogCut {
    /// Its partition.
    pub partition: String,
    /// Where it ended.
    pub from: Offset,
    /// Where it ends now.
    pub to: Offset,
}

/// Why a log can't be cut now: what was appended before isn't in its files, as the disk takes nothing.
fn unwritten() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the log isn't written yet")
}

impl Replica {
    /// From where to fetch, as [`ringlog_partition::Partition::fetch_position`] says.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        self.partition.borrow().fetch_position()
    }

    /// Whether it follows, in that epoch.
    pub fn follows_in(&self, leader_epoch: LeaderEpoch) -> bool {
        let standing = self.standing();
        standing.role == Role::Follower && standing.leader_epoch == leader_epoch && standing.unserved.is_none()
    }

    /// Where its log ends, written or not.
    pub fn log_end_offset(&self) -> Offset {
        self.partition.borrow().log().log_end_offset()
    }

    /// Where its log has to be cut before anything is fetched for it.
    pub fn truncation_before_following(&self) -> Option<Offset> {
        self.partition.borrow().truncation_before_following()
    }

    /// Where its log has to be cut, as its leader's parts from it.
    pub fn truncation_for(&self, diverging: EpochEndOffset, fetch_offset: Offset) -> Truncation {
        self.partition.borrow().truncation_for(diverging, fetch_offset)
    }

    /// Held, the role stays as it is, or is changed by the holder; nobody cuts the log.
    pub async fn role_turn(&self) -> BytePermit {
        self.role_turn.acquire(1).await
    }

    /// Whether there is memory for so many fetched bytes, until the next `await`.
    pub fn has_room_for_fetched(&self, bytes: usize) -> bool {
        !self.holds_appends.get() && self.store().has_room_for(bytes)
    }

    /// Whether there is room for them on the disk.
    pub fn has_disk_for_fetched(&self, bytes: usize, now: Now) -> bool {
        self.context.space.admits(self.log_dir(), bytes, Writer::Internal, now.monotonic)
    }

    /// Takes over a prefix of what was fetched, unchanged, and sees to it that it is written. Nothing is awaited here.
    pub fn append_fetched(
        self: &Rc<Self>,
        records: &[u8],
        leader_epoch: LeaderEpoch,
        now: Now,
    ) -> Result<FollowerAppend, FollowerAppendError> {
        let config = self.config();
        let mut prepared = self.partition.borrow_mut().follower_prepare(records, leader_epoch, &config, now)?;
        if prepared.bytes > 0 {
            if let Some(roll) = prepared.placement.roll.take() {
                self.store().roll(roll);
            }
            self.store().append(u64::from(prepared.placement.position), &[&records[..prepared.bytes]]);
            self.wake_writer();
        }
        Ok(prepared)
    }

    /// The leader's high watermark and log start, once what came with them is durable. Returns whether the log's start moved.
    pub fn advance(&self, high_watermark: Offset, log_start_offset: Offset) -> bool {
        let (moved, start_moved) = self.partition.borrow_mut().follower_advance(high_watermark, log_start_offset);
        if moved.is_some() || start_moved {
            self.wake_waiters();
        }
        start_moved
    }

    /// Drops everything at and above `to`, unless it doesn't follow in that epoch any more. Reads that are under way end
    /// below.
    pub async fn truncate(self: &Rc<Self>, to: Offset, leader_epoch: LeaderEpoch) -> io::Result<()> {
        self.change_log(leader_epoch, async |replica| replica.cut(to).await).await
    }

    /// Drops everything, and begins the log anew at `offset`.
    pub async fn restart_at(self: &Rc<Self>, offset: Offset, leader_epoch: LeaderEpoch) -> io::Result<()> {
        self.change_log(leader_epoch, async |replica| replica.begin_anew(offset).await).await
    }

    /// Has `change` done while nobody writes to the log's files, and the role stays.
    async fn change_log(
        self: &Rc<Self>,
        leader_epoch: LeaderEpoch,
        change: impl AsyncFnOnce(&Replica) -> io::Result<()>,
    ) -> io::Result<()> {
        let Ok(_pass) = self.files.enter() else { return Ok(()) };
        let _turn = self.role_turn().await;
        if !self.follows_in(leader_epoch) {
            return Ok(());
        }
        self.take_writers_place().await?;
        let outcome = change(self).await;
        self.give_writers_place_back();
        outcome
    }

    /// Waits until everything is in the files. From then on passes that are asked for come after
    /// [`Replica::give_writers_place_back`]. An error when that can't be now, as the disk takes nothing.
    pub(super) async fn take_writers_place(self: &Rc<Self>) -> io::Result<()> {
        loop {
            self.settled_below(Offset(i64::MAX)).await;
            self.quiesced().await;
            if self.store().is_dirty() || self.store().unfinished_from().is_some() || self.is_resting() {
                return Err(unwritten());
            }
            if !self.writer_runs.replace(true) {
                return Ok(());
            }
        }
    }

    pub(super) fn give_writers_place_back(self: &Rc<Self>) {
        self.writer_runs.set(false);
        self.wake_waiters();
        self.wake_writer();
    }

    async fn cut(&self, to: Offset) -> io::Result<()> {
        let (directory, config) = (self.store().directory(), self.config());
        let snapshots = self.snapshots().await?;
        let before = self.log_end_offset();
        let plan = self.partition.borrow().log().plan_truncation(to, snapshots);
        match plan {
            // An epoch that began at the end may be one that the leader doesn't know.
            TruncationPlan::Nothing => {
                self.partition.borrow_mut().log_mut().leader_epochs_mut().truncate_from_end(to);
                return self.persist_leader_epochs().await;
            }
            TruncationPlan::Fully => return self.begin_anew(to).await,
            TruncationPlan::Rebuild(input) => {
                let now = ring::now().wall;
                let mut recovery = Recovery::new(*input, &config, now);
                let context = &self.context;
                read_for_recovery(&mut recovery, &directory, context.direct, &context.recovery_reads).await?;
                let recovered = recovery.finish();
                for segment in deleted_segments(&recovered.actions) {
                    self.store().forget(segment);
                }
                apply_recovery(&directory, &recovered).await.map_err(|fault| fault.source)?;
                let log = Log::open(recovered.log, now);
                let size = u64::from(log.active_segment().size);
                self.store().reset(&log, Some(size));
                // A segment that had been sealed has index files, which say too much now.
                self.store().has_old_indexes();
                let mut partition = self.partition.borrow_mut();
                partition.replace_log(log);
                partition.log_mut().leader_epochs_mut().set_dirty();
            }
        }
        self.persist_leader_epochs().await?;
        let after = self.log_end_offset();
        info!(partition = %self.name, from = before.0, to = after.0, "the log was cut where it differs from the leader's");
        ring::observe(&LogCut { partition: self.name.to_string(), from: before, to: after });
        Ok(())
    }

    async fn begin_anew(&self, offset: Offset) -> io::Result<()> {
        let directory = self.store().directory();
        let snapshots = self.snapshots().await?;
        let deleted = self.partition.borrow_mut().restart_at(offset, ring::now().wall);
        // Reads that are under way end here: what they read has no meaning any more.
        self.store().reset(self.partition.borrow().log(), None);
        for DeletedSegment { base_offset, .. } in deleted {
            remove_segment(&directory, base_offset).await.map_err(|fault| fault.source)?;
        }
        for snapshot in snapshots {
            ring::fs::remove_file(directory.join(SegmentFile::live(snapshot, FileKind::ProducerSnapshot).to_string()))
                .await?;
        }
        self.store().create_active().await?;
        self.partition.borrow_mut().log_mut().leader_epochs_mut().set_dirty();
        self.persist_leader_epochs().await?;
        info!(partition = %self.name, offset = offset.0, "the log begins anew where the leader's does");
        Ok(())
    }

    /// Offsets of the producer snapshots that lie beside the log.
    async fn snapshots(&self) -> io::Result<Vec<Offset>> {
        let directory = self.store().directory();
        ring::fs::run(async move |fs| {
            let names = fs.names(&directory).await?;
            let files = names.iter().filter_map(|entry| SegmentFile::parse(entry.name.to_str()?));
            let is_snapshot =
                |file: &SegmentFile| file.kind == FileKind::ProducerSnapshot && file.state == FileState::Live;
            let mut offsets: Vec<Offset> = files.filter(is_snapshot).map(|file| file.offset).collect();
            offsets.sort_unstable();
            Ok(offsets)
        })
        .await
    }
}
