//! One long story, with all that can be refused on its way.

use anyhow::Result;
use ringlog_metadata::image::MetadataImage;
use ringlog_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ringlog_protocol::messages::create_acls_request::AclCreation;
use ringlog_protocol::messages::create_topics_request::CreatableTopic;
use ringlog_protocol::messages::delete_acls_request::DeleteAclsFilter;
use ringlog_protocol::messages::*;
use ringlog_types::{NodeId, Uuid};

use super::names::LOG_END;
use super::pair::Pair;
use super::requests::{self, directory, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
/// A topic or directory that nobody has.
const UNKNOWN: Uuid = Uuid([77; 16]);

/// Tells it all. `level` is the `metadata.version`.
pub fn tell(pair: &mut Pair, level: i16) -> Result<()> {
    let mut script = Script { pair };
    script.brokers()?;
    script.topics()?;
    script.partitions()?;
    script.in_sync_sets()?;
    script.directories()?;
    script.fencing()?;
    script.elections()?;
    script.configs()?;
    script.reassignments()?;
    script.more_lives()?;
    script.quotas()?;
    script.credentials_and_ids()?;
    script.features(level)?;
    script.deletions()
}

struct Script<'a> {
    pair: &'a mut Pair,
}

/// The epoch of a broker that is registered, else -1.
pub fn epoch(image: &MetadataImage, broker: i32) -> i64 {
    image.cluster.broker(NodeId(broker)).map_or(-1, |broker| broker.epoch.0)
}

