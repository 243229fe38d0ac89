//! A partition as its home core holds it: the machine that decides (`ringlog_partition`), the bytes
//! (`segment_store`), and the task that writes them out.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_log::{AppendOrigin, LogConfig, TransactionRules};
use ringlog_partition::{AppendContext, AppendError, Effects, LeaderAppend, Partition, PreparedAppend, Role};
use ringlog_protocol::records;
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, LeaderEpoch, Now, Offset, TimestampMs, TopicIdPartition};
use tracing::error;

use crate::segment_store::SegmentStore;

/// One replica of a partition.
pub struct Replica {
    /// Which partition.
    pub id: TopicIdPartition,
    /// Its topic's name.
    pub topic: Arc<str>,
    /// Place of its log directory in `log.dirs`.
    pub log_dir: Cell<usize>,
    /// What decides.
    pub partition: RefCell<Partition>,
    /// The bytes.
    pub store: Rc<SegmentStore>,
    /// The topic's settings, shared by its partitions on this core.
    pub config: RefCell<Rc<LogConfig>>,
    /// Durable end, high watermark or role changed: whoever waits looks again.
    pub progress: ring::Notify,
    writer_runs: Cell<bool>,
}

/// Records that have their place.
#[derive(Debug, Clone, Copy)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The offset after the last one.
    pub end_offset: Offset,
    /// The epoch in which they were appended.
    pub leader_epoch: LeaderEpoch,
    /// -1 with `CreateTime`.
    pub log_append_time: TimestampMs,
    /// The log's start at that moment.
    pub log_start_offset: Offset,
}

/// Why a partition's part of a Produce failed, as the response says it.
#[derive(Debug, Clone)]
pub struct ProduceFault {
    /// The error.
    pub code: ErrorCode,
    /// More about it.
    pub message: Option<String>,
    /// The records at fault: place in the batch, and why.
    pub record_errors: Vec<(i32, String)>,
}

impl ProduceFault {
    /// The partition isn't (or is no longer) here.
    pub const NOT_LEADER: ProduceFault =
        ProduceFault { code: ErrorCode::NotLeaderOrFollower, message: None, record_errors: Vec::new() };
}

impl From<ErrorCode> for ProduceFault {
    fn from(code: ErrorCode) -> ProduceFault {
        ProduceFault { code, message: None, record_errors: Vec::new() }
    }
}

impl From<AppendError> for ProduceFault {
    fn from(error: AppendError) -> ProduceFault {
        let code = error.error_code();
        match error {
            AppendError::Invalid(invalid) => {
                ProduceFault { code, message: Some(invalid.message), record_errors: invalid.record_errors }
            }
            AppendError::Offline | AppendError::NotLeader => code.into(),
            error => ProduceFault { code, message: Some(error.to_string()), record_errors: Vec::new() },
        }
    }
}

impl Replica {
    /// A replica that has not been told its role yet.
    pub fn new(
        partition: Partition,
        topic: Arc<str>,
        log_dir: usize,
        store: Rc<SegmentStore>,
        config: Rc<LogConfig>,
    ) -> Rc<Replica> {
        Rc::new(Replica {
            id: partition.id(),
            topic,
            log_dir: Cell::new(log_dir),
            partition: RefCell::new(partition),
            store,
            config: RefCell::new(config),
            progress: ring::Notify::new(),
            writer_runs: Cell::new(false),
        })
    }

    /// Gives a producer's records their offsets and their place in memory, and sees to it that they are written.
    ///
    /// Nothing is awaited here, so the order of calls is the order in the log.
    pub fn append(
        self: &Rc<Self>,
        records: Bytes,
        origin: AppendOrigin,
        required_acks: i16,
        rules: TransactionRules,
        now: Now,
    ) -> Result<Appended, ProduceFault> {
        let config = self.config.borrow().clone();
        let context = AppendContext { config: &config, origin, required_acks, rules, now };
        let decided = self.partition.borrow_mut().leader_append(&records, &context)?;
        match decided {
            LeaderAppend::Append(prepared) => {
                self.place(&prepared, &records);
                self.wake_writer();
                Ok(Appended {
                    base_offset: prepared.base_offset,
                    end_offset: prepared.next_offset,
                    leader_epoch: prepared.leader_epoch,
                    log_append_time: prepared.log_append_time,
                    log_start_offset: prepared.log_start_offset,
                })
            }
            LeaderAppend::Duplicate(duplicate) => Ok(Appended {
                base_offset: duplicate.base_offset,
                end_offset: duplicate.next_offset,
                leader_epoch: self.partition.borrow().leader_epoch(),
                log_append_time: duplicate.log_append_time,
                log_start_offset: duplicate.log_start_offset,
            }),
        }
    }

