//! Moves of replicas to other directories are begun, ended, and taken up again at start.
//!
//! A move is a second log of the replica in the other directory, in a folder that ends in `-future`. It follows the log in
//! use as a follower follows its leader ([`super::mover`]), and takes its place in the end. A crash leaves one of:
//!
//! * both folders: the copy goes on at the next start, as Kafka has it;
//! * both, of which the metadata names the copy's directory, and the copy lacks nothing: it takes the other's place at once
//!   ([`LogDirs::promote`]). Only the copy may have what was appended last;
//! * the copy alone, when the old folder had got its new name already: the same.

use std::io;
use std::path::Path;
use std::rc::Rc;

use ringlog_log::Log;
use ringlog_log::names::{DirectoryKind, partition_directory};
use ringlog_partition::{FollowerState, Unserved};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, LeaderEpoch, Offset, PartitionEpoch, TopicIdPartition, TopicPartition, Uuid};
use tracing::{info, warn};

use super::claim::{Claim, ClaimError};
use super::moves::WantedAssignments;
use super::names::{self, Made, NewName, OldName};
use super::removals::Target;
use super::room::{LogDirs, OpenLog};
use crate::data::replica::Replica;
use crate::storage::segment_store::SegmentStore;

/// The longest name of a file.
const NAME_BYTES_MAX: usize = 255;
/// The epoch in which a copy follows: none is higher, so no batch is left out.
pub(super) const COPY_EPOCH: LeaderEpoch = LeaderEpoch(i32::MAX);

impl LogDirs {
    /// The place of the directory that a client named, if it can be used.
    pub fn place_of_path(&self, path: &str) -> Result<usize, ErrorCode> {
        let directories = &self.core.node.log_dirs.directories;
        let named = |place: &usize| directories[*place].hosts_partitions && directories[*place].path == Path::new(path);
        let place = (0..directories.len()).find(named).ok_or(ErrorCode::LogDirNotFound)?;
        match directories[place].is_usable() && !self.has_failed(place) {
            true if self.is_cordoned(place) => Err(ErrorCode::InvalidReplicaAssignment),
            true => Ok(place),
            false => Err(ErrorCode::KafkaStorageError),
        }
    }

    /// Whether the name of a copy's folder would be too long.
    pub fn is_name_too_long(name: &TopicPartition) -> bool {
        let tail = format!("-{}.-future", name.partition).len() + 2 * size_of::<Uuid>();
        name.topic.len() + tail > NAME_BYTES_MAX
    }

    /// A replica that isn't here yet is to be made there. On every core: which one its home is isn't known.
    pub fn prefer(&self, name: &TopicPartition, place: usize) {
        self.moves.prefer(name, place);
    }

    /// What the controller is to be told of this core's replicas.
    pub fn wanted_assignments(&self) -> Rc<WantedAssignments> {
        self.moves.assignments.clone()
    }

    /// Whether the replica is on its way to that directory.
    pub fn is_moving_to(&self, id: TopicIdPartition, directory: Uuid) -> bool {
        self.moves.of(id).is_some_and(|moving| self.core.node.log_dirs.directories[moving.target].id == directory)
    }

    /// On the home core: has a replica that lives here move to the directory at `place`. One that is on its way elsewhere
    /// turns round, or stays, if it lies there.
    pub async fn move_replica(self: &Rc<Self>, current: &Rc<Replica>, place: usize) -> ErrorCode {
        let Ok(_until_done) = self.changes.enter() else { return ErrorCode::KafkaStorageError };
        let id = current.id;
        let target_of = |dirs: &LogDirs| dirs.moves.of(id).map(|moving| moving.target);
        if target_of(self).is_some_and(|target| target != place) {
            self.take_back(current).await;
        }
        if current.log_dir() == place || target_of(self) == Some(place) {
            return ErrorCode::None;
        }
        let is_offline = |place: usize| self.core.node.log_dirs.directories[place].offline.is_some();
        let places = 0..self.core.node.log_dirs.directories.len();
        if places.into_iter().any(|place| is_offline(place) || self.has_failed(place)) {
            // There may be a copy already, where nobody sees it.
            return ErrorCode::KafkaStorageError;
        }
        match self.make_future(current, place).await {
            Ok(future) if self.may_begin(current) => {
                info!(partition = %current.name, to = %future.directory().display(), "moving the replica");
                self.moves.begin(current, future, place);
                ErrorCode::None
            }
            // Its topic was deleted meanwhile, or somebody else was quicker.
            Ok(future) => {
                self.delete_future(future).await;
                match current.unserved().unwrap_or(Unserved::NoReplicaHere).error_code() {
                    // This API has kept the older name for it, in Kafka, too.
                    ErrorCode::NotLeaderOrFollower => ErrorCode::ReplicaNotAvailable,
                    error => error,
                }
            }
            Err(error) => {
                self.fail_if_err(place, "a copy can't be made", Err::<(), _>(error)).await;
                ErrorCode::KafkaStorageError
            }
        }
    }

    fn may_begin(&self, current: &Rc<Replica>) -> bool {
        let is_here = self.replicas.get(current.id).is_some_and(|known| Rc::ptr_eq(&known, current));
        is_here && current.unserved().is_none() && self.moves.of(current.id).is_none()
    }

