//! `metadata-quorum describe`.

use ringlog_client::Target;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_quorum_request::{PartitionData as AskedPartition, TopicData as AskedTopic};
use ringlog_protocol::messages::describe_quorum_response::{Node, PartitionData, ReplicaState};
use ringlog_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use ringlog_types::{CLUSTER_METADATA_TOPIC, ErrorCode};

use super::QuorumError;
use crate::cli::admin::Admin;
use crate::cli::exception::Exception;
use crate::cli::output::Output;
use crate::cli::storage;

/// The name of Kafka's client for what asks for the quorum.
const CALL: &str = "describeMetadataQuorum";
const HEADER: [&str; 7] =
    ["NodeId", "DirectoryId", "LogEndOffset", "Lag", "LastFetchTimestamp", "LastCaughtUpTimestamp", "Status"];

/// What the leader says of the quorum.
#[derive(Debug)]
pub struct Quorum {
    partition: PartitionData,
    nodes: Vec<Node>,
}

impl Quorum {
    fn ask(admin: &mut Admin, out: &mut dyn Output) -> Result<Quorum, QuorumError> {
        let partition = AskedPartition { partition_index: 0 };
        let topic = AskedTopic { topic_name: CLUSTER_METADATA_TOPIC.into(), partitions: vec![partition] };
        let request = DescribeQuorumRequest { topics: vec![topic] };
        // There may be no leader yet, or another one than the node thought.
        let response = admin.ask(CALL, Target::Controller, &request, is_retriable, out)?;
        Ok(Quorum::from_response(response)?)
    }

    /// The quorum, or the error of the response or its partition.
    pub fn from_response(response: DescribeQuorumResponse) -> Result<Quorum, Exception> {
        let unexpected = |text: String| Exception::new("UnknownServerException", text);
        Exception::check(response.error_code, response.error_message.as_ref())?;
        let (topics, nodes) = (response.topics, response.nodes);
        let [topic] = <[_; 1]>::try_from(topics).map_err(|topics| {
            unexpected(format!("DescribeMetadataQuorum received {} topics when 1 was expected", topics.len()))
        })?;
        if topic.topic_name.as_str() != CLUSTER_METADATA_TOPIC {
            return Err(unexpected(format!(
                "DescribeMetadataQuorum received a topic with name {} when {CLUSTER_METADATA_TOPIC} was expected",
                topic.topic_name
            )));
        }
        let [partition] = <[_; 1]>::try_from(topic.partitions).map_err(|partitions| {
            let count = partitions.len();
            unexpected(format!(
                "DescribeMetadataQuorum received a topic {CLUSTER_METADATA_TOPIC} with {count} partitions when 1 was \
                 expected"
            ))
        })?;
        if partition.partition_index != 0 {
            return Err(unexpected(format!(
                "DescribeMetadataQuorum received a single partition with index {} when 0 was expected",
                partition.partition_index
            )));
        }
        Exception::check(partition.error_code, partition.error_message.as_ref())?;
        Ok(Quorum { partition, nodes })
    }

    /// The leader as one of the voters.
    fn leader(&self) -> Result<&ReplicaState, QuorumError> {
        let voters = &self.partition.current_voters;
        let leader = voters.iter().find(|voter| voter.replica_id == self.partition.leader_id);
        leader.ok_or_else(|| QuorumError::Invalid("No value present".to_owned()))
    }

    /// The lines of `--status`.
    pub(super) fn status_lines(&self, cluster_id: &str) -> Result<String, QuorumError> {
        let leader = self.leader()?;
        let voters = &self.partition.current_voters;
        // Of several that are last, the first named.
        let last = voters.iter().min_by_key(|voter| voter.log_end_offset).unwrap_or(leader);
        let lag_ms = match (leader.last_caught_up_timestamp, last.last_caught_up_timestamp) {
            _ if last.replica_id == leader.replica_id => 0,
            (-1, _) | (_, -1) => -1,
            (leader, last) => leader - last,
        };
        let list = |replicas: &[ReplicaState]| {
            let texts: Vec<String> = replicas.iter().map(|it| self.replica_text(it)).collect();
            format!("[{}]", texts.join(", "))
        };
        let lines = [
            ("ClusterId", cluster_id.to_owned()),
            ("LeaderId", self.partition.leader_id.to_string()),
            ("LeaderEpoch", self.partition.leader_epoch.to_string()),
            ("HighWatermark", self.partition.high_watermark.to_string()),
            ("MaxFollowerLag", (leader.log_end_offset - last.log_end_offset).to_string()),
            ("MaxFollowerLagTimeMs", lag_ms.to_string()),
            ("CurrentVoters", list(voters)),
            ("CurrentObservers", list(&self.partition.observers)),
        ];
        Ok(lines.iter().map(|(name, value)| format!("{:<24}{value}\n", format!("{name}:"))).collect())
    }

