//! Quorums as a node describes them, against what Kafka's tool printed for the same answer; and controllers that join.

use ringlog_protocol::messages::DescribeQuorumResponse;
use ringlog_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use ringlog_types::{ErrorCode, Uuid};

use super::describe::Quorum;
use super::joining::Joining;
use crate::cli::client_config::ClientProperties;

const A: &str = "cR1zIH-JZUKJPhdqVcU5Jw";
const B: &str = "dRzIH-JZUKJPhdqVcU5J_g";
const NOW: i64 = 1_795_636_890_418;

/// Id, directory, log end, last fetch and last caught up before now; -1 stays.
type Replica = (i32, &'static str, i64, i64, i64);

fn replica((replica_id, directory, log_end_offset, fetched, caught_up): Replica) -> ReplicaState {
    let time = |before: i64| if before == -1 { -1 } else { NOW - before };
    ReplicaState {
        replica_id,
        replica_directory_id: directory.parse().expect("an id"),
        log_end_offset,
        last_fetch_timestamp: time(fetched),
        last_caught_up_timestamp: time(caught_up),
    }
}

fn response(leader_id: i32, voters: &[Replica], observers: &[Replica]) -> DescribeQuorumResponse {
    let partition = PartitionData {
        leader_id,
        leader_epoch: 3,
        high_watermark: 100,
        current_voters: voters.iter().copied().map(replica).collect(),
        observers: observers.iter().copied().map(replica).collect(),
        ..PartitionData::default()
    };
    let topic = TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![partition] };
    DescribeQuorumResponse { topics: vec![topic], ..DescribeQuorumResponse::default() }
}

fn node(node_id: i32, listeners: &[(&str, &str, u16)]) -> Node {
    let listener = |(name, host, port): &(&str, &str, u16)| Listener {
        name: (*name).to_owned().into(),
        host: (*host).to_owned().into(),
        port: *port,
    };
    Node { node_id, listeners: listeners.iter().map(listener).collect() }
}

/// Lags and lists of `--status`.
fn status(response: DescribeQuorumResponse) -> String {
    let quorum = Quorum::from_response(response).expect("a quorum");
    let lines = quorum.status_lines("fakecluster").expect("a leader");
    let expected = format!(
        "ClusterId:              fakecluster\nLeaderId:               {}\nLeaderEpoch:            3\n\
         HighWatermark:          100\n",
        lines.split_whitespace().nth(3).expect("the leader")
    );
    lines.strip_prefix(&expected).unwrap_or_else(|| panic!("{lines}")).to_owned()
}

#[test]
fn a_quorum_is_shown_as_kafka_shows_it() {
    let voters = [(3, A, 90, 50, 60), (1, A, 100, 0, 0), (2, B, 95, 7, 9)];
    let observers = [(9, B, 80, 1, 2), (8, A, 70, -1, -1)];
    let mut described = response(1, &voters, &observers);
    described.nodes = vec![node(1, &[("A", "h1", 1), ("B", "::1", 2)]), node(3, &[("A", "h3", 3)]), node(2, &[])];
    assert_eq!(
        status(described.clone()),
        "MaxFollowerLag:         10\nMaxFollowerLagTimeMs:   60\n\
         CurrentVoters:          [{\"id\": 3, \"directoryId\": \"cR1zIH-JZUKJPhdqVcU5Jw\", \"endpoints\": \
         [\"A://h3:3\"]}, {\"id\": 1, \"directoryId\": \"cR1zIH-JZUKJPhdqVcU5Jw\", \"endpoints\": [\"A://h1:1\", \
         \"B://[::1]:2\"]}, {\"id\": 2, \"directoryId\": \"dRzIH-JZUKJPhdqVcU5J_g\"}]\n\
         CurrentObservers:       [{\"id\": 9, \"directoryId\": \"dRzIH-JZUKJPhdqVcU5J_g\"}, {\"id\": 8, \
         \"directoryId\": \"cR1zIH-JZUKJPhdqVcU5Jw\"}]\n"
    );
    let quorum = Quorum::from_response(described).expect("a quorum");
    let table = "\
NodeId\tDirectoryId           \tLogEndOffset\tLag\tLastFetchTimestamp\tLastCaughtUpTimestamp\tStatus  \t
1     \tcR1zIH-JZUKJPhdqVcU5Jw\t100         \t0  \t1795636890418     \t1795636890418        \tLeader  \t
3     \tcR1zIH-JZUKJPhdqVcU5Jw\t90          \t10 \t1795636890368     \t1795636890358        \tFollower\t
2     \tdRzIH-JZUKJPhdqVcU5J_g\t95          \t5  \t1795636890411     \t1795636890409        \tFollower\t
9     \tdRzIH-JZUKJPhdqVcU5J_g\t80          \t20 \t1795636890417     \t1795636890416        \tObserver\t
8     \tcR1zIH-JZUKJPhdqVcU5Jw\t70          \t30 \t-1                \t-1                   \tObserver\t
";
    assert_eq!(quorum.replication_lines(None).expect("a leader"), table);
    let ages = quorum.replication_lines(Some(NOW + 5)).expect("a leader");
    let last = ages.lines().last().expect("a line");
    assert!(ages.contains("\t55 ms ago         \t65 ms ago            \tFollower\t\n"), "{ages}");
    assert!(last.ends_with("\t-1                \t-1                   \tObserver\t"), "{ages}");
}

