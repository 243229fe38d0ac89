//! The order in which Java's hash sets give their elements: Kafka's tool names topics and partitions in it.

use super::plan::TopicPartition;

/// Something with Java's hash code.
pub trait JavaHash {
    /// The hash code.
    fn java_hash(&self) -> i32;
}

impl JavaHash for str {
    fn java_hash(&self) -> i32 {
        self.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
    }
}

impl JavaHash for TopicPartition {
    fn java_hash(&self) -> i32 {
        31_i32.wrapping_add(self.partition).wrapping_mul(31).wrapping_add(self.topic.java_hash())
    }
}

/// Puts distinct elements, which are in the order of their insertion, into that of the set.
pub fn sort<T>(items: &mut [T], hash: impl Fn(&T) -> i32) {
    let mut buckets: u32 = 16;
    while items.len() > buckets as usize / 4 * 3 {
        buckets *= 2;
    }
    items.sort_by_key(|item| {
        let hash = hash(item).cast_unsigned();
        (hash ^ hash >> 16) & (buckets - 1)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_in_javas_order() {
        let mut topics = ["also", "nope"];
        sort(&mut topics, |topic| topic.java_hash());
        assert_eq!(topics, ["nope", "also"]);
        let mut partitions = [7, 9].map(|partition| TopicPartition { topic: "t".to_owned(), partition });
        assert_eq!(partitions[0].java_hash(), 1294);
        sort(&mut partitions, JavaHash::java_hash);
        assert_eq!(partitions.map(|it| it.to_string()), ["t-9", "t-7"]);
    }
}
