//! The orderly stop: everything is written and on the device, then the checkpoints say so, then the marker.
//!
//! A crash before the marker is there is recovered from like any other, from recovery points that nobody raised before
//! what they vouch for was on the device.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::Log;
use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::clean_shutdown::format_clean_shutdown;
use ringlog_log::names::{CLEAN_SHUTDOWN_FILE, FileKind, LEADER_EPOCH_CHECKPOINT_FILE, LOCK_FILE, SegmentFile};
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_ring as ring;
use ringlog_ring::fs::Fs;
use ringlog_types::{BrokerEpoch, Offset};
use tracing::{error, info, warn};

use super::checkpoint_rounds::Kinds;
use super::checkpoints;
use super::offline::take_faults;
use super::room::LogDirs;
use crate::core::Room as _;
use crate::data::replica::Replica;
use crate::mesh::LocalFuture;
use crate::storage::segment_store::SegmentStore;

/// Logs that a shard closes at a time.
const CLOSED_AT_A_TIME: usize = 64;

/// On shard 0, once nothing is appended any more: closes all logs of the node and leaves its directories as an orderly
/// stop does. `broker_epoch` is that of the registration, if there was one.
pub async fn close_all(dirs: &Rc<LogDirs>, broker_epoch: Option<i64>) {
    let node = &dirs.core.node;
    if node.config.roles.broker && !all_opened(dirs).await {
        // Checkpoints that lacked the rest would lose what they say of it.
        warn!("stopped before all logs were opened: those are recovered at the next start");
    } else if node.config.roles.broker {
        let unclean = close_logs(dirs).await;
        let epoch = BrokerEpoch(broker_epoch.unwrap_or(BrokerEpoch::NONE.0));
        for (place, directory) in node.log_dirs.directories.iter().enumerate() {
            if !directory.is_usable() {
                continue;
            }
            if dirs.has_failed(place) || unclean.contains(&place) {
                warn!(directory = %directory.path.display(), "closed without the marker: its logs are recovered at the next start");
                continue;
            }
            let path = directory.path.join(CLEAN_SHUTDOWN_FILE);
            let marker = format_clean_shutdown(epoch).into_bytes();
            if let Err(error) = ring::fs::write_atomically(path.clone(), marker).await {
                error!(file = %path.display(), "can't be written: {error}; the next start recovers the logs");
            }
        }
    }
    for directory in node.log_dirs.directories.iter().filter(|directory| directory.lock.is_some()) {
        // The lock itself holds until the process ends.
        if let Err(error) = ring::fs::remove_file(directory.path.join(LOCK_FILE)).await {
            warn!(directory = %directory.path.display(), "the lock file can't be removed: {error}");
        }
    }
}

/// Whether every shard has got through with opening its logs.
async fn all_opened(dirs: &Rc<LogDirs>) -> bool {
    for core in 0..dirs.core.node.shards {
        if !dirs.ask(core, |dirs| dirs.opened.is_set()).await {
            return false;
        }
    }
    true
}

/// Closes the logs of all shards; places of the directories that aren't complete on the device.
async fn close_logs(dirs: &Rc<LogDirs>) -> Vec<usize> {
    let started = ring::now().monotonic;
    // Metadata may be taken over all the time. All cores hear of it before any is waited for: a new log of one may wait for
    // an older one of another to go.
    for core in 0..dirs.core.node.shards {
        dirs.tell(core, |dirs| dirs.changes.begin_close()).await;
    }
    for core in 0..dirs.core.node.shards {
        let work = |dirs: &Rc<LogDirs>| -> LocalFuture<()> {
            let changes = dirs.changes.clone();
            Box::pin(async move { changes.close().await })
        };
        dirs.invoke_on(core, work).await;
    }
    let mut answers = Vec::new();
    for core in 0..dirs.core.node.shards {
        let work = |dirs: &Rc<LogDirs>| -> LocalFuture<Vec<usize>> { Box::pin(close_here(dirs.clone())) };
        answers.push(dirs.begin_on(core, work).await);
    }
    let mut unclean = Vec::new();
    for answer in answers {
        unclean.extend(answer.answer().await);
    }
    for (place, directory) in dirs.core.node.log_dirs.directories.iter().enumerate() {
        if directory.is_usable() && !dirs.has_failed(place) && !unclean.contains(&place) {
            let synced = ring::fs::syncfs(directory.path.clone()).await;
            if dirs.fail_if_err(place, "logs can't be flushed", synced).await.is_none() {
                unclean.push(place);
            }
        }
    }
    for core in 0..dirs.core.node.shards {
        let unclean = unclean.clone();
        dirs.tell(core, move |dirs| note_flushed(dirs, &unclean)).await;
    }
    checkpoints::write(dirs, Kinds::ALL).await;
    unclean.extend(dirs.checkpoints.unwritten.take());
    info!(ms = ring::now().monotonic.since_ms(started), "closed the logs");
    unclean
}

/// Everything that is in the files is on the device.
fn note_flushed(dirs: &LogDirs, unclean: &[usize]) {
    let now = ring::now().wall;
    let is_flushed = |place: usize| !dirs.has_failed(place) && !unclean.contains(&place);
    let all = dirs.replicas.all().into_iter().chain(dirs.moves.futures());
    for replica in all.filter(|replica| is_flushed(replica.log_dir())) {
        replica.on_all_flushed(now);
    }
    for unclaimed in [&dirs.unclaimed, &dirs.unclaimed_futures] {
        for open in unclaimed.borrow_mut().values_mut().filter(|open| is_flushed(open.directory)) {
            let end_offset = open.log.log_end_offset();
            open.log.on_flushed(end_offset, now);
        }
    }
}

