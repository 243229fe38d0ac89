//! Administrators: topics, configs, reassignments and whatever else they ask for.

use ringlog_protocol::messages::{
    AlterClientQuotasRequest, AlterPartitionReassignmentsRequest, AlterUserScramCredentialsRequest, CreateAclsRequest,
    CreateDelegationTokenRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteAclsRequest, DeleteTopicsRequest,
    ElectLeadersRequest, IncrementalAlterConfigsRequest, UnregisterBrokerRequest, UpdateFeaturesRequest,
    alter_client_quotas_request, alter_partition_reassignments_request, alter_user_scram_credentials_request,
    create_acls_request, create_partitions_request, create_topics_request, delete_acls_request, delete_topics_request,
    elect_leaders_request, incremental_alter_configs_request, update_features_request,
};
use ringlog_protocol::{RequestBody, StrBytes};

use super::super::time::Us;
use super::super::world::World;
use super::brokers::FIRST_ID;

const TOPICS: u64 = 12;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Timeouts that clients put into requests.
const TIMEOUT_MS: i32 = 5_000;

fn topic_name(number: u64) -> StrBytes {
    format!("topic-{number}").into()
}

impl World {
    /// What an administrator does next; returns when its turn comes again.
    pub(super) fn admin_turn(&mut self, client: usize) -> Us {
        let think = self.shared.plan.think_us;
        let after = think / 2 + self.shared.work(think);
        if self.clients.are_quiet {
            return after;
        }
        if self.shared.work(12) == 0 && self.ask_of_voters(client) {
            return after;
        }
        let request = self.admin_request();
        self.ask_leader(client, &request);
        after
    }

    fn work_topic(&self) -> StrBytes {
        topic_name(self.shared.work(TOPICS))
    }

    fn work_broker(&self) -> i32 {
        FIRST_ID + self.shared.work(self.shared.plan.brokers as u64) as i32
    }

