//! Telling the controller in which directory replicas lie (AssignReplicasToDirs, KIP-858).

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::ResponseBody;
use ringlog_protocol::messages::{AssignReplicasToDirsRequest, assign_replicas_to_dirs_request as wire};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, TopicIdPartition, Uuid};
use tracing::{debug, warn};

use crate::controller::{self, Controller, ControllerRequest};
use crate::core::Room as _;

/// Replicas in one request at most, as Kafka has it.
const MAX_PER_REQUEST: usize = 2_250;
/// Waits between attempts.
const RETRY_MS: [u64; 6] = [100, 200, 500, 1_000, 5_000, 10_000];

/// Where replicas lie, by directory.
#[derive(Default)]
pub struct Assignments {
    replicas: Vec<(Uuid, TopicIdPartition)>,
}

impl Assignments {
    /// The replica lies in that directory.
    pub fn add(&mut self, directory: Uuid, id: TopicIdPartition) {
        self.replicas.push((directory, id));
    }

    /// Tells the controller, as often as needed, in the background. What still differs after the last attempt is found
    /// again at the partition's next change.
    pub fn send(self, controller: &Rc<Controller>) {
        for chunk in self.replicas.chunks(MAX_PER_REQUEST) {
            let (core, controller, chunk) = (controller.core().clone(), controller.clone(), chunk.to_vec());
            core.spawn_until_stop(async move {
                for wait_ms in RETRY_MS {
                    match attempt(&controller, &chunk).await {
                        ErrorCode::None => return,
                        error => debug!(?error, "directories not assigned yet"),
                    }
                    ring::sleep_ms(wait_ms).await;
                }
                warn!(replicas = chunk.len(), "the controller didn't take the directories of replicas");
            });
        }
    }
}

async fn attempt(controller: &Rc<Controller>, replicas: &[(Uuid, TopicIdPartition)]) -> ErrorCode {
    let Some(epoch) = controller.metadata().broker_epoch() else { return ErrorCode::StaleBrokerEpoch };
    let mut by_directory: BTreeMap<Uuid, BTreeMap<Uuid, Vec<i32>>> = BTreeMap::new();
    for (directory, id) in replicas {
        by_directory.entry(*directory).or_default().entry(id.topic_id).or_default().push(id.partition.0);
    }
    let topic = |(topic_id, partitions): (Uuid, Vec<i32>)| wire::TopicData {
        topic_id,
        partitions: partitions.into_iter().map(|partition_index| wire::PartitionData { partition_index }).collect(),
    };
    let directories = by_directory
        .into_iter()
        .map(|(id, topics)| wire::DirectoryData { id, topics: topics.into_iter().map(topic).collect() });
    let request = AssignReplicasToDirsRequest {
        broker_id: controller.metadata().node().id.0,
        broker_epoch: epoch.0,
        directories: directories.collect(),
    };
    match controller::request(controller, ControllerRequest::internal(request)).await {
        ResponseBody::AssignReplicasToDirs(response) => {
            ErrorCode::from_code(response.error_code).unwrap_or(ErrorCode::UnknownServerError)
        }
        _ => ErrorCode::UnknownServerError,
    }
}
