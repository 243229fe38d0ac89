//! The controller by its requests: errors, placement, in-sync sets, and that a second replayer agrees.

mod details;
mod invariants;
mod leadership;
mod portions;
mod requests;

use ringlog_protocol::messages::broker_registration_request::{Feature, Listener};
use ringlog_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use ringlog_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_types::{
    ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, PartitionIndex, TimestampMs, TopicIdPartition, Uuid,
};

use super::*;
use crate::bootstrap::BootstrapMetadata;
use crate::features::FEATURES;
use crate::image::{MetadataDelta, MetadataImage, PartitionImage, Provenance, TopicImage};

/// A controller, and a second replayer of what it writes.
struct Harness {
    controller: Controller,
    log: Vec<RecordAndVersion>,
    replica: MetadataImage,
    now_ms: u64,
    /// In how many portions the last request was worked out.
    portions: usize,
}

/// The highest version of each request.
fn latest(request: &RequestBody) -> i16 {
    request.api_key().max_version()
}

impl Harness {
    fn new() -> Harness {
        Harness::with(|_| {})
    }

    fn with(edit: impl FnOnce(&mut ControllerConfig)) -> Harness {
        let mut config = ControllerConfig::new(NodeId(1), "cluster", BootstrapMetadata::latest());
        config.random_seed = 7;
        edit(&mut config);
        let mut harness = Harness {
            controller: Controller::new(config),
            log: Vec::new(),
            replica: MetadataImage::empty(),
            now_ms: 1_000,
            portions: 0,
        };
        let (now, next) = (harness.now(), harness.next_offset());
        let first = harness.controller.activate(MetadataImage::empty(), false, LeaderEpoch(1), next, now);
        harness.append(first.records);
        harness
    }

    fn now(&self) -> Now {
        Now { monotonic: MonotonicMs(self.now_ms), wall: TimestampMs(1_700_000_000_000 + self.now_ms as i64) }
    }

    /// Control records lie below.
    fn next_offset(&self) -> Offset {
        Offset(3 + self.log.len() as i64)
    }

    fn append(&mut self, records: Vec<RecordAndVersion>) {
        let mut delta = MetadataDelta::new(&self.replica);
        for record in &records {
            record.encode_framed().expect("records fit their version");
            delta.replay(&record.record).expect("records can be replayed");
        }
        let (replica, changes) = delta.apply(Provenance::EMPTY);
        self.replica = replica;
        self.log.extend(records);
        assert_eq!(Some(&self.replica), self.controller.uncommitted_image());
        self.controller.share_with(&self.replica, &changes);
        let uncommitted = self.controller.uncommitted_image().expect("the controller is active");
        assert_eq!(self.replica, *uncommitted);
        let is_shared =
            |topic: &Arc<TopicImage>| uncommitted.topics.by_id(topic.id).is_some_and(|other| Arc::ptr_eq(topic, other));
        assert!(self.replica.topics.iter().all(is_shared));
    }

    fn send_at<R: TryFrom<ResponseBody>>(&mut self, request: impl Into<RequestBody>, api_version: i16) -> R {
        let request = request.into();
        let context = RequestContext {
            api_version,
            principal: "User:test",
            is_token_authenticated: false,
            is_forwarded: true,
            authorizer: &AllowAll,
            now: self.now(),
            received_at: self.now().monotonic,
            next_offset: self.next_offset(),
            kraft_version: 1,
            may_raise_kraft_version: &|_| Ok(()),
            voters: &[NodeId(1)],
        };
        let mut result = self.controller.handle(&request, &context).expect("the controller is active");
        self.portions = 0;
        let response = loop {
            self.portions += 1;
            assert!(result.records.len() <= MAX_RECORDS_PER_OPERATION);
            self.append(result.records);
            match result.response {
                Some(response) => break response,
                None => result = self.controller.go_on(self.next_offset()).expect("more is to come"),
            }
        };
        response.size(api_version).expect("the response fits its version");
        R::try_from(response).unwrap_or_else(|_| panic!("the response belongs to the request"))
    }

    fn send<R: TryFrom<ResponseBody>>(&mut self, request: impl Into<RequestBody>) -> R {
        let request = request.into();
        let version = latest(&request);
        self.send_at(request, version)
    }

