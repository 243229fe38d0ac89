//! The client against a node that is played by the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use ringlog_protocol::messages::api_versions_response::ApiVersion;
use ringlog_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use ringlog_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ringlog_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use ringlog_protocol::messages::{
    ApiVersionsResponse, DescribeClusterResponse, ListGroupsRequest, MetadataRequest, MetadataResponse,
    ProduceResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use ringlog_protocol::{ApiKey, Decoder, Frame, StrBytes, frame};
use ringlog_types::ErrorCode;

use crate::*;

fn write(stream: &mut TcpStream, frame: &Frame) {
    for chunk in &frame.chunks {
        stream.write_all(chunk).expect("the client reads");
    }
}

/// The next request's header, or none when the client is gone.
fn read_request(stream: &mut TcpStream) -> Option<frame::RequestHeader> {
    let mut size = [0; 4];
    stream.read_exact(&mut size).ok()?;
    let mut body = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(frame::decode_request_header(&mut Decoder::new(Bytes::from(body))).expect("a good request"))
}

fn versions() -> ApiVersionsResponse {
    let range = |key: ApiKey, min_version, max_version| ApiVersion { api_key: key.code(), min_version, max_version };
    let api_keys = vec![range(ApiKey::ApiVersions, 0, 3), range(ApiKey::Metadata, 0, 9), range(ApiKey::Fetch, 90, 99)];
    ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }
}

fn metadata(port: u16) -> MetadataResponse {
    let broker = MetadataResponseBroker {
        node_id: 7,
        host: StrBytes::from("127.0.0.1"),
        port: i32::from(port),
        ..MetadataResponseBroker::default()
    };
    let partition = MetadataResponsePartition { partition_index: 1, leader_id: 7, ..Default::default() };
    let topic = MetadataResponseTopic {
        name: Some(StrBytes::from("t")),
        partitions: vec![MetadataResponsePartition { leader_id: -1, ..Default::default() }, partition],
        ..Default::default()
    };
    MetadataResponse { brokers: vec![broker], controller_id: 7, topics: vec![topic], ..MetadataResponse::default() }
}

/// A node that serves one connection by `answer`.
fn node(answer: impl Fn(&mut TcpStream, &frame::RequestHeader, u16) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        while let Some(header) = read_request(&mut stream) {
            answer(&mut stream, &header, port);
        }
    });
    (format!("127.0.0.1:{port}"), thread)
}

/// As a node that knows ApiVersions up to 3 and Metadata up to 9.
fn answer_well(stream: &mut TcpStream, header: &frame::RequestHeader, port: u16) {
    let (key, version, id) = (header.key, header.api_version, header.correlation_id);
    let response = match key {
        ApiKey::ApiVersions if version > 3 => {
            let error_code = ErrorCode::UnsupportedVersion.code();
            frame::encode_response(&ApiVersionsResponse { error_code, ..versions() }, key, 0, id)
        }
        ApiKey::ApiVersions => frame::encode_response(&versions(), key, version, id),
        ApiKey::Metadata => {
            assert_eq!(version, 9, "the highest common version");
            frame::encode_response(&metadata(port), key, version, id)
        }
        other => panic!("{other} wasn't to be asked"),
    };
    write(stream, &response.expect("it can be encoded"));
}

fn options() -> ClientOptions {
    ClientOptions { request_timeout: Duration::from_secs(10), max_frame_bytes: 1 << 20, ..ClientOptions::default() }
}

#[test]
fn versions_are_negotiated_and_leaders_found() {
    let (address, thread) = node(answer_well);
    let mut client = Client::connect(&format!("PLAINTEXT://{address}"), options()).expect("a connection");
    assert_eq!(client.metadata().controller_id, 7);
    assert_eq!(client.metadata().brokers[&7].address(), address);
    assert_eq!(client.leader("t", 1).expect("a leader"), 7);
    assert_eq!(client.partitions("t", false).expect("partitions").len(), 2);
    let fault = client.send(&ListGroupsRequest::default()).expect_err("the node doesn't know it");
    assert!(matches!(fault, ClientError::UnsupportedApi { api: ApiKey::ListGroups, .. }), "{fault}");
    assert!(matches!(client.connection(8), Err(ClientError::UnknownNode(8))));
    drop(client);
    thread.join().expect("the node is content");
}

