//! A topic's partitions by index: a table that shares what didn't change with the one it was copied from.
//!
//! Partitions are numbered from 0 without gaps, so the table is a list cut into leaves of 16, under branches of 32 as
//! soon as there is more than one leaf. Branches and leaves are behind `Arc`s: a change of one of 10,000 partitions
//! copies a leaf and two branches. A topic of one leaf has it inside of itself.
//!
//! Replay may meet a partition before those with lower numbers, and a damaged log any number at all. Such partitions
//! wait beside the list until what lies between has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_types::PartitionIndex;

use super::PartitionImage;

const LEAF_BITS: u32 = 4;
/// Partitions of a leaf at most; all leaves but the last are full.
const LEAF: usize = 1 << LEAF_BITS;
const BRANCH_BITS: u32 = 5;
/// Children of a branch at most; all but those on the right edge are full.
const BRANCH: usize = 1 << BRANCH_BITS;

/// The partitions of one topic. Behaves as a `BTreeMap` without removal; clones share their content.
#[derive(Debug, Clone)]
pub struct PartitionTable {
    root: Node,
    /// How many partitions are in the list, which is to say: the first index that is not.
    listed: u32,
    /// How many branches lie between the root and a leaf.
    height: u8,
    /// Partitions above a gap.
    above_gap: BTreeMap<PartitionIndex, PartitionImage>,
}

/// The shape follows from the number of partitions alone.
#[derive(Debug, Clone)]
enum Node {
    Leaf(Vec<PartitionImage>),
    Branch(Vec<Arc<Node>>),
}

impl Node {
    fn empty(height: u8) -> Node {
        if height == 0 { Node::Leaf(Vec::new()) } else { Node::Branch(Vec::new()) }
    }

    /// How many partitions fit below a node of this height.
    fn capacity(height: u8) -> usize {
        LEAF << (BRANCH_BITS * u32::from(height))
    }

    /// Which child of a branch of this height holds the partition at `position`.
    fn place(position: usize, height: u8) -> usize {
        (position >> (LEAF_BITS + BRANCH_BITS * (u32::from(height) - 1))) % BRANCH
    }

    fn leaf(&self, position: usize, height: u8) -> &[PartitionImage] {
        match self {
            Node::Leaf(partitions) => partitions,
            Node::Branch(children) => children[Node::place(position, height)].leaf(position, height - 1),
        }
    }

    fn get_mut(&mut self, position: usize, height: u8) -> &mut PartitionImage {
        match self {
            Node::Leaf(partitions) => &mut partitions[position % LEAF],
            Node::Branch(children) => {
                Arc::make_mut(&mut children[Node::place(position, height)]).get_mut(position, height - 1)
            }
        }
    }

    /// Adds the partition at `position`, which is the first that isn't there.
    fn push(&mut self, position: usize, height: u8, partition: PartitionImage) {
        match self {
            Node::Leaf(partitions) => {
                // By one, as most topics stop growing before their last leaf is full.
                partitions.reserve_exact(1);
                partitions.push(partition);
            }
            Node::Branch(children) => {
                let place = Node::place(position, height);
                if place == children.len() {
                    children.push(Arc::new(Node::empty(height - 1)));
                }
                Arc::make_mut(&mut children[place]).push(position, height - 1, partition);
            }
        }
    }

    /// Whether both are the same memory, or hold nothing that could be.
    fn is_same(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Leaf(own), Node::Leaf(others)) => own.as_ptr() == others.as_ptr() && own.len() == others.len(),
            (Node::Branch(own), Node::Branch(others)) => {
                own.len() == others.len() && own.iter().zip(others).all(|(own, other)| Arc::ptr_eq(own, other))
            }
            _ => false,
        }
    }

    /// Takes over the children of `other` that are equal, as far as they may hold `changed` positions. Both nodes have
    /// this height.
    fn share_children(&mut self, other: &Node, height: u8, changed: &[usize]) {
        let (Node::Branch(own), Node::Branch(others)) = (self, other) else { return };
        if height == 1 {
            // All of them, as a table that got its first branches may have leaves from before.
            let different = own.iter_mut().zip(others).filter(|(own, other)| !Arc::ptr_eq(own, other));
            different.filter(|(own, other)| own.is_equal_leaf(other)).for_each(|(own, other)| *own = other.clone());
            return;
        }
        for changed in changed.chunk_by(|a, b| Node::place(*a, height) == Node::place(*b, height)) {
            let place = Node::place(changed[0], height);
            let (Some(own), Some(other)) = (own.get_mut(place), others.get(place)) else { continue };
            if Arc::ptr_eq(own, other) {
                continue;
            }
            let branch = Arc::make_mut(own);
            branch.share_children(other, height - 1, changed);
            if branch.is_same(other) {
                *own = other.clone();
            }
        }
    }

    fn is_equal_leaf(&self, other: &Node) -> bool {
        matches!((self, other), (Node::Leaf(own), Node::Leaf(other)) if own == other)
    }
}