/// Closes the logs of one shard; places of the directories for which that failed.
async fn close_here(dirs: Rc<LogDirs>) -> Vec<usize> {
    // What can't be written for want of room isn't waited for.
    dirs.store.space.give_up();
    // Those, too, that came while the node stopped: from here on nothing is appended.
    dirs.replicas.stop_serving();
    dirs.background.close().await;
    take_faults(&dirs).await;
    let mut unclean = Vec::new();
    let all = dirs.replicas.all().into_iter().chain(dirs.moves.futures());
    let pending: Rc<RefCell<VecDeque<Rc<Replica>>>> = Rc::new(RefCell::new(all.collect()));
    let workers: Vec<_> = (0..CLOSED_AT_A_TIME)
        .map(|_| {
            let (dirs, pending) = (dirs.clone(), pending.clone());
            ring::spawn(async move { close_pending(&dirs, &pending).await })
        })
        .collect();
    for worker in workers {
        unclean.extend(worker.await);
    }
    for unclaimed in [&dirs.unclaimed, &dirs.unclaimed_futures] {
        let logs: Vec<_> = unclaimed.borrow_mut().drain().collect();
        for (id, mut open) in logs {
            let closed = close_log(&open.store, &mut open.log).await;
            let what = "a log can't be closed";
            if dirs.fail_if_err(open.directory, what, closed).await.is_none() {
                unclean.push(open.directory);
            } else {
                unclaimed.borrow_mut().insert(id, open);
            }
        }
    }
    unclean
}

async fn close_pending(dirs: &Rc<LogDirs>, pending: &RefCell<VecDeque<Rc<Replica>>>) -> Vec<usize> {
    let mut unclean = Vec::new();
    loop {
        let next = pending.borrow_mut().pop_front();
        let Some(replica) = next else { return unclean };
        let place = replica.log_dir();
        if dirs.has_failed(place) {
            continue;
        }
        let closed = close_replica(&replica).await;
        if !dirs.fail_if_err(place, "a log can't be closed", closed).await.unwrap_or(false) {
            unclean.push(place);
        }
        ring::yield_if_needed().await;
    }
}

/// Whether all of it is in its files now.
async fn close_replica(replica: &Rc<Replica>) -> io::Result<bool> {
    let Some(end_files) = replica.end(EndFiles::of).await? else { return Ok(false) };
    end_files.write(replica.directory()).await?;
    Ok(true)
}

async fn close_log(store: &Rc<SegmentStore>, log: &mut Log) -> io::Result<()> {
    let end_files = EndFiles::of(log);
    store.trim().await?;
    end_files.write(store.directory()).await
}

/// The files that lie beside the active segment after an orderly stop.
struct EndFiles {
    files: Vec<(SegmentFile, Vec<u8>)>,
    /// There may be one from before, of transactions that were cut off.
    stale: Option<SegmentFile>,
    /// The leader epochs, if they have changed.
    epochs: Option<String>,
}

impl EndFiles {
    fn of(log: &mut Log) -> EndFiles {
        let snapshot = log.producers_mut().take_snapshot().filter(|(offset, _)| *offset > Offset(0));
        let active = log.active_segment_mut();
        active.index.on_close();
        let file = |kind| SegmentFile::live(active.base_offset, kind);
        let mut files = vec![
            (file(FileKind::OffsetIndex), active.index.offsets.encode_from(0)),
            (file(FileKind::TimeIndex), active.index.times.encode_from(0)),
        ];
        let mut stale = None;
        if active.transaction_index.entries().is_empty() {
            stale = Some(file(FileKind::TransactionIndex));
        } else {
            files.push((file(FileKind::TransactionIndex), active.transaction_index.encode()));
        }
        if let Some((offset, producers)) = snapshot {
            files.push((SegmentFile::live(offset, FileKind::ProducerSnapshot), encode_producer_snapshot(&producers)));
        }
        let epochs = log.leader_epochs_mut();
        let epochs = epochs.take_dirty().then(|| format_leader_epoch_checkpoint(epochs.entries()));
        EndFiles { files, stale, epochs }
    }

    /// Writes those that aren't there as they should be. They are synced with the whole file system later.
    async fn write(self, directory: PathBuf) -> io::Result<()> {
        ring::fs::run(async move |fs| {
            for (file, bytes) in &self.files {
                write_if_other(&fs, &directory.join(file.to_string()), bytes).await?;
            }
            if let Some(stale) = self.stale {
                fs.remove_file_if_there(&directory.join(stale.to_string())).await?;
            }
            if let Some(epochs) = self.epochs {
                // If we are killed half-way, the old ones or these are there, whole: Kafka takes no others.
                let path = directory.join(LEADER_EPOCH_CHECKPOINT_FILE);
                let temporary = path.with_extension("tmp");
                fs.write(&temporary, epochs.as_bytes()).await?;
                fs.rename(&temporary, &path).await?;
            }
            Ok(())
        })
        .await
    }
}

async fn write_if_other(fs: &Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let len = bytes.len() as u64;
    let is_same_size = fs.metadata(path).await.is_ok_and(|found| found.len == len);
    if is_same_size && fs.read(path, len).await.is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    fs.write(path, bytes).await
}
