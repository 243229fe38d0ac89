//! A Produce that names a partition more than once, or a topic: answered as Kafka does, which keeps what it is sent by
//! partition.

use ringlog_protocol::messages::produce_response::{ProduceResponse, TopicProduceResponse};
use ringlog_types::TopicIdPartition;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::scatter::ByHome;

/// Places in a response: topic and partition.
pub(super) type Places = FxHashSet<(usize, usize)>;

/// Whether a topic or a partition is named more than once.
pub(super) fn find(response: &ProduceResponse) -> bool {
    let topics = &response.responses;
    let is_unique = |topic: &TopicProduceResponse| {
        let partitions = &topic.partition_responses;
        // Most clients name them in order.
        let mut seen = FxHashSet::default();
        partitions.is_sorted_by(|one, next| one.index < next.index)
            || partitions.iter().all(|partition| seen.insert(partition.index))
    };
    let mut seen = FxHashSet::default();
    !topics.iter().all(is_unique)
        || (topics.len() > 1 && !topics.iter().all(|topic| seen.insert((&topic.name, topic.topic_id))))
}

/// Of batches for the same partition Kafka appends only the last one that isn't refused before it comes to the log. The
/// places of the others, which go nowhere, are returned.
pub(super) fn drop_earlier<P>(
    by_home: &mut ByHome<P>,
    id_and_place: impl Fn(&P) -> (TopicIdPartition, (usize, usize)),
) -> Places {
    let (mut dropped, mut seen) = (Places::default(), FxHashSet::default());
    for (_, parts) in by_home.homes_mut() {
        let mut kept = Vec::with_capacity(parts.len());
        for part in std::mem::take(parts).into_iter().rev() {
            let (id, place) = id_and_place(&part);
            if seen.insert(id) {
                kept.push(part);
            } else {
                dropped.insert(place);
            }
        }
        kept.reverse();
        *parts = kept;
    }
    dropped
}

/// One answer for each partition: what was `refused` before the log was looked for, if something was, and else what became
/// of the last.
pub(super) fn unite(response: &mut ProduceResponse, refused: &Places, dropped: &Places) {
    let mut topics: Vec<TopicProduceResponse> = Vec::new();
    let mut places = FxHashMap::default();
    let mut refused_partitions = FxHashSet::default();
    for (topic_place, topic) in std::mem::take(&mut response.responses).into_iter().enumerate() {
        let key = (topic.name.clone(), topic.topic_id);
        let place = *places.entry(key).or_insert(topics.len());
        if place == topics.len() {
            topics.push(TopicProduceResponse { partition_responses: Vec::new(), ..topic.clone() });
        }
        for (partition_place, partition) in topic.partition_responses.into_iter().enumerate() {
            if dropped.contains(&(topic_place, partition_place)) {
                continue;
            }
            let is_refused = refused.contains(&(topic_place, partition_place));
            if is_refused {
                refused_partitions.insert((place, partition.index));
            } else if refused_partitions.contains(&(place, partition.index)) {
                continue;
            }
            let united = &mut topics[place].partition_responses;
            match united.iter_mut().find(|known| known.index == partition.index) {
                Some(known) => *known = partition,
                None => united.push(partition),
            }
        }
    }
    response.responses = topics;
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::produce_response::PartitionProduceResponse;
    use ringlog_types::ErrorCode;

    use super::*;

    /// Answers of one topic, named once for each list: partitions with their errors.
    fn response(mentions: &[&[(i32, ErrorCode)]]) -> ProduceResponse {
        let partition = |(index, error): &(i32, ErrorCode)| PartitionProduceResponse {
            index: *index,
            error_code: error.code(),
            ..PartitionProduceResponse::default()
        };
        let topic = |answers: &&[(i32, ErrorCode)]| TopicProduceResponse {
            name: "t".into(),
            partition_responses: answers.iter().map(partition).collect(),
            ..TopicProduceResponse::default()
        };
        ProduceResponse { responses: mentions.iter().map(topic).collect(), ..ProduceResponse::default() }
    }

    fn united(
        mentions: &[&[(i32, ErrorCode)]],
        refused: &[(usize, usize)],
        dropped: &[(usize, usize)],
    ) -> ProduceResponse {
        let mut response = response(mentions);
        unite(&mut response, &refused.iter().copied().collect(), &dropped.iter().copied().collect());
        response
    }

    #[test]
    fn what_was_refused_before_the_log_was_looked_for_stands_else_the_last_answer() {
        const FINE: ErrorCode = ErrorCode::None;
        const REFUSED: ErrorCode = ErrorCode::UnsupportedCompressionType;
        const LATER: ErrorCode = ErrorCode::OutOfOrderSequenceNumber;
        // Whether it comes first or last, in one mention of the topic or in two.
        assert_eq!(united(&[&[(0, REFUSED), (0, LATER)]], &[(0, 0)], &[]), response(&[&[(0, REFUSED)]]));
        assert_eq!(united(&[&[(0, LATER)], &[(0, REFUSED)]], &[(1, 0)], &[]), response(&[&[(0, REFUSED)]]));
        assert_eq!(
            united(&[&[(0, REFUSED), (1, FINE), (0, FINE)]], &[(0, 0)], &[]),
            response(&[&[(0, REFUSED), (1, FINE)]])
        );
        // Those that weren't appended since another one followed say nothing.
        assert_eq!(united(&[&[(0, FINE), (0, LATER)]], &[], &[(0, 0)]), response(&[&[(0, LATER)]]));
        // An error of the whole request is told once.
        assert_eq!(
            united(&[&[(0, LATER), (0, LATER)], &[(1, LATER)]], &[], &[]),
            response(&[&[(0, LATER), (1, LATER)]])
        );
    }
}
