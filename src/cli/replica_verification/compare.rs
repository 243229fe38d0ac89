//! How far the replicas of a partition are the same: batch by batch, by their last offsets and their checksums.

use std::collections::BTreeMap;

use ringlog_protocol::records::{BatchIter, BatchRef};

use super::replicas::{Held, Partition};

/// What the comparison of a partition comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// After the last batch that all replicas have, if there is one.
    pub next_offset: Option<i64>,
    /// The highest of the replicas' high watermarks.
    pub high_watermark: i64,
    /// What differs, in the words of Kafka's tool.
    pub differences: Vec<String>,
    /// Whether replicas hold batches that don't lie side by side: nothing after that can be compared.
    pub is_out_of_step: bool,
}

/// Compares what the replicas of a partition hold, by broker.
pub fn compare((topic, partition): &Partition, replicas: &BTreeMap<i32, Held>) -> Compared {
    let high_watermark = replicas.values().map(|held| held.high_watermark).max().unwrap_or_default();
    let mut compared = Compared { high_watermark, ..Compared::default() };
    // What can't be read as a batch ends what the replica holds.
    let mut held: Vec<_> = replicas
        .iter()
        .map(|(broker, held)| (*broker, held.high_watermark, BatchIter::new(&held.records).map_while(Result::ok)))
        .collect();
    loop {
        let mut first: Option<(i32, BatchRef<'_>)> = None;
        let mut have_all = true;
        for (broker, high_watermark, batches) in &mut held {
            // From the high watermark on replicas may differ.
            let Some(batch) = batches.next().filter(|batch| batch.header.last_offset().0 < *high_watermark) else {
                have_all = false;
                continue;
            };
            let Some((other, reference)) = &first else {
                first = Some((*broker, batch));
                continue;
            };
            let (offset, expected) = (batch.header.last_offset().0, reference.header.last_offset().0);
            if offset != expected {
                compared.differences.push(format!(
                    "partition {topic}-{partition}: replica {other}'s offset {expected} doesn't match replica \
                     {broker}'s offset {offset}"
                ));
                compared.is_out_of_step = true;
                return compared;
            }
            if batch.header.crc != reference.header.crc {
                compared.differences.push(format!(
                    "partition {topic}-{partition} has unmatched checksum at offset {offset}; replica {other}'s \
                     checksum {}; replica {broker}'s checksum {}",
                    reference.header.crc, batch.header.crc
                ));
            }
        }
        match first {
            Some((_, batch)) if have_all => compared.next_offset = Some(batch.header.next_offset().0),
            _ => return compared,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringlog_protocol::records::{BatchBuilder, BatchOptions};
    use ringlog_types::TimestampMs;

    use super::*;

    fn batch(base_offset: i64, values: &[&str]) -> Vec<u8> {
        let mut builder =
            BatchBuilder::new(BatchOptions { base_offset: base_offset.into(), ..BatchOptions::default() });
        for value in values {
            builder.append(TimestampMs(1), None, Some(value.as_bytes()), &[]);
        }
        builder.build().to_vec()
    }

    fn compared(replicas: &[(i32, i64, Vec<Vec<u8>>)]) -> Compared {
        let held = |(broker, high_watermark, batches): &(i32, i64, Vec<Vec<u8>>)| {
            (*broker, Held { high_watermark: *high_watermark, records: Bytes::from(batches.concat()) })
        };
        compare(&("t".to_owned(), 7), &replicas.iter().map(held).collect())
    }

    #[test]
    fn replicas_are_the_same_as_far_as_all_of_them_are() {
        let (one, two) = (batch(0, &["a", "b"]), batch(2, &["c"]));
        let both = || vec![one.clone(), two.clone()];
        let same = compared(&[(1, 3, both()), (2, 3, both())]);
        assert_eq!((same.next_offset, same.high_watermark, same.differences.len()), (Some(3), 3, 0));
        let behind = compared(&[(1, 3, both()), (2, 2, both())]);
        assert_eq!((behind.next_offset, behind.high_watermark), (Some(2), 3));
        let lacking = compared(&[(1, 3, both()), (2, -1, Vec::new())]);
        assert_eq!((lacking.next_offset, lacking.high_watermark), (None, 3));
    }

    #[test]
    fn differences_are_told_in_the_words_of_kafkas_tool() {
        let (one, other) = (batch(0, &["a", "b"]), batch(0, &["a", "x"]));
        let crc = |bytes: &[u8]| BatchRef::parse(bytes).unwrap().header.crc;
        let differ = compared(&[(1, 2, vec![one.clone()]), (3, 2, vec![other.clone()])]);
        let expected = format!(
            "partition t-7 has unmatched checksum at offset 1; replica 1's checksum {}; replica 3's checksum {}",
            crc(&one),
            crc(&other)
        );
        assert_eq!((differ.next_offset, differ.differences), (Some(2), vec![expected]));
        let shifted = compared(&[(1, 2, vec![one]), (3, 2, vec![batch(0, &["a"])])]);
        let expected = "partition t-7: replica 1's offset 1 doesn't match replica 3's offset 0";
        assert_eq!((shifted.is_out_of_step, shifted.differences), (true, vec![expected.to_owned()]));
    }
}
