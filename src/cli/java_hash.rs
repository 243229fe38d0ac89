//! The order in which Java's hash maps and sets give out what is in them: Kafka's tools print it as it comes.

/// The slots of a map that has nothing in it yet.
const FIRST_SLOTS: usize = 16;

/// Puts elements, which were added in this order to a map or set that began empty, into the order of its iterator.
/// `hash` is what Java's `hashCode` gives for an element.
pub fn iteration_order<T>(added: Vec<T>, hash: impl Fn(&T) -> i32) -> Vec<T> {
    by_slot(FIRST_SLOTS, added, hash)
}

/// As [`iteration_order`], of a map that was made for so many elements.
pub fn sized_iteration_order<T>(added: Vec<T>, hash: impl Fn(&T) -> i32) -> Vec<T> {
    by_slot(added.len().next_power_of_two(), added, hash)
}

fn by_slot<T>(first_slots: usize, added: Vec<T>, hash: impl Fn(&T) -> i32) -> Vec<T> {
    let mut slots = first_slots;
    // A map that is more than three quarters full is made twice as large.
    while added.len() > slots * 3 / 4 {
        slots *= 2;
    }
    let slot = |element: &T| {
        let hash = hash(element).cast_unsigned();
        (hash ^ (hash >> 16)) as usize & (slots - 1)
    };
    let mut ordered = added;
    // What shares a slot stays in the order in which it was added.
    ordered.sort_by_key(slot);
    ordered
}

/// The `hashCode` of a text.
pub fn of_text(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The `hashCode` of Kafka's `TopicPartition`.
pub fn of_partition(topic: &str, partition: i32) -> i32 {
    31_i32.wrapping_add(partition).wrapping_mul(31).wrapping_add(of_text(topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        assert_eq!(of_text("one"), 110_182);
        assert_eq!(of_text("hello world"), 1_794_106_052);
        assert_eq!(of_partition("one", 3), 111_236);
    }

    /// As Kafka's tools printed them.
    #[test]
    fn partitions_come_by_their_slots() {
        let partitions: Vec<(&str, i32)> = [0, 1, 2, 3, 4].map(|partition| ("one", partition)).into();
        let ordered = iteration_order(partitions, |(topic, partition)| of_partition(topic, *partition));
        assert_eq!(ordered.iter().map(|(_, partition)| *partition).collect::<Vec<_>>(), [4, 2, 3, 0, 1]);
    }

    /// As `kafka-topics --describe` printed them: four are too many for a map of four slots.
    #[test]
    fn topics_come_by_the_slots_of_a_map_that_was_made_for_them() {
        let ordered = |topics: &[&'static str]| sized_iteration_order(topics.to_vec(), |topic| of_text(topic));
        assert_eq!(ordered(&["fragile", "pair", "wide"]), ["wide", "pair", "fragile"]);
        let expected = ["surface-a", "surface-compact", "surface_b.c", "surface-g-streams-cnt-changelog"];
        let sorted = ["surface-a", "surface-compact", "surface-g-streams-cnt-changelog", "surface_b.c"];
        assert_eq!(ordered(&sorted), expected);
        assert_eq!(ordered(&["one"]), ["one"]);
    }

    #[test]
    fn a_map_grows_and_what_shares_a_slot_stays_in_order() {
        assert_eq!(iteration_order(vec![33, 17, 2, 1], |number| *number), [33, 17, 1, 2]);
        let many: Vec<i32> = (0..13).rev().chain([16]).collect();
        let expected: Vec<i32> = (0..13).chain([16]).collect();
        assert_eq!(iteration_order(many, |number| *number), expected);
        assert_eq!(iteration_order(Vec::<i32>::new(), |number| *number), Vec::<i32>::new());
    }
}
