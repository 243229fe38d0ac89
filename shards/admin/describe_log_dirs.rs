//! DescribeLogDirs: the log directories, their space, and the logs in them (KIP-113, KIP-827, KIP-1066).

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use ringlog_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use rustc_hash::FxHashSet;

use crate::log_dirs::{DirectoryDescription, LogDescription, LogDirs};
use crate::net::request::RequestContext;

/// Answers DescribeLogDirs with the logs of all cores.
pub async fn handle(
    dirs: &Rc<LogDirs>,
    _context: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let directories = dirs.describe().await;
    let wanted = request.topics.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(|it| (topic.topic.as_str(), *it)));
        partitions.collect::<FxHashSet<(&str, i32)>>()
    });
    let is_wanted = |log: &LogDescription| {
        wanted.as_ref().is_none_or(|wanted| wanted.contains(&(&*log.name.topic, log.name.partition.0)))
    };
    let results = directories.iter().map(|directory| describe(directory, &is_wanted)).collect();
    DescribeLogDirsResponse { results, ..Default::default() }
}

fn describe(directory: &DirectoryDescription, is_wanted: &dyn Fn(&LogDescription) -> bool) -> DescribeLogDirsResult {
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for log in directory.logs.iter().filter(|log| is_wanted(log)) {
        topics.entry(&log.name.topic).or_default().push(DescribeLogDirsPartition {
            partition_index: log.name.partition.0,
            partition_size: log.size_bytes,
            offset_lag: log.offset_lag,
            is_future_key: log.is_future,
        });
    }
    let topics = topics.into_iter();
    DescribeLogDirsResult {
        error_code: directory.error.code(),
        log_dir: directory.path.display().to_string().into(),
        topics: topics
            .map(|(name, partitions)| DescribeLogDirsTopic { name: StrBytes::copy_from(name), partitions })
            .collect(),
        total_bytes: directory.total_bytes,
        usable_bytes: directory.usable_bytes,
        is_cordoned: directory.is_cordoned,
    }
}
