//! What each shard does for its logs all the time, as one task: retention, `flush.ms`, expiry of producers, removal of
//! deleted files, and of padding behind what was written. Shard 0 has another that writes the checkpoints.

use std::fs;
use std::io;
use std::rc::Rc;

use ringlog_log::names::{FileKind, FileState, SegmentFile};
use ringlog_log::{DeletedSegment, RetentionReason};
use ringlog_partition::{Role, Unserved};
use ringlog_ring as ring;
use ringlog_types::MonotonicMs;
use tracing::info;

use super::checkpoints::{self, Kinds};
use super::offline::watch_faults;
use super::removal::{self, Target};
use crate::replica::Replica;
use crate::shard::Shard;

/// Intervals are cut to this: a year. Kafka's "never" is the largest number.
const INTERVAL_MS_MAX: i64 = 365 * 86_400_000;

/// Something that comes round again.
struct Timer {
    next: MonotonicMs,
    every_ms: u64,
}

impl Timer {
    fn new(first_ms: i64, every_ms: i64) -> Timer {
        let cut = |ms: i64| ms.clamp(1, INTERVAL_MS_MAX).unsigned_abs();
        Timer { next: ring::now().monotonic.plus_ms(cut(first_ms.saturating_add(every_ms))), every_ms: cut(every_ms) }
    }

    fn is_due(&mut self, now: MonotonicMs) -> bool {
        let due = self.next <= now;
        if due {
            self.next = now.plus_ms(self.every_ms);
        }
        due
    }
}

/// Starts the tasks of this shard.
pub(super) fn start(shard: &Rc<Shard>) {
    let gate = &shard.log_dirs.background;
    let started = gate
        .spawn(watch_faults(shard.clone()))
        .and_then(|()| gate.spawn(maintain(shard.clone())))
        .and_then(|()| if shard.index == 0 { gate.spawn(write_checkpoints(shard.clone())) } else { Ok(()) });
    debug_assert!(started.is_ok(), "the gate is open until the logs are closed");
}

async fn maintain(shard: Rc<Shard>) {
    let log = &shard.node.config.log;
    let delay_ms = log.initial_task_delay_ms;
    let mut retention = Timer::new(delay_ms, log.retention_check_interval_ms);
    // As in Kafka, the first check comes right after the delay.
    retention.next = ring::now().monotonic.plus_ms(delay_ms.clamp(0, INTERVAL_MS_MAX).unsigned_abs());
    let mut flush = Timer::new(delay_ms, log.flush_scheduler_interval_ms);
    let mut expiry = Timer::new(0, i64::from(log.producer_id_expiration_check_interval_ms));
    while !shard.log_dirs.background.is_closed() {
        let now = ring::now().monotonic;
        if retention.is_due(now) {
            enforce_retention(&shard).await;
        }
        if flush.is_due(now) {
            flush_due(&shard).await;
        }
        if expiry.is_due(now) {
            expire_producers(&shard).await;
        }
        removal::remove_due(&shard).await;
        cut_padding(&shard).await;
        let (removals, padding) = (&shard.log_dirs.removals, &shard.store.padding);
        let timers = [retention.next, flush.next, expiry.next].into_iter();
        let deadline = timers.chain(removals.next_deadline()).chain(padding.next_sweep()).min();
        let woken = futures_lite::future::or(removals.changed.wait(), padding.begun.wait());
        idle_until(&shard, deadline.unwrap_or(now), woken).await;
    }
}

async fn write_checkpoints(shard: Rc<Shard>) {
    let config = &shard.node.config;
    let delay_ms = config.log.initial_task_delay_ms;
    let mut high_watermarks = Timer::new(0, config.replica.high_watermark_checkpoint_interval_ms);
    let mut recovery_points = Timer::new(delay_ms, i64::from(config.log.flush_offset_checkpoint_interval_ms));
    let mut log_starts = Timer::new(delay_ms, i64::from(config.log.flush_start_offset_checkpoint_interval_ms));
    // The first time after the start: names of logs that are gone leave the files.
    checkpoints::write(&shard, Kinds::ALL).await;
    checkpoints::log_summaries(&shard).await;
    while !shard.log_dirs.background.is_closed() {
        let now = ring::now().monotonic;
        let kinds = Kinds {
            high_watermarks: high_watermarks.is_due(now),
            recovery_points: recovery_points.is_due(now),
            log_starts: log_starts.is_due(now),
        };
        checkpoints::write(&shard, kinds).await;
        let deadline = high_watermarks.next.min(recovery_points.next).min(log_starts.next);
        idle_until(&shard, deadline, std::future::pending()).await;
    }
}

async fn idle_until(shard: &Rc<Shard>, deadline: MonotonicMs, woken: impl Future<Output = ()>) {
    let closing = futures_lite::future::or(woken, shard.log_dirs.background.closing());
    futures_lite::future::or(closing, ring::sleep_until(deadline)).await;
}