/// Two controllers at one address: the first one asked leads, and when it is to change a feature it says that the
/// other one does by now. Returns the number of requests for a change.
fn controllers(listener: TcpListener) -> usize {
    let port = listener.local_addr().expect("an address").port();
    let changes = Arc::new(AtomicUsize::new(0));
    // One connection for the bootstrap list, and one to each controller.
    let serve = |mut stream: TcpStream, changes: Arc<AtomicUsize>| {
        move || {
            while let Some(header) = read_request(&mut stream) {
                let (key, version, id) = (header.key, header.api_version, header.correlation_id);
                let before = changes.load(Ordering::SeqCst);
                let response = match key {
                    ApiKey::ApiVersions => frame::encode_response(&controller_versions(), key, version, id),
                    ApiKey::DescribeCluster => {
                        let leader = if before == 0 { 1 } else { 2 };
                        frame::encode_response(&controllers_named(port, leader), key, version, id)
                    }
                    ApiKey::UpdateFeatures => {
                        changes.fetch_add(1, Ordering::SeqCst);
                        let error_code = if before == 0 { ErrorCode::NotController.code() } else { 0 };
                        let response = UpdateFeaturesResponse { error_code, ..UpdateFeaturesResponse::default() };
                        frame::encode_response(&response, key, version, id)
                    }
                    other => panic!("{other} wasn't to be asked"),
                };
                write(&mut stream, &response.expect("it can be encoded"));
            }
        }
    };
    let threads: Vec<_> =
        (0..3).map(|_| std::thread::spawn(serve(listener.accept().expect("a client").0, changes.clone()))).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("the node is content"));
    changes.load(Ordering::SeqCst)
}

fn controller_versions() -> ApiVersionsResponse {
    let range = |key: ApiKey, min_version, max_version| ApiVersion { api_key: key.code(), min_version, max_version };
    let api_keys = vec![
        range(ApiKey::ApiVersions, 0, 4),
        range(ApiKey::DescribeCluster, 0, 2),
        range(ApiKey::UpdateFeatures, 0, 2),
    ];
    ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }
}

fn controllers_named(port: u16, controller_id: i32) -> DescribeClusterResponse {
    let named = |broker_id: i32| DescribeClusterBroker {
        broker_id,
        host: StrBytes::from("127.0.0.1"),
        port: i32::from(port),
        ..DescribeClusterBroker::default()
    };
    DescribeClusterResponse {
        endpoint_type: 2,
        controller_id,
        cluster_id: StrBytes::from("c"),
        brokers: vec![named(1), named(2)],
        ..DescribeClusterResponse::default()
    }
}

#[test]
fn the_active_controller_is_found_again_when_another_one_takes_over() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let nodes = std::thread::spawn(|| controllers(listener));
    let options = ClientOptions { retry_backoff: Duration::from_millis(1), ..options() };
    let mut client = Client::connect(Bootstrap::Controllers(&address), options).expect("a connection");
    assert_eq!((client.metadata().cluster_id.as_deref(), client.metadata().controller_id), (Some("c"), 1));
    let request = UpdateFeaturesRequest::default();
    let is_other = |response: &UpdateFeaturesResponse| response.error_code == ErrorCode::NotController.code();
    let response = client.administer(Target::Controller, &request, is_other).expect("an answer");
    assert_eq!((response.error_code, client.metadata().controller_id), (0, 2));
    drop(client);
    assert_eq!(nodes.join().expect("the nodes are content"), 2);
}

/// A node that says whom it wants to stop before it answers a batch.
fn stopping_node(stop: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let serve = move |mut stream: TcpStream, stop: Arc<AtomicBool>| {
        while let Some(header) = read_request(&mut stream) {
            let (key, version, id) = (header.key, header.api_version, header.correlation_id);
            let response = match key {
                ApiKey::ApiVersions => {
                    let mut versions = versions();
                    versions.api_keys.push(ApiVersion {
                        api_key: ApiKey::Produce.code(),
                        min_version: 3,
                        max_version: 9,
                    });
                    versions.error_code = if version > 3 { ErrorCode::UnsupportedVersion.code() } else { 0 };
                    frame::encode_response(&versions, key, if version > 3 { 0 } else { version }, id)
                }
                ApiKey::Produce => {
                    stop.store(true, Ordering::Relaxed);
                    // Whoever waits looks for that several times.
                    std::thread::sleep(Duration::from_millis(200));
                    let partition = PartitionProduceResponse { index: 1, base_offset: 5, ..Default::default() };
                    let topic = TopicProduceResponse {
                        name: StrBytes::from("t"),
                        partition_responses: vec![partition],
                        ..Default::default()
                    };
                    let response = ProduceResponse { responses: vec![topic], ..Default::default() };
                    frame::encode_response(&response, key, version, id)
                }
                _ => {
                    answer_well(&mut stream, &header, port);
                    continue;
                }
            };
            write(&mut stream, &response.expect("it can be encoded"));
        }
    };
    let stop = stop.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, stop) = (stream.expect("a client"), stop.clone());
            std::thread::spawn(move || serve(stream, stop));
        }
    });
    format!("127.0.0.1:{port}")
}

