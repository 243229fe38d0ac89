//! Drives one coordinator, whatever it coordinates: loads its partition, appends what it decides, sends its answers when
//! what they rest on is committed, and wakes it when its time comes.
//!
//! Records are appended to the partition like any others. Bounds: the machine's own on what it takes; writes that get no
//! memory wait in order, and are refused after the commit timeout.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_coordinator::group::{Effects, LogRecord, Token, TransactionalProducer, Write, WriteToken};
use ringlog_log::TransactionRules;
use ringlog_log::validator::AppendOrigin;
use ringlog_partition::{ReadPlan, ReadRequest, Reader};
use ringlog_protocol::ResponseBody;
use ringlog_protocol::records::{
    BatchBuilder, BatchIter, BatchOptions, BatchRef, Compression, EndTransactionMarker, ProducerStamp, Scratch,
    Unpacker,
};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, MonotonicMs, Now, Offset};
use rustc_hash::FxHashMap;
use tracing::{debug, info};

use super::machine::CoordinatorMachine;
use crate::core::Core;
use crate::data::replica::{AppendRules, Appended, Replica};
use crate::flag::Flag;
use crate::storage::log_read::{LogReadError, ReadRange, StoredLog};

/// Bytes read at a time while loading.
const LOAD_BYTES: usize = 1024 * 1024;
/// The largest batch of state that is unpacked.
const SCRATCH_BYTES: usize = 64 * 1024 * 1024;

/// One coordinator with what it waits for.
pub struct CoordinatorDriver<M> {
    core: Rc<Core>,
    replica: Rc<Replica>,
    /// `None` while it loads.
    machine: RefCell<Option<M>>,
    /// Who waits for an answer.
    callers: RefCell<FxHashMap<Token, ring::OneshotSender<ResponseBody>>>,
    /// Writes in their order, which are not committed yet. Those at the end may wait for memory.
    pending: RefCell<VecDeque<PendingWrite>>,
    /// A task waits for memory for them.
    places_later: Cell<bool>,
    alarm: ring::Alarm,
    resigned: Flag,
    settings: WriteSettings,
}

struct PendingWrite {
    token: WriteToken,
    state: WriteState,
    /// `None` once its callers were told that it takes too long.
    deadline: Option<MonotonicMs>,
}

enum WriteState {
    /// Waits for memory: the batch.
    Waiting(Bytes),
    /// Has its place in the log.
    Appended(Appended),
}

/// Why a coordinator's state can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The log can't be read.
    #[error(transparent)]
    Read(#[from] LogReadError),
    /// What is in it can't be, or it isn't served here any more.
    #[error("{0}")]
    Refused(String),
}

/// How a coordinator's writes are kept.
#[derive(Debug, Clone, Copy)]
pub struct WriteSettings {
    /// How long a write may take until its callers are told.
    pub commit_timeout_ms: u64,
    /// Of its batches.
    pub compression: Compression,
}

impl<M: CoordinatorMachine> CoordinatorDriver<M> {
    /// For the coordinator that lives in this replica's partition. It is there once [`CoordinatorDriver::run`] has loaded
    /// it.
    pub fn new(core: Rc<Core>, replica: Rc<Replica>, settings: WriteSettings) -> Rc<CoordinatorDriver<M>> {
        Rc::new(CoordinatorDriver {
            core,
            replica,
            settings,
            machine: RefCell::new(None),
            callers: RefCell::default(),
            pending: RefCell::default(),
            places_later: Cell::new(false),
            alarm: ring::Alarm::new(),
            resigned: Flag::default(),
        })
    }

    /// The replica of the partition that it lives in.
    pub fn replica(&self) -> &Rc<Replica> {
        &self.replica
    }

    /// Whether it is over.
    pub fn has_resigned(&self) -> bool {
        self.resigned.is_set()
    }

    /// Asks the coordinator; its answer comes when what it rests on is committed. `None`: it is still loading.
    pub fn ask(
        self: &Rc<Self>,
        token: Token,
        ask: impl FnOnce(&mut M) -> Effects,
    ) -> Option<ring::OneshotReceiver<ResponseBody>> {
        let (sender, answer) = ring::oneshot();
        let effects = {
            let mut machine = self.machine.borrow_mut();
            let machine = machine.as_mut()?;
            self.callers.borrow_mut().insert(token, sender);
            ask(machine)
        };
        self.apply_effects(effects);
        Some(answer)
    }

    /// Tells the coordinator something that nobody waits for, if it is loaded.
    pub fn tell(self: &Rc<Self>, tell: impl FnOnce(&mut M) -> Effects) {
        let effects = self.machine.borrow_mut().as_mut().map(tell);
        self.apply_effects(effects.unwrap_or_default());
    }

