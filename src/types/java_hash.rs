//! The hash by which Kafka spreads groups and transactional ids over the partitions of its internal topics, and that
//! orders its hash maps.

use crate::PartitionIndex;

/// `java.lang.String.hashCode`: over UTF-16 code units, wrapping.
pub fn java_string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The partition of an internal topic with `partitions` partitions that holds the state of `key`.
///
/// Kafka takes the absolute value of the hash, with `i32::MIN` counted as 0.
pub fn partition_for_key(key: &str, partitions: i32) -> PartitionIndex {
    let hash = java_string_hash(key);
    let positive = if hash == i32::MIN { 0 } else { hash.abs() };
    PartitionIndex(positive % partitions.max(1))
}

/// Sorts entries with different keys into the order in which Java goes through a `HashMap` that they were put into.
pub fn sort_as_hash_map<T>(entries: &mut [T], key: impl Fn(&T) -> &str) {
    // It begins with 16 buckets, and has twice as many whenever three quarters would be full.
    sort_into_buckets(entries, 16, key);
}

/// The same for a `HashMap` that was made for just so many entries, which gives another order.
pub fn sort_as_sized_hash_map<T>(entries: &mut [T], key: impl Fn(&T) -> &str) {
    let buckets = (entries.len() as u32).next_power_of_two();
    sort_into_buckets(entries, buckets, key);
}

fn sort_into_buckets<T>(entries: &mut [T], mut buckets: u32, key: impl Fn(&T) -> &str) {
    while entries.len() as u64 * 4 > u64::from(buckets) * 3 {
        buckets *= 2;
    }
    let bucket = |entry: &T| {
        let hash = java_string_hash(key(entry)).cast_unsigned();
        (hash ^ hash >> 16) & (buckets - 1)
    };
    // Within a bucket they stay as they came.
    entries.sort_by_key(bucket);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        assert_eq!(java_string_hash(""), 0);
        assert_eq!(java_string_hash("hello"), 99_162_322);
        assert_eq!(java_string_hash("polygenelubricants"), i32::MIN);
        assert_eq!(partition_for_key("polygenelubricants", 50), PartitionIndex(0));
    }

    #[test]
    fn entries_are_in_the_order_of_a_hash_map() {
        let sorted = |keys: &[&'static str]| {
            let mut keys = keys.to_vec();
            sort_as_hash_map(&mut keys, |key| key);
            keys
        };
        let features =
            ["eligible.leader.replicas.version", "group.version", "kraft.version", "metadata.version", "share.version"];
        assert_eq!(sorted(&features)[0], "group.version");
        let sized = |keys: &[&'static str]| {
            let mut keys = keys.to_vec();
            sort_as_sized_hash_map(&mut keys, |key| key);
            keys
        };
        assert_eq!(sized(&["ip", "user"]), ["user", "ip"], "among 4 buckets");
        assert_eq!(sorted(&["user", "ip"]), ["ip", "user"], "among 16 buckets");
        let twelve = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "p"];
        assert_eq!(sorted(&twelve)[0], "p", "the bucket of 112 among 16 is 0");
        let thirteen = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "p", "zz"];
        assert_eq!((sorted(&thirteen)[0], sorted(&thirteen)[12]), ("zz", "p"), "among 32 it is 16");
    }
}