/// The partitions of a leaf with their indexes.
fn numbered((start, leaf): (usize, &[PartitionImage])) -> impl Iterator<Item = (PartitionIndex, &PartitionImage)> {
    leaf.iter().enumerate().map(move |(place, partition)| (PartitionIndex((start + place) as i32), partition))
}

impl Default for PartitionTable {
    fn default() -> PartitionTable {
        PartitionTable { root: Node::empty(0), listed: 0, height: 0, above_gap: BTreeMap::new() }
    }
}

impl PartitionTable {
    /// A table without partitions.
    pub fn new() -> PartitionTable {
        PartitionTable::default()
    }

    fn listed(&self) -> usize {
        self.listed as usize
    }

    /// The place in the list of a partition that is in it.
    fn position(&self, index: &PartitionIndex) -> Option<usize> {
        usize::try_from(index.0).ok().filter(|position| *position < self.listed())
    }

    /// The partition of this index.
    pub fn get(&self, index: &PartitionIndex) -> Option<&PartitionImage> {
        match self.position(index) {
            Some(position) => self.root.leaf(position, self.height).get(position % LEAF),
            None => self.above_gap.get(index),
        }
    }

    /// Whether there is a partition of this index.
    pub fn contains_key(&self, index: &PartitionIndex) -> bool {
        self.get(index).is_some()
    }

    /// Sets the partition of this index and returns the former one.
    ///
    /// # Panics
    /// If the index is negative.
    pub fn insert(&mut self, index: PartitionIndex, partition: PartitionImage) -> Option<PartitionImage> {
        assert!(index.0 >= 0, "partitions are numbered from 0");
        if let Some(position) = self.position(&index) {
            let place = self.root.get_mut(position, self.height);
            return Some(std::mem::replace(place, partition));
        }
        if index.0.unsigned_abs() > self.listed {
            return self.above_gap.insert(index, partition);
        }
        self.push(partition);
        self.close_gap();
        None
    }

    fn push(&mut self, partition: PartitionImage) {
        if self.listed() == Node::capacity(self.height) {
            let full = std::mem::replace(&mut self.root, Node::Branch(Vec::new()));
            self.root = Node::Branch(vec![Arc::new(full)]);
            self.height += 1;
        }
        self.root.push(self.listed(), self.height, partition);
        self.listed += 1;
    }

    /// Lists partitions that are no longer above a gap.
    fn close_gap(&mut self) {
        while let Some(first) = self.above_gap.first_entry()
            && first.key().0.unsigned_abs() == self.listed
        {
            let partition = first.remove();
            self.push(partition);
        }
    }

    /// How many partitions there are.
    pub fn len(&self) -> usize {
        self.listed() + self.above_gap.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All partitions, in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionIndex, &PartitionImage)> {
        self.iter_from(PartitionIndex(0))
    }

    /// The partitions from `first` on, in the order of their indexes.
    pub fn iter_from(&self, first: PartitionIndex) -> impl Iterator<Item = (PartitionIndex, &PartitionImage)> {
        let position = usize::try_from(first.0).unwrap_or(0).min(self.listed());
        let listed = self.leaves(position).flat_map(numbered).skip(position % LEAF);
        listed.chain(self.above_gap(first))
    }

    fn above_gap(&self, first: PartitionIndex) -> impl Iterator<Item = (PartitionIndex, &PartitionImage)> {
        self.above_gap.range(first..).map(|(index, partition)| (*index, partition))
    }

    /// The leaves from that of `position` on, each with the position of its first partition.
    fn leaves(&self, position: usize) -> impl Iterator<Item = (usize, &[PartitionImage])> {
        let starts = (position / LEAF * LEAF..self.listed()).step_by(LEAF);
        starts.map(|start| (start, self.root.leaf(start, self.height)))
    }

    /// The indexes of all partitions, in order.
    pub fn keys(&self) -> impl Iterator<Item = PartitionIndex> {
        self.iter().map(|(index, _)| index)
    }

    /// All partitions, in the order of their indexes.
    pub fn values(&self) -> impl Iterator<Item = &PartitionImage> {
        self.iter().map(|(_, partition)| partition)
    }