#[test]
fn the_lag_is_that_of_the_first_voter_that_is_last() {
    let lag = |leader, voters: &[Replica]| {
        let lines = status(response(leader, voters, &[]));
        let mut numbers = lines.lines().map(|line| line[24..].to_owned());
        (numbers.next().expect("a lag"), numbers.next().expect("a time"))
    };
    let pair = |lag: &str, time: &str| (lag.to_owned(), time.to_owned());
    assert_eq!(lag(1, &[(1, A, 100, 0, 0), (2, B, 100, 7, 9)]), pair("0", "0"));
    assert_eq!(lag(2, &[(1, A, 100, 5, 6), (2, B, 100, 0, 0)]), pair("0", "6"));
    assert_eq!(lag(1, &[(1, A, 100, 0, 0), (2, B, 90, -1, -1)]), pair("10", "-1"));
    assert_eq!(lag(2, &[(3, B, 101, 7, 9), (2, A, 100, 0, 0), (1, B, 102, 70, 90)]), pair("0", "0"));
}

#[test]
fn voters_of_a_static_quorum_have_no_directories() {
    let none = "AAAAAAAAAAAAAAAAAAAAAA";
    let lines = status(response(1, &[(1, none, 50, 0, 0)], &[(3, none, 70, 1, 1)]));
    assert!(
        lines.ends_with("CurrentVoters:          [{\"id\": 1}]\nCurrentObservers:       [{\"id\": 3}]\n"),
        "{lines}"
    );
}

#[test]
fn answers_that_are_of_no_use_are_told() {
    let fault = |response| match Quorum::from_response(response) {
        Ok(quorum) => quorum.status_lines("").expect_err("it is no quorum").to_string(),
        Err(fault) => fault.to_string(),
    };
    let class = |name: &str, text: &str| format!("org.apache.kafka.common.errors.{name}: {text}");
    assert_eq!(fault(response(-1, &[(1, A, 100, 0, 0)], &[])), "No value present");
    let mut described = response(1, &[], &[]);
    described.error_code = ErrorCode::ClusterAuthorizationFailed.code();
    described.error_message = None;
    assert_eq!(fault(described), class("ClusterAuthorizationException", "Cluster authorization failed."));
    let mut described = response(1, &[], &[]);
    described.topics[0].partitions[0].error_code = ErrorCode::UnknownTopicOrPartition.code();
    described.topics[0].partitions[0].error_message = Some("never heard of".into());
    assert_eq!(fault(described), class("UnknownTopicOrPartitionException", "never heard of"));
    let mut described = response(1, &[], &[]);
    described.topics[0].partitions[0].partition_index = 1;
    let text = "DescribeMetadataQuorum received a single partition with index 1 when 0 was expected";
    assert_eq!(fault(described), class("UnknownServerException", text));
}

/// A controller's configuration with its metadata in a directory of this test run.
struct Controller {
    directory: std::path::PathBuf,
    properties: ClientProperties,
}

impl Controller {
    fn new(name: &str) -> Controller {
        let directory = std::env::temp_dir().join(format!("ringlog-quorum-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the test");
        let content = format!("version=1\nnode.id=3\ncluster.id=c\ndirectory.id={B}\n");
        std::fs::write(directory.join("meta.properties"), content).expect("a file is written");
        let mut properties = ClientProperties::default();
        properties.set("process.roles", "controller");
        properties.set("node.id", "3");
        properties.set("log.dirs", &format!("{},elsewhere", directory.display()));
        properties.set("controller.listener.names", "CONTROLLER,internal");
        properties.set("listeners", "PLAINTEXT://:9092,CONTROLLER://0.0.0.0:9093,INTERNAL://[::1]:9094");
        properties.set("advertised.listeners", "PLAINTEXT://b:9092,controller://c.example:19093");
        Controller { directory, properties }
    }

    fn read_with(&self, key: &str, value: &str) -> Result<Joining, String> {
        let mut properties = self.properties.clone();
        properties.set(key, value);
        Joining::from_config(&properties)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn a_joining_controller_is_read_from_its_configuration() {
    let controller = Controller::new("joins");
    let joining = Joining::from_config(&controller.properties).expect("a controller");
    assert_eq!((joining.id, joining.directory_id), (3, B.parse::<Uuid>().expect("an id")));
    assert_eq!(joining.endpoints_text(), "CONTROLLER://c.example:19093, INTERNAL://[::1]:9094");
    let listeners = joining.listeners();
    assert_eq!((listeners[1].name.as_str(), listeners[1].host.as_str(), listeners[1].port), ("INTERNAL", "::1", 9094));
    let elsewhere = controller.read_with("metadata.log.dir", "/nonexistent");
    assert_eq!(elsewhere, Err("Unable to read meta.properties from /nonexistent".to_owned()));
}

#[test]
fn what_is_no_controller_is_refused_as_kafka_refuses_it() {
    let controller = Controller::new("refused");
    let is_this_valid = "Is this a valid controller configuration file?";
    for (key, value, expected) in [
        ("node.id", "x", "For input string: \"x\"".to_owned()),
        ("node.id", "-3", format!("node.id was negative in configuration file. {is_this_valid}")),
        (
            "process.roles",
            "broker",
            format!("process.roles did not contain 'controller' in configuration file. {is_this_valid}"),
        ),
        ("controller.listener.names", "", "The provided listener name is null or empty string".to_owned()),
        (
            "controller.listener.names",
            "OTHER",
            "Cannot find information about controller listener name: OTHER".to_owned(),
        ),
        ("listeners", "CONTROLLER://h", "Unable to parse CONTROLLER://h to a broker endpoint".to_owned()),
        ("listeners", "garbage", "Unable to parse garbage to a broker endpoint".to_owned()),
    ] {
        assert_eq!(controller.read_with(key, value), Err(expected), "{key}={value}");
    }
    let nothing = Joining::from_config(&ClientProperties::default());
    assert_eq!(nothing, Err(format!("node.id not found in configuration file. {is_this_valid}")));
}
