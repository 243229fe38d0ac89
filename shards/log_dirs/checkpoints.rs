//! The checkpoints of each directory, which shard 0 writes for all shards.
//!
//! One round at a time: it asks every shard what its logs' offsets are, and replaces the files. Requests that come during
//! a round share the next one. A file whose content would be the same isn't written.

use std::cell::{Cell, RefCell};
use std::hash::Hasher;
use std::io;
use std::path::Path;
use std::rc::Rc;

use ringlog_log::Log;
use ringlog_log::checkpoint::{OffsetCheckpointEntry, format_offset_checkpoint};
use ringlog_log::names::{
    LOG_START_OFFSET_CHECKPOINT_FILE, RECOVERY_POINT_CHECKPOINT_FILE, REPLICATION_OFFSET_CHECKPOINT_FILE,
};
use ringlog_ring as ring;
use ringlog_ring::fs::Fs;
use ringlog_types::{Offset, TopicIdPartition, TopicPartition};
use rustc_hash::{FxHashMap, FxHasher};
use tracing::info;

use super::LogDirs;
use super::background::replica_ids;
use super::open::OpenSummary;
use crate::data::replica::Replica;
use crate::shard::Shard;
use crate::storage::log_read::StoredLog;

/// Which files to write.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kinds {
    pub recovery_points: bool,
    pub high_watermarks: bool,
    pub log_starts: bool,
}

impl Kinds {
    pub const ALL: Kinds = Kinds { recovery_points: true, high_watermarks: true, log_starts: true };
    pub const LOG_STARTS: Kinds = Kinds { recovery_points: false, high_watermarks: false, log_starts: true };

    fn or(self, other: Kinds) -> Kinds {
        Kinds {
            recovery_points: self.recovery_points || other.recovery_points,
            high_watermarks: self.high_watermarks || other.high_watermarks,
            log_starts: self.log_starts || other.log_starts,
        }
    }

    fn is_all(self) -> bool {
        self.recovery_points && self.high_watermarks && self.log_starts
    }

    fn is_none(self) -> bool {
        !(self.recovery_points || self.high_watermarks || self.log_starts)
    }
}

/// Rounds of writing; on shard 0.
#[derive(Default)]
pub(super) struct Checkpoints {
    requests: Cell<u64>,
    /// All requests up to this one are done.
    done: Cell<u64>,
    wanted: Cell<Kinds>,
    is_running: Cell<bool>,
    /// The last request after which all files were written.
    all_done: Cell<u64>,
    /// The last request before a log went: only a later one leaves its name out for sure.
    last_with_gone: Cell<u64>,
    ended: ring::Notify,
    /// What each file held when it was written last, as a hash.
    contents: RefCell<FxHashMap<(usize, &'static str), u64>>,
}

impl Checkpoints {
    /// A log goes: its name is to leave the files before another takes it.
    pub fn on_name_gone(&self) {
        self.last_with_gone.set(self.requests.get());
    }

