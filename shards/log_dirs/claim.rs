//! What the metadata gives to this node: logs that exist are claimed, others made.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::names::{DirectoryKind, partition_directory};
use ringlog_log::{Log, LogConfig};
use ringlog_partition::{Partition, PartitionLimits};
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::{Offset, TopicIdPartition, TopicPartition, Uuid};
use tracing::info;

use super::names::{self, Made, NAMES_AT_A_TIME, NewName};
use super::room::{LogDirs, OpenLog};
use crate::core::Room as _;
use crate::data::replica::Replica;
use crate::storage::segment_store::SegmentStore;

/// How long a new log waits for an older one of its name to be deleted, before it is to be claimed again.
const DELETION_WAIT_MS: u64 = 10_000;
const DELETION_POLL_MS: u64 = 20;

/// Why there is no log for a partition. To clients, all of it is `KAFKA_STORAGE_ERROR`.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The assigned directory isn't one that works, and the log may lie in one that doesn't.
    #[error("the log directory of {0} is offline")]
    Offline(TopicPartition),
    /// Its topic is gone again, as metadata says that this core hasn't taken over yet; another of its name may be there by
    /// now, and served by a core that has.
    #[error("the topic of {0} is about to be deleted")]
    Outdated(TopicPartition),
    /// Another topic's log is served from its directory still.
    #[error("the log of an older topic of this name, {0}, isn't deleted yet")]
    NameInUse(TopicPartition),
    /// The node stops, and no log is made or taken over any more.
    #[error("no log for {0}: the node stops")]
    Stopping(TopicPartition),
    /// The disk; unless [`ClaimError::passes`], its directory is offline from now on.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// What couldn't be made.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl ClaimError {
    /// Whether it is worth trying again: the disk is full, descriptors are short, or the name isn't free yet.
    pub fn passes(&self) -> bool {
        match self {
            ClaimError::Io { source, .. } => ring::trouble(source) != Trouble::Fault,
            ClaimError::NameInUse(_) => true,
            ClaimError::Offline(_) | ClaimError::Outdated(_) | ClaimError::Stopping(_) => false,
        }
    }

    /// Whether nobody has to know, since nobody wants the log any more.
    pub fn is_outdated(&self) -> bool {
        matches!(self, ClaimError::Outdated(_) | ClaimError::Stopping(_))
    }
}

/// A partition that the metadata gives to this node.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Which one.
    pub id: TopicIdPartition,
    /// Its topic's name, with the partition.
    pub name: TopicPartition,
    /// The directory that it is assigned to, if it is to one.
    pub directory: Option<Uuid>,
    /// Its topic's settings.
    pub config: Rc<LogConfig>,
}

impl LogDirs {
    /// The log of a partition, as [`LogDirs::claim_all`] gives it.
    #[cfg(test)]
    pub async fn claim_or_create(self: &Rc<Self>, claim: Claim) -> Result<Rc<Replica>, ClaimError> {
        let id = claim.id;
        match self.claim_all(vec![claim], &|_| false).await.pop() {
            Some((_, error)) => Err(error),
            None => Ok(self.replicas.get(id).expect("a claim that wasn't refused")),
        }
    }

    /// The logs of partitions that the metadata gives to this node become replicas without a role among
    /// [`LogDirs::replicas`]; returns those for which there is none, with the reason. A log that exists is taken as it is,
    /// wherever it lies; else one is made in the assigned directory if that is a directory of this node, or in the one
    /// with the fewest logs.
    ///
    /// For the home shard of all of them; waits until [`super::open`] is through there. One call at a time for a partition.
    ///
    /// Each core takes metadata over at its own pace, and names are the node's: a topic that this core is about to create may
    /// be deleted by metadata that waits here, and made anew, with another id, on a core that is ahead. `is_outdated` tells
    /// which topics metadata that waits has deleted: they get no log. So of two that want a name the older one gives way,
    /// and the newer one waits until it has. Once the logs are about to be closed, nothing is claimed.
    pub async fn claim_all(
        self: &Rc<Self>,
        claims: Vec<Claim>,
        is_outdated: &dyn Fn(Uuid) -> bool,
    ) -> Vec<(Claim, ClaimError)> {
        self.opened.wait_until_set().await;
        let Ok(_until_done) = self.changes.enter() else {
            let refused = |claim: Claim| (claim.clone(), ClaimError::Stopping(claim.name));
            return claims.into_iter().map(refused).collect();
        };
        let mut refused = Vec::new();
        let mut missing = Vec::new();
        let mut turns = ring::Turns::begin();
        for claim in claims {
            turns.step().await;
            if self.replicas.get(claim.id).is_some() {
                continue;
            }
            if self.is_abandoned(&claim)
                && let Err(source) = self.promote(&claim).await
            {
                refused.push((claim, source));
                continue;
            }
            let claimed = self.unclaimed.borrow_mut().remove(&claim.id);
            match claimed {
                Some(open) if self.has_failed(open.directory) => refused.push(offline(claim)),
                Some(open) => self.serve(&claim, open),
                None => missing.push(claim),
            }
        }
        let mut missing = missing.into_iter();
        while missing.len() > 0 {
            let some = missing.by_ref().take(NAMES_AT_A_TIME).collect();
            self.create_all(some, is_outdated, &mut refused).await;
        }
        refused
    }

