//! Rounds of writing checkpoints: what is asked for, and what is done.

use std::cell::{Cell, RefCell};

use ringlog_ring as ring;
use rustc_hash::FxHashMap;

/// Which files to write.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kinds {
    pub recovery_points: bool,
    pub high_watermarks: bool,
    pub log_starts: bool,
}

impl Kinds {
    pub const ALL: Kinds = Kinds { recovery_points: true, high_watermarks: true, log_starts: true };
    pub const LOG_STARTS: Kinds = Kinds { recovery_points: false, high_watermarks: false, log_starts: true };

    pub fn or(self, other: Kinds) -> Kinds {
        Kinds {
            recovery_points: self.recovery_points || other.recovery_points,
            high_watermarks: self.high_watermarks || other.high_watermarks,
            log_starts: self.log_starts || other.log_starts,
        }
    }

    pub fn is_all(self) -> bool {
        self.recovery_points && self.high_watermarks && self.log_starts
    }

    pub fn is_none(self) -> bool {
        !(self.recovery_points || self.high_watermarks || self.log_starts)
    }
}

/// Rounds of writing; on shard 0.
#[derive(Default)]
pub(super) struct CheckpointRounds {
    pub requests: Cell<u64>,
    /// All requests up to this one are done.
    pub done: Cell<u64>,
    pub wanted: Cell<Kinds>,
    pub is_running: Cell<bool>,
    /// The last request after which all files were written.
    pub all_done: Cell<u64>,
    /// The last request before a log went: only a later one leaves its name out for sure.
    pub last_with_gone: Cell<u64>,
    pub ended: ring::Notify,
    /// Places of the directories whose files the last round couldn't write.
    pub unwritten: RefCell<Vec<usize>>,
    /// What each file held when it was written last, as a hash.
    pub contents: RefCell<FxHashMap<(usize, &'static str), u64>>,
}

impl CheckpointRounds {
    /// A log goes: its name is to leave the files before another takes it.
    pub fn on_name_gone(&self) {
        self.last_with_gone.set(self.requests.get());
    }

    /// Whether no name of a log that is gone is in the files.
    pub fn are_fresh(&self) -> bool {
        self.all_done.get() > self.last_with_gone.get()
    }
}
