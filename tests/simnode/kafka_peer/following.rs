//! What a replica does that follows: it appends what its leader has, and cuts off what its leader doesn't have, by the rules of
//! Kafka's `AbstractFetcherThread` and `UnifiedLog`.

use bytes::Bytes;
use ringlog_protocol::records::BatchIter;

use super::replica::Replica;

/// From where a follower fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The epoch in which it follows.
    pub leader_epoch: i32,
    /// Where its log ends.
    pub offset: i64,
    /// The epoch of what comes last there; -1 for none.
    pub last_epoch: i32,
    /// Where its log starts.
    pub start: i64,
}

/// Where to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The log ends there then.
    pub to: i64,
}

impl Replica {
    /// From where to fetch.
    pub fn position(&self) -> Position {
        let log = self.log.borrow();
        Position {
            leader_epoch: self.leader_epoch,
            offset: log.end(),
            last_epoch: log.epochs.latest().unwrap_or(-1),
            start: log.start(),
        }
    }

    /// Whether an answer to a fetch from there is still of interest.
    pub fn is_at(&self, position: Position, leader: i32) -> bool {
        self.leader == leader && !self.leads() && self.position() == position
    }

    /// A log without epochs isn't comparable: what isn't known to be committed goes before it is fetched.
    pub fn cut_before_following(&self) -> Option<Cut> {
        let log = self.log.borrow();
        let is_cut = log.epochs.latest().is_none() && log.end() > self.high_watermark;
        is_cut.then_some(Cut { to: self.high_watermark })
    }

    /// Appends what came from the leader. Batches of an epoch that isn't known yet are left for later, and so is what was cut
    /// off at the end.
    pub fn append_fetched(&mut self, records: &Bytes) -> Result<(), String> {
        for batch in BatchIter::new(records) {
            let Ok(batch) = batch else { break };
            batch.verify_crc().map_err(|fault| fault.to_string())?;
            let (base, next) = (batch.header.base_offset.0, batch.header.next_offset().0);
            if batch.header.partition_leader_epoch.0 > self.leader_epoch {
                break;
            }
            let mut log = self.log.borrow_mut();
            let is_empty = log.end() == log.start();
            if is_empty && base < log.end() && next > log.end() {
                // The leader's log starts inside of its first batch.
                log.restart_at(base);
                self.high_watermark = self.high_watermark.min(base);
            }
            if base != log.end() {
                return Err(format!("a batch from {base} to {next} is sent to a log that ends at {}", log.end()));
            }
            // A buffer of its own: what a log keeps isn't the whole answer.
            log.append_as_it_is(batch.header, Bytes::copy_from_slice(batch.bytes));
        }
        Ok(())
    }

    /// What the leader said with its records.
    pub fn on_leader_offsets(&mut self, high_watermark: i64, leader_start: i64) {
        let end = self.log.borrow().end();
        self.high_watermark = self.high_watermark.max(high_watermark.min(end));
        self.log.borrow_mut().advance_start(leader_start.min(self.high_watermark));
    }

    /// Where to cut when the leader says that its log parts from this one: it ends at `end` in `epoch`, the largest that it
    /// has at or below the one that was named.
    pub fn cut_for(&self, (epoch, end): (i32, i64)) -> Cut {
        let log = self.log.borrow();
        let log_end = log.end();
        if end < 0 {
            return Cut { to: log_end };
        }
        if epoch < 0 {
            return Cut { to: end.min(log_end) };
        }
        let to = match log.epochs.end_for(epoch, log_end) {
            // An epoch that only the leader knows: what follows the one below goes, and the leader is asked again.
            Some((own, own_end)) if own != epoch => own_end,
            Some((_, own_end)) => own_end.min(end),
            None => end,
        };
        Cut { to: to.min(log_end) }
    }

    /// Cuts. What is committed may not go, unless leaders may know less.
    pub fn cut(&mut self, cut: Cut) -> Result<(), String> {
        let (from, committed) = (self.log.borrow().end(), self.high_watermark);
        self.log.borrow_mut().truncate(cut.to);
        self.high_watermark = committed.min(cut.to);
        if cut.to < committed && !self.limits.is_unclean {
            return Err(format!(
                "its log from there to {from} is to be cut to {}, and {committed} is committed",
                cut.to
            ));
        }
        Ok(())
    }

    /// The leader's log starts behind this one.
    pub fn restart_at(&mut self, start: i64) {
        self.log.borrow_mut().restart_at(start);
        self.high_watermark = start;
    }
}
