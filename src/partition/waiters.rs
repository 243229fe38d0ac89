//! Requests that wait: produces for replication, DeleteRecords for followers, fetches for data ("purgatory").
//!
//! One instance per shard, for the partitions of that shard. `T` is whatever the shard needs to answer. Every waiter is
//! listed under each of its partitions and leaves all lists when it completes; keys carry a generation, as slots are
//! used again. Completed waiters are pushed to the caller's buffer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringlog_types::{ErrorCode, MonotonicMs, Offset};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// A partition by its slot in the shard's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey(pub u32);

/// Names one waiter as long as it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterKey {
    index: u32,
    generation: u32,
}

/// What a partition of a produce (or DeleteRecords) waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// acks=1: the durable end reaches the offset.
    Durable,
    /// acks=all: the high watermark reaches the offset.
    HighWatermark,
    /// DeleteRecords: the low watermark reaches the offset.
    LowWatermark,
}

/// How the wait of one partition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProduceOutcome {
    /// The offset is reached.
    Done,
    /// It failed with this code.
    Failed(ErrorCode),
}

/// One partition of a waiting produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceWatch {
    /// Which partition.
    pub partition: PartitionKey,
    /// The offset to be reached.
    pub required_offset: Offset,
    /// By what.
    pub wait_for: WaitFor,
    /// Set when it is over.
    pub outcome: Option<ProduceOutcome>,
}

/// A waiting produce, given back when it completes. A partition without outcome has timed out
/// (`REQUEST_TIMED_OUT`).
#[derive(Debug, PartialEq, Eq)]
pub struct DelayedProduce<T> {
    /// The shard's own.
    pub token: T,
    /// Its partitions.
    pub watches: SmallVec<[ProduceWatch; 1]>,
}

/// One partition of a waiting fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchWatch {
    /// Which partition.
    pub partition: PartitionKey,
    /// Where the read starts.
    pub fetch_offset: Offset,
    /// No more than this counts.
    pub max_bytes: u32,
    /// Bytes that were there when last looked at.
    pub available: u32,
}

/// A waiting fetch, given back when it completes; it is then read again from the start.
#[derive(Debug, PartialEq, Eq)]
pub struct DelayedFetch<T> {
    /// The shard's own.
    pub token: T,
    /// Its partitions.
    pub watches: SmallVec<[FetchWatch; 1]>,
    /// It waits for this many bytes.
    pub min_bytes: u32,
}

/// A waiter that has completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Completed<T> {
    /// A produce or DeleteRecords.
    Produce(DelayedProduce<T>),
    /// A fetch.
    Fetch(DelayedFetch<T>),
}

#[derive(Debug)]
enum Slot<T> {
    Free,
    Produce { waiter: DelayedProduce<T>, open: usize },
    Fetch(DelayedFetch<T>),
}

#[derive(Debug, Default)]
struct Watchers {
    produce: SmallVec<[WaiterKey; 2]>,
    fetch: SmallVec<[WaiterKey; 2]>,
}

/// All waiters of a shard.
#[derive(Debug)]
pub struct Waiters<T> {
    slots: Vec<(u32, Slot<T>)>,
    free: Vec<u32>,
    watchers: FxHashMap<PartitionKey, Watchers>,
    deadlines: BinaryHeap<Reverse<(MonotonicMs, WaiterKey)>>,
    capacity: usize,
}

impl<T> Waiters<T> {
    /// Room for `capacity` waiters; more are not taken in, and the caller answers them at once.
    pub fn new(capacity: usize) -> Waiters<T> {
        let capacity = capacity.min(u32::MAX as usize);
        let (slots, free, deadlines) = (Vec::new(), Vec::new(), BinaryHeap::new());
        Waiters { slots, free, watchers: FxHashMap::default(), deadlines, capacity }
    }

