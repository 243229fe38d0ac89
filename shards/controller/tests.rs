//! A whole node on one core: it elects itself, registers, creates topics, and finds all of it again. It also goes on
//! where Kafka 4.3.1 stopped.

use std::cell::Cell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ringlog_config::{ConfigMap, ServerConfig};
use ringlog_log::meta_properties::MetaProperties;
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeQuorumRequest,
    DescribeQuorumResponse, create_topics_request, delete_topics_request, describe_quorum_request,
};
use ringlog_raft::snapshot::{SnapshotWriter, bootstrap_snapshot};
use ringlog_raft::{Endpoint, Endpoints, ReplicaKey, SnapshotId, VersionRange, Voter};
use ringlog_ring::{self as ring, ExecutorContext, ExecutorOptions, Executors, MeshBuilder};
use ringlog_types::{
    CLUSTER_METADATA_TOPIC, ErrorCode, NodeId, PartitionIndex, Random, TimestampMs, TopicIdPartition, Uuid,
};

use super::handle::begun_in_time;
use super::{ControllerRequest, request};
use crate::broker::{lifecycle, metadata_publisher};
use crate::core;
use crate::descriptors::Descriptors;
use crate::fixtures;
use crate::mesh::MESH_CAPACITY;
use crate::net::listener;
use crate::node::Node;
use crate::shard::Shard;
use crate::stop::StopRequest;
use crate::{controller, log_dirs};

const CLUSTER_ID: &str = "0kZJbQxlQpmY8zTDR8s8Bw";

/// A directory that is removed with the test.
struct TestDirectory(PathBuf);