    /// Copies a batch to its place; its header gets offset and epoch on the way.
    fn place(&self, prepared: &PreparedAppend, received: &[u8]) {
        if let Some(roll) = &prepared.placement.roll {
            self.store.roll(roll.clone());
        }
        let batch = prepared.rewritten.as_deref().unwrap_or(received);
        let position = u64::from(prepared.placement.position);
        let patch = &prepared.patch;
        let header_len = records::HEADER_BYTES.min(batch.len());
        let (header, body) = batch.split_at(header_len);
        let mut patched = [0; records::HEADER_BYTES];
        let patched = &mut patched[..header_len];
        patched.copy_from_slice(header);
        records::set_base_offset_and_epoch(patched, patch.base_offset, patch.leader_epoch);
        if let Some(timestamp) = patch.log_append_time {
            records::set_log_append_time_in_header(patched, body, timestamp);
        }
        self.store.append(position, &[patched, body]);
    }

    /// Whether records up to `appended` are acknowledged: durable here for acks 0 and 1, committed for acks -1. `None`
    /// as long as that is open.
    pub fn acknowledged(&self, appended: &Appended, acks: i16) -> Option<Result<(), ProduceFault>> {
        let partition = self.partition.borrow();
        if partition.role() != Role::Leader || partition.leader_epoch() != appended.leader_epoch {
            let offline = partition.role() == Role::Offline;
            return Some(Err(if offline { ErrorCode::KafkaStorageError.into() } else { ProduceFault::NOT_LEADER }));
        }
        if acks != -1 {
            return (partition.durable_end_offset() >= appended.end_offset).then_some(Ok(()));
        }
        if partition.high_watermark() < appended.end_offset {
            return None;
        }
        let required = partition.effective_min_isr(&self.config.borrow());
        let enough = partition.isr().maximal_len() >= required;
        Some(if enough { Ok(()) } else { Err(ErrorCode::NotEnoughReplicasAfterAppend.into()) })
    }

    /// Lets everybody who waits on this partition look again, as far as `effects` say that something changed.
    pub fn apply(&self, effects: &Effects) {
        if *effects != Effects::default() {
            self.progress.notify_all();
        }
    }

    /// Sees to it that what was appended gets written. While one pass writes, further appends gather for the next.
    pub fn wake_writer(self: &Rc<Self>) {
        if !self.writer_runs.replace(true) {
            ring::spawn_detached(self.clone().write());
        }
    }

    /// Waits until nothing is left to write.
    pub async fn written_out(&self) {
        while self.writer_runs.get() {
            self.progress.wait().await;
        }
    }

    async fn write(self: Rc<Self>) {
        while self.store.is_dirty() && self.partition.borrow().role() != Role::Offline {
            let end_offset = self.partition.borrow().log().log_end_offset();
            if let Err(error) = self.write_once(end_offset).await {
                error!(partition = %self.id, directory = %self.store.directory().display(), "writing failed: {error}");
                let effects = self.partition.borrow_mut().mark_offline();
                self.apply(&effects);
            }
        }
        self.writer_runs.set(false);
        self.progress.notify_all();
    }

    /// One pass: everything before `end_offset` to the device, then the partition hears of it.
    async fn write_once(&self, end_offset: Offset) -> std::io::Result<()> {
        let config = self.config.borrow().clone();
        let must_flush = self.partition.borrow().log().must_flush(&config);
        self.store.write_out().await?;
        let now = ring::now();
        if must_flush {
            self.store.sync().await?;
            self.partition.borrow_mut().log_mut().on_flushed(end_offset, now.wall);
        }
        let effects = self.partition.borrow_mut().on_durable(end_offset, &config, now.monotonic);
        self.apply(&effects);
        Ok(())
    }
}
