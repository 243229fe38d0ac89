//! What `log-dirs` prints: a document in JSON, with everything in the order in which Kafka's tool has it.

use ringlog_protocol::messages::DescribeLogDirsResponse;
use ringlog_protocol::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult};
use serde_json::Value;

use crate::cli::exception::Exception;
use crate::cli::java_hash;

/// The document about these brokers' answers. Without `topics` all are shown.
pub fn document(answers: &[(i32, DescribeLogDirsResponse)], topics: &[&str]) -> String {
    let broker = |(id, response): &(i32, DescribeLogDirsResponse)| {
        let directories = java_hash::iteration_order(response.results.iter().collect(), |directory| {
            java_hash::of_text(directory.log_dir.as_str())
        });
        let directories = list(directories, |directory| directory_text(directory, topics));
        format!("{{\"broker\":{id},\"logDirs\":{directories}}}")
    };
    format!("{{\"brokers\":{},\"version\":1}}", list(answers.iter().collect(), broker))
}

fn list<T>(elements: Vec<T>, show: impl Fn(T) -> String) -> String {
    format!("[{}]", elements.into_iter().map(show).collect::<Vec<_>>().join(","))
}

fn text(text: &str) -> String {
    Value::from(text).to_string()
}

fn directory_text(directory: &DescribeLogDirsResult, topics: &[&str]) -> String {
    let partitions = directory.topics.iter().flat_map(|topic| {
        let name = topic.name.as_str();
        topic.partitions.iter().map(move |partition| (name, partition))
    });
    let hash = |(topic, partition): &(&str, &DescribeLogDirsPartition)| {
        java_hash::of_partition(topic, partition.partition_index)
    };
    let mut partitions = java_hash::iteration_order(partitions.collect(), hash);
    partitions.retain(|(topic, _)| topics.is_empty() || topics.contains(topic));
    let partitions = list(partitions, |(topic, partition)| {
        format!(
            "{{\"partition\":{},\"size\":{},\"offsetLag\":{},\"isFuture\":{}}}",
            text(&format!("{topic}-{}", partition.partition_index)),
            partition.partition_size,
            partition.offset_lag,
            partition.is_future_key
        )
    });
    let error = match Exception::check(directory.error_code, None) {
        Ok(()) => "null".to_owned(),
        Err(fault) => text(&fault.class),
    };
    format!("{{\"partitions\":{partitions},\"error\":{error},\"logDir\":{}}}", text(directory.log_dir.as_str()))
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::describe_log_dirs_response::DescribeLogDirsTopic;
    use ringlog_types::ErrorCode;

    use super::*;

    /// The order of partitions is the one that Kafka's tool printed.
    #[test]
    fn documents_are_those_of_kafkas_tool() {
        let partition = |partition_index| DescribeLogDirsPartition {
            partition_index,
            partition_size: 2089,
            ..DescribeLogDirsPartition::default()
        };
        let topic = |name: &'static str, partitions: &[i32]| DescribeLogDirsTopic {
            name: name.into(),
            partitions: partitions.iter().map(|index| partition(*index)).collect(),
        };
        let good = DescribeLogDirsResult {
            log_dir: "/data/\"1\"".into(),
            topics: vec![topic("one", &[0, 1, 2]), topic("two", &[0])],
            ..DescribeLogDirsResult::default()
        };
        let bad = DescribeLogDirsResult {
            error_code: ErrorCode::KafkaStorageError.code(),
            log_dir: "/data/2".into(),
            ..DescribeLogDirsResult::default()
        };
        let answer = |results| DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() };
        let shown = document(&[(1, answer(vec![good])), (4, answer(vec![bad]))], &["one"]);
        let partition =
            |index: i32| format!("{{\"partition\":\"one-{index}\",\"size\":2089,\"offsetLag\":0,\"isFuture\":false}}");
        let expected = format!(
            "{{\"brokers\":[{{\"broker\":1,\"logDirs\":[{{\"partitions\":[{},{},{}],\"error\":null,\"logDir\":\
             \"/data/\\\"1\\\"\"}}]}},{{\"broker\":4,\"logDirs\":[{{\"partitions\":[],\"error\":\
             \"org.apache.kafka.common.errors.KafkaStorageException\",\"logDir\":\"/data/2\"}}]}}],\"version\":1}}",
            partition(2),
            partition(0),
            partition(1)
        );
        assert_eq!(shown, expected);
    }
}
