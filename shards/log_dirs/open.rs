//! At start, on every shard: finds the logs that live here and opens them, many at a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_config::{BrokerLayers, TopicConfig};
use ringlog_log::checkpoint::parse_offset_checkpoint;
use ringlog_log::names::{
    LOG_START_OFFSET_CHECKPOINT_FILE, RECOVERY_POINT_CHECKPOINT_FILE, REPLICATION_OFFSET_CHECKPOINT_FILE,
};
use ringlog_ring as ring;
use ringlog_ring::fs::Fs;
use ringlog_types::{Offset, TopicPartition};
use rustc_hash::FxHashMap;
use tracing::{info, warn};

use super::background;
use super::fault::LogDirFault;
use super::recover::{Checkpointed, Opened, Opener};
use super::removals::Target;
use super::room::{LogDirs, OpenSummary};
use super::scan::{FILE_BYTES_MAX, FoundLog, scan_directory};
use crate::metadata::log_config;

/// Logs of one directory that a shard opens at a time.
const OPENED_AT_A_TIME: usize = 64;
/// How often progress is logged.
const PROGRESS_MS: u64 = 5_000;

/// Opens the logs that live on this shard. Nothing is served from them before the metadata claims them
/// ([`super::LogDirs::claim_all`]).
///
/// A directory that the disk refuses goes offline; if that was the last one, the start is refused.
pub async fn open(dirs: &Rc<LogDirs>) -> Result<(), LogDirFault> {
    if dirs.core.node.config.roles.broker {
        let topic = TopicConfig::from_broker(&BrokerLayers::from_static(&dirs.core.node.config.properties));
        let config = log_config(&topic, &dirs.core.node.config);
        let mut summaries = Vec::new();
        for (place, directory) in dirs.core.node.log_dirs.directories.iter().enumerate() {
            let mut summary = OpenSummary::default();
            if directory.is_usable() && !dirs.has_failed(place) {
                let opener = Opener {
                    context: dirs.store.clone(),
                    directory: place,
                    clean_shutdown: directory.clean_shutdown.is_some(),
                    config: config.clone(),
                };
                match open_directory(dirs, &directory.path, opener).await {
                    Ok(opened) => summary = opened,
                    Err(OpenError::Io(path, source)) if dirs.is_last(place) => {
                        return Err(LogDirFault::Io { path, what: "can't be opened", source });
                    }
                    Err(OpenError::Io(path, source)) => {
                        dirs.fail(place, &format!("{}: {source}", path.display())).await;
                    }
                    Err(OpenError::Duplicate(fault)) => return Err(*fault),
                }
            }
            summaries.push(summary);
        }
        *dirs.summaries.borrow_mut() = summaries;
        background::start(dirs);
    }
    dirs.opened.set();
    Ok(())
}

enum OpenError {
    Io(PathBuf, io::Error),
    Duplicate(Box<LogDirFault>),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |error| OpenError::Io(path, error)
}

async fn open_directory(dirs: &Rc<LogDirs>, path: &Path, opener: Opener) -> Result<OpenSummary, OpenError> {
    let started = ring::now().monotonic;
    let place = opener.directory;
    let marks = Marks::read(path).await.map_err(at(path))?;
    let scan = scan_directory(path.to_path_buf(), dirs.core.index, dirs.core.node.shards).await.map_err(at(path))?;
    dirs.nameless.borrow_mut().extend(scan.nameless);
    let delay_ms = opener.config.file_delete_delay_ms;
    for deleted in scan.deleted {
        dirs.removals.later(Target::Directory(deleted), place, delay_ms);
    }
    let total = scan.logs.len() + scan.futures.len();
    let (opener, marks) = (Rc::new(opener), Rc::new(marks));
    let pending = scan.logs.into_iter().map(|log| (log, false)).chain(scan.futures.into_iter().map(|log| (log, true)));
    let pending: Rc<RefCell<Pending>> = Rc::new(RefCell::new(pending.collect()));
    let summary = Rc::new(Cell::new(OpenSummary::default()));
    // Each has a file or two open.
    let most = (dirs.core.node.descriptors.files_per_core / 2).clamp(1, OPENED_AT_A_TIME);
    let workers: Vec<_> = (0..most.min(total))
        .map(|_| {
            let work = open_pending(dirs.clone(), opener.clone(), marks.clone(), pending.clone(), summary.clone());
            ring::spawn(work)
        })
        .collect();
    let progress = report_progress(path.to_path_buf(), dirs.core.index, total, summary.clone());
    let progress = ring::spawn(progress);
    let mut outcome = Ok(());
    for worker in workers {
        let done = worker.await;
        outcome = outcome.and(done);
    }
    progress.cancel().await;
    outcome?;
    let took_ms = ring::now().monotonic.0.saturating_sub(started.0);
    Ok(OpenSummary { took_ms, ..summary.get() })
}

