//! What each shard does for its logs all the time, as one task: retention, `flush.ms`, expiry of producers, removal of
//! deleted files, and of padding behind what was written. Shard 0 has another that writes the checkpoints.

use std::io;
use std::rc::Rc;

use ringlog_ring as ring;
use ringlog_types::MonotonicMs;

use super::checkpoint_rounds::Kinds;
use super::checkpoints;
use super::mover;
use super::offline::watch_faults;
use super::removal;
use super::removals::Target;
use super::room::LogDirs;
use crate::data::replica::Replica;
use crate::storage::memory_limit::{LOOK_EVERY_MS, MemoryLimit};

/// Intervals are cut to this: a year. Kafka's "never" is the largest number.
const INTERVAL_MS_MAX: i64 = 365 * 86_400_000;

/// How often retention is looked after while a disk is full.
const RETENTION_WHEN_FULL_MS: u64 = 5_000;

/// Something that comes round again.
struct Timer {
    next: MonotonicMs,
    last: MonotonicMs,
    every_ms: u64,
}

impl Timer {
    fn new(first_ms: i64, every_ms: i64) -> Timer {
        let cut = |ms: i64| ms.clamp(1, INTERVAL_MS_MAX).unsigned_abs();
        let next = ring::now().monotonic.plus_ms(cut(first_ms.saturating_add(every_ms)));
        Timer { next, last: MonotonicMs(0), every_ms: cut(every_ms) }
    }

    /// Comes `every_ms` after the last time at the latest, if `hurries`.
    fn hurry_if(&mut self, hurries: bool, every_ms: u64) {
        if hurries {
            self.next = self.next.min(self.last.plus_ms(every_ms));
        }
    }

    fn is_due(&mut self, now: MonotonicMs) -> bool {
        let due = self.next <= now;
        if due {
            self.next = now.plus_ms(self.every_ms);
            self.last = now;
        }
        due
    }
}

/// Starts the tasks of this shard.
pub(super) fn start(dirs: &Rc<LogDirs>) {
    let gate = &dirs.background;
    let started = gate
        .spawn(watch_faults(dirs.clone()))
        .and_then(|()| gate.spawn(maintain(dirs.clone())))
        .and_then(|()| mover::start(dirs))
        .and_then(|()| gate.spawn(watch_memory(dirs.clone())))
        .and_then(|()| if dirs.core.index == 0 { gate.spawn(write_checkpoints(dirs.clone())) } else { Ok(()) });
    debug_assert!(started.is_ok(), "the gate is open until the logs are closed");
}

/// What is kept of what was written and read gives way where the host is short of memory.
async fn watch_memory(dirs: Rc<LogDirs>) {
    let mut limit = MemoryLimit::default();
    while !dirs.background.is_closed() {
        let memory = &dirs.store.memory;
        if limit.has_to_look(memory)
            && let Some(host) = ring::memory()
        {
            limit.adjust(memory, host, dirs.core.node.shards);
        }
        dirs.store.give_way();
        dirs.idle_until(ring::now().monotonic.plus_ms(LOOK_EVERY_MS), std::future::pending()).await;
    }
}

async fn maintain(dirs: Rc<LogDirs>) {
    let log = &dirs.core.node.config.log;
    let delay_ms = log.initial_task_delay_ms;
    let mut retention = Timer::new(delay_ms, log.retention_check_interval_ms);
    // As in Kafka, the first check comes right after the delay.
    retention.next = ring::now().monotonic.plus_ms(delay_ms.clamp(0, INTERVAL_MS_MAX).unsigned_abs());
    let mut flush = Timer::new(delay_ms, log.flush_scheduler_interval_ms);
    let mut expiry = Timer::new(0, i64::from(log.producer_id_expiration_check_interval_ms));
    while !dirs.background.is_closed() {
        let now = ring::now().monotonic;
        retention.hurry_if(is_any_full(&dirs), RETENTION_WHEN_FULL_MS);
        if retention.is_due(now) {
            enforce_retention(&dirs).await;
        }
        if flush.is_due(now) {
            flush_due(&dirs).await;
        }
        if expiry.is_due(now) {
            expire_producers(&dirs).await;
        }
        removal::remove_due(&dirs).await;
        retention.hurry_if(is_any_full(&dirs), RETENTION_WHEN_FULL_MS);
        cut_padding(&dirs).await;
        let (removals, padding, space) = (&dirs.removals, &dirs.store.padding, &dirs.store.space);
        let timers = [retention.next, flush.next, expiry.next].into_iter();
        let deadline = timers.chain(removals.next_deadline()).chain(padding.next_sweep()).min();
        let woken = futures_lite::future::or(removals.changed.wait(), padding.begun.wait());
        let woken = futures_lite::future::or(woken, space.changed.wait());
        dirs.idle_until(deadline.unwrap_or(now), woken).await;
    }
}