    fn admin_request(&self) -> RequestBody {
        match self.shared.work(100) {
            0..20 => self.create_topic(self.work_topic()),
            20..27 => {
                let topic =
                    delete_topics_request::DeleteTopicState { name: Some(self.work_topic()), ..Default::default() };
                let topics = vec![topic];
                DeleteTopicsRequest { topics, topic_names: Vec::new(), timeout_ms: TIMEOUT_MS }.into()
            }
            27..32 => {
                let count = 2 + self.shared.work(5) as i32;
                let topic = create_partitions_request::CreatePartitionsTopic {
                    name: self.work_topic(),
                    count,
                    assignments: None,
                };
                CreatePartitionsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false }.into()
            }
            32..50 => self.alter_config(),
            50..68 => self.reassign(),
            68..76 => self.elect(),
            76..82 => self.alter_quota(),
            82..86 => self.create_acl(),
            86..89 => self.delete_acl(),
            89..92 => self.alter_scram(),
            92..94 => {
                let max_lifetime_ms = 1_000 * self.shared.work(20) as i64;
                let owner = Some(StrBytes::default());
                let (owner_principal_type, owner_principal_name) = (owner.clone(), owner);
                let renewers = Vec::new();
                let request = CreateDelegationTokenRequest {
                    owner_principal_type,
                    owner_principal_name,
                    renewers,
                    max_lifetime_ms,
                };
                request.into()
            }
            94..96 => UnregisterBrokerRequest { broker_id: self.work_broker() }.into(),
            _ => self.update_feature(),
        }
    }

    /// A topic with one replica is to be created, by a client that waits for nothing else.
    pub(crate) fn ask_for_topic(&mut self, client: usize, name: &'static str) {
        let topic = create_topics_request::CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
        if !self.is_waiting(client) {
            self.ask_leader(client, &request.into());
        }
    }

    /// Asks for a topic, as an administrator.
    pub(crate) fn create_topic(&self, name: StrBytes) -> RequestBody {
        let configs = if self.shared.work(4) == 0 {
            let value = Some(format!("{}", 1 + self.shared.work(3)).into());
            vec![create_topics_request::CreatableTopicConfig { name: "min.insync.replicas".into(), value }]
        } else {
            Vec::new()
        };
        let topic = create_topics_request::CreatableTopic {
            name,
            num_partitions: 1 + self.shared.work(4) as i32,
            replication_factor: 1 + self.shared.work(3) as i16,
            assignments: Vec::new(),
            configs,
        };
        CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false }.into()
    }

    fn alter_config(&self) -> RequestBody {
        let (resource_type, resource_name, name): (i8, StrBytes, &'static str) = match self.shared.work(4) {
            0 => (BROKER, StrBytes::default(), "min.insync.replicas"),
            1 => (BROKER, self.work_broker().to_string().into(), "log.cleaner.threads"),
            2 => (TOPIC, self.work_topic(), "unclean.leader.election.enable"),
            _ => (TOPIC, self.work_topic(), "min.insync.replicas"),
        };
        let is_delete = self.shared.work(4) == 0;
        let value = match name {
            "unclean.leader.election.enable" => (self.shared.work(2) == 0).to_string(),
            _ => (1 + self.shared.work(3)).to_string(),
        };
        let config = incremental_alter_configs_request::AlterableConfig {
            name: name.into(),
            config_operation: i8::from(is_delete),
            value: (!is_delete).then(|| value.into()),
        };
        let resource = incremental_alter_configs_request::AlterConfigsResource {
            resource_type,
            resource_name,
            configs: vec![config],
        };
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }.into()
    }

    fn reassign(&self) -> RequestBody {
        let is_cancel = self.shared.work(4) == 0;
        let mut replicas: Vec<i32> = Vec::new();
        for _ in 0..=self.shared.work(3) {
            let broker = self.work_broker();
            if !replicas.contains(&broker) {
                replicas.push(broker);
            }
        }
        let partition = alter_partition_reassignments_request::ReassignablePartition {
            partition_index: self.shared.work(3) as i32,
            replicas: (!is_cancel).then_some(replicas),
        };
        let topic = alter_partition_reassignments_request::ReassignableTopic {
            name: self.work_topic(),
            partitions: vec![partition],
        };
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: TIMEOUT_MS,
            allow_replication_factor_change: true,
            topics: vec![topic],
        };
        request.into()
    }

    fn elect(&self) -> RequestBody {
        let topic_partitions = (self.shared.work(3) > 0).then(|| {
            let partitions = (0..2).collect();
            vec![elect_leaders_request::TopicPartitions { topic: self.work_topic(), partitions }]
        });
        ElectLeadersRequest { election_type: self.shared.work(2) as i8, topic_partitions, timeout_ms: TIMEOUT_MS }
            .into()
    }

    fn alter_quota(&self) -> RequestBody {
        let name = (self.shared.work(3) > 0).then(|| format!("user-{}", self.shared.work(3)).into());
        let entity = alter_client_quotas_request::EntityData { entity_type: "user".into(), entity_name: name };
        let op = alter_client_quotas_request::OpData {
            key: "producer_byte_rate".into(),
            value: 1_000.0 + self.shared.work(1_000) as f64,
            remove: self.shared.work(3) == 0,
        };
        let entry = alter_client_quotas_request::EntryData { entity: vec![entity], ops: vec![op] };
        AlterClientQuotasRequest { entries: vec![entry], validate_only: false }.into()
    }

    fn create_acl(&self) -> RequestBody {
        let creation = create_acls_request::AclCreation {
            resource_type: 2,
            resource_name: self.work_topic(),
            resource_pattern_type: 3,
            principal: format!("User:user-{}", self.shared.work(3)).into(),
            host: "*".into(),
            operation: 3 + self.shared.work(2) as i8,
            permission_type: 3,
        };
        CreateAclsRequest { creations: vec![creation] }.into()
    }

    fn delete_acl(&self) -> RequestBody {
        let filter = delete_acls_request::DeleteAclsFilter {
            resource_type_filter: 2,
            resource_name_filter: Some(self.work_topic()),
            pattern_type_filter: 3,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
        };
        DeleteAclsRequest { filters: vec![filter] }.into()
    }

    fn alter_scram(&self) -> RequestBody {
        let name: StrBytes = format!("user-{}", self.shared.work(3)).into();
        let (mut deletions, mut upsertions) = (Vec::new(), Vec::new());
        if self.shared.work(3) == 0 {
            deletions.push(alter_user_scram_credentials_request::ScramCredentialDeletion { name, mechanism: 1 });
        } else {
            let byte = self.shared.work(256) as u8;
            upsertions.push(alter_user_scram_credentials_request::ScramCredentialUpsertion {
                name,
                mechanism: 1,
                iterations: 4_096,
                salt: vec![byte; 16].into(),
                salted_password: vec![byte; 32].into(),
            });
        }
        AlterUserScramCredentialsRequest { deletions, upsertions }.into()
    }

    fn update_feature(&self) -> RequestBody {
        let (feature, level, upgrade_type) = match self.shared.work(5) {
            0 => ("kraft.version", 1, 1),
            1 => ("transaction.version", self.shared.work(3) as i16, 1 + self.shared.work(2) as i8),
            2 => ("eligible.leader.replicas.version", 1, 1),
            3 => ("metadata.version", 26 + self.shared.work(5) as i16, 1),
            _ => ("group.version", self.shared.work(2) as i16, 1 + self.shared.work(2) as i8),
        };
        let update = update_features_request::FeatureUpdateKey {
            feature: feature.into(),
            max_version_level: level,
            upgrade_type,
            allow_downgrade: false,
        };
        UpdateFeaturesRequest { timeout_ms: TIMEOUT_MS, feature_updates: vec![update], validate_only: false }.into()
    }
}
