//! A copy-on-write map for large sections of the image.
//!
//! A plain `Arc<FxHashMap>` would be copied whole at the first change after each publication. Here a change copies one
//! bucket of 256, so a delta on 100,000 topics copies about 400 entries.

use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

const BUCKETS: usize = 256;

/// A map whose clones share their buckets until one of them changes.
#[derive(Debug, Clone)]
pub struct CowMap<K, V> {
    /// Empty as long as the map is, else [`BUCKETS`] long.
    buckets: Arc<Vec<Arc<FxHashMap<K, V>>>>,
    len: usize,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap { buckets: Arc::new(Vec::new()), len: 0 }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    fn bucket_of<Q: Hash + ?Sized>(key: &Q) -> usize {
        // The low bits choose the place inside the bucket's own table, the high ones the control byte: take the middle.
        (FxBuildHasher.hash_one(key) >> 24) as usize % BUCKETS
    }

    fn bucket_mut(&mut self, index: usize) -> &mut FxHashMap<K, V> {
        let buckets = Arc::make_mut(&mut self.buckets);
        if buckets.is_empty() {
            buckets.resize(BUCKETS, Arc::new(FxHashMap::default()));
        }
        Arc::make_mut(&mut buckets[index])
    }

    /// The value of `key`.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if self.buckets.is_empty() { None } else { self.buckets[Self::bucket_of(key)].get(key) }
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
        if !self.contains_key(key) {
            return None;
        }
        self.bucket_mut(Self::bucket_of(key)).get_mut(key)
    }

    /// Sets the value of `key` and returns the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = self.bucket_mut(Self::bucket_of(&key)).insert(key, value);
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
        let old = self.bucket_mut(Self::bucket_of(key)).remove(key);
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
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    /// All values, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The keys whose values differ between `self` and `newer`, or that only one of them has. Shared buckets cost
    /// nothing.
    pub fn differing_keys(&self, newer: &Self) -> Vec<K>
    where
        V: PartialEq,
    {
        let empty = Arc::new(FxHashMap::default());
        let mut keys = Vec::new();
        for index in 0..BUCKETS {
            let old = self.buckets.get(index).unwrap_or(&empty);
            let new = newer.buckets.get(index).unwrap_or(&empty);
            if Arc::ptr_eq(old, new) {
                continue;
            }
            keys.extend(old.iter().filter(|(key, value)| new.get(*key) != Some(*value)).map(|(key, _)| key.clone()));
            keys.extend(new.keys().filter(|key| !old.contains_key(*key)).cloned());
        }
        keys
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (Arc::ptr_eq(&self.buckets, &other.buckets) || self.differing_keys(other).is_empty())
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
}
