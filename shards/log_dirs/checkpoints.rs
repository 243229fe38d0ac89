//! The checkpoints of each directory, which shard 0 writes for all shards.
//!
//! One round at a time: it asks every shard what its logs' offsets are, and replaces the files. Requests that come during
//! a round share the next one. A file whose content would be the same isn't written.

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
use rustc_hash::FxHasher;
use tracing::info;

use super::checkpoint_rounds::Kinds;
use super::room::{LogDirs, OpenSummary};
use crate::core::Room as _;
use crate::data::replica::Replica;
use crate::mesh::LocalFuture;
use crate::storage::log_read::StoredLog;

/// How often checkpoints are written, in a row, for a name to be given, while others go.
const FRESHENED_MAX: usize = 8;

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
    pub async fn after_log_start_moved(self: &Rc<Self>, replica: &Rc<Replica>) {
        let place = replica.log_dir();
        let epochs = replica.persist_leader_epochs().await;
        self.fail_if_err(place, "leader epochs can't be written", epochs).await;
        write_from(self, Kinds::LOG_STARTS).await;
    }
}

/// [`write`] from any shard.
pub(super) async fn write_from(dirs: &Rc<LogDirs>, kinds: Kinds) {
    dirs.invoke_on(0, move |dirs| {
        let dirs = dirs.clone();
        Box::pin(async move { write(&dirs, kinds).await })
    })
    .await;
}

/// On shard 0: sees to it that no checkpoint lists a log that is gone. An error when that can't be written for now.
pub(super) async fn freshen(dirs: Rc<LogDirs>) -> io::Result<()> {
    let state = &dirs.checkpoints;
    for _ in 0..FRESHENED_MAX {
        if state.are_fresh() {
            return Ok(());
        }
        let before = state.all_done.get();
        write(&dirs, Kinds::ALL).await;
        if state.all_done.get() == before {
            break;
        }
        // Another name may have gone meanwhile.
    }
    if state.are_fresh() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
}

/// On shard 0: when it ends, the files hold what the logs' offsets were at some moment after it was called.
pub(super) async fn write(dirs: &Rc<LogDirs>, kinds: Kinds) {
    let state = &dirs.checkpoints;
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
    let mut unwritten = Vec::new();
    for (place, marks) in gather(dirs).await.into_iter().enumerate() {
        if dirs.core.node.log_dirs.directories[place].is_usable() && !dirs.has_failed(place) {
            let written = write_directory(dirs, place, marks, kinds).await;
            let written = dirs.fail_if_err(place, "checkpoints can't be written", written).await;
            if written.is_none() && !dirs.has_failed(place) {
                unwritten.push(place);
            }
        }
    }
    if kinds.is_all() && unwritten.is_empty() {
        state.all_done.set(up_to);
    }
    *state.unwritten.borrow_mut() = unwritten;
    state.done.set(up_to);
    state.is_running.set(false);
    state.ended.notify_all();
}

/// Asks all shards; the logs of each directory.
async fn gather(dirs: &Rc<LogDirs>) -> Vec<Vec<Marks>> {
    let mut answers = Vec::new();
    for core in 0..dirs.core.node.shards {
        let work = |dirs: &Rc<LogDirs>| -> LocalFuture<Vec<Vec<Marks>>> { Box::pin(gather_here(dirs.clone())) };
        answers.push(dirs.begin_on(core, work).await);
    }
    let mut marks: Vec<Vec<Marks>> = dirs.core.node.log_dirs.directories.iter().map(|_| Vec::new()).collect();
    for answer in answers {
        for (all, of_core) in marks.iter_mut().zip(answer.answer().await) {
            all.extend(of_core);
        }
    }
    marks
}

/// There may be very many logs, and what is done for each is small: others run in between.
async fn gather_here(dirs: Rc<LogDirs>) -> Vec<Vec<Marks>> {
    dirs.opened.wait_until_set().await;
    let mut marks: Vec<Vec<Marks>> = dirs.core.node.log_dirs.directories.iter().map(|_| Vec::new()).collect();
    // Without an await between the two: a log that is claimed meanwhile is in one of them.
    let unclaimed: Vec<TopicIdPartition> = dirs.unclaimed.borrow().keys().copied().collect();
    let mut turns = ring::Turns::begin();
    for id in dirs.replicas.ids().into_iter().chain(unclaimed) {
        let found = marks_of(&dirs, id);
        if let Some(found) = found {
            marks[found.directory].push(found);
        }
        turns.step().await;
    }
    // Copies in other directories have the same names there.
    marks_of_futures(&dirs, |found| marks[found.directory].push(found));
    marks
}

/// `None` when it is gone or about to go.
fn marks_of(dirs: &LogDirs, id: TopicIdPartition) -> Option<Marks> {
    if let Some(replica) = dirs.replicas.get(id) {
        // Its name is about to be free for another.
        if replica.has_given_up_files() {
            return None;
        }
        let high_watermark = replica.high_watermark();
        return Some(replica.with_log(|log| Marks::of(&replica.name, replica.log_dir(), log, high_watermark)));
    }
    let unclaimed = dirs.unclaimed.borrow();
    unclaimed.get(&id).map(|log| Marks::of(&log.name, log.directory, &log.log, log.high_watermark))
}

fn marks_of_futures(dirs: &LogDirs, mut take: impl FnMut(Marks)) {
    for future in dirs.moves.futures().iter().filter(|future| !future.has_given_up_files()) {
        let high_watermark = future.high_watermark();
        take(future.with_log(|log| Marks::of(&future.name, future.log_dir(), log, high_watermark)));
    }
    for log in dirs.unclaimed_futures.borrow().values() {
        take(Marks::of(&log.name, log.directory, &log.log, log.high_watermark));
    }
}

/// Replaces the checkpoints of a directory, on a thread of its own: sorting and writing a hundred thousand lines takes a
/// while.
async fn write_directory(dirs: &Rc<LogDirs>, place: usize, marks: Vec<Marks>, kinds: Kinds) -> io::Result<()> {
    let path = dirs.core.node.log_dirs.directories[place].path.clone();
    let contents = &dirs.checkpoints.contents;
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
pub(super) async fn log_summaries(dirs: &Rc<LogDirs>) {
    let mut sums = vec![OpenSummary::default(); dirs.core.node.log_dirs.directories.len()];
    for core in 0..dirs.core.node.shards {
        let found: Vec<OpenSummary> = dirs.ask(core, |dirs| dirs.summaries.take()).await;
        for (sum, found) in sums.iter_mut().zip(found) {
            sum.logs += found.logs;
            sum.recovered += found.recovered;
            sum.truncated_bytes += found.truncated_bytes;
            sum.took_ms = sum.took_ms.max(found.took_ms);
        }
    }
    for (directory, sum) in dirs.core.node.log_dirs.directories.iter().zip(sums) {
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