    /// Number of waiters.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a produce. The caller has set the outcome of partitions that are over already; `Err` gives the waiter
    /// back when all are, or when there is no room.
    pub fn add_produce(
        &mut self,
        waiter: DelayedProduce<T>,
        deadline: MonotonicMs,
    ) -> Result<WaiterKey, DelayedProduce<T>> {
        let open = waiter.watches.iter().filter(|watch| watch.outcome.is_none()).count();
        if open == 0 || self.len() >= self.capacity {
            return Err(waiter);
        }
        let key = self.next_key();
        for watch in waiter.watches.iter().filter(|watch| watch.outcome.is_none()) {
            let list = &mut self.watchers.entry(watch.partition).or_default().produce;
            if !list.contains(&key) {
                list.push(key);
            }
        }
        self.fill(key, Slot::Produce { waiter, open }, deadline);
        Ok(key)
    }

    /// Takes in a fetch. `Err` gives it back when it has its bytes already, or when there is no room.
    pub fn add_fetch(&mut self, waiter: DelayedFetch<T>, deadline: MonotonicMs) -> Result<WaiterKey, DelayedFetch<T>> {
        if waiter.is_satisfied() || self.len() >= self.capacity {
            return Err(waiter);
        }
        let key = self.next_key();
        for watch in &waiter.watches {
            let list = &mut self.watchers.entry(watch.partition).or_default().fetch;
            if !list.contains(&key) {
                list.push(key);
            }
        }
        self.fill(key, Slot::Fetch(waiter), deadline);
        Ok(key)
    }