    /// Whether no name of a log that is gone is in the files.
    fn are_fresh(&self) -> bool {
        self.all_done.get() > self.last_with_gone.get()
    }
}

/// The offsets of one log.
struct Marks {
    name: TopicPartition,
    directory: usize,
    recovery_point: Offset,
    high_watermark: Offset,
    log_start: Option<Offset>,
}

impl Marks {
    fn of(name: &TopicPartition, directory: usize, log: &Log, high_watermark: Offset) -> Marks {
        Marks {
            name: name.clone(),
            directory,
            recovery_point: log.recovery_point(),
            high_watermark,
            log_start: log.log_start_offset_to_checkpoint(),
        }
    }
}

impl LogDirs {
    /// The log's start moved (DeleteRecords): once this ends, a crash doesn't bring the records back.
    pub async fn after_log_start_moved(&self, shard: &Rc<Shard>, replica: &Rc<Replica>) {
        let place = replica.log_dir();
        let epochs = replica.persist_leader_epochs().await;
        self.fail_if_err(shard, place, "leader epochs can't be written", epochs).await;
        write_from(shard, Kinds::LOG_STARTS).await;
    }
}

/// [`write`] from any shard.
pub(super) async fn write_from(shard: &Rc<Shard>, kinds: Kinds) {
    shard
        .invoke_on(0, move |shard| {
            let shard = shard.clone();
            Box::pin(async move { write(&shard, kinds).await })
        })
        .await;
}

/// On shard 0: sees to it that no checkpoint lists a log that is gone. An error when that can't be written for now.
pub(super) async fn freshen(shard: Rc<Shard>) -> io::Result<()> {
    let state = &shard.log_dirs.checkpoints;
    if !state.are_fresh() {
        write(&shard, Kinds::ALL).await;
    }
    if state.are_fresh() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
}

/// On shard 0: when it ends, the files hold what the logs' offsets were at some moment after it was called.
pub(super) async fn write(shard: &Rc<Shard>, kinds: Kinds) {
    let state = &shard.log_dirs.checkpoints;
    if kinds.is_none() {
        return;
    }
    let request = state.requests.get() + 1;
    state.requests.set(request);
    state.wanted.set(state.wanted.get().or(kinds));
    while state.is_running.get() {
        state.ended.wait().await;
    }
    if state.done.get() >= request {
        return;
    }
    state.is_running.set(true);
    let (kinds, up_to) = (state.wanted.take(), state.requests.get());
    let mut is_complete = true;
    for (place, marks) in gather(shard).await.into_iter().enumerate() {
        if shard.node.log_dirs.directories[place].is_usable() && !shard.log_dirs.has_failed(place) {
            let written = write_directory(shard, place, marks, kinds).await;
            let written = shard.log_dirs.fail_if_err(shard, place, "checkpoints can't be written", written).await;
            is_complete &= written.is_some() || shard.log_dirs.has_failed(place);
        }
    }
    if kinds.is_all() && is_complete {
        state.all_done.set(up_to);
    }
    state.done.set(up_to);
    state.is_running.set(false);
    state.ended.notify_all();
}

/// Asks all shards; the logs of each directory.
async fn gather(shard: &Rc<Shard>) -> Vec<Vec<Marks>> {
    let mut answers = Vec::new();
    for core in 0..shard.node.shards {
        let work =
            |shard: &Rc<Shard>| -> crate::mesh::LocalFuture<Vec<Vec<Marks>>> { Box::pin(gather_here(shard.clone())) };
        answers.push(shard.begin_on(core, work).await);
    }
    let mut marks: Vec<Vec<Marks>> = shard.node.log_dirs.directories.iter().map(|_| Vec::new()).collect();
    for answer in answers {
        for (all, of_core) in marks.iter_mut().zip(answer.await) {
            all.extend(of_core);
        }
    }
    marks
}

/// There may be very many logs, and what is done for each is small: others run in between.
async fn gather_here(shard: Rc<Shard>) -> Vec<Vec<Marks>> {
    shard.log_dirs.opened.wait_until_set().await;
    let mut marks: Vec<Vec<Marks>> = shard.node.log_dirs.directories.iter().map(|_| Vec::new()).collect();
    // Without an await between the two: a log that is claimed meanwhile is in one of them.
    let unclaimed: Vec<TopicIdPartition> = shard.log_dirs.unclaimed.borrow().keys().copied().collect();
    for id in replica_ids(&shard).into_iter().chain(unclaimed) {
        let found = marks_of(&shard, id);
        if let Some(found) = found {
            marks[found.directory].push(found);
        }
        ring::yield_if_needed().await;
    }
    marks
}

/// `None` when it is gone or about to go.
fn marks_of(shard: &Shard, id: TopicIdPartition) -> Option<Marks> {
    if let Some(replica) = shard.replicas.borrow().get(&id) {
        // Its name is about to be free for another.
        if replica.has_given_up_files() {
            return None;
        }
        let high_watermark = replica.high_watermark();
        return Some(replica.with_log(|log| Marks::of(&replica.name, replica.log_dir(), log, high_watermark)));
    }
    let unclaimed = shard.log_dirs.unclaimed.borrow();
    unclaimed.get(&id).map(|log| Marks::of(&log.name, log.directory, &log.log, log.high_watermark))
}

/// Replaces the checkpoints of a directory, on a thread of its own: sorting and writing a hundred thousand lines takes a
/// while.
async fn write_directory(shard: &Rc<Shard>, place: usize, marks: Vec<Marks>, kinds: Kinds) -> io::Result<()> {
    let path = shard.node.log_dirs.directories[place].path.clone();
    let contents = &shard.log_dirs.checkpoints.contents;
    let last = FILES.map(|name| contents.borrow().get(&(place, name)).copied());
    let written =
        ring::fs::run_apart("checkpoints", async move |fs| Ok(write_now(&fs, &path, marks, kinds, last).await)).await?;
    let (hashes, outcome) = written;
    for (name, hash) in FILES.into_iter().zip(hashes) {
        if let Some(hash) = hash {
            contents.borrow_mut().insert((place, name), hash);
        }
    }
    outcome
}

/// In the order in which they are written. The log starts first: a recovery point above a start that isn't known yet would
/// be worse than the reverse.
const FILES: [&str; 3] =
    [LOG_START_OFFSET_CHECKPOINT_FILE, RECOVERY_POINT_CHECKPOINT_FILE, REPLICATION_OFFSET_CHECKPOINT_FILE];

/// Hashes of what the files hold now where that is known.
type Hashes = [Option<u64>; 3];

async fn write_now(
    fs: &Fs,
    path: &Path,
    mut marks: Vec<Marks>,
    kinds: Kinds,
    mut hashes: Hashes,
) -> (Hashes, io::Result<()>) {
    marks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let offsets: [fn(&Marks) -> Option<Offset>; 3] =
        [|marks| marks.log_start, |marks| Some(marks.recovery_point), |marks| Some(marks.high_watermark)];
    let wanted = [kinds.log_starts, kinds.recovery_points, kinds.high_watermarks];
    for place in (0..FILES.len()).filter(|place| wanted[*place]) {
        let entry = |marks: &Marks| {
            let topic_partition = marks.name.clone();
            offsets[place](marks).map(|offset| OffsetCheckpointEntry { topic_partition, offset })
        };
        let text = format_offset_checkpoint(&marks.iter().filter_map(entry).collect::<Vec<_>>());
        let mut hasher = FxHasher::default();
        hasher.write(text.as_bytes());
        let hash = Some(hasher.finish());
        if hashes[place] != hash {
            hashes[place] = None;
            if let Err(error) = fs.write_atomically(&path.join(FILES[place]), text.as_bytes()).await {
                return (hashes, Err(error));
            }
            hashes[place] = hash;
        }
    }
    (hashes, Ok(()))
}

/// One line for each directory: what was opened at start.
pub(super) async fn log_summaries(shard: &Rc<Shard>) {
    let mut sums = vec![OpenSummary::default(); shard.node.log_dirs.directories.len()];
    for core in 0..shard.node.shards {
        let found: Vec<OpenSummary> = shard
            .invoke_on(core, |shard| {
                let summaries = shard.log_dirs.summaries.take();
                Box::pin(std::future::ready(summaries))
            })
            .await;
        for (sum, found) in sums.iter_mut().zip(found) {
            sum.logs += found.logs;
            sum.recovered += found.recovered;
            sum.truncated_bytes += found.truncated_bytes;
            sum.took_ms = sum.took_ms.max(found.took_ms);
        }
    }
    for (directory, sum) in shard.node.log_dirs.directories.iter().zip(sums) {
        if directory.is_usable() {
            info!(
                directory = %directory.path.display(),
                logs = sum.logs,
                recovered = sum.recovered,
                cut_bytes = sum.truncated_bytes,
                ms = sum.took_ms,
                orderly_stop = directory.clean_shutdown.is_some(),
                "opened the logs"
            );
        }
    }
}
