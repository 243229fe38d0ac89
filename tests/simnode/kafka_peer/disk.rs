//! What a peer finds when it is started again: its logs, the metadata that it had, and how its last life ended.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_types::Uuid;

use super::log::Log;
use super::metadata_log::MetadataLog;
use crate::check::files::Range;
use crate::check::replicas::Batches;

/// A partition, by its topic's id.
pub type Key = (Uuid, i32);

/// See the module's text.
#[derive(Default)]
pub struct Disk {
    /// Replicas.
    pub logs: RefCell<BTreeMap<Key, Rc<RefCell<Log>>>>,
    /// The metadata, as far as it was fetched.
    pub metadata: RefCell<MetadataLog>,
    /// The broker epoch of a life that ended in order, until the next one begins.
    pub clean_epoch: Cell<Option<i64>>,
    /// Lives so far.
    pub lives: Cell<u64>,
}

impl Disk {
    /// Where a replica ends, by its folder's name; nothing where there is none.
    pub fn end_of(&self, name: &str) -> Option<i64> {
        self.logs.borrow().values().find(|log| log.borrow().name == name).map(|log| log.borrow().end())
    }

    /// All replicas by their folders' names: from where to where, what is committed, and their batches.
    pub fn replicas(&self) -> Vec<(String, Range, Batches)> {
        let logs = self.logs.borrow();
        let all = logs.values().map(|log| log.borrow());
        all.map(|log| (log.name.clone(), (log.start(), log.end(), log.saved_high_watermark), log.batches())).collect()
    }
}
