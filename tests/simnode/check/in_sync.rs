//! Who is said to be in sync: each of them has all that was acknowledged on its disk, as a kill would leave it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_metadata::image::{MetadataImage, Publication};
use ringlog_ring::sim::{Control, FileView};
use ringlog_types::{NodeId, Uuid};

/// Bytes before a batch's length counts.
const PREFIX_BYTES: usize = 12;
/// Where in a batch it stands how many offsets it takes, less one.
const LAST_OFFSET_DELTA: std::ops::Range<usize> = 23..27;

/// What is said of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its replicas.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync: Vec<i32>,
    /// Who leads it; -1 for nobody.
    pub leader: i32,
    /// In which epoch.
    pub leader_epoch: i32,
    /// Its replicas are being exchanged for others.
    pub is_changing: bool,
    /// In which directory of its node each replica lies.
    pub directories: Vec<Uuid>,
}

/// The newest that any node has been told.
#[derive(Debug, Default)]
pub struct Standings {
    last_offset: i64,
    partitions: BTreeMap<(usize, i32), Standing>,
}

impl Standings {
    /// Looks on from now on. `topics` are those that are of interest.
    pub fn begin(world: &Control, topics: Vec<String>) -> Rc<RefCell<Standings>> {
        let standings = Rc::new(RefCell::new(Standings { last_offset: -1, partitions: BTreeMap::new() }));
        let own = standings.clone();
        let control = world.clone();
        world.observe(move |_, value| {
            if let Some(Publication { image, .. }) = value.downcast_ref::<Publication>() {
                let taken = own.borrow_mut().on_image(&topics, image);
                taken.unwrap_or_else(|fault| control.add_violation(fault));
            }
        });
        standings
    }

    fn on_image(&mut self, topics: &[String], image: &MetadataImage) -> Result<(), String> {
        let offset = image.provenance.last_contained_offset.0;
        if offset <= self.last_offset {
            return Ok(());
        }
        self.last_offset = offset;
        for (number, name) in topics.iter().enumerate() {
            let Some(topic) = image.topics.by_name(name) else { continue };
            for (index, partition) in topic.partitions.iter() {
                let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<i32>>();
                let standing = Standing {
                    replicas: ids(partition.replicas()),
                    in_sync: ids(partition.in_sync_replicas()),
                    leader: partition.leader.0,
                    leader_epoch: partition.leader_epoch.0,
                    is_changing: partition.is_reassigning(),
                    directories: partition.directories().to_vec(),
                };
                let before = self.partitions.insert((number, index.0), standing.clone());
                if let Some(before) = before.filter(|before| before.leader_epoch > standing.leader_epoch) {
                    return Err(format!("{name}-{index:?} was {before:?}, and is {standing:?}"));
                }
            }
        }
        Ok(())
    }

    /// All of it, by topic and partition.
    pub fn partitions(&self) -> &BTreeMap<(usize, i32), Standing> {
        &self.partitions
    }

    /// Whether all replicas of all partitions are in sync, and none of them is on its way elsewhere.
    pub fn are_full(&self) -> bool {
        self.partitions.values().all(|it| !it.is_changing && it.in_sync.len() == it.replicas.len() && it.leader >= 0)
    }
}

/// Where a log's last file ends. `names` are those of the files in its folder; `within` reads one of them.
pub fn log_end(names: &[String], within: impl Fn(&str, &ReadBatches<'_>) -> Option<i64>) -> Option<i64> {
    let last = names.iter().filter(|name| name.ends_with(".log")).max()?;
    let start: i64 = last.strip_suffix(".log")?.parse().ok()?;
    within(last, &|file| batches_end(file, start))
}

/// Finds out where the batches of a file end.
pub type ReadBatches<'a> = dyn Fn(&FileView<'_>) -> i64 + 'a;

fn batches_end(file: &FileView<'_>, start: i64) -> i64 {
    let (mut end, mut position) = (start, 0);
    loop {
        let head = file.read(position, LAST_OFFSET_DELTA.end as u64);
        if head.len() < LAST_OFFSET_DELTA.end {
            return end;
        }
        let base = i64::from_be_bytes(head[..8].try_into().expect("eight bytes"));
        let len = PREFIX_BYTES + u32::from_be_bytes(head[8..PREFIX_BYTES].try_into().expect("four bytes")) as usize;
        if len <= LAST_OFFSET_DELTA.end || len as u64 > file.len() - position {
            return end;
        }
        end = base + i64::from(u32::from_be_bytes(head[LAST_OFFSET_DELTA].try_into().expect("four bytes"))) + 1;
        position += len as u64;
    }
}
