//! Which shard hosts a partition: a pure function, so that anyone can compute it.
//!
//! `shard = crc32c(topic id ‖ partition as 4 big-endian bytes) mod shards`. It depends on nothing that changes while
//! a node runs; another number of shards moves partitions between cores at the next start, and nothing on disk.

use ringlog_types::TopicIdPartition;

/// The shard that hosts `id` on a node with `shards` shards.
pub fn shard_of(id: TopicIdPartition, shards: usize) -> usize {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&id.topic_id.0);
    key[16..].copy_from_slice(&id.partition.0.to_be_bytes());
    crc32c::crc32c(&key) as usize % shards.max(1)
}

#[cfg(test)]
mod tests {
    use ringlog_types::{PartitionIndex, Random, Uuid};

    use super::*;

    #[test]
    fn placement_is_stable_and_even() {
        let id = TopicIdPartition { topic_id: "n6YqSH1sTxOJOrNXfaHaOw".parse().unwrap(), partition: PartitionIndex(3) };
        assert_eq!((shard_of(id, 1), shard_of(id, 2), shard_of(id, 16)), (0, shard_of(id, 16) % 2, shard_of(id, 16)));
        let mut random = Random::from_seed(1);
        let mut hosted = [0; 8];
        for _ in 0..1000 {
            let topic_id = Uuid::random(&mut random);
            for partition in 0..10 {
                hosted[shard_of(TopicIdPartition { topic_id, partition: PartitionIndex(partition) }, 8)] += 1;
            }
        }
        assert!(hosted.iter().all(|&count| (1100..1400).contains(&count)), "{hosted:?}");
    }
}