    /// The partitions that are not in `old`, or others there, in the order of their indexes. What both share costs
    /// next to nothing.
    pub(super) fn differing_from(&self, old: &PartitionTable) -> impl Iterator<Item = PartitionIndex> {
        let leaves = self.leaves(0).filter(|(start, leaf)| {
            // The same slice is the same memory.
            *start >= old.listed() || !std::ptr::eq(old.root.leaf(*start, old.height), *leaf)
        });
        let all = leaves.flat_map(numbered).chain(self.above_gap(PartitionIndex(0)));
        all.filter(|(index, partition)| old.get(index) != Some(*partition)).map(|(index, _)| index)
    }

    /// Whether nothing of it can be shared but the table as a whole.
    pub(super) fn has_one_leaf(&self) -> bool {
        self.height == 0
    }

    /// Takes over the leaves of `other` that hold a `changed` partition, or lie beside such, and are equal there; and
    /// the branches that then are. `changed` is in order.
    pub(super) fn share_with(&mut self, other: &PartitionTable, changed: impl Iterator<Item = PartitionIndex>) {
        if self.height != other.height {
            return;
        }
        let changed: Vec<usize> = changed.filter_map(|index| self.position(&index)).collect();
        self.root.share_children(&other.root, self.height, &changed);
    }

    /// Whether both have the same leaves, so that one may take the place of the other.
    pub(super) fn is_same(&self, other: &PartitionTable) -> bool {
        self.listed == other.listed && self.root.is_same(&other.root) && self.above_gap == other.above_gap
    }
}

impl PartialEq for PartitionTable {
    fn eq(&self, other: &PartitionTable) -> bool {
        self.listed == other.listed
            && self.above_gap == other.above_gap
            && self.leaves(0).zip(other.leaves(0)).all(|((_, a), (_, b))| std::ptr::eq(a, b) || a == b)
    }
}

impl Eq for PartitionTable {}

