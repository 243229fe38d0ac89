//! The checkpoints of each directory, which shard 0 writes for all shards.
//!
//! One round at a time: it asks every shard what its logs' offsets are, and replaces the files. Requests that come during
//! a round share the next one. A file whose content would be the same isn't written.

use std::cell::{Cell, RefCell};
use std::hash::Hasher;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ringlog_log::Log;
use ringlog_log::checkpoint::{OffsetCheckpointEntry, format_offset_checkpoint};
use ringlog_log::names::{
    LOG_START_OFFSET_CHECKPOINT_FILE, RECOVERY_POINT_CHECKPOINT_FILE, REPLICATION_OFFSET_CHECKPOINT_FILE,
};
use ringlog_ring as ring;
use ringlog_types::{Offset, TopicPartition};
use rustc_hash::{FxHashMap, FxHasher};
use tracing::info;

use super::LogDirs;
use super::background::replicas;
use super::open::OpenSummary;
use crate::replica::Replica;
use crate::shard::Shard;

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
    ended: ring::Notify,
    /// What each file held when it was written last, as a hash.
    contents: RefCell<FxHashMap<(usize, &'static str), u64>>,
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
        let place = replica.log_dir.get();
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
    let marks = gather(shard).await;
    for (place, directory) in shard.node.log_dirs.directories.iter().enumerate() {
        if directory.is_usable() && !shard.log_dirs.has_failed(place) {
            let of_directory: Vec<&Marks> = marks.iter().filter(|marks| marks.directory == place).collect();
            let written = write_directory(shard, place, &of_directory, kinds).await;
            shard.log_dirs.fail_if_err(shard, place, "checkpoints can't be written", written).await;
        }
    }
    state.done.set(up_to);
    state.is_running.set(false);
    state.ended.notify_all();
}

/// Asks all shards.
async fn gather(shard: &Rc<Shard>) -> Vec<Marks> {
    let mut answers = Vec::new();
    for core in 0..shard.node.shards {
        let work = |shard: &Rc<Shard>| -> crate::mesh::LocalFuture<Vec<Marks>> { Box::pin(gather_here(shard.clone())) };
        answers.push(shard.begin_on(core, work).await);
    }
    let mut marks = Vec::new();
    for answer in answers {
        marks.append(&mut answer.await);
    }
    marks
}

async fn gather_here(shard: Rc<Shard>) -> Vec<Marks> {
    shard.log_dirs.opened.wait_until_set().await;
    // Without an await between the two: a log that is claimed meanwhile must not be missed.
    let replicas = replicas(&shard);
    let mut marks: Vec<Marks> = {
        let unclaimed = shard.log_dirs.unclaimed.borrow();
        let marks = unclaimed.values().map(|log| Marks::of(&log.name, log.directory, &log.log, log.high_watermark));
        marks.collect()
    };
    for replica in replicas {
        marks.push({
            let partition = replica.partition.borrow();
            Marks::of(&replica.name, replica.log_dir.get(), partition.log(), partition.high_watermark())
        });
        ring::yield_if_needed().await;
    }
    marks
}

async fn write_directory(shard: &Rc<Shard>, place: usize, marks: &[&Marks], kinds: Kinds) -> io::Result<()> {
    let entries = |offset: &dyn Fn(&Marks) -> Option<Offset>| -> Vec<OffsetCheckpointEntry> {
        let entry = |marks: &&Marks| {
            let topic_partition = marks.name.clone();
            offset(marks).map(|offset| OffsetCheckpointEntry { topic_partition, offset })
        };
        marks.iter().filter_map(entry).collect()
    };
    // The log starts first: a recovery point above a start that isn't known yet would be worse than the reverse.
    if kinds.log_starts {
        let entries = entries(&|marks| marks.log_start);
        replace(shard, place, LOG_START_OFFSET_CHECKPOINT_FILE, entries).await?;
    }
    if kinds.recovery_points {
        let entries = entries(&|marks| Some(marks.recovery_point));
        replace(shard, place, RECOVERY_POINT_CHECKPOINT_FILE, entries).await?;
    }
    if kinds.high_watermarks {
        let entries = entries(&|marks| Some(marks.high_watermark));
        replace(shard, place, REPLICATION_OFFSET_CHECKPOINT_FILE, entries).await?;
    }
    Ok(())
}

async fn replace(
    shard: &Rc<Shard>,
    place: usize,
    name: &'static str,
    mut entries: Vec<OffsetCheckpointEntry>,
) -> io::Result<()> {
    let path: PathBuf = shard.node.log_dirs.directories[place].path.join(name);
    let contents = &shard.log_dirs.checkpoints.contents;
    let last = contents.borrow().get(&(place, name)).copied();
    let hash = ring::blocking(move || {
        entries.sort_unstable();
        let text = format_offset_checkpoint(&entries);
        let mut hasher = FxHasher::default();
        hasher.write(text.as_bytes());
        let hash = hasher.finish();
        if last != Some(hash) {
            ring::fs::write_atomically_now(&path, text.as_bytes())?;
        }
        Ok(hash)
    })
    .await?;
    contents.borrow_mut().insert((place, name), hash);
    Ok(())
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
