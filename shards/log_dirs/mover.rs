//! Copies replicas to other directories, and has the copies take their places.
//!
//! A copier takes one move after the other: reads from the log in use, appends the same batches to the copy, as throttles
//! allow. When the copy has all, the controller is told where the replica is about to lie (KIP-858); when the metadata says
//! so, too, appends wait for a moment, what came meanwhile is copied, and the logs change places ([`swap`]).
//!
//! Bounds: `num.replica.alter.log.dirs.threads` copiers in the node, one on each core at least, each with one read at a time
//! of [`READ_BYTES`].

use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use ringlog_log::names::partition_directory;
use ringlog_partition::{FollowerAppendError, ReadError, ReadPlan, ReadRequest, Reader, Unserved};
use ringlog_ring as ring;
use ringlog_types::{LeaderEpoch, MonotonicMs};
use tracing::{debug, info, warn};

use super::checkpoint_rounds::Kinds;
use super::checkpoints;
use super::moves::Move;
use super::names::OldName;
use super::relocation::COPY_EPOCH;
use super::room::LogDirs;
use crate::data::replication_quotas::Throttled;
use crate::storage::log_read::{ReadRange, StoredLog as _};

/// Read at a time.
const READ_BYTES: usize = 1024 * 1024;
/// A replica that can't be copied for now is looked at again after this.
const LATER_MS: u64 = 500;
/// A copy that wasn't whole in the last moment is looked at again after this.
const AGAIN_MS: u64 = 20;
/// How long the metadata may take to say where the replica lies, before the controller is told again.
const ASSIGNED_WITHIN_MS: u64 = 30_000;

/// Starts the copiers of this core.
pub(super) fn start(dirs: &Rc<LogDirs>) -> Result<(), ring::GateClosed> {
    let node = &dirs.core.node;
    let threads = node.config.replica.num_alter_log_dirs_threads.and_then(|threads| usize::try_from(threads).ok());
    let threads = threads.unwrap_or(node.log_dirs.directories.len());
    for _ in 0..threads.div_ceil(node.shards).max(1) {
        dirs.background.spawn(work(dirs.clone()))?;
    }
    Ok(())
}

async fn work(dirs: Rc<LogDirs>) {
    while !dirs.background.is_closed() {
        let Some(next) = dirs.moves.next() else {
            futures_lite::future::or(dirs.moves.arrived.wait(), dirs.background.closing()).await;
            continue;
        };
        if let End::Later = run(&dirs, &next).await {
            dirs.idle_until(ring::now().monotonic.plus_ms(LATER_MS), next.is_over.wait_until_set()).await;
            if !next.is_over.is_set() {
                // Behind the others.
                dirs.moves.put(next);
            }
        }
    }
}

enum End {
    /// Nothing is left to do.
    Over,
    /// Nothing can be done for now.
    Later,
}

/// How a copy waits for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// In the order in which other appends do.
    InTurn,
    /// Beside that: those who are first in that order wait for this copy.
    AtOnce,
}

enum Step {
    Copied(usize),
    CaughtUp,
    Later,
}

async fn run(dirs: &Rc<LogDirs>, moving: &Rc<Move>) -> End {
    loop {
        if dirs.background.is_closed() || moving.is_over.is_set() {
            return End::Over;
        }
        if let Some(until) = dirs.quotas.exceeded_until(Throttled::LogDirs) {
            idle(dirs, moving, until).await;
            continue;
        }
        let turn = moving.turn.acquire(1).await;
        if moving.is_over.is_set() {
            return End::Over;
        }
        match step(dirs, moving, Pace::InTurn).await {
            Step::Copied(0) => idle(dirs, moving, ring::now().monotonic.plus_ms(1)).await,
            Step::Copied(bytes) => dirs.quotas.record(Throttled::LogDirs, bytes),
            Step::Later => return End::Later,
            Step::CaughtUp if !is_assigned(dirs, moving) => {
                drop(turn);
                wait_for_assignment(dirs, moving).await;
            }
            Step::CaughtUp => match swap(dirs, moving).await {
                Ok(true) => return End::Over,
                Ok(false) => idle(dirs, moving, ring::now().monotonic.plus_ms(AGAIN_MS)).await,
                Err(error) => {
                    dirs.fail_if_err(moving.target, "a copy can't take its replica's place", Err::<(), _>(error)).await;
                    return End::Later;
                }
            },
        }
    }
}