#[test]
fn what_is_on_its_way_when_a_client_is_stopped_is_waited_for() {
    let stop = Arc::new(AtomicBool::new(false));
    let address = stopping_node(&stop);
    let mut client = Client::connect(&address, ClientOptions { stop: Some(stop), ..options() }).expect("a connection");
    let grace = ProducerOptions { stop_grace: Duration::from_secs(60), ..ProducerOptions::default() };
    let mut producer = Producer::new("t", grace, 0);
    let record = NewRecord { partition: Some(1), value: Some(b"v".to_vec()), ..NewRecord::default() };
    producer.append(&mut client, &record).expect("its partition is known");
    let deliveries = producer.flush(&mut client);
    assert_eq!(*deliveries[0].outcome.as_ref().expect("it is waited for"), 5);
    // What begins after it isn't.
    client.forget_topic("t");
    assert!(matches!(producer.append(&mut client, &record), Err(ClientError::Stopped)));
}

#[test]
fn requests_are_pipelined_and_answered_in_order() {
    let (address, thread) = node(answer_well);
    let mut connection = Connection::connect(&address, &options()).expect("a connection");
    for _ in 0..3 {
        connection.send_request(&MetadataRequest::default(), 9).expect("it is sent");
    }
    assert_eq!(connection.in_flight(), 3);
    for _ in 0..3 {
        let response = connection.receive::<MetadataRequest>(Duration::ZERO).expect("an answer");
        assert_eq!(response.controller_id, 7);
    }
    drop(connection);
    thread.join().expect("the node is content");
}

#[test]
fn a_bad_node_costs_an_error_and_no_memory() {
    let announce = |size: i32| {
        let (address, thread) =
            node(move |stream, _, _| stream.write_all(&size.to_be_bytes()).expect("the client reads"));
        let fault = Connection::connect(&address, &options()).expect_err("no answer");
        thread.join().expect("the node is content");
        fault
    };
    assert!(matches!(announce(i32::MAX), ClientError::FrameSize { size: i32::MAX, .. }));
    assert!(matches!(announce(-1), ClientError::FrameSize { size: -1, .. }));
    let (address, thread) = node(|stream, header, _| {
        let wrong = frame::encode_response(&versions(), header.key, 3, header.correlation_id + 1);
        write(stream, &wrong.expect("it can be encoded"));
    });
    let fault = Connection::connect(&address, &options()).expect_err("another request's answer");
    assert!(matches!(fault, ClientError::Correlation { .. }), "{fault}");
    thread.join().expect("the node is content");
    for bad in ["", "host", "host:port", ":1", "a:1,b", "a b:1", "a:-1"] {
        assert!(matches!(Client::connect(bad, options()), Err(ClientError::InvalidBootstrap(_))), "{bad}");
    }
    assert!(matches!(Client::connect("a:65536", options()), Err(ClientError::InvalidBootstrapPort(_))));
}

#[test]
fn keys_go_where_the_java_client_sends_them() {
    // Values that the Java client computes.
    let cases: [(&[u8], i32); 6] = [
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        (b"abc", 479_470_107),
    ];
    for (key, hash) in cases {
        assert_eq!(murmur2(key), hash);
    }
    assert_eq!(partition_of_key(b"21", 10), (-973_932_308 & i32::MAX) % 10);
}

#[test]
fn the_range_assignor_gives_runs_of_partitions() {
    let member = |name: &str, topics: &[&str]| (name.to_owned(), topics.iter().map(|it| (*it).to_owned()).collect());
    let subscriptions = [member("a", &["t", "u"]), member("b", &["t"])].into_iter().collect();
    let counts = [("t".to_owned(), 3), ("u".to_owned(), 1)].into_iter().collect();
    let assigned = crate::group::range_assign(&subscriptions, &counts);
    assert_eq!(assigned["a"], [("t".to_owned(), vec![0, 1]), ("u".to_owned(), vec![0])].into_iter().collect());
    assert_eq!(assigned["b"], [("t".to_owned(), vec![2])].into_iter().collect());
}