    /// `{"id": 1, "directoryId": "…", "endpoints": ["NAME://host:port"]}`, without what isn't known.
    fn replica_text(&self, replica: &ReplicaState) -> String {
        let mut fields = vec![format!("\"id\": {}", replica.replica_id)];
        if !replica.replica_directory_id.is_zero() {
            fields.push(format!("\"directoryId\": \"{}\"", replica.replica_directory_id));
        }
        let listeners = self.nodes.iter().find(|node| node.node_id == replica.replica_id).map(|node| &node.listeners);
        if let Some(listeners) = listeners.filter(|listeners| !listeners.is_empty()) {
            let endpoint = |name: &StrBytes, host: &str, port: u16| {
                let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
                format!("\"{name}://{host}:{port}\"")
            };
            let endpoints: Vec<String> = listeners.iter().map(|it| endpoint(&it.name, &it.host, it.port)).collect();
            fields.push(format!("\"endpoints\": [{}]", endpoints.join(", ")));
        }
        format!("{{{}}}", fields.join(", "))
    }

    /// The table of `--replication`; with `now` times are shown as ages.
    pub(super) fn replication_lines(&self, now: Option<i64>) -> Result<String, QuorumError> {
        let leader = self.leader()?;
        let time = |time: i64| match now {
            Some(now) if time != -1 => format!("{} ms ago", now - time),
            _ => time.to_string(),
        };
        let row = |replica: &ReplicaState, status: &str| {
            [
                replica.replica_id.to_string(),
                replica.replica_directory_id.to_string(),
                replica.log_end_offset.to_string(),
                (leader.log_end_offset - replica.log_end_offset).to_string(),
                time(replica.last_fetch_timestamp),
                time(replica.last_caught_up_timestamp),
                status.to_owned(),
            ]
        };
        let mut rows = vec![HEADER.map(str::to_owned), row(leader, "Leader")];
        let followers = self.partition.current_voters.iter().filter(|it| it.replica_id != leader.replica_id);
        rows.extend(followers.map(|it| row(it, "Follower")));
        rows.extend(self.partition.observers.iter().map(|it| row(it, "Observer")));
        let widths: Vec<usize> =
            (0..HEADER.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
        let line = |row: &[String; 7]| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}\t"));
            cells.collect::<String>() + "\n"
        };
        Ok(rows.iter().map(line).collect())
    }
}

fn is_retriable(response: &DescribeQuorumResponse) -> bool {
    let of_partitions = response.topics.iter().flat_map(|topic| &topic.partitions).map(|it| it.error_code);
    let mut codes = std::iter::once(response.error_code).chain(of_partitions);
    codes.any(|code| ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable))
}

/// `--status`.
pub fn status(admin: &mut Admin, out: &mut dyn Output) -> Result<(), QuorumError> {
    let cluster_id = admin.metadata("listNodes", out)?.cluster_id.unwrap_or_default();
    let lines = Quorum::ask(admin, out)?.status_lines(&cluster_id)?;
    out.write(lines.as_bytes());
    Ok(())
}

/// `--replication`.
pub fn replication(admin: &mut Admin, human_readable: bool, out: &mut dyn Output) -> Result<(), QuorumError> {
    let quorum = Quorum::ask(admin, out)?;
    let lines = quorum.replication_lines(human_readable.then(|| storage::now().0))?;
    out.write(lines.as_bytes());
    Ok(())
}
