//! A node with one log: what happens to it, and when.

use bytes::Bytes;
use ringlog_log::validator::AppendOrigin;
use ringlog_log::{LogConfig, TransactionRules};
use ringlog_partition::{AppendContext, AppendError, LeaderAppend, LeaderState, Partition, RecoveryState};
use ringlog_protocol::records::Unpacker;
use ringlog_types::{
    LeaderEpoch, MonotonicMs, NodeId, Now, Offset, PartitionEpoch, PartitionIndex, Random, TimestampMs,
    TopicIdPartition, TopicPartition, Uuid,
};

use crate::bug::Bug;
use crate::client::{Producer, Sent, batch};
use crate::disk::{Crash, Disk};
use crate::ledger::{Entry, Ledger};
use crate::recover::{self, Opened};
use crate::runner::Stats;
use crate::store::Store;
use crate::tasks::{Kind, Step, Task};
use crate::{Violation, check, ensure, trace};

const NODE: NodeId = NodeId(1);
const ID: TopicIdPartition = TopicIdPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) };

/// The node and its clients.
pub(crate) struct World {
    pub schedule: Random,
    pub disk_random: Random,
    pub work: Random,
    pub bug: Option<Bug>,
    pub disk: Disk,
    pub store: Store,
    pub partition: Partition,
    pub config: LogConfig,
    pub tasks: Vec<Task>,
    pub ledger: Ledger,
    pub now: Now,
    pub stats: Stats,
    producers: Vec<Producer>,
    name: TopicPartition,
    leader_epoch: i32,
    /// Where the snapshot was taken that producers were recovered from: older batches aren't known one by one.
    producers_known_from: Offset,
    /// Crashes per 1,000 actions.
    crash_rate: u64,
}

impl World {
    /// A new log in an empty directory. Without producers something else appends.
    pub(crate) fn new(seed: u64, bug: Option<Bug>, producers: usize) -> Result<World, Violation> {
        let mut work = Random::from_seed(seed ^ 0x776f_726b);
        let mut config = random_config(&mut work);
        if producers == 0 {
            // As `__consumer_offsets`; and what is answered for has to survive a power loss, too.
            config = LogConfig { cleanup_compact: true, cleanup_delete: false, flush_messages: 1, ..config };
        }
        let now = Now { monotonic: MonotonicMs(1_000), wall: TimestampMs(1_700_000_000_000) };
        trace::note(|| {
            format!(
                "segment.bytes={} index.interval.bytes={} flush.messages={} retention.bytes={} retention.ms={}",
                config.segment_bytes,
                config.index_interval_bytes,
                config.flush_messages,
                config.retention_bytes,
                config.retention_ms
            )
        });
        let mut disk = Disk::default();
        let mut disk_random = Random::from_seed(seed ^ 0x6469_736b);
        let (opened, _) = recover::open(&mut disk, &config, now.wall, &mut disk_random, bug, None)?;
        let Opened { store, log, high_watermark, .. } = opened;
        let crash_rate = work.below(20);
        let mut world = World {
            schedule: Random::from_seed(seed ^ 0x7363_6864),
            disk_random,
            work,
            bug,
            disk,
            store,
            partition: Partition::new(ID, NODE, log, high_watermark, Default::default()),
            config,
            tasks: Vec::new(),
            ledger: Ledger::default(),
            now,
            stats: Stats::default(),
            producers: (0..producers).map(|id| Producer::new(id as i64)).collect(),
            name: TopicPartition { topic: "simulated".into(), partition: PartitionIndex(0) },
            leader_epoch: 0,
            producers_known_from: Offset(0),
            crash_rate,
        };
        world.lead();
        Ok(world)
    }

    fn lead(&mut self) {
        let leader_epoch = LeaderEpoch(self.leader_epoch);
        let state = LeaderState {
            leader_epoch,
            partition_epoch: PartitionEpoch(self.leader_epoch),
            replicas: &[NODE],
            isr: &[NODE],
            recovery_state: RecoveryState::Recovered,
        };
        self.partition.become_leader(&state, &self.config, self.now.monotonic);
        trace::note(|| format!("leads in epoch {leader_epoch} from {}", self.partition.log().log_end_offset()));
    }