    /// Loads, then serves timers and commits until it resigns.
    pub async fn run(self: Rc<Self>, mut machine: M) -> Result<(), LoadFault> {
        let started = ring::now().monotonic;
        let records = self.load(&mut machine).await?;
        if self.resigned.is_set() {
            return Ok(());
        }
        let took_ms = ring::now().monotonic.since_ms(started);
        info!(partition = %self.replica.name, records, took_ms, "{} loaded", M::NAME);
        let effects = machine.finish_loading(ring::now());
        *self.machine.borrow_mut() = Some(machine);
        self.apply_effects(effects);
        while !self.resigned.is_set() {
            futures_lite::future::or(
                async { self.replica.progressed().await },
                futures_lite::future::or(async { self.alarm.wait().await }, self.resigned.wait_until_set()),
            )
            .await;
            self.on_progress();
            self.on_time();
        }
        Ok(())
    }

    /// Reads the whole partition into the machine; returns how many records it holds. What was appended before this
    /// leadership and isn't on disk yet is waited for.
    async fn load(&self, machine: &mut M) -> Result<u64, LoadFault> {
        let (mut next, end) = self.replica.with_log(|log| (log.log_start_offset(), log.log_end_offset()));
        let mut scratch = Scratch::new(SCRATCH_BYTES);
        let mut records = 0;
        while !self.resigned.is_set() {
            let request = ReadRequest {
                fetch_offset: next,
                reader: Reader::Internal,
                current_leader_epoch: None,
                last_fetched_epoch: None,
            };
            let plan = self.replica.plan_read(&request).map_err(|fault| LoadFault::Refused(fault.to_string()))?;
            let ReadPlan::Records { location, limit, .. } = plan else {
                if next >= end {
                    break;
                }
                futures_lite::future::or(self.replica.progressed(), self.resigned.wait_until_set()).await;
                continue;
            };
            let range = ReadRange { place: location, from: next, limit, max_bytes: LOAD_BYTES, at_least_one: true };
            let bytes = self.replica.read(&range).await?.slices.concat();
            let before = next;
            for batch in BatchIter::new(&bytes) {
                // The last one may be cut off; it comes whole with the next read.
                let Ok(batch) = batch else { break };
                records += replay_batch(machine, &batch, &mut scratch, &self.replica)?;
                next = batch.header.next_offset();
            }
            if next == before {
                return Err(LoadFault::Refused(format!("no batch can be read at offset {next}")));
            }
            ring::yield_if_needed().await;
        }
        Ok(records)
    }

    /// Sends answers and appends records.
    fn apply_effects(self: &Rc<Self>, effects: Effects) {
        let mut work = VecDeque::from([effects]);
        while let Some(effects) = work.pop_front() {
            for (token, response) in effects.replies {
                if let Some(caller) = self.callers.borrow_mut().remove(&token) {
                    // Nobody there any more: nothing to tell.
                    let _ = caller.send(response);
                }
            }
            for write in effects.writes {
                if let Some(refused) = self.append(write) {
                    work.push_back(refused);
                }
            }
        }
        let deadline = self.machine.borrow().as_ref().and_then(M::next_deadline);
        let writes = self.pending.borrow().iter().find_map(|write| write.deadline);
        self.alarm.set(deadline.into_iter().chain(writes).min());
    }

    /// Appends one write, or lets it wait for memory behind those that came before; what the machine makes of a refusal.
    fn append(self: &Rc<Self>, write: Write) -> Option<Effects> {
        let now = ring::now();
        let batch = self.batch_of(&write);
        let frames = self.replica.frames();
        let must_wait = self.places_later.get() || frames.is_waited_for() || !self.replica.has_room_for(batch.len());
        let state = if must_wait {
            WriteState::Waiting(batch)
        } else {
            match self.append_now(&batch, now) {
                Ok(appended) => WriteState::Appended(appended),
                Err(code) => return self.refused(write.token, code, now),
            }
        };
        let deadline = Some(now.monotonic.plus_ms(self.settings.commit_timeout_ms));
        self.pending.borrow_mut().push_back(PendingWrite { token: write.token, state, deadline });
        if must_wait && !self.places_later.replace(true) {
            self.core.spawn(self.clone().place_waiting());
        }
        None
    }

    fn append_now(&self, batch: &Bytes, now: Now) -> Result<Appended, ErrorCode> {
        let rules = AppendRules {
            origin: AppendOrigin::Coordinator,
            required_acks: -1,
            transaction: TransactionRules::default(),
        };
        self.replica.append_own(batch, &rules, &mut Unpacker::new(), now).map_err(|fault| fault.code)
    }

    fn refused(&self, token: WriteToken, code: ErrorCode, now: Now) -> Option<Effects> {
        debug!(partition = %self.replica.name, error = %code, "group state was not written");
        self.machine.borrow_mut().as_mut().map(|machine| machine.on_write_failed(token, code, now))
    }

    /// Appends the writes that wait, in their order, as memory comes back.
    async fn place_waiting(self: Rc<Self>) {
        let frames = self.replica.frames();
        let turn = frames.turn().await;
        while let Some((place, batch)) = self.first_waiting() {
            if !self.replica.has_room_for(batch.len()) {
                frames.wait_a_moment().await;
                continue;
            }
            let now = ring::now();
            match self.append_now(&batch, now) {
                Ok(appended) => self.pending.borrow_mut()[place].state = WriteState::Appended(appended),
                Err(code) => {
                    let removed = self.pending.borrow_mut().remove(place);
                    let effects = removed.and_then(|write| self.refused(write.token, code, now));
                    self.apply_effects(effects.unwrap_or_default());
                }
            }
        }
        self.places_later.set(false);
        drop(turn);
    }