impl Script<'_> {
    fn epoch(&self, broker: i32) -> i64 {
        epoch(&self.pair.image, broker)
    }

    fn topic_id(&self, topic: &str) -> Uuid {
        self.pair.image.topics.id(topic).unwrap_or(UNKNOWN)
    }

    fn heartbeat(&mut self, broker: i32, edit: impl FnOnce(&mut BrokerHeartbeatRequest)) -> Result<()> {
        let mut request = BrokerHeartbeatRequest {
            broker_id: broker,
            broker_epoch: self.epoch(broker),
            current_metadata_offset: LOG_END,
            ..BrokerHeartbeatRequest::default()
        };
        edit(&mut request);
        self.pair.ask(request).map(drop)
    }

    fn brokers(&mut self) -> Result<()> {
        for broker in [11, 12, 13, 14] {
            self.pair.ask(requests::registration(broker, 1, if broker == 13 { 2 } else { 1 }))?;
        }
        let mut other = requests::registration(15, 1, 1);
        other.cluster_id = text("another");
        self.pair.ask(other)?;
        for (broker, log_dirs) in [(15, vec![]), (15, vec![directory(11, 1)]), (15, vec![UNKNOWN, UNKNOWN])] {
            self.pair.ask(BrokerRegistrationRequest { log_dirs, ..requests::registration(broker, 1, 1) })?;
        }
        self.pair.ask(BrokerRegistrationRequest { features: vec![], ..requests::registration(15, 1, 1) })?;
        for broker in [11, 12, 13] {
            self.heartbeat(broker, |it| it.want_fence = true)?;
            self.heartbeat(broker, |it| it.current_metadata_offset = 0)?;
            self.heartbeat(broker, |it| it.cordoned_log_dirs = Some(vec![]))?;
        }
        Ok(())
    }

    fn create(&mut self, name: &str, assignments: &[&[i32]], configs: &[(&str, &str)]) -> Result<()> {
        self.pair.ask(requests::create(vec![requests::topic(name, assignments, configs)])).map(drop)
    }

    fn topics(&mut self) -> Result<()> {
        let configs = [("retention.ms", "1000"), ("min.insync.replicas", "2")];
        self.create("a", &[&[11, 12, 13], &[12, 13, 11], &[13, 11, 12]], &configs)?;
        self.create("b", &[&[12], &[11]], &[])?;
        self.create("c", &[&[13, 12], &[14, 11]], &[("cleanup.policy", "compact")])?;
        for name in ["a", "bad name", "", "..", "a_b", "a.b", "__cluster_metadata"] {
            self.create(name, &[&[11]], &[])?;
        }
        let refused: [&[&[i32]]; 5] = [&[&[11, 99]], &[&[11, 11]], &[&[11], &[11, 12]], &[&[14]], &[&[]]];
        for assignments in refused {
            self.create("d", assignments, &[])?;
        }
        for config in [("retention.ms", "x"), ("nonsense", "1"), ("min.insync.replicas", "0")] {
            self.create("d", &[&[11]], &[config])?;
        }
        for (num_partitions, replication_factor) in [(0, 1), (-2, 1), (1, 0), (1, -2), (1, 9), (20_000, 1)] {
            let name = text("auto");
            let topic = CreatableTopic { name, num_partitions, replication_factor, ..CreatableTopic::default() };
            self.pair.ask(requests::create(vec![topic]))?;
        }
        let automatic = CreatableTopic { num_partitions: 2, replication_factor: 2, ..requests::topic("e", &[], &[]) };
        self.pair.ask(CreateTopicsRequest { validate_only: true, ..requests::create(vec![automatic]) })?;
        let both = CreatableTopic { num_partitions: 2, replication_factor: 2, ..requests::topic("e", &[&[11]], &[]) };
        self.pair.ask(requests::create(vec![both]))?;
        let twice = vec![requests::topic("e", &[&[11]], &[]), requests::topic("e", &[&[11]], &[])];
        self.pair.ask(requests::create(twice)).map(drop)
    }

    fn partitions(&mut self) -> Result<()> {
        for (topic, count, assignments) in [
            ("b", 3, Some(vec![vec![13]])),
            ("b", 2, None),
            ("b", 1, None),
            ("nothing", 4, None),
            ("b", 5, Some(vec![vec![11]])),
            ("b", 4, Some(vec![vec![11, 12]])),
            ("b", 4, Some(vec![vec![77]])),
            ("b", -1, None),
        ] {
            self.pair.ask(requests::create_partitions(topic, count, assignments))?;
        }
        Ok(())
    }

    /// Sender, topic, partition, leader epoch, partition epoch, members, recovery state.
    fn alter(&mut self, asked: (i32, &str, i32, i32, i32, &[i32], i8)) -> Result<()> {
        let (sender, topic, partition_index, leader_epoch, partition_epoch, members, leader_recovery_state) = asked;
        let member = |broker: &i32| BrokerState { broker_id: *broker, broker_epoch: self.epoch(*broker) };
        let partition = PartitionData {
            partition_index,
            leader_epoch,
            new_isr_with_epochs: members.iter().map(member).collect(),
            leader_recovery_state,
            partition_epoch,
            ..PartitionData::default()
        };
        let topics = vec![TopicData { topic_id: self.topic_id(topic), partitions: vec![partition] }];
        let request = AlterPartitionRequest { broker_id: sender, broker_epoch: self.epoch(sender), topics };
        self.pair.ask(request).map(drop)
    }

    fn in_sync_sets(&mut self) -> Result<()> {
        self.alter((11, "a", 0, 0, 0, &[11, 12], 0))?;
        // An old epoch, the same, back again.
        self.alter((11, "a", 0, 0, 0, &[11], 0))?;
        self.alter((11, "a", 0, 0, 1, &[11, 12], 0))?;
        self.alter((11, "a", 0, 0, 1, &[11, 12, 13], 0))?;
        // Not the leader, unknown, from the future.
        self.alter((12, "a", 0, 0, 2, &[11, 12], 0))?;
        self.alter((11, "nothing", 0, 0, 0, &[11], 0))?;
        self.alter((11, "a", 9, 0, 0, &[11], 0))?;
        self.alter((11, "a", 0, 5, 2, &[11], 0))?;
        self.alter((11, "a", 0, 0, 9, &[11], 0))?;
        // Members that can't be.
        self.alter((11, "a", 0, 0, 2, &[11, 14], 0))?;
        self.alter((11, "a", 0, 0, 2, &[], 0))?;
        self.alter((11, "a", 0, 0, 2, &[12], 0))?;
        self.alter((11, "a", 0, 0, 2, &[11, 12], 1))?;
        self.alter((11, "c", 1, 0, 0, &[11, 14], 0))?;
        self.alter((14, "a", 0, 0, 2, &[11, 12], 0))
    }

    fn assign(&mut self, broker: i32, to: Uuid, topic: &str, partitions: &[i32]) -> Result<()> {
        let (epoch, topic) = (self.epoch(broker), self.topic_id(topic));
        self.pair.ask(requests::assign_directory(broker, epoch, to, topic, partitions)).map(drop)
    }

    fn directories(&mut self) -> Result<()> {
        self.assign(13, directory(13, 2), "a", &[0, 1, 2])?;
        self.assign(13, directory(13, 2), "a", &[0])?;
        self.assign(11, directory(11, 1), "b", &[0, 9])?;
        self.assign(11, directory(13, 2), "nothing", &[0])?;
        self.assign(11, UNKNOWN, "a", &[0])
    }

    fn fencing(&mut self) -> Result<()> {
        self.heartbeat(13, |it| it.want_fence = true)?;
        self.heartbeat(13, |_| {})?;
        for partition_epoch in 3..=6 {
            self.alter((11, "a", 0, 0, partition_epoch, &[11, 12, 13], 0))?;
        }
        for _ in 0..2 {
            self.heartbeat(13, |it| it.offline_log_dirs = vec![directory(13, 2)])?;
        }
        self.heartbeat(12, |it| it.want_shut_down = true)?;
        for broker in [11, 13] {
            self.heartbeat(broker, |_| {})?;
        }
        self.heartbeat(12, |it| it.want_shut_down = true)?;
        self.heartbeat(12, |it| it.broker_epoch = 1)?;
        self.alter((11, "a", 0, 0, 6, &[11], 0))
    }

    fn elections(&mut self) -> Result<()> {
        self.pair.ask(requests::elect(0, None))?;
        self.pair.ask(requests::elect(0, Some(&[("a", &[0, 1, 9]), ("nothing", &[0])])))?;
        self.pair.ask(requests::elect(1, Some(&[("a", &[0]), ("c", &[0, 1])])))?;
        self.pair.ask(requests::elect(7, Some(&[("a", &[0])])))?;
        self.pair.ask(requests::elect(7, None)).map(drop)
    }

    fn config(&mut self, resource_type: i8, name: &str, operations: &[(&str, i8, Option<&str>)]) -> Result<()> {
        self.pair.ask(requests::configs(resource_type, name, operations)).map(drop)
    }

    fn configs(&mut self) -> Result<()> {
        let both = [("retention.ms", SET, Some("5000")), ("cleanup.policy", APPEND, Some("compact"))];
        self.config(TOPIC, "a", &both)?;
        for operation in [
            ("retention.ms", SET, Some("5000")),
            ("cleanup.policy", APPEND, Some("compact")),
            ("cleanup.policy", SUBTRACT, Some("delete")),
            ("retention.ms", DELETE, None),
            ("retention.ms", APPEND, Some("1")),
            ("segment.bytes", SET, Some("1")),
            ("nonsense", SET, Some("5000")),
            ("min.insync.replicas", SET, Some("1")),
            ("min.insync.replicas", SET, Some("1")),
        ] {
            self.config(TOPIC, "a", &[operation])?;
        }
        self.config(TOPIC, "a", &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))])?;
        for (resource_type, name, operation) in [
            (TOPIC, "nothing", ("retention.ms", SET, Some("5000"))),
            (TOPIC, "", ("retention.ms", SET, Some("5000"))),
            (BROKER, "11", ("log.retention.ms", SET, Some("77777"))),
            (BROKER, "", ("log.cleaner.threads", SET, Some("2"))),
            (BROKER, "", ("log.cleaner.threads", SET, Some("2"))),
            (BROKER, "11", ("min.insync.replicas", SET, Some("2"))),
            (BROKER, "", ("min.insync.replicas", DELETE, None)),
            (BROKER, "", ("min.insync.replicas", SET, Some("1"))),
            (BROKER, "99", ("log.retention.ms", SET, Some("1"))),
            (BROKER, "x", ("log.retention.ms", SET, Some("1"))),
            (BROKER, "-3", ("log.retention.ms", SET, Some("1"))),
            (BROKER, "11", ("cordoned.log.dirs", SET, Some("/x"))),
            (CLIENT_METRICS, "m", ("interval.ms", SET, Some("60000"))),
            (CLIENT_METRICS, "m", ("interval.ms", SET, Some("1"))),
            (GROUP, "g", ("consumer.session.timeout.ms", SET, Some("50000"))),
            (GROUP, "g", ("consumer.session.timeout.ms", SET, Some("1"))),
            (GROUP, "", ("consumer.session.timeout.ms", SET, Some("50000"))),
            (9, "x", ("a", SET, Some("1"))),
            (TOPIC, "c", ("unclean.leader.election.enable", SET, Some("true"))),
        ] {
            self.config(resource_type, name, &[operation])?;
        }
        let resources =
            vec![requests::all_configs(TOPIC, "b", &[("retention.ms", "9")]), requests::all_configs(TOPIC, "a", &[])];
        self.pair.ask(AlterConfigsRequest { resources, validate_only: false }).map(drop)
    }

    fn reassign(&mut self, topic: &str, partition: i32, to: Option<&[i32]>, may_resize: bool) -> Result<()> {
        self.pair.ask(requests::reassign(topic, partition, to, may_resize))?;
        let all = ListPartitionReassignmentsRequest { timeout_ms: 10_000, topics: None };
        self.pair.ask(all).map(drop)
    }

    fn reassignments(&mut self) -> Result<()> {
        self.reassign("b", 0, Some(&[11, 13]), true)?;
        self.reassign("b", 0, Some(&[11]), false)?;
        self.reassign("nothing", 0, Some(&[11]), true)?;
        self.reassign("b", 77, Some(&[11]), true)?;
        self.reassign("b", 0, Some(&[11, 11]), true)?;
        self.reassign("b", 0, Some(&[]), true)?;
        self.reassign("b", 0, Some(&[99]), true)?;
        self.reassign("a", 0, None, true)?;
        self.reassign("a", 1, Some(&[11, 13, 12]), true)?;
        self.reassign("a", 2, Some(&[13, 14, 11]), true)?;
        self.reassign("a", 2, Some(&[13, 14, 12]), true)?;
        self.reassign("a", 2, None, true)?;
        self.reassign("b", 1, Some(&[13]), true)?;
        self.alter((11, "b", 1, 0, 1, &[11, 13], 0))?;
        self.alter((11, "b", 1, 0, 2, &[11, 13], 0))
    }

    fn more_lives(&mut self) -> Result<()> {
        let previous_broker_epoch = self.epoch(12);
        self.pair.ask(BrokerRegistrationRequest { previous_broker_epoch, ..requests::registration(12, 2, 1) })?;
        self.heartbeat(12, |_| {})?;
        self.pair.ask(requests::registration(13, 2, 2))?;
        // Sessions of fenced brokers end with the process.
        self.pair.restart()?;
        self.pair.ask(BrokerRegistrationRequest { previous_broker_epoch, ..requests::registration(12, 2, 1) })?;
        self.heartbeat(12, |_| {})?;
        self.pair.ask(requests::registration(13, 2, 2))?;
        self.pair.ask(UnregisterBrokerRequest { broker_id: 14 })?;
        self.pair.ask(UnregisterBrokerRequest { broker_id: 99 }).map(drop)
    }

    fn quotas(&mut self) -> Result<()> {
        let rate = "producer_byte_rate";
        let user: [(&str, Option<&str>); 1] = [("user", Some("u"))];
        let ip: [(&str, Option<&str>); 1] = [("ip", Some("1.2.3.4"))];
        let entities: [(requests::QuotaParts<'_>, requests::QuotaChanges<'_>); 14] = [
            (&user, &[(rate, Some(1_000.0)), ("request_percentage", Some(12.5))]),
            (&[("user", None), ("client-id", Some("c"))], &[("consumer_byte_rate", Some(5.0))]),
            (&user, &[(rate, None)]),
            (&[("user", Some("v"))], &[(rate, None)]),
            (&ip, &[("connection_creation_rate", Some(5.0))]),
            (&[("ip", Some("1.2.3.4")), ("user", Some("u"))], &[("connection_creation_rate", Some(5.0))]),
            (&[("nonsense", Some("u"))], &[(rate, Some(5.0))]),
            (&user, &[("nonsense", Some(5.0))]),
            (&user, &[(rate, Some(-5.0))]),
            (&user, &[(rate, Some(5.5))]),
            (&user, &[(rate, Some(1e20))]),
            (&user, &[(rate, Some(5.0)), (rate, Some(6.0))]),
            (&[("user", Some(""))], &[(rate, Some(5.0))]),
            (&[], &[(rate, Some(5.0))]),
        ];
        for (entity, operations) in entities {
            self.pair.ask(requests::quota(entity, operations))?;
        }
        let only = requests::quota(&user, &[("controller_mutation_rate", Some(5.5))]);
        self.pair.ask(AlterClientQuotasRequest { validate_only: true, ..only }).map(drop)
    }

    fn credentials_and_ids(&mut self) -> Result<()> {
        self.pair.ask(requests::scram(&[("alice", 1, 4_096), ("bob", 2, 8_192)], &[]))?;
        self.pair.ask(requests::scram(&[("al", 1, 1), ("b", 9, 8_192), ("", 1, 4_096)], &[("nobody", 1)]))?;
        self.pair.ask(requests::scram(&[], &[("alice", 1)]))?;
        self.pair.ask(requests::scram(&[("alice", 1, 4_096), ("alice", 1, 8_192)], &[]))?;
        for broker_epoch in [self.epoch(11), self.epoch(11), 1] {
            self.pair.ask(AllocateProducerIdsRequest { broker_id: 11, broker_epoch })?;
        }
        // There is no authorizer here.
        let acl = AclCreation {
            resource_type: 2,
            resource_name: text("t"),
            resource_pattern_type: 3,
            principal: text("User:a"),
            host: text("*"),
            operation: 3,
            permission_type: 3,
        };
        self.pair.ask(CreateAclsRequest { creations: vec![acl] })?;
        let filter = DeleteAclsFilter {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..DeleteAclsFilter::default()
        };
        self.pair.ask(DeleteAclsRequest { filters: vec![filter] }).map(drop)
    }

    fn features(&mut self, level: i16) -> Result<()> {
        for (name, level, upgrade_type) in [
            ("nonsense", 1, 1),
            ("group.version", 1, 1),
            ("transaction.version", 0, 2),
            ("transaction.version", 2, 1),
            ("transaction.version", 9, 1),
            ("group.version", 0, 1),
            ("group.version", -1, 2),
            ("group.version", 1, 9),
            ("metadata.version", 7, 2),
            ("metadata.version", 99, 1),
            ("eligible.leader.replicas.version", 0, 2),
            ("eligible.leader.replicas.version", 1, 1),
            ("kraft.version", 2, 1),
            ("kraft.version", 0, 2),
            ("metadata.version", level, 1),
        ] {
            self.pair.ask(requests::features(&[(name, level, upgrade_type)], false))?;
        }
        self.pair.ask(requests::features(&[("metadata.version", 20, 3)], true))?;
        self.pair.ask(requests::features(&[("share.version", 0, 2)], true)).map(drop)
    }

    fn deletions(&mut self) -> Result<()> {
        let id = self.topic_id("c");
        for (name, topic_id) in [
            (Some("b"), Uuid::ZERO),
            (Some("nothing"), Uuid::ZERO),
            (None, UNKNOWN),
            (None, id),
            (Some("a"), id),
            (None, Uuid::ZERO),
        ] {
            self.pair.ask(requests::delete_topic(name, topic_id))?;
        }
        Ok(())
    }
}