    /// Something happens. Says whether the node was restarted.
    pub(crate) fn step(&mut self) -> Result<bool, Violation> {
        let ms = if self.schedule.below(50) == 0 { self.schedule.below(5_000) } else { self.schedule.below(3) };
        self.now.monotonic = self.now.monotonic.plus_ms(ms);
        self.now.wall.0 += ms as i64;
        match self.schedule.below(1_000) {
            0..=599 => self.run_some_task()?,
            600..=899 => self.produce()?,
            900..=929 => self.answer_somebody(),
            930..=944 if !self.has_task(Kind::Retention) => self.start_retention(),
            945..=959 if !self.has_task(Kind::Checkpoint) => self.spawn(Kind::Checkpoint, vec![Step::Checkpoint(true)]),
            960..=969 if !self.has_task(Kind::Flush) => {
                let end = self.partition.durable_end_offset();
                self.spawn(Kind::Flush, vec![Step::SyncStore, Step::PersistEpochs, Step::Flushed(end)]);
            }
            970..=975 if !self.has_task(Kind::Checkpoint) && !self.producers.is_empty() => {
                self.start_delete_records()?
            }
            976..=979 => {
                self.leader_epoch += 1;
                self.lead();
            }
            980..=999 => return self.maybe_stop(),
            _ => self.cut_padding(),
        }
        Ok(false)
    }

    /// The log isn't written for a while: its file is cut to its records. Appends go on, writes wait.
    fn cut_padding(&mut self) {
        if let Some((base, end)) = self.store.padding().filter(|_| !self.has_task(Kind::Writer)) {
            self.spawn(Kind::Writer, vec![Step::CutPadding(base, end), Step::StartPass]);
        }
    }

    fn maybe_stop(&mut self) -> Result<bool, Violation> {
        let chance = self.schedule.below(20);
        if chance >= self.crash_rate {
            return Ok(false);
        }
        match self.schedule.below(10) {
            0 => self.stop_in_order()?,
            1..=4 => self.restart(Some(Crash::PowerLoss))?,
            _ => self.restart(Some(Crash::Kill))?,
        }
        Ok(true)
    }

    /// Ends in order, and starts again.
    pub(crate) fn stop_in_order(&mut self) -> Result<(), Violation> {
        for _ in 0..100_000 {
            self.wake_writer();
            if self.tasks.is_empty() {
                break;
            }
            self.run_some_task()?;
        }
        ensure!(self.tasks.is_empty() && !self.store.is_dirty(), "the node doesn't come to its end");
        ensure!(self.store.unfinished_from().is_none(), "a sealed segment is never finished");
        let end = self.partition.log().log_end_offset();
        ensure!(self.ledger.acknowledged == end.0, "acknowledged to {}, not {end}", self.ledger.acknowledged);
        recover::close(&mut self.disk, &mut self.store, &mut self.partition, self.now.wall);
        self.restart(None)
    }

    /// Ends as told (in order for `None`), starts again and looks at what is left.
    fn restart(&mut self, crash: Option<Crash>) -> Result<(), Violation> {
        self.stats.restarts += 1;
        self.tasks.clear();
        let random = &mut self.disk_random;
        let (opened, worst) = recover::open(&mut self.disk, &self.config, self.now.wall, random, self.bug, crash)?;
        let Opened { store, log, high_watermark, snapshot, outcome } = opened;
        let (start, end) = (outcome.log_start_offset, outcome.log_end_offset);
        trace::note(|| format!("--- opened with {start} to {end}, high watermark {}", outcome.high_watermark));
        let left = check::check_restart(&self.disk, &self.ledger, &outcome, worst, &self.config)?;
        for producer in &mut self.producers {
            let lost = |entry: &Entry| {
                let is_before_others = left.last().is_some_and(|last| entry.base_offset < *last);
                let is_missed = is_before_others || entry.end_offset.0 <= self.ledger.acknowledged;
                let is_lost = is_missed && !left.contains(&entry.base_offset);
                // Recovery takes producers from the snapshot and from what lies above the log's start, as Kafka does.
                let is_unseen = entry.base_offset < start && entry.end_offset > snapshot;
                (is_lost || is_unseen) && entry.key.is_some_and(|key| key.0 == producer.id)
            };
            producer.has_gap |= self.ledger.entries.iter().any(lost);
            producer.on_restart();
        }
        self.ledger.on_restart(&left, start, end);
        self.producers_known_from = snapshot;
        self.store = store;
        self.partition = Partition::new(ID, NODE, log, high_watermark, Default::default());
        self.leader_epoch += self.work.below(3) as i32;
        self.lead();
        Ok(())
    }

    fn answer_somebody(&mut self) {
        let acknowledged = Offset(self.ledger.acknowledged);
        let somebody = self.schedule.below(self.producers.len() as u64) as usize;
        if let Some(producer) = self.producers.get_mut(somebody) {
            producer.hear(acknowledged);
        }
    }