    fn next_key(&mut self) -> WaiterKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, Slot::Free));
            (self.slots.len() - 1) as u32
        });
        WaiterKey { index, generation: self.slots[index as usize].0 }
    }

    fn fill(&mut self, key: WaiterKey, slot: Slot<T>, deadline: MonotonicMs) {
        self.slots[key.index as usize].1 = slot;
        self.deadlines.push(Reverse((deadline, key)));
        // Entries of waiters that completed early stay behind; drop them before they outnumber the live ones.
        if self.deadlines.len() > 64 + 2 * self.len() {
            let slots = &self.slots;
            self.deadlines.retain(|Reverse((_, key))| is_live(slots, *key));
        }
    }

    fn take(&mut self, key: WaiterKey) -> Option<Completed<T>> {
        if !is_live(&self.slots, key) {
            return None;
        }
        let (generation, slot) = &mut self.slots[key.index as usize];
        *generation = generation.wrapping_add(1);
        let slot = std::mem::replace(slot, Slot::Free);
        self.free.push(key.index);
        Some(match slot {
            Slot::Free => unreachable!("a live slot is filled"),
            Slot::Produce { waiter, .. } => {
                for watch in &waiter.watches {
                    self.unwatch(watch.partition, key, true);
                }
                Completed::Produce(waiter)
            }
            Slot::Fetch(waiter) => {
                for watch in &waiter.watches {
                    self.unwatch(watch.partition, key, false);
                }
                Completed::Fetch(waiter)
            }
        })
    }

    fn unwatch(&mut self, partition: PartitionKey, key: WaiterKey, produce: bool) {
        let Some(watchers) = self.watchers.get_mut(&partition) else { return };
        let list = if produce { &mut watchers.produce } else { &mut watchers.fetch };
        if let Some(at) = list.iter().position(|held| *held == key) {
            list.swap_remove(at);
        }
        if watchers.produce.is_empty() && watchers.fetch.is_empty() {
            self.watchers.remove(&partition);
        }
    }

    /// The partition's durable end (acks=1), high watermark (acks=all) or low watermark (DeleteRecords) is now
    /// `offset`. `reached` is the outcome of those that waited for no more than that: `Done`, or for acks=all with too
    /// few in-sync replicas `NOT_ENOUGH_REPLICAS_AFTER_APPEND`.
    pub fn on_offset(
        &mut self,
        partition: PartitionKey,
        wait_for: WaitFor,
        offset: Offset,
        reached: ProduceOutcome,
        completed: &mut Vec<Completed<T>>,
    ) {
        self.settle_produce(
            partition,
            |watch| (watch.wait_for == wait_for && watch.required_offset <= offset).then_some(reached),
            completed,
        );
    }

    /// Role or leader epoch changed, or the replica failed: produces end with `code`, fetches are read again.
    pub fn on_leadership_change(
        &mut self,
        partition: PartitionKey,
        code: ErrorCode,
        completed: &mut Vec<Completed<T>>,
    ) {
        self.settle_produce(partition, |_| Some(ProduceOutcome::Failed(code)), completed);
        self.force_fetches(partition, completed);
    }

    fn settle_produce(
        &mut self,
        partition: PartitionKey,
        settle: impl Fn(&ProduceWatch) -> Option<ProduceOutcome>,
        completed: &mut Vec<Completed<T>>,
    ) {
        let Some(watchers) = self.watchers.get_mut(&partition) else { return };
        let mut done: SmallVec<[WaiterKey; 8]> = SmallVec::new();
        let slots = &mut self.slots;
        watchers.produce.retain(|key| {
            let Slot::Produce { waiter, open } = &mut slots[key.index as usize].1 else { return false };
            let mut still_here = false;
            for watch in waiter.watches.iter_mut().filter(|w| w.partition == partition && w.outcome.is_none()) {
                watch.outcome = settle(watch);
                if watch.outcome.is_some() {
                    *open -= 1;
                } else {
                    still_here = true;
                }
            }
            if *open == 0 {
                done.push(*key);
            }
            still_here
        });
        if watchers.produce.is_empty() && watchers.fetch.is_empty() {
            self.watchers.remove(&partition);
        }
        completed.extend(done.into_iter().filter_map(|key| self.take(key)));
    }

    /// The partition may have more to read: `available` says for a watch how many bytes there are now, `None` when the
    /// fetch should be read again in any case (its offset lies in another segment than the limit, or above it).
    pub fn on_data(
        &mut self,
        partition: PartitionKey,
        available: impl Fn(&FetchWatch) -> Option<u32>,
        completed: &mut Vec<Completed<T>>,
    ) {
        let Some(watchers) = self.watchers.get(&partition) else { return };
        let mut done: SmallVec<[WaiterKey; 8]> = SmallVec::new();
        for key in &watchers.fetch {
            let Slot::Fetch(waiter) = &mut self.slots[key.index as usize].1 else { continue };
            let mut force = false;
            for watch in waiter.watches.iter_mut().filter(|watch| watch.partition == partition) {
                match available(watch) {
                    Some(bytes) => watch.available = bytes.min(watch.max_bytes),
                    None => force = true,
                }
            }
            if force || waiter.is_satisfied() {
                done.push(*key);
            }
        }
        completed.extend(done.into_iter().filter_map(|key| self.take(key)));
    }

    /// Lets all fetches of the partition be read again: truncation, roll, leadership change.
    pub fn force_fetches(&mut self, partition: PartitionKey, completed: &mut Vec<Completed<T>>) {
        self.on_data(partition, |_| None, completed);
    }

    /// Ends what is past its deadline.
    pub fn on_deadline(&mut self, now: MonotonicMs, completed: &mut Vec<Completed<T>>) {
        while let Some(Reverse((deadline, key))) = self.deadlines.peek().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            completed.extend(self.take(key));
        }
    }

    /// When to call [`Self::on_deadline`] next.
    pub fn next_deadline(&mut self) -> Option<MonotonicMs> {
        while let Some(Reverse((deadline, key))) = self.deadlines.peek() {
            if is_live(&self.slots, *key) {
                return Some(*deadline);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Takes a waiter out, as its connection is gone.
    pub fn cancel(&mut self, key: WaiterKey) -> Option<Completed<T>> {
        self.take(key)
    }
}

fn is_live<T>(slots: &[(u32, Slot<T>)], key: WaiterKey) -> bool {
    slots
        .get(key.index as usize)
        .is_some_and(|(generation, slot)| *generation == key.generation && !matches!(slot, Slot::Free))
}

impl<T> DelayedFetch<T> {
    fn is_satisfied(&self) -> bool {
        let available: u64 = self.watches.iter().map(|watch| u64::from(watch.available)).sum();
        available >= u64::from(self.min_bytes)
    }
}

#[cfg(test)]
#[path = "waiters_tests.rs"]
mod tests;