async fn idle(dirs: &Rc<LogDirs>, moving: &Move, until: MonotonicMs) {
    dirs.idle_until(until, moving.is_over.wait_until_set()).await;
}

/// Reads once, and appends what is read.
async fn step(dirs: &LogDirs, moving: &Move, pace: Pace) -> Step {
    let Move { current, future, .. } = moving;
    let config = current.config();
    if !Rc::ptr_eq(&config, &future.config()) {
        future.set_config(config);
    }
    let (from, epoch) = future.with_log(|log| (log.log_end_offset(), log.last_fetched_epoch()));
    let question = ReadRequest {
        fetch_offset: from,
        reader: Reader::Internal,
        current_leader_epoch: None,
        last_fetched_epoch: Some(epoch).filter(|epoch| *epoch != LeaderEpoch::NONE),
    };
    let outcome = match current.plan_read(&question) {
        Ok(ReadPlan::Records { location, limit, .. }) => {
            let range = ReadRange { place: location, from, limit, max_bytes: READ_BYTES, at_least_one: true };
            match current.read(&range).await {
                Ok(read) => return append(dirs, moving, read.slices.concat().into(), pace).await,
                Err(fault) => {
                    warn!(partition = %current.name, "can't be read to be copied: {fault}");
                    return Step::Later;
                }
            }
        }
        Ok(ReadPlan::Empty(_)) => {
            advance(moving);
            return Step::CaughtUp;
        }
        // The log was cut.
        Ok(ReadPlan::Diverging { diverging_epoch, .. }) => {
            let to = future.truncation_for(diverging_epoch, from).offset;
            future.truncate(to, COPY_EPOCH).await
        }
        Err(ReadError::OffsetOutOfRange(_)) => {
            let (start, end) = current.with_log(|log| (log.log_start_offset(), log.log_end_offset()));
            match from > end && end > future.with_log(|log| log.log_start_offset()) {
                true => future.truncate(end, COPY_EPOCH).await,
                false => future.restart_at(start, COPY_EPOCH).await,
            }
        }
        Err(error) => {
            debug!(partition = %current.name, "can't be copied for now: {error}");
            return Step::Later;
        }
    };
    match outcome {
        Ok(()) => Step::Copied(0),
        Err(error) => {
            future.on_file_trouble("changing a copy as its log was changed failed", &error);
            Step::Later
        }
    }
}

/// Appends batches to the copy, and waits for them to be on the device.
async fn append(dirs: &LogDirs, moving: &Move, mut records: Bytes, pace: Pace) -> Step {
    let future = &moving.future;
    let bytes = records.len();
    while !records.is_empty() {
        let now = ring::now();
        if !future.has_disk_for_fetched(records.len(), now) {
            return Step::Later;
        }
        let frames = &dirs.store.frames;
        let has_room = future.has_room_for_fetched(records.len());
        if !has_room || (pace == Pace::InTurn && frames.is_waited_for()) {
            let _turn = if pace == Pace::InTurn { Some(frames.turn().await) } else { None };
            while !future.has_room_for_fetched(records.len()) && future.follows_in(COPY_EPOCH) {
                frames.wait_a_moment().await;
            }
        }
        match future.append_fetched(&records, COPY_EPOCH, now) {
            // What follows is cut off.
            Ok(taken) if taken.bytes == 0 => break,
            Ok(taken) => records.advance(taken.bytes),
            // The log starts within its first batch.
            Err(FollowerAppendError::StartsBelowEmptyLog(offset)) => {
                if let Err(error) = future.restart_at(offset, COPY_EPOCH).await {
                    future.on_file_trouble("beginning a copy anew failed", &error);
                    return Step::Later;
                }
            }
            Err(fault) => {
                debug!(partition = %future.name, "can't be appended to the copy: {fault}");
                return Step::Later;
            }
        }
    }
    let end = future.log_end_offset();
    while future.durable_end_offset() < end && future.follows_in(COPY_EPOCH) {
        future.progressed().await;
    }
    advance(moving);
    Step::Copied(bytes - records.len())
}