    fn registration(id: i32, life: u8) -> BrokerRegistrationRequest {
        let features = FEATURES.iter().map(|feature| {
            let range = feature.supported_range(false);
            Feature { name: feature.name.into(), min_supported_version: range.min, max_supported_version: range.max }
        });
        BrokerRegistrationRequest {
            broker_id: id,
            cluster_id: "cluster".into(),
            incarnation_id: Uuid([life; 16]),
            listeners: vec![Listener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                security_protocol: 0,
            }],
            features: features.collect(),
            log_dirs: vec![Uuid([100 + id as u8; 16])],
            ..Default::default()
        }
    }

    /// Registers a broker's new life, with -1 or the epoch of a clean shutdown before.
    fn register(&mut self, id: i32, life: u8, previous_epoch: i64) -> i64 {
        let request =
            BrokerRegistrationRequest { previous_broker_epoch: previous_epoch, ..Harness::registration(id, life) };
        let response: BrokerRegistrationResponse = self.send(request);
        assert_eq!(response.error_code, 0);
        response.broker_epoch
    }

    fn epoch(&self, id: i32) -> i64 {
        self.replica.cluster.broker(NodeId(id)).unwrap().epoch.0
    }

    fn heartbeat(&mut self, id: i32, edit: impl FnOnce(&mut BrokerHeartbeatRequest)) -> BrokerHeartbeatResponse {
        let mut request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: self.epoch(id),
            current_metadata_offset: self.next_offset().0 - 1,
            ..Default::default()
        };
        edit(&mut request);
        self.send(request)
    }

    fn start(&mut self, id: i32, life: u8, previous_epoch: i64) {
        self.register(id, life, previous_epoch);
        let response = self.heartbeat(id, |_| {});
        assert!(!response.is_fenced);
    }

    /// Kills a broker: its session runs out while the others go on.
    fn kill(&mut self, id: i32) {
        let others: Vec<i32> = self.replica.cluster.brokers.keys().map(|it| it.0).filter(|it| *it != id).collect();
        // Often enough for a controller that looks at its deadlines.
        for _ in 0..40 {
            self.now_ms += 250;
            for other in &others {
                let is_fenced = self.replica.cluster.broker(NodeId(*other)).unwrap().is_fenced;
                if !is_fenced {
                    self.heartbeat(*other, |_| {});
                }
            }
            self.tick();
        }
        assert!(self.replica.cluster.broker(NodeId(id)).unwrap().is_fenced);
    }

    fn tick(&mut self) {
        let (now, next) = (self.now(), self.next_offset());
        let results = self.controller.on_tick(now, next);
        let records = results.into_iter().flat_map(|result| result.records).collect();
        self.append(records);
        while let Some(result) = self.controller.go_on(self.next_offset()) {
            assert!(result.records.len() <= MAX_RECORDS_PER_OPERATION);
            self.append(result.records);
        }
    }

    /// Creates topics and returns error code and text of each.
    fn create(&mut self, topics: Vec<CreatableTopic>) -> Vec<(ErrorCode, Option<String>)> {
        let response: CreateTopicsResponse = self.send(CreateTopicsRequest { topics, ..Default::default() });
        let result = |it: &ringlog_protocol::messages::create_topics_response::CreatableTopicResult| {
            (ErrorCode::from_code(it.error_code).unwrap(), it.error_message.as_ref().map(|text| text.to_string()))
        };
        response.topics.iter().map(result).collect()
    }

    fn partition(&self, topic: &str, index: i32) -> &PartitionImage {
        let topic_id = self.replica.topics.id(topic).unwrap();
        self.replica.topics.partition(TopicIdPartition { topic_id, partition: PartitionIndex(index) }).unwrap()
    }
}

fn topic(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: partitions,
        replication_factor,
        ..Default::default()
    }
}

fn assigned(name: &str, assignments: &[&[i32]]) -> CreatableTopic {
    let assignments = assignments
        .iter()
        .enumerate()
        .map(|(index, ids)| CreatableReplicaAssignment { partition_index: index as i32, broker_ids: ids.to_vec() });
    CreatableTopic { assignments: assignments.collect(), ..topic(name, -1, -1) }
}

fn ids(list: &[NodeId]) -> Vec<i32> {
    list.iter().map(|id| id.0).collect()
}