    async fn make_future(self: &Rc<Self>, current: &Replica, place: usize) -> io::Result<Rc<Replica>> {
        let parent = &self.core.node.log_dirs.directories[place].path;
        let live = parent.join(partition_directory(&current.name.topic, current.name.partition));
        let path = names::suffixed(self, &live, &current.name, DirectoryKind::Future);
        let stray = names::suffixed(self, &live, &current.name, DirectoryKind::Stray);
        let new = NewName { path: path.clone(), stray, id: current.id };
        let made = names::make(self, vec![new], false).await?.into_iter().next();
        match made.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::StorageFull)))? {
            Made::New => {}
            Made::NameTaken => return Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        }
        self.count(place, 1);
        let log = Log::new(Offset(0), ring::now().wall, 0);
        let store = SegmentStore::new(self.store.clone(), path, &log, None);
        let open = OpenLog { name: current.name.clone(), directory: place, log, store, high_watermark: Offset(0) };
        let claim =
            Claim { id: current.id, name: current.name.clone(), directory: None, config: current.config().clone() };
        Ok(self.future_of(&claim, open))
    }

    fn future_of(&self, claim: &Claim, open: OpenLog) -> Rc<Replica> {
        let future = self.replica_of(claim, open);
        future.become_follower(&FollowerState {
            leader: self.core.node.id,
            leader_epoch: COPY_EPOCH,
            partition_epoch: PartitionEpoch(0),
        });
        future
    }

    /// A copy that was found at start goes on.
    pub(super) fn resume_move(&self, claim: &Claim, current: &Rc<Replica>, open: OpenLog) {
        let place = open.directory;
        let future = self.future_of(claim, open);
        info!(partition = %current.name, to = %future.directory().display(), "moving the replica on");
        self.moves.begin(current, future, place);
    }

    /// The move ends, when nobody works on it any more; the copy, which is to be deleted.
    pub(super) async fn end_move(&self, id: TopicIdPartition) -> Option<Rc<Replica>> {
        let moving = self.moves.of(id)?;
        moving.is_over.set();
        let _turn = moving.turn.acquire(1).await;
        // It was done, or ended by another, in the meantime.
        self.moves.of(id).filter(|known| Rc::ptr_eq(known, &moving))?;
        self.moves.end(id);
        self.count(moving.target, -1);
        Some(moving.future.clone())
    }

    async fn take_back(self: &Rc<Self>, current: &Replica) {
        let Some(future) = self.end_move(current.id).await else { return };
        info!(partition = %current.name, from = %future.directory().display(), "the replica isn't moved there any more");
        self.count(future.log_dir(), 1);
        self.delete_future(future).await;
        let actual = self.core.node.log_dirs.directories[current.log_dir()].id;
        let image = self.replicas.metadata().image();
        let believed = image.topics.partition(current.id).and_then(|it| it.directory(self.core.node.id));
        if believed.is_some_and(|believed| believed != actual) {
            self.moves.assignments.add(actual, current.id);
        }
    }

    async fn delete_future(self: &Rc<Self>, future: Rc<Replica>) {
        self.count(future.log_dir(), -1);
        self.delete_now(vec![future], Unserved::NoReplicaHere).await;
    }

    /// Whether a copy that was found at start lacks nothing of the log that it is of, or is all that there is, and the
    /// metadata has the replica there.
    pub(super) fn is_abandoned(&self, claim: &Claim) -> bool {
        let futures = self.unclaimed_futures.borrow();
        let Some(future) = futures.get(&claim.id) else { return false };
        if claim.directory != Some(self.core.node.log_dirs.directories[future.directory].id) {
            return false;
        }
        let unclaimed = self.unclaimed.borrow();
        unclaimed.get(&claim.id).is_none_or(|log| log.log.log_end_offset() <= future.log.log_end_offset())
    }

    /// Such a copy becomes the replica's log.
    pub(super) async fn promote(self: &Rc<Self>, claim: &Claim) -> Result<(), ClaimError> {
        let old = self.unclaimed.borrow_mut().remove(&claim.id);
        let future = self.unclaimed_futures.borrow_mut().remove(&claim.id);
        let Some(future) = future else { return Ok(()) };
        let offline = || ClaimError::Offline(claim.name.clone());
        if let Some(old) = old {
            let path = old.store.directory();
            let renamed = names::suffixed(self, &path, &claim.name, DirectoryKind::Delete);
            let name = OldName { path, renamed: renamed.clone(), id: claim.id };
            self.rename_one(old.directory, name).await.ok_or_else(offline)?;
            old.store.abandon();
            self.count(old.directory, -1);
            self.removals.later(Target::Directory(renamed), old.directory, claim.config.file_delete_delay_ms);
        }
        let path = future.store.directory();
        let live = path.with_file_name(partition_directory(&claim.name.topic, claim.name.partition));
        let name = OldName { path, renamed: live.clone(), id: claim.id };
        self.rename_one(future.directory, name).await.ok_or_else(offline)?;
        future.store.set_directory(live.clone());
        warn!(partition = %claim.name, directory = %live.display(), "finished a move that a stop interrupted");
        self.unclaimed.borrow_mut().insert(claim.id, future);
        Ok(())
    }

    /// Renames a folder of a log in the directory at `place`, which fails if that does.
    pub(super) async fn rename_one(self: &Rc<Self>, place: usize, name: OldName) -> Option<()> {
        let what = "a log's directory can't be renamed";
        let outcomes = names::rename(self, vec![name]).await;
        let outcome = outcomes.and_then(|outcomes| outcomes.into_iter().next().unwrap_or(Ok(false)));
        self.fail_if_err(place, what, outcome).await.filter(|is_renamed| *is_renamed).map(drop)
    }
}