    pub(super) fn replica_of(&self, claim: &Claim, open: OpenLog) -> Rc<Replica> {
        let limits = PartitionLimits {
            replica_lag_time_max_ms: u64::try_from(self.core.node.config.replica.lag_time_max_ms).unwrap_or(0),
        };
        let partition = Partition::new(claim.id, self.core.node.id, open.log, open.high_watermark, limits);
        Replica::new(partition, open.name, open.directory, open.store, claim.config.clone())
    }

    fn serve(&self, claim: &Claim, open: OpenLog) {
        let replica = self.replica_of(claim, open);
        self.replicas.insert(replica.clone());
        let future = self.unclaimed_futures.borrow_mut().remove(&claim.id);
        if let Some(future) = future {
            self.resume_move(claim, &replica, future);
        }
    }

    async fn create_all(
        self: &Rc<Self>,
        claims: Vec<Claim>,
        is_outdated: &dyn Fn(Uuid) -> bool,
        refused: &mut Vec<(Claim, ClaimError)>,
    ) {
        let mut new = Vec::with_capacity(claims.len());
        for claim in claims {
            if is_outdated(claim.id.topic_id) {
                let error = ClaimError::Outdated(claim.name.clone());
                refused.push((claim, error));
                continue;
            }
            let preferred = self.moves.take_preferred(&claim.name).filter(|place| !self.has_failed(*place));
            match preferred.or_else(|| self.place_for_new(claim.directory)) {
                Some(place) => {
                    self.count(place, 1);
                    new.push(NewLog::new(self, claim, place));
                }
                None => refused.push(offline(claim)),
            }
        }
        self.being_made.borrow_mut().extend(new.iter().map(|log| log.name.path.clone()));
        let outcomes = names::make(self, new.iter().map(|log| log.name.clone()).collect(), false).await;
        let outcomes = outcomes.unwrap_or_else(|error| new.iter().map(|_| Err(names::again(&error))).collect());
        let (mut made, mut taken) = (Vec::new(), Vec::new());
        for (log, outcome) in new.into_iter().zip(outcomes) {
            match outcome {
                // The others don't wait for it.
                Ok(Made::NameTaken) => taken.push(log),
                Ok(Made::New) => self.end_making(log, Ok(()), &mut made, refused).await,
                Err(source) => {
                    let error = ClaimError::Io { path: log.name.path.clone(), source };
                    self.end_making(log, Err(error), &mut made, refused).await;
                }
            }
        }
        for log in taken {
            let outcome = replace(self, &log, is_outdated).await;
            self.end_making(log, outcome, &mut made, refused).await;
        }
        tell_made(self, made);
    }

    /// The directory is there and the log served, or not.
    async fn end_making(
        self: &Rc<Self>,
        log: NewLog,
        outcome: Result<(), ClaimError>,
        made: &mut Vec<(TopicPartition, usize)>,
        refused: &mut Vec<(Claim, ClaimError)>,
    ) {
        let (path, place) = (log.name.path.clone(), log.place);
        let outcome = outcome.and_then(|()| {
            let failed = || io::Error::other("the log directory is offline");
            if self.has_failed(place) { Err(ClaimError::Io { path: path.clone(), source: failed() }) } else { Ok(()) }
        });
        match outcome {
            Ok(()) => {
                made.push((log.claim.name.clone(), place));
                self.begin(log);
            }
            Err(error) => {
                self.count(place, -1);
                if let ClaimError::Io { source, .. } = &error
                    && ring::trouble(source) == Trouble::Fault
                {
                    self.fail(place, &format!("{}: {source}", path.display())).await;
                }
                refused.push((log.claim, error));
            }
        }
        self.being_made.borrow_mut().remove(&path);
    }

    fn begin(&self, new: NewLog) {
        let log = Log::new(Offset(0), ring::now().wall, 0);
        let store = SegmentStore::new(self.store.clone(), new.name.path, &log, None);
        let name = new.claim.name.clone();
        let open = OpenLog { name, directory: new.place, log, store, high_watermark: Offset(0) };
        self.serve(&new.claim, open);
    }