impl FromIterator<(PartitionIndex, PartitionImage)> for PartitionTable {
    fn from_iter<I: IntoIterator<Item = (PartitionIndex, PartitionImage)>>(partitions: I) -> PartitionTable {
        let mut table = PartitionTable::new();
        for (index, partition) in partitions {
            table.insert(index, partition);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use ringlog_types::{LeaderEpoch, NodeId, PartitionEpoch, Random, Uuid};

    use super::*;
    use crate::image::{LeaderRecoveryState, PartitionRegistration, TopicImage};

    fn partition(epoch: u64) -> PartitionImage {
        let replicas = vec![NodeId(1), NodeId(2), NodeId(3)];
        PartitionImage::new(&PartitionRegistration {
            directories: replicas.iter().map(|id| Uuid([id.0 as u8; 16])).collect(),
            in_sync_replicas: replicas.clone(),
            replicas,
            eligible_leader_replicas: Vec::new(),
            last_known_elr: Vec::new(),
            removing_replicas: Vec::new(),
            adding_replicas: Vec::new(),
            leader: NodeId(1),
            leader_epoch: LeaderEpoch(epoch as i32),
            partition_epoch: PartitionEpoch(7),
            leader_recovery_state: LeaderRecoveryState::Recovered,
        })
    }

    fn table(count: i32) -> PartitionTable {
        (0..count).map(|index| (PartitionIndex(index), partition(0))).collect()
    }

    /// How many leaves of `table` are also leaves of `other`.
    fn shared_leaves(table: &PartitionTable, other: &PartitionTable) -> usize {
        table.leaves(0).zip(other.leaves(0)).filter(|((_, a), (_, b))| std::ptr::eq(*a, *b)).count()
    }

    fn assert_same(table: &PartitionTable, model: &BTreeMap<PartitionIndex, PartitionImage>, random: &mut Random) {
        let all = |from: PartitionIndex| model.range(from..).map(|(index, partition)| (*index, partition));
        assert!(table.iter().eq(all(PartitionIndex(0))));
        assert!(table.keys().eq(model.keys().copied()));
        assert!(table.values().eq(model.values()));
        assert_eq!((table.len(), table.is_empty()), (model.len(), model.is_empty()));
        for _ in 0..20 {
            let index = PartitionIndex(random.below(800) as i32 - 20);
            assert_eq!(table.get(&index), model.get(&index));
            assert_eq!(table.contains_key(&index), model.contains_key(&index));
            assert!(table.iter_from(index).eq(all(index)), "from {index}");
        }
    }

    #[test]
    fn it_behaves_as_a_btree_map_and_clones_keep_what_they_saw() {
        for seed in 0..40 {
            let mut random = Random::from_seed(seed);
            let (mut table, mut model) = (PartitionTable::new(), BTreeMap::new());
            let mut clones = Vec::new();
            // From in order to anyhow.
            let disorder = 1 + random.below(1 << (seed % 10));
            for step in 0..700 {
                let index = match random.below(4) {
                    0 => random.below(700),
                    _ => model.len() as u64 + random.below(disorder),
                };
                let index = PartitionIndex(index as i32);
                assert_eq!(table.insert(index, partition(step)), model.insert(index, partition(step)));
                if random.below(100) == 0 {
                    assert_same(&table, &model, &mut random);
                    clones.push((table.clone(), model.clone()));
                }
            }
            for (clone, model_then) in &clones {
                assert_same(clone, model_then, &mut random);
                let differing = model.iter().filter(|(index, partition)| model_then.get(*index) != Some(*partition));
                assert!(table.differing_from(clone).eq(differing.map(|(index, _)| *index)));
                assert_eq!(*clone == table, *model_then == model);
            }
            assert!(model.into_iter().collect::<PartitionTable>() == table);
        }
    }

    #[test]
    fn a_gap_costs_nothing_and_closes() {
        let mut table = PartitionTable::new();
        table.insert(PartitionIndex(i32::MAX), partition(9));
        for index in (0..100).rev() {
            table.insert(PartitionIndex(index), partition(0));
        }
        assert_eq!((table.listed(), table.len()), (100, 101));
        assert_eq!(table.iter().last(), Some((PartitionIndex(i32::MAX), &partition(9))));
        assert_eq!(table.above_gap.len(), 1);
    }

    #[test]
    fn a_change_copies_one_leaf() {
        let before = table(10_000);
        let mut after = before.clone();
        after.insert(PartitionIndex(7_000), partition(1));
        assert_eq!(shared_leaves(&before, &after), 10_000 / LEAF - 1);
        assert!(after.differing_from(&before).eq([PartitionIndex(7_000)]));
        assert_eq!(before.get(&PartitionIndex(7_000)), Some(&partition(0)));
    }

    #[test]
    fn equal_leaves_are_shared_where_something_changed() {
        let mut random = Random::from_seed(3);
        for count in [17, 100, 512, 513, 10_000] {
            let base = table(count);
            let (mut own, mut other) = (base.clone(), base.clone());
            let mut changed: Vec<_> = (0..30).map(|_| PartitionIndex(random.below(count as u64) as i32)).collect();
            changed.sort_unstable();
            for index in &changed {
                own.insert(*index, partition(5));
                other.insert(*index, partition(5));
            }
            let (held, all) = (own.clone(), own.leaves(0).count());
            assert!(shared_leaves(&own, &other) < all);
            own.share_with(&other, changed.iter().copied());
            assert!(own.is_same(&other) && own == other);
            // What isn't equal isn't shared.
            own.insert(changed[0], partition(6));
            let before = own.clone();
            own.share_with(&other, changed.iter().copied());
            assert!(!own.is_same(&other) && own == before && own != other);
            assert_eq!(shared_leaves(&own, &other), all - 1);
            assert_eq!(held, other);
        }
    }

    /// What the usual allocators take for so many bytes.
    fn allocated(bytes: usize) -> usize {
        if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
    }

    fn bytes_below(node: &Node) -> usize {
        match node {
            Node::Leaf(partitions) => allocated(partitions.capacity() * size_of::<PartitionImage>()),
            Node::Branch(children) => {
                let counts_and_node = allocated(16 + size_of::<Node>());
                let below = children.iter().map(|child| counts_and_node + bytes_below(child));
                allocated(children.capacity() * size_of::<Arc<Node>>()) + below.sum::<usize>()
            }
        }
    }

    /// A million partitions in 10,000 or 100,000 topics take less than 200 bytes each, everything counted. What a
    /// partition with three replicas needs besides its struct is nothing, see `partition.rs`.
    #[test]
    fn a_million_partitions_fit_into_memory() {
        let name = allocated(16 + "a-name-of-a-topic-in-some-cluster".len());
        // Both maps, with tables that are half empty, and a byte for each place.
        let places = size_of::<(Uuid, Arc<TopicImage>)>() + size_of::<(Arc<str>, Uuid)>() + 2;
        let topic = allocated(16 + size_of::<TopicImage>()) + name + 2 * places;
        for (count, limit) in [(10, 150), (100, 125), (10_000, 115)] {
            let bytes = (topic + bytes_below(&table(count).root)) as f64 / f64::from(count);
            assert!(bytes <= f64::from(limit), "{bytes} bytes for each of {count} partitions");
        }
    }
}