async fn write_checkpoints(dirs: Rc<LogDirs>) {
    let config = &dirs.core.node.config;
    let delay_ms = config.log.initial_task_delay_ms;
    let mut high_watermarks = Timer::new(0, config.replica.high_watermark_checkpoint_interval_ms);
    let mut recovery_points = Timer::new(delay_ms, i64::from(config.log.flush_offset_checkpoint_interval_ms));
    let mut log_starts = Timer::new(delay_ms, i64::from(config.log.flush_start_offset_checkpoint_interval_ms));
    // The first time after the start: names of logs that are gone leave the files.
    checkpoints::write(&dirs, Kinds::ALL).await;
    checkpoints::log_summaries(&dirs).await;
    while !dirs.background.is_closed() {
        let now = ring::now().monotonic;
        let kinds = Kinds {
            high_watermarks: high_watermarks.is_due(now),
            recovery_points: recovery_points.is_due(now),
            log_starts: log_starts.is_due(now),
        };
        checkpoints::write(&dirs, kinds).await;
        let deadline = high_watermarks.next.min(recovery_points.next).min(log_starts.next);
        dirs.idle_until(deadline, std::future::pending()).await;
    }
}

fn is_any_full(dirs: &LogDirs) -> bool {
    (0..dirs.core.node.log_dirs.directories.len()).any(|place| dirs.store.space.is_full(place))
}

/// Goes through the replicas, and stops when the logs are closed.
async fn for_each<F: AsyncFnMut(&Rc<Replica>) -> io::Result<()>>(dirs: &Rc<LogDirs>, what: &str, mut work: F) {
    let mut turns = ring::Turns::begin();
    for id in dirs.replicas.ids() {
        if dirs.background.is_closed() {
            return;
        }
        let Some(replica) = dirs.replicas.get(id) else { continue };
        if let Err(error) = work(&replica).await {
            replica.on_file_trouble(what, &error);
        }
        turns.step().await;
    }
}

async fn expire_producers(dirs: &Rc<LogDirs>) {
    let now = ring::now().wall;
    for_each(dirs, "", async |replica| {
        replica.remove_expired_producers(now);
        Ok(())
    })
    .await;
}

async fn flush_due(dirs: &Rc<LogDirs>) {
    let now = ring::now().wall;
    for_each(dirs, "flushing failed", async |replica| replica.flush_if_due(now).await).await;
}

/// Files of logs that are idle by now end with their last record.
async fn cut_padding(dirs: &Rc<LogDirs>) {
    for log in dirs.store.padding.sweep(ring::now().monotonic) {
        if dirs.background.is_closed() {
            return;
        }
        log.cut().await;
        ring::yield_if_needed().await;
    }
}

/// Deletes segments that the topics' settings no longer keep.
pub(super) async fn enforce_retention(dirs: &Rc<LogDirs>) {
    let what = "deleting old segments failed";
    for_each(dirs, what, async |replica| delete_old_segments(dirs, replica).await).await;
    for future in dirs.moves.futures() {
        if let Err(error) = delete_old_segments(dirs, &future).await {
            future.on_file_trouble(what, &error);
        }
    }
}

async fn delete_old_segments(dirs: &Rc<LogDirs>, replica: &Rc<Replica>) -> io::Result<()> {
    replica.end_old_segments();
    let (removals, place) = (&dirs.removals, replica.log_dir());
    let delay_ms = replica.config().file_delete_delay_ms;
    replica.retire_segments(|path| removals.later(Target::File(path), place, delay_ms)).await
}