    fn produce(&mut self) -> Result<(), Violation> {
        if self.producers.is_empty() {
            return self.run_some_task();
        }
        let who = self.work.below(self.producers.len() as u64 + 1) as usize;
        let now = self.now.wall;
        let Some(producer) = self.producers.get_mut(who) else {
            let count = 1 + self.work.below(3) as i32;
            let batch = batch(None, count, &mut self.work, now);
            return self.append(&batch, AppendOrigin::Client).map(|_| ()).map_err(|error| format!("refused: {error}"));
        };
        let Some(sent) = producer.next(&mut self.work, now) else { return Ok(()) };
        self.send(who, sent)
    }

    fn send(&mut self, who: usize, mut sent: Sent) -> Result<(), Violation> {
        let key = sent.key;
        let before = self.ledger.keys.get(&key).cloned().unwrap_or_default();
        let last = before.last().copied();
        let start = self.partition.log().log_start_offset();
        match self.append(&sent.batch, AppendOrigin::Client) {
            Ok(Appended::New { base_offset, end_offset }) => {
                let twice = last.is_some_and(|last| last >= start);
                ensure!(!twice, "{key:?} is in the log at {last:?} and again at {base_offset}");
                sent.end_offset = end_offset;
                self.producers[who].in_flight.push_back(sent);
            }
            Ok(Appended::Again { base_offset, end_offset }) => {
                ensure!(before.contains(&base_offset), "{key:?} is taken for {base_offset}, not one of {before:?}");
                sent.end_offset = end_offset;
                self.producers[who].in_flight.push_back(sent);
            }
            Err(error) => {
                // A snapshot keeps only each producer's last batch, and deleted ones aren't read again, as in Kafka.
                let is_old = last.is_some_and(|last| last < self.producers_known_from.max(start));
                let producer = &mut self.producers[who];
                ensure!(producer.has_gap || is_old, "{key:?} of a producer that did as it should is refused: {error}");
                trace::note(|| format!("{key:?} is refused: {error}"));
                producer.start_anew();
            }
        }
        Ok(())
    }

    /// Appends a batch and sees to it that it is written.
    pub(crate) fn append(&mut self, records: &Bytes, origin: AppendOrigin) -> Result<Appended, AppendError> {
        let context = AppendContext {
            topic_partition: &self.name,
            config: &self.config,
            origin,
            required_acks: -1,
            rules: TransactionRules::default(),
            now: self.now,
        };
        let appended = match self.partition.leader_prepare(records, &context, &mut Unpacker::new())? {
            LeaderAppend::Append(prepared) => {
                if let Some(roll) = prepared.placement.roll {
                    self.store.roll(*roll);
                }
                let bytes = prepared.batch.to_contiguous();
                self.store.append(u64::from(prepared.placement.position), &bytes);
                let header = &prepared.batch.header;
                let key = (header.producer_id.0, header.producer_epoch.0, header.base_sequence);
                let (base_offset, end_offset) = (prepared.base_offset, prepared.next_offset);
                trace::note(|| format!("append {base_offset}..{end_offset}, {} bytes, {key:?}", bytes.len()));
                self.ledger.append(Entry {
                    base_offset,
                    end_offset,
                    key: header.has_producer_id().then_some(key),
                    bytes,
                });
                self.stats.appends += 1;
                Appended::New { base_offset, end_offset }
            }
            LeaderAppend::Duplicate(held) => {
                self.stats.duplicates += 1;
                Appended::Again { base_offset: held.base_offset, end_offset: held.next_offset }
            }
        };
        self.wake_writer();
        Ok(appended)
    }
}

/// What became of a batch.
pub(crate) enum Appended {
    New { base_offset: Offset, end_offset: Offset },
    Again { base_offset: Offset, end_offset: Offset },
}

fn random_config(random: &mut Random) -> LogConfig {
    let mut one_of = |choices: &[i64]| choices[random.below(choices.len() as u64) as usize];
    LogConfig {
        segment_bytes: one_of(&[10_000, 20_000, 60_000]) as u32,
        segment_ms: one_of(&[2_000, i64::MAX]),
        index_interval_bytes: one_of(&[0, 500, 4_096]) as u32,
        flush_messages: one_of(&[1, 1, 7, i64::MAX, i64::MAX]),
        retention_bytes: one_of(&[-1, 30_000, 100_000]),
        retention_ms: one_of(&[-1, 10_000]),
        ..LogConfig::default()
    }
}