fn advance(moving: &Move) {
    let start = moving.current.with_log(|log| log.log_start_offset());
    moving.future.advance(moving.current.high_watermark(), start);
}

/// Whether the metadata has the replica where it is about to lie.
fn is_assigned(dirs: &LogDirs, moving: &Move) -> bool {
    let (image, node) = (dirs.replicas.metadata().image(), &dirs.core.node);
    if !image.metadata_version().is_directory_assignment_supported() {
        return true;
    }
    let partition = image.topics.partition(moving.current.id);
    partition.and_then(|it| it.directory(node.id)) == Some(node.log_dirs.directories[moving.target].id)
}

/// Has the controller told, and ends when the metadata says it, or it is time to tell it again.
async fn wait_for_assignment(dirs: &Rc<LogDirs>, moving: &Rc<Move>) {
    dirs.moves.assignments.add(dirs.core.node.log_dirs.directories[moving.target].id, moving.current.id);
    let deadline = ring::now().monotonic.plus_ms(ASSIGNED_WITHIN_MS);
    let is_over = || moving.is_over.is_set() || dirs.background.is_closed() || ring::now().monotonic >= deadline;
    while !is_assigned(dirs, moving) && !is_over() {
        let changed = dirs.replicas.metadata().changed.wait();
        dirs.idle_until(deadline, futures_lite::future::or(changed, moving.is_over.wait_until_set())).await;
    }
}

/// The copy takes the replica's place, if it has all of it in the last moment, too. Appends wait while that is seen to, and
/// are written when the folders have their names.
async fn swap(dirs: &Rc<LogDirs>, moving: &Rc<Move>) -> io::Result<bool> {
    let Move { current, future, target, .. } = &**moving;
    // Most of it before anybody waits.
    future.flush().await?;
    let Some(still) = current.hold_still().await? else { return Ok(false) };
    loop {
        match step(dirs, moving, Pace::AtOnce).await {
            Step::Copied(bytes) => dirs.quotas.record(Throttled::LogDirs, bytes),
            Step::CaughtUp => break,
            Step::Later => return Ok(false),
        }
    }
    future.flush().await?;
    let Some(copy_still) = future.hold_still().await? else { return Ok(false) };
    let source = current.log_dir();
    if !current.exchange(future) {
        return Ok(false);
    }
    // From here on `future` is what the replica was before.
    dirs.moves.end(current.id);
    let written = still.write_leader_epochs().await;
    still.let_appends_go_on();
    drop(copy_still);
    if dirs.fail_if_err(*target, "leader epochs can't be written", written).await.is_none() {
        return Ok(true);
    }
    if current.with_log(|log| log.log_start_offset_to_checkpoint().is_some()) {
        // Or a crash would bring back what was deleted.
        checkpoints::write_from(dirs, Kinds::LOG_STARTS).await;
    }
    future.close(Unserved::NoReplicaHere);
    let mut removals = Vec::new();
    dirs.rename_deleted(std::slice::from_ref(future), &mut removals).await;
    dirs.count(source, -1);
    if !dirs.has_failed(source) {
        let path = current.directory();
        let live = path.with_file_name(partition_directory(&current.name.topic, current.name.partition));
        current.begin_rename();
        let name = OldName { path: path.clone(), renamed: live.clone(), id: current.id };
        let renamed = dirs.rename_one(*target, name).await;
        current.end_rename(if renamed.is_some() { live } else { path });
    }
    drop(still);
    checkpoints::write_from(dirs, Kinds::ALL).await;
    for (target, place, delay_ms) in removals {
        dirs.removals.later(target, place, delay_ms);
    }
    info!(partition = %current.name, directory = %current.directory().display(), "moved the replica");
    Ok(true)
}