async fn open_pending(
    dirs: Rc<LogDirs>,
    opener: Rc<Opener>,
    marks: Rc<Marks>,
    pending: Rc<RefCell<Pending>>,
    summary: Rc<Cell<OpenSummary>>,
) -> Result<(), OpenError> {
    loop {
        let Some((found, is_future)) = pending.borrow_mut().pop_front() else { return Ok(()) };
        let opened = match opener.open(&found, marks.of(&found.name)).await {
            Ok(opened) => opened,
            Err(error) => {
                // No sense in going on with a disk that fails.
                pending.borrow_mut().clear();
                return Err(OpenError::Io(found.path, error));
            }
        };
        keep(&dirs, &found, is_future, opened, &summary)?;
    }
}

/// Logs to be opened, and whether each is a copy on its way from another directory.
type Pending = VecDeque<(FoundLog, bool)>;

fn keep(
    dirs: &LogDirs,
    found: &FoundLog,
    is_future: bool,
    opened: Opened,
    summary: &Cell<OpenSummary>,
) -> Result<(), OpenError> {
    let mut counts = summary.get();
    counts.logs += 1;
    counts.recovered += usize::from(opened.was_recovered);
    counts.truncated_bytes += opened.truncated_bytes;
    summary.set(counts);
    dirs.count(opened.log.directory, 1);
    let unclaimed = if is_future { &dirs.unclaimed_futures } else { &dirs.unclaimed };
    match unclaimed.borrow_mut().insert(found.id, opened.log) {
        None => Ok(()),
        Some(other) => Err(OpenError::Duplicate(Box::new(LogDirFault::DuplicateLog {
            partition: found.name.clone(),
            first: other.store.directory(),
            second: found.path.clone(),
        }))),
    }
}

async fn report_progress(path: PathBuf, core: usize, total: usize, summary: Rc<Cell<OpenSummary>>) {
    loop {
        ring::sleep_ms(PROGRESS_MS).await;
        info!(directory = %path.display(), shard = core, "opened {} of {total} logs", summary.get().logs);
    }
}

/// The checkpoints of a directory.
struct Marks {
    recovery_points: FxHashMap<TopicPartition, Offset>,
    log_starts: FxHashMap<TopicPartition, Offset>,
    high_watermarks: FxHashMap<TopicPartition, Offset>,
}

impl Marks {
    async fn read(directory: &Path) -> io::Result<Marks> {
        let directory = directory.to_path_buf();
        ring::fs::run_again(async move |fs| {
            Ok(Marks {
                recovery_points: read_checkpoint(&fs, &directory, RECOVERY_POINT_CHECKPOINT_FILE).await?,
                log_starts: read_checkpoint(&fs, &directory, LOG_START_OFFSET_CHECKPOINT_FILE).await?,
                high_watermarks: read_checkpoint(&fs, &directory, REPLICATION_OFFSET_CHECKPOINT_FILE).await?,
            })
        })
        .await
    }

    fn of(&self, name: &TopicPartition) -> Checkpointed {
        let of = |offsets: &FxHashMap<TopicPartition, Offset>| offsets.get(name).copied().unwrap_or(Offset(0));
        Checkpointed {
            recovery_point: of(&self.recovery_points),
            log_start_offset: of(&self.log_starts),
            high_watermark: of(&self.high_watermarks),
        }
    }
}

/// A checkpoint that makes no sense counts as empty, as in Kafka: logs are then recovered from their start, and start
/// with their first segment.
async fn read_checkpoint(fs: &Fs, directory: &Path, name: &str) -> io::Result<FxHashMap<TopicPartition, Offset>> {
    let path = directory.join(name);
    let bytes = fs.read_if_there(&path, FILE_BYTES_MAX).await?.unwrap_or_default();
    let entries = parse_offset_checkpoint(&bytes).unwrap_or_else(|fault| {
        warn!(file = %path.display(), "{fault}; it counts as empty");
        Vec::new()
    });
    Ok(entries.into_iter().map(|entry| (entry.topic_partition, entry.offset)).collect())
}