impl TestDirectory {
    fn new(name: &str) -> TestDirectory {
        let path = std::env::temp_dir().join(format!("ringlog-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        TestDirectory(path)
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that is free, and that the kernel gives to no outgoing connection meanwhile (it takes those from 32768 on).
fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let ports = std::iter::repeat_with(|| {
        let tried = std::process::id().wrapping_mul(97).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        10_000 + u16::try_from(tried % 2_000).expect("less than 2,000")
    });
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(2_000).find(is_free).expect("a free port")
}

enum Quorum {
    Static,
    Dynamic,
}

struct TestNode {
    directory: TestDirectory,
    config: ConfigMap,
}

impl TestNode {
    /// A formatted directory and the configuration for it.
    fn new(name: &str, quorum: Quorum) -> TestNode {
        let directory = TestDirectory::new(name);
        let (port, controller_port) = (free_port(), free_port());
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}");
        let mut config = ConfigMap::new();
        let mut set = |key: &str, value: &str| config.insert(key.to_owned(), value.to_owned());
        set("process.roles", "broker,controller");
        set("node.id", "1");
        set("listeners", &listeners);
        set("controller.listener.names", "CONTROLLER");
        set("log.dirs", &directory.0.display().to_string());
        set("ringlog.shards", "1");
        let mut random = Random::from_seed(u64::from(port));
        let directory_id = Uuid::random(&mut random);
        match quorum {
            Quorum::Static => {
                set("controller.quorum.voters", &format!("1@127.0.0.1:{controller_port}"));
            }
            Quorum::Dynamic => {
                set("controller.quorum.bootstrap.servers", &format!("127.0.0.1:{controller_port}"));
                let voter = Voter {
                    key: ReplicaKey { id: NodeId(1), directory_id: Some(directory_id) },
                    endpoints: Endpoints::from([(
                        "CONTROLLER".to_owned(),
                        Endpoint { host: "127.0.0.1".to_owned(), port: controller_port },
                    )]),
                    kraft_version: VersionRange::SUPPORTED,
                };
                let metadata = directory.0.join(format!("{CLUSTER_METADATA_TOPIC}-0"));
                std::fs::create_dir_all(&metadata).expect("a directory");
                let snapshot = bootstrap_snapshot([voter], TimestampMs(1)).expect("one voter");
                std::fs::write(metadata.join(SnapshotId::BOOTSTRAP.file_name()), snapshot).expect("a file");
            }
        }
        format(&directory.0, directory_id);
        TestNode { directory, config }
    }

    fn with(mut self, key: &str, value: &str) -> TestNode {
        self.config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// A node on a copy of the directories that Kafka left.
    fn on_fixture(name: &str, config: &[(&str, &str)], log_dirs: &[&str]) -> TestNode {
        let directory = TestDirectory::new(name);
        for (path, content) in fixtures::load(name) {
            let path = directory.0.join(path);
            std::fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a directory");
            std::fs::write(path, content).expect("a file");
        }
        let log_dirs: Vec<_> = log_dirs.iter().map(|it| directory.0.join(it).display().to_string()).collect();
        let listeners = format!("PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}", free_port(), free_port());
        let mut node = TestNode { directory, config: ConfigMap::new() }
            .with("process.roles", "broker,controller")
            .with("listeners", &listeners)
            .with("controller.listener.names", "CONTROLLER")
            .with("offsets.topic.num.partitions", "3")
            .with("log.dirs", &log_dirs.join(","))
            .with("ringlog.shards", "1");
        for (key, value) in config {
            node = node.with(key, value);
        }
        node
    }

    /// Starts the node, runs `test` on its core, stops it in order.
    fn run<F>(&self, test: impl FnOnce(Rc<Shard>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        self.run_until(true, test);
    }

    /// As [`TestNode::run`], but the node ends as if it were killed. It goes on with a copy: in this process the locks
    /// of the directories are still held.
    fn run_and_kill<F>(&mut self, test: impl FnOnce(Rc<Shard>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        self.run_until(false, test);
        let copy = TestDirectory(self.directory.0.with_extension("copy"));
        copy_directory(&self.directory.0, &copy.0);
        self.directory = copy;
        let path = self.directory.0.display().to_string();
        self.config.insert("log.dirs".to_owned(), path);
    }

    fn run_until<F>(&self, in_order: bool, test: impl FnOnce(Rc<Shard>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let (config, _) = ServerConfig::from_properties(&self.config).expect("a valid configuration");
        let log_dirs = ring::block_on(async {
            let locked = log_dirs::check_and_lock(&config).await.expect("formatted");
            locked.take_over(&config, &mut Random::from_seed(1)).await.expect("markers that can be removed")
        });
        let claimed = ring::block_on(listener::claim_all(&config, &StopRequest::default()));
        let listeners = claimed.expect("free ports").expect("not stopped");
        let node = Arc::new(Node {
            id: config.node_id,
            cluster_id: log_dirs.cluster_id.clone(),
            incarnation_id: Uuid::random(&mut Random::from_seed(ring::now().monotonic.0)),
            started_at: ring::now().monotonic,
            shards: 1,
            controller_index: 0,
            cache_memory_bytes: 128 << 20,
            descriptors: Descriptors { files_per_core: 64, broker_connections: 1000, controller_connections: 1000 },
            config,
            log_dirs,
        });
        let listeners = Arc::new(listeners);
        let meshes = MeshBuilder::new(1, MESH_CAPACITY);
        let main = move |context: ExecutorContext| async move {
            let shard = Shard::new(0, node, listeners.clone(), meshes.join(0).await, 7);
            ring::spawn_detached(core::receive(shard.core.clone(), 0));
            controller::start(&shard.controller).await.expect("the controller starts");
            listener::open(&shard.net, true).await.expect("its listener opens");
            log_dirs::open(&shard.log_dirs).await.expect("logs open");
            metadata_publisher::start(&shard.publisher);
            lifecycle::start(&shard.broker).await.expect("the broker starts");
            context.ready();
            test(shard.clone()).await;
            shard.core.closing.set();
            if in_order {
                let epoch = lifecycle::stop(&shard.broker).await;
                log_dirs::close_all(&shard.log_dirs, epoch.map(|epoch| epoch.0)).await;
                controller::stop(shard.controller.clone()).await;
            }
            // As a process that ends, or is killed, gives its ports back.
            shard.core.controller_closing.set();
            for listener in &*listeners {
                while ring::port_holder(listener.address()) != ring::PortHolder::Nobody {
                    ring::yield_now().await;
                }
            }
        };
        let options = ExecutorOptions { io_memory_bytes: 8 << 20, ..ExecutorOptions::default() };
        let executors = Executors::start(vec![(options, main)]).expect("an executor");
        ring::block_on(executors.join());
    }

    fn metadata_file(&self, name: &str) -> PathBuf {
        self.directory.0.join(format!("{CLUSTER_METADATA_TOPIC}-0")).join(name)
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else if entry.file_name() != ".lock" {
            match std::fs::copy(entry.path(), target) {
                // A temporary one, which has its own name by now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("a copy")),
            }
        }
    }
}

fn format(directory: &Path, directory_id: Uuid) {
    let properties =
        MetaProperties { cluster_id: CLUSTER_ID.to_owned(), node_id: NodeId(1), directory_id: Some(directory_id) };
    std::fs::write(directory.join("meta.properties"), properties.format(TimestampMs(0))).expect("a file");
    let now = TimestampMs(0);
    let mut writer = SnapshotWriter::new(SnapshotId::BOOTSTRAP, now, None, now);
    for record in &BootstrapMetadata::latest().records {
        writer.append(&record.encode_framed().expect("encodes"), now);
    }
    std::fs::write(directory.join("bootstrap.checkpoint"), writer.finish(now).concat()).expect("a file");
}

async fn create_topic(shard: &Rc<Shard>, name: &'static str, partitions: i32) -> ErrorCode {
    let topic = create_topics_request::CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let body = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1000, ..Default::default() };
    let response = request(&shard.controller, ControllerRequest::internal(body)).await;
    let response = CreateTopicsResponse::try_from(response).expect("an answer to the question");
    ErrorCode::from_code(response.topics[0].error_code).expect("a known error")
}

async fn delete_topic(shard: &Rc<Shard>, name: &'static str) -> i16 {
    let topic = delete_topics_request::DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let body = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 1000, ..Default::default() };
    let response = request(&shard.controller, ControllerRequest::internal(body)).await;
    DeleteTopicsResponse::try_from(response).expect("an answer to the question").responses[0].error_code
}

/// The replica's place and role, as the metadata says.
fn assert_led(shard: &Rc<Shard>, name: &str, partition: i32) {
    let image = shard.metadata.image();
    let topic = image.topics.by_name(name).expect("the topic is in the image");
    let id = TopicIdPartition { topic_id: topic.id, partition: PartitionIndex(partition) };
    assert_eq!(image.topics.partition(id).expect("the partition").leader, shard.core.node.id);
    let replica = shard.data.replicas.get(id).expect("the replica is here");
    assert_eq!(replica.standing().role, ringlog_partition::Role::Leader);
}

#[test]
fn a_static_quorum_of_one_keeps_what_it_decided() {
    keeps_what_it_decided(TestNode::new("static", Quorum::Static), 0);
}

#[test]
fn a_dynamic_quorum_of_one_keeps_what_it_decided() {
    keeps_what_it_decided(TestNode::new("dynamic", Quorum::Dynamic), 1);
}

fn keeps_what_it_decided(mut node: TestNode, kraft_version: i16) {
    node.run(move |shard| async move {
        let quorum = controller::quorum(&shard.controller).await;
        assert_eq!((quorum.kraft_version, quorum.leader_id), (kraft_version, Some(NodeId(1))));
        assert!(shard.metadata.broker_epoch().is_some());
        let image = shard.metadata.image();
        assert!(image.cluster.broker(NodeId(1)).is_some_and(|broker| broker.is_active()));
        assert_eq!(create_topic(&shard, "orders", 3).await, ErrorCode::None);
        assert_eq!(create_topic(&shard, "orders", 3).await, ErrorCode::TopicAlreadyExists);
        assert_eq!(create_topic(&shard, "gone", 1).await, ErrorCode::None);
        for partition in 0..3 {
            assert_led(&shard, "orders", partition);
        }
        assert_eq!(delete_topic(&shard, "gone").await, 0);
        assert_eq!(shard.data.replicas.ids().len(), 3);
    });
    let look = |shard: Rc<Shard>| async move {
        assert_led(&shard, "orders", 0);
        let image = shard.metadata.image();
        assert!(image.topics.by_name("gone").is_none());
        assert!(image.cluster.controllers.contains_key(&NodeId(1)));
    };
    node.run(look);
    node.run_and_kill(look);
    node.run(look);
    let state = std::fs::read_to_string(node.metadata_file("quorum-state")).expect("quorum-state");
    assert!(state.contains(r#""leaderId":1,"leaderEpoch":4"#), "{state}");
    let epochs = std::fs::read_to_string(node.metadata_file("leader-epoch-checkpoint")).expect("epochs");
    assert!(epochs.starts_with("0\n4\n1 0\n"), "{epochs}");
}

/// Requests whose time is up before the controller gets to them do nothing; others are answered however late it gets.
#[test]
fn what_is_not_begun_in_time_is_not_done() {
    TestNode::new("late", Quorum::Static).run(|shard| async move {
        let late = || {
            let topic = create_topics_request::CreatableTopic {
                name: "late".into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            };
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 0, ..Default::default() }
        };
        let answer = request(&shard.controller, ControllerRequest::internal(late())).await;
        let answer = CreateTopicsResponse::try_from(answer).expect("an answer to the question");
        assert_eq!(answer.topics[0].error_code, ErrorCode::RequestTimedOut.code());
        assert_eq!(create_topic(&shard, "next", 1).await, ErrorCode::None);
        assert!(shard.metadata.image().topics.by_name("late").is_none());
        // A driver that doesn't get to it, by this node's own path of requests: nobody waits any more when it does.
        let (mailbox, waiting) = ring::local_channel::<ring::OneshotSender<i32>>(1);
        let ask = async |is_begun: &Cell<bool>| {
            let asked = async {
                let (reply, answer) = ring::oneshot();
                mailbox.send(reply).await.ok()?;
                answer.await.ok()
            };
            begun_in_time(5, is_begun, asked).await
        };
        assert!(ask(&Cell::new(false)).await.is_err());
        assert!(waiting.recv().await.expect("it was sent").is_closed());
        // One that is begun, and whose end takes longer than that.
        let is_begun = Cell::new(false);
        let driver = async {
            let reply = waiting.recv().await.expect("it was sent");
            is_begun.set(true);
            ring::sleep_ms(20).await;
            reply.send(7).expect("it is waited for");
        };
        let (answer, ()) = futures_lite::future::zip(ask(&is_begun), driver).await;
        assert_eq!(answer.expect("in time"), Some(7));
    });
}

#[test]
fn snapshots_are_written_and_loaded() {
    let node = TestNode::new("snapshots", Quorum::Dynamic)
        .with("metadata.log.max.record.bytes.between.snapshots", "2000")
        .with("metadata.max.retention.bytes", "1");
    node.run(|shard| async move {
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            assert_eq!(create_topic(&shard, name, 5).await, ErrorCode::None);
        }
    });
    let snapshots = || {
        let entries = std::fs::read_dir(node.metadata_file("")).expect("the directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.ends_with(".checkpoint")).count()
    };
    assert!(snapshots() >= 2, "{}", snapshots());
    // The log itself tells the epochs.
    std::fs::write(node.metadata_file("leader-epoch-checkpoint"), "").expect("a file");
    node.run(|shard| async move {
        for name in ["a", "h"] {
            assert_led(&shard, name, 4);
        }
    });
}

#[test]
fn kafkas_single_node_goes_on() {
    let config = [("node.id", "1"), ("controller.quorum.voters", "1@127.0.0.1:38093")];
    goes_on("single-node", &config, &[""]);
}

#[test]
fn kafkas_dynamic_quorum_goes_on() {
    let config = [("node.id", "2"), ("controller.quorum.bootstrap.servers", "127.0.0.1:38193")];
    goes_on("dynamic-quorum-jbod", &config, &["d1", "d2"]);
}

/// All topics that Kafka knew are there and led.
fn goes_on(name: &str, config: &[(&str, &str)], log_dirs: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/data/fixtures/{name}.state.json"));
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).expect("the fixture's state")).expect("JSON");
    let topics = state["topics"].as_object().expect("topics").clone();
    assert!(!topics.is_empty());
    let node = TestNode::on_fixture(name, config, log_dirs);
    node.run(move |shard| async move {
        for (name, topic) in topics {
            let id: Uuid = topic["topicId"].as_str().expect("an id").parse().expect("an id");
            assert_eq!(shard.metadata.image().topics.id(&name), Some(id), "{name}");
            let partitions = topic["partitions"].as_i64().expect("a number");
            for partition in 0..i32::try_from(partitions).expect("a small number") {
                assert_led(&shard, &name, partition);
            }
        }
        assert_eq!(create_topic(&shard, "after-kafka", 2).await, ErrorCode::None);
        assert_led(&shard, "after-kafka", 1);
    });
}

#[test]
fn raft_answers_on_behalf_of_the_controller() {
    let node = TestNode::new("describe", Quorum::Dynamic);
    node.run(|shard| async move {
        let topic = describe_quorum_request::TopicData {
            topic_name: CLUSTER_METADATA_TOPIC.into(),
            partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
        };
        let body = DescribeQuorumRequest { topics: vec![topic] };
        let response = request(&shard.controller, ControllerRequest::internal(body)).await;
        let response = DescribeQuorumResponse::try_from(response).expect("an answer to the question");
        let partition = &response.topics[0].partitions[0];
        assert_eq!((response.error_code, partition.error_code, partition.leader_id), (0, 0, 1));
        assert_eq!(partition.current_voters.len(), 1);
        assert!(partition.high_watermark > 0);
    });
}

#[test]
fn apis_of_the_controller_are_served() {
    use ringlog_protocol::ApiKey;
    assert!(crate::admin::controller_apis::serves(ApiKey::BrokerRegistration));
    assert!(crate::admin::controller_apis::serves(ApiKey::Envelope));
    assert!(!crate::admin::controller_apis::serves(ApiKey::Produce));
}