    fn place_for_new(&self, directory: Option<Uuid>) -> Option<usize> {
        let checked = &self.core.node.log_dirs;
        let is_real = |id: &Uuid| u128::from_be_bytes(id.0) >= Uuid::RESERVED_COUNT;
        let assigned = directory.filter(is_real);
        if let Some(place) = assigned.and_then(|id| checked.place_of(id)) {
            return (!self.has_failed(place)).then_some(place);
        }
        let is_offline = |place: usize| checked.directories[place].offline.is_some() || self.has_failed(place);
        if assigned.is_some() && (0..checked.directories.len()).any(is_offline) {
            return None;
        }
        let usable = || {
            let places = 0..checked.directories.len();
            places.filter(|place| checked.directories[*place].is_usable() && !self.has_failed(*place))
        };
        let is_cordoned = |place: &usize| self.is_cordoned(*place);
        // Shards get their logs by a hash, so each has a fair sample of the node's.
        let count = |place: &usize| self.logs_in(*place);
        usable().filter(|place| !is_cordoned(place)).min_by_key(count).or_else(|| usable().min_by_key(count))
    }
}

fn offline(claim: Claim) -> (Claim, ClaimError) {
    let error = ClaimError::Offline(claim.name.clone());
    (claim, error)
}

/// A log that doesn't exist yet.
struct NewLog {
    claim: Claim,
    place: usize,
    name: NewName,
}

impl NewLog {
    fn new(dirs: &LogDirs, claim: Claim, place: usize) -> NewLog {
        let parent = &dirs.core.node.log_dirs.directories[place].path;
        let path = parent.join(partition_directory(&claim.name.topic, claim.name.partition));
        let stray = names::suffixed(dirs, &path, &claim.name, DirectoryKind::Stray);
        let name = NewName { path, stray, id: claim.id };
        NewLog { claim, place, name }
    }
}

/// One line for each topic.
fn tell_made(dirs: &LogDirs, made: Vec<(TopicPartition, usize)>) {
    let of_topic = |a: &(TopicPartition, usize), b: &(TopicPartition, usize)| a.0.topic == b.0.topic && a.1 == b.1;
    for made in made.chunk_by(of_topic) {
        let directory = dirs.core.node.log_dirs.directories[made[0].1].path.display();
        let partitions: Vec<i32> = made.iter().map(|(name, _)| name.partition.0).collect();
        info!(topic = &*made[0].0.topic, ?partitions, %directory, "created logs");
    }
}

/// Makes a log's directory where another lies, once nobody serves that: an older topic of that name, which its home is
/// about to delete, or what was left behind.
async fn replace(dirs: &Rc<LogDirs>, log: &NewLog, is_outdated: &dyn Fn(Uuid) -> bool) -> Result<(), ClaimError> {
    let (name, path) = (&log.claim.name, &log.name.path);
    let mut waited_ms = 0;
    while is_in_use(dirs, path).await {
        if is_outdated(log.claim.id.topic_id) {
            return Err(ClaimError::Outdated(name.clone()));
        }
        if dirs.changes.is_closed() {
            return Err(ClaimError::Stopping(name.clone()));
        }
        if waited_ms >= DELETION_WAIT_MS {
            return Err(ClaimError::NameInUse(name.clone()));
        }
        ring::sleep_ms(DELETION_POLL_MS).await;
        waited_ms += DELETION_POLL_MS;
    }
    let made = names::make(dirs, vec![log.name.clone()], true).await;
    let made = made.and_then(|made| made.into_iter().try_for_each(|made| made.map(drop)));
    made.map_err(|source| ClaimError::Io { path: path.clone(), source })
}

/// Whether some shard serves a log from this directory, or another one than this is making it. One that only found a log
/// there forgets it: its name is another's now. Rare: only for a name that is taken.
async fn is_in_use(dirs: &Rc<LogDirs>, path: &Path) -> bool {
    for core in 0..dirs.core.node.shards {
        let is_own = core == dirs.core.index;
        let path = path.to_path_buf();
        let work = move |dirs: &Rc<LogDirs>| {
            if !is_own && dirs.being_made.borrow().contains(&path) {
                return true;
            }
            dirs.unclaimed.borrow_mut().retain(|_, log| {
                let stays = log.store.directory() != path;
                if !stays {
                    dirs.count(log.directory, -1);
                }
                stays
            });
            dirs.replicas.all().iter().any(|replica| replica.is_in(&path))
        };
        if dirs.ask(core, work).await {
            return true;
        }
    }
    false
}