/// The replicas of the shard as they are now; the map may change while the caller goes through them.
pub(super) fn replicas(shard: &Shard) -> Vec<Rc<Replica>> {
    shard.replicas.borrow().values().cloned().collect()
}

/// Goes through the replicas, and stops when the logs are closed.
async fn for_each<F: AsyncFnMut(&Rc<Replica>) -> io::Result<()>>(shard: &Rc<Shard>, what: &str, mut work: F) {
    for replica in replicas(shard) {
        if shard.log_dirs.background.is_closed() {
            return;
        }
        if let Err(error) = work(&replica).await {
            replica.store.report_fault(replica.log_dir.get(), what, &error);
            replica.close(Unserved::LogDirectoryFailed);
        }
        ring::yield_if_needed().await;
    }
}

async fn expire_producers(shard: &Rc<Shard>) {
    let now = ring::now().wall;
    for_each(shard, "", async |replica| {
        let config = replica.config.borrow().clone();
        replica.partition.borrow_mut().remove_expired_producers(&config, now);
        Ok(())
    })
    .await;
}

async fn flush_due(shard: &Rc<Shard>) {
    let now = ring::now().wall;
    for_each(shard, "flushing failed", async |replica| {
        let config = replica.config.borrow().clone();
        let is_due = {
            let partition = replica.partition.borrow();
            partition.role() != Role::Unassigned && partition.log().flush_is_due(&config, now)
        };
        if is_due { replica.flush().await } else { Ok(()) }
    })
    .await;
}

/// Files of logs that are idle by now end with their last record.
async fn cut_padding(shard: &Rc<Shard>) {
    for replica in shard.store.padding.sweep(ring::now().monotonic) {
        if shard.log_dirs.background.is_closed() {
            return;
        }
        if let Err(error) = replica.cut_padding().await {
            replica.store.report_fault(replica.log_dir.get(), "cutting a file to its records failed", &error);
            replica.close(Unserved::LogDirectoryFailed);
        }
        ring::yield_if_needed().await;
    }
}

/// Deletes segments that the topics' settings no longer keep.
pub(super) async fn enforce_retention(shard: &Rc<Shard>) {
    for_each(shard, "deleting old segments failed", async |replica| delete_old_segments(shard, replica).await).await;
}

async fn delete_old_segments(shard: &Rc<Shard>, replica: &Rc<Replica>) -> io::Result<()> {
    let config = replica.config.borrow().clone();
    let outcome = {
        let mut partition = replica.partition.borrow_mut();
        if partition.role() == Role::Unassigned {
            return Ok(());
        }
        let high_watermark = partition.high_watermark();
        partition.log_mut().delete_old_segments(&config, high_watermark, ring::now().wall)
    };
    let has_rolled = outcome.roll.is_some();
    if let Some(roll) = outcome.roll {
        replica.store.roll(roll);
    }
    let Some((last, _)) = outcome.deleted.last() else { return Ok(()) };
    // Nobody writes to their files any more from here on.
    replica.settled_below(last.base_offset.plus(1)).await;
    if !replica.partition.borrow().is_written() {
        return Ok(());
    }
    if has_rolled {
        // The new, empty segment alone tells where the log goes on.
        replica.store.create_active().await?;
    }
    replica.persist_leader_epochs().await?;
    for (segment, reason) in &outcome.deleted {
        let why = match reason {
            RetentionReason::Time => "retention.ms",
            RetentionReason::Size => "retention.bytes",
            RetentionReason::LogStart => "it lies below the log's start",
        };
        info!(partition = %replica.name, segment = segment.base_offset.0, bytes = segment.size, "deleting a segment: {why}");
        retire(shard, replica, segment, config.file_delete_delay_ms).await?;
    }
    Ok(())
}

/// Renames a segment's files to `*.deleted` and has them removed later.
async fn retire(shard: &Rc<Shard>, replica: &Rc<Replica>, segment: &DeletedSegment, delay_ms: i64) -> io::Result<()> {
    replica.store.forget(segment.base_offset);
    let (directory, offset) = (replica.store.directory(), segment.base_offset);
    let renamed = ring::blocking(move || {
        let mut renamed = Vec::new();
        for kind in FileKind::ALL {
            let live = SegmentFile::live(offset, kind);
            let deleted = directory.join(SegmentFile { state: FileState::Deleted, ..live }.to_string());
            match fs::rename(directory.join(live.to_string()), &deleted) {
                Ok(()) => renamed.push(deleted),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(renamed)
    })
    .await?;
    for path in renamed {
        shard.log_dirs.removals.later(Target::File(path), replica.log_dir.get(), delay_ms);
    }
    Ok(())
}