    fn first_waiting(&self) -> Option<(usize, Bytes)> {
        let pending = self.pending.borrow();
        let waiting = pending.iter().enumerate().find_map(|(place, write)| match &write.state {
            WriteState::Waiting(batch) => Some((place, batch.clone())),
            WriteState::Appended(_) => None,
        });
        waiting.filter(|_| !self.resigned.is_set())
    }

    fn batch_of(&self, write: &Write) -> Bytes {
        let producer = write.producer.map_or(ProducerStamp::NONE, |producer| ProducerStamp {
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            base_sequence: -1,
        });
        let timestamp = ring::now().wall;
        let mut batch = BatchBuilder::new(BatchOptions {
            compression: self.settings.compression,
            producer,
            is_transactional: write.producer.is_some(),
            ..BatchOptions::default()
        });
        for LogRecord { key, value } in &write.records {
            batch.append(timestamp, Some(key), value.as_deref(), &[]);
        }
        batch.build()
    }

    /// Tells the machine of writes that are committed, in their order, or that never will be.
    fn on_progress(self: &Rc<Self>) {
        loop {
            let outcome = {
                let pending = self.pending.borrow();
                let Some(PendingWrite { state: WriteState::Appended(first), .. }) = pending.front() else { return };
                self.replica.acknowledged(first, -1)
            };
            let Some(outcome) = outcome else { return };
            let Some(write) = self.pending.borrow_mut().pop_front() else { return };
            let now = ring::now();
            let effects = self.machine.borrow_mut().as_mut().map(|machine| match outcome {
                Ok(()) => machine.on_written(write.token, now),
                Err(code) => machine.on_write_failed(write.token, code, now),
            });
            self.apply_effects(effects.unwrap_or_default());
        }
    }

    fn on_time(self: &Rc<Self>) {
        let now = ring::now();
        let (late, unplaced) = self.take_late(now.monotonic);
        for token in unplaced {
            let effects = self.refused(token, ErrorCode::RequestTimedOut, now);
            self.apply_effects(effects.unwrap_or_default());
        }
        for token in late {
            let effects = self.machine.borrow_mut().as_mut().map(|machine| machine.on_write_timed_out(token, now));
            self.apply_effects(effects.unwrap_or_default());
        }
        let effects = self.machine.borrow_mut().as_mut().map(|machine| machine.on_tick(now));
        self.apply_effects(effects.unwrap_or_default());
    }

    /// Writes that take too long: those that have a place in the log may still be committed, those that have none never
    /// will be. They go, since their callers may ask for more of them as long as there is no memory.
    fn take_late(&self, now: MonotonicMs) -> (Vec<WriteToken>, Vec<WriteToken>) {
        let (mut late, mut unplaced) = (Vec::new(), Vec::new());
        self.pending.borrow_mut().retain_mut(|write| {
            if write.deadline.is_none_or(|deadline| deadline > now) {
                return true;
            }
            write.deadline = None;
            let has_place = matches!(write.state, WriteState::Appended(_));
            if has_place {
                late.push(write.token)
            } else {
                unplaced.push(write.token)
            }
            has_place
        });
        (late, unplaced)
    }

    /// Leads no more: whoever waits looks for the next coordinator.
    pub fn resign(&self) {
        self.resigned.set();
        let effects = self.machine.borrow_mut().take().map(M::resign);
        for (token, response) in effects.into_iter().flat_map(|effects| effects.replies) {
            if let Some(caller) = self.callers.borrow_mut().remove(&token) {
                let _ = caller.send(response);
            }
        }
        self.callers.borrow_mut().clear();
        self.pending.borrow_mut().clear();
    }
}

fn replay_batch<M: CoordinatorMachine>(
    machine: &mut M,
    batch: &BatchRef<'_>,
    scratch: &mut Scratch,
    replica: &Replica,
) -> Result<u64, LoadFault> {
    let at = |fault: &dyn std::fmt::Display, offset: Offset| LoadFault::Refused(format!("offset {offset}: {fault}"));
    let header = batch.header;
    let producer = header
        .is_transactional()
        .then_some(TransactionalProducer { producer_id: header.producer_id, producer_epoch: header.producer_epoch });
    let mut count = 0;
    for record in batch.records(scratch).map_err(|fault| at(&fault, header.base_offset))? {
        let record = record.map_err(|fault| at(&fault, header.base_offset))?;
        count += 1;
        if header.is_control() {
            let marker = EndTransactionMarker::parse(record.key.unwrap_or_default(), record.value.unwrap_or_default());
            if let Some(marker) = marker {
                machine.replay_end_transaction(header.producer_id, marker.is_commit);
            }
            continue;
        }
        let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        let skipped = machine
            .replay_record(copy(record.key), copy(record.value), producer)
            .map_err(|fault| at(&fault, record.offset))?;
        if let Some(skipped) = skipped {
            debug!(partition = %replica.name, offset = %record.offset, "record of group state skipped: {skipped}");
        }
    }
    Ok(count)
}
