//! The hash by which Kafka spreads groups and transactional ids over the partitions of its internal topics.

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
}
