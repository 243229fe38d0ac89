//! Moves of replicas between the log directories of their brokers (KIP-113).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringlog_client::Target;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use ringlog_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use ringlog_types::ErrorCode;

use super::cluster::{Cluster, Location, by_topic};
use super::fault::Fault;
use super::plan::{LogDirs, Replica, TopicPartition, join};
use crate::cli::exception::Exception;

/// How long a broker is left alone that hasn't the replica yet.
const PAUSE: Duration = Duration::from_millis(100);

/// How far the move of a replica to a directory is.
pub fn describe(replica: &Replica, target: &str, location: &Location) -> String {
    let Replica { partition, broker } = replica;
    match (&location.current, &location.future) {
        (_, Some(future)) if future == target => format!("Reassignment of replica {replica} is still in progress."),
        (_, Some(future)) => {
            format!("Partition {partition} on broker {broker} is being moved to log dir {future} instead of {target}.")
        }
        (None, None) => format!(
            "Partition {partition} is not found in any live log dir on broker {broker}. There is likely an offline log \
             directory on the broker."
        ),
        (Some(current), None) if current == target => {
            format!("Reassignment of replica {replica} completed successfully.")
        }
        (Some(current), None) => {
            format!("Partition {partition} on broker {broker} is not being moved from log dir {current} to {target}.")
        }
    }
}

impl Cluster<'_> {
    /// Has brokers move replicas. Those that they don't have yet are tried again, for so long at most.
    #[allow(clippy::disallowed_methods, reason = "a tool waits for brokers by the clock")]
    pub fn move_replicas(&mut self, targets: &LogDirs, timeout: Duration) -> Result<(), Fault> {
        let begin = Instant::now();
        let mut left = targets.clone();
        while !left.is_empty() {
            let begun = self.begin_moves(&left)?;
            left.retain(|replica, _| !begun.contains_key(replica));
            for (Replica { partition, broker }, target) in &begun {
                self.out.line(&format!(
                    "Successfully started moving log directory to {target} for replica {partition} with broker {broker} "
                ));
            }
            self.out.flush();
            if !left.is_empty() && begin.elapsed() >= timeout {
                return Err(Fault::Terse(format!(
                    "Timed out before log directory move{} could be started for: {}",
                    super::plan::plural(left.len()),
                    join(left.keys())
                )));
            }
            if !left.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Those that were begun.
    fn begin_moves(&mut self, targets: &LogDirs) -> Result<LogDirs, Fault> {
        let mut brokers: BTreeMap<i32, LogDirs> = BTreeMap::new();
        for (replica, target) in targets {
            brokers.entry(replica.broker).or_default().insert(replica.clone(), target.clone());
        }
        let mut begun = LogDirs::new();
        for (broker, targets) in brokers {
            let request = AlterReplicaLogDirsRequest { dirs: dirs(&targets) };
            let call = "alterReplicaLogDirs";
            let failed = |replica: &Replica, cause: Exception| {
                Fault::command_failed(format!("Failed to alter dir for {replica}")).caused_by(cause.into())
            };
            let response = self.admin.ask(call, Target::Node(broker), &request, |_| false, self.out);
            let response: AlterReplicaLogDirsResponse = match (response, targets.keys().next()) {
                (Err(cause), Some(replica)) => return Err(failed(replica, cause)),
                (response, _) => response?,
            };
            let mut codes = BTreeMap::new();
            for topic in response.results {
                for result in topic.partitions {
                    let partition = result.partition_index;
                    let partition = TopicPartition { topic: topic.topic_name.as_str().to_owned(), partition };
                    codes.insert(Replica { partition, broker }, result.error_code);
                }
            }
            for (replica, target) in targets {
                match codes.get(&replica) {
                    Some(0) => {
                        begun.insert(replica, target);
                    }
                    Some(code) if *code == ErrorCode::ReplicaNotAvailable.code() => {}
                    code => {
                        let code = code.copied().unwrap_or(ErrorCode::UnknownServerError.code());
                        Exception::check(code, None).map_err(|cause| failed(&replica, cause))?;
                    }
                }
            }
        }
        Ok(begun)
    }
}

fn dirs(targets: &LogDirs) -> Vec<AlterReplicaLogDir> {
    let mut dirs: BTreeMap<&str, Vec<&TopicPartition>> = BTreeMap::new();
    for (replica, target) in targets {
        dirs.entry(target).or_default().push(&replica.partition);
    }
    let topic = |(name, partitions)| AlterReplicaLogDirTopic { name: StrBytes::copy_from(name), partitions };
    let dir = |(path, partitions)| AlterReplicaLogDir {
        path: StrBytes::copy_from(path),
        topics: by_topic(Vec::into_iter(partitions)).into_iter().map(topic).collect(),
    };
    dirs.into_iter().map(dir).collect()
}
