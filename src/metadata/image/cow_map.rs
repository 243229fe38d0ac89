//! A copy-on-write map for large sections of the image.
//!
//! A plain `Arc<FxHashMap>` would be copied whole at the first change after each publication. Here the pairs lie in up
//! to 4096 buckets under 64 branches, so a delta that changes one of 100,000 topics copies two lists of 64 pointers and
//! about 25 pairs.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

/// Branches of a map, and buckets of a branch.
const FAN_OUT: usize = 64;

type Bucket<K, V> = FxHashMap<K, V>;
/// Empty as long as nothing was put into any of its buckets, else [`FAN_OUT`] long.
type Branch<K, V> = Vec<Arc<Bucket<K, V>>>;

/// A map whose clones share their buckets until one of them changes.
#[derive(Debug, Clone)]
pub struct CowMap<K, V> {
    /// Empty as long as the map is, else [`FAN_OUT`] long.
    branches: Arc<Vec<Arc<Branch<K, V>>>>,
    len: usize,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap { branches: Arc::new(Vec::new()), len: 0 }
    }
}

/// Where a key's bucket is: which branch, and which of its buckets.
type Place = (usize, usize);

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    fn place_of<Q: Hash + ?Sized>(key: &Q) -> Place {
        // The low bits choose the place inside the bucket's own table, the high ones the control byte: take the middle.
        let bits = (FxBuildHasher.hash_one(key) >> 12) as usize;
        (bits / FAN_OUT % FAN_OUT, bits % FAN_OUT)
    }

    fn bucket(&self, (branch, bucket): Place) -> Option<&Arc<Bucket<K, V>>> {
        self.branches.get(branch)?.get(bucket)
    }

    fn bucket_mut(&mut self, (branch, bucket): Place) -> &mut Arc<Bucket<K, V>> {
        let branches = Arc::make_mut(&mut self.branches);
        if branches.is_empty() {
            branches.resize(FAN_OUT, Arc::default());
        }
        let buckets = Arc::make_mut(&mut branches[branch]);
        if buckets.is_empty() {
            buckets.resize(FAN_OUT, Arc::default());
        }
        &mut buckets[bucket]
    }

    /// The value of `key`.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.bucket(Self::place_of(key))?.get(key)
    }

    /// Whether `key` has a value.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    /// The value of `key`, to be changed; copies its bucket when that is shared.
    pub fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let place = Self::place_of(key);
        if !self.bucket(place)?.contains_key(key) {
            return None;
        }
        Arc::make_mut(self.bucket_mut(place)).get_mut(key)
    }

    /// Sets the value of `key` and returns the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = Arc::make_mut(self.bucket_mut(Self::place_of(&key))).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.contains_key(key) {
            return None;
        }
        let old = Arc::make_mut(self.bucket_mut(Self::place_of(key))).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All pairs, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.branches.iter().flat_map(|branch| branch.iter()).flat_map(|bucket| bucket.iter())
    }

    /// All values, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Takes over the buckets of `other` that hold one of `keys`, if all pairs in them are the same there.
    pub(super) fn share_buckets<'k, Q>(
        &mut self,
        other: &Self,
        keys: impl Iterator<Item = &'k Q>,
        is_same: impl Fn(&V, &V) -> bool,
    ) where
        Q: Hash + ?Sized + 'k,
    {
        for place in keys.map(Self::place_of).collect::<BTreeSet<Place>>() {
            let (Some(own), Some(others)) = (self.bucket(place), other.bucket(place)) else { continue };
            let has_same = |(key, value): (&K, &V)| others.get(key).is_some_and(|other| is_same(value, other));
            if !Arc::ptr_eq(own, others) && own.len() == others.len() && own.iter().all(has_same) {
                *self.bucket_mut(place) = others.clone();
            }
        }
    }

    /// The keys whose values differ between `self` and `newer`, or that only one of them has. What both share costs
    /// nothing.
    pub fn differing_keys(&self, newer: &Self) -> Vec<K>
    where
        V: PartialEq,
    {
        let (no_branch, empty) = (Arc::default(), Arc::default());
        let mut keys = Vec::new();
        if Arc::ptr_eq(&self.branches, &newer.branches) {
            return keys;
        }
        for branch in 0..FAN_OUT {
            let old = self.branches.get(branch).unwrap_or(&no_branch);
            let new = newer.branches.get(branch).unwrap_or(&no_branch);
            if Arc::ptr_eq(old, new) {
                continue;
            }
            for bucket in 0..FAN_OUT {
                let (old, new) = (old.get(bucket).unwrap_or(&empty), new.get(bucket).unwrap_or(&empty));
                if Arc::ptr_eq(old, new) {
                    continue;
                }
                let changed = old.iter().filter(|(key, value)| new.get(*key) != Some(*value));
                keys.extend(changed.map(|(key, _)| key.clone()));
                keys.extend(new.keys().filter(|key| !old.contains_key(*key)).cloned());
            }
        }
        keys
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differing_keys(other).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut map = CowMap::default();
        for key in 0..1000_u32 {
            map.insert(key, key * 2);
        }
        let before = map.clone();
        map.insert(7, 0);
        map.remove(&8);
        map.insert(2000, 1);
        assert_eq!((before.get(&7), before.get(&8), before.len()), (Some(&14), Some(&16), 1000));
        assert_eq!((map.get(&7), map.get(&8), map.len()), (Some(&0), None, 1000));
        let mut differing = before.differing_keys(&map);
        differing.sort_unstable();
        assert_eq!(differing, [7, 8, 2000]);
        assert_ne!(before, map);
        map.insert(7, 14);
        map.insert(8, 16);
        map.remove(&2000);
        assert_eq!(before, map);
        assert_eq!(map.iter().count(), 1000);
    }

    #[test]
    fn equal_buckets_of_changed_keys_are_shared() {
        let mut own = CowMap::default();
        for key in 0..20_000_u32 {
            own.insert(key, key);
        }
        let mut other = own.clone();
        for key in [3, 7_000] {
            own.insert(key, 0);
            other.insert(key, 0);
        }
        own.insert(5, 0);
        let before = own.clone();
        own.share_buckets(&other, [3, 5, 7_000].iter(), u32::eq);
        assert_eq!(own, before);
        let is_shared = |key: u32| {
            let place = CowMap::<u32, u32>::place_of(&key);
            Arc::ptr_eq(own.bucket(place).unwrap(), other.bucket(place).unwrap())
        };
        assert!(is_shared(3) && is_shared(7_000) && !is_shared(5));
    }
}
