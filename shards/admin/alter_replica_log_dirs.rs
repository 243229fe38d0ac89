//! AlterReplicaLogDirs: replicas of this broker move to other directories of it (KIP-113).

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_replica_log_dirs_request::AlterReplicaLogDirsRequest;
use ringlog_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};
use ringlog_types::{ErrorCode, PartitionIndex, TopicIdPartition, TopicPartition};

use crate::core::Room as _;
use crate::data::by_home::{self, HasReplicas as _, Part};
use crate::data::replica::Replica;
use crate::log_dirs::LogDirs;
use crate::net::request::RequestContext;

/// A partition of the request: its topic's name, and its number.
type Place = (StrBytes, i32);

/// Answers when the moves have begun.
pub async fn handle(
    dirs: &Rc<LogDirs>,
    _context: &RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let mut codes: BTreeMap<Place, ErrorCode> = BTreeMap::new();
    let mut wanted: BTreeMap<Place, usize> = BTreeMap::new();
    for dir in &request.dirs {
        let place = dirs.place_of_path(&dir.path);
        for topic in &dir.topics {
            for partition in &topic.partitions {
                let of = (topic.name.clone(), *partition);
                let is_too_long = LogDirs::is_name_too_long(&name(&of));
                // What a partition is asked last counts.
                wanted.remove(&of);
                match place {
                    _ if is_too_long => drop(codes.insert(of, ErrorCode::InvalidTopicException)),
                    Ok(place) => drop((codes.remove(&of), wanted.insert(of, place))),
                    Err(code) => drop(codes.insert(of, code)),
                }
            }
        }
    }
    codes.extend(begin(dirs, wanted).await);
    let mut topics: BTreeMap<StrBytes, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for ((topic, partition_index), code) in codes {
        let result = AlterReplicaLogDirPartitionResult { partition_index, error_code: code.code() };
        topics.entry(topic).or_default().push(result);
    }
    let topic = |(topic_name, partitions)| AlterReplicaLogDirTopicResult { topic_name, partitions };
    AlterReplicaLogDirsResponse { results: topics.into_iter().map(topic).collect(), ..Default::default() }
}

fn name((topic, partition): &Place) -> TopicPartition {
    TopicPartition { topic: topic.as_str().into(), partition: PartitionIndex(*partition) }
}

/// Begins what can be begun; a directory for what isn't here yet is remembered.
async fn begin(dirs: &Rc<LogDirs>, wanted: BTreeMap<Place, usize>) -> Vec<(Place, ErrorCode)> {
    let image = dirs.replicas().metadata().image();
    let own = dirs.core().node.id;
    let mut codes = Vec::new();
    let (mut parts, mut places) = (Vec::new(), Vec::new());
    for (of, place) in wanted {
        let topic = image.topics.by_name(&of.0);
        let found = topic.and_then(|topic| Some((topic.id, topic.partitions.get(&PartitionIndex(of.1))?)));
        match found {
            Some((topic_id, partition)) if partition.directory(own).is_some() => {
                let id = TopicIdPartition { topic_id, partition: PartitionIndex(of.1) };
                parts.push(Part { place: places.len(), id, ask: place });
                places.push((of, place));
            }
            found => {
                remember(dirs, &name(&of), place).await;
                let is_known = found.is_some();
                let code = if is_known { ErrorCode::ReplicaNotAvailable } else { ErrorCode::UnknownTopicOrPartition };
                codes.push((of, code));
            }
        }
    }
    for (place, code) in by_home::run(dirs, parts, begin_here).await {
        let (of, directory) = places[place].clone();
        if code == ErrorCode::ReplicaNotAvailable {
            remember(dirs, &name(&of), directory).await;
        }
        codes.push((of, code));
    }
    codes
}

async fn begin_here(dirs: Rc<LogDirs>, served: Result<Rc<Replica>, Unserved>, place: usize) -> ErrorCode {
    match served {
        Ok(replica) => dirs.move_replica(&replica, place).await,
        Err(Unserved::LogDirectoryFailed) => ErrorCode::KafkaStorageError,
        Err(_) => ErrorCode::ReplicaNotAvailable,
    }
}

/// On every core: which one will be the home isn't known.
async fn remember(dirs: &Rc<LogDirs>, name: &TopicPartition, place: usize) {
    for core in 0..dirs.core().node.shards {
        let name = name.clone();
        dirs.tell(core, move |dirs| dirs.prefer(&name, place)).await;
    }
}
