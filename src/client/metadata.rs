use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::metadata_response::MetadataResponseTopic;
use ringlog_protocol::messages::{DescribeClusterResponse, MetadataResponse};
use ringlog_types::Uuid;

/// A broker as the cluster names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// Where it listens.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// Its rack.
    pub rack: Option<String>,
}

impl Broker {
    /// By its id, as an answer names it.
    fn named(id: i32, host: StrBytes, port: i32, rack: Option<StrBytes>) -> (i32, Broker) {
        let port = u16::try_from(port).unwrap_or(0);
        (id, Broker { id, host: host.into(), port, rack: rack.map(String::from) })
    }

    /// `HOST:PORT`; a host that is an IPv6 address is put in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// The partition's own error code.
    pub error_code: i16,
    /// Its leader, or -1.
    pub leader: i32,
    /// The leader's epoch, or -1.
    pub leader_epoch: i32,
    /// Replicas, the preferred one first.
    pub replicas: Vec<i32>,
    /// Replicas that are in sync.
    pub in_sync_replicas: Vec<i32>,
}

/// A topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; zero if the node doesn't give one.
    pub id: Uuid,
    /// The topic's own error code.
    pub error_code: i16,
    /// Whether it is one of the cluster's own.
    pub is_internal: bool,
    /// Its partitions by number.
    pub partitions: Vec<Partition>,
}

/// What is known of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The node that takes administrative requests, or -1. In a KRaft cluster that is any broker; among controllers it
    /// is the active one.
    pub controller_id: i32,
    /// Brokers by id, or controllers if those were asked.
    pub brokers: BTreeMap<i32, Broker>,
    /// Topics by name: those that were asked for.
    pub topics: BTreeMap<Arc<str>, Topic>,
}

impl Metadata {
    pub(crate) fn update(&mut self, response: MetadataResponse, is_all_topics: bool) {
        self.cluster_id = response.cluster_id.map(String::from);
        self.controller_id = response.controller_id;
        let brokers = response.brokers.into_iter();
        self.brokers = brokers.map(|it| Broker::named(it.node_id, it.host, it.port, it.rack)).collect();
        if is_all_topics {
            self.topics.clear();
        }
        for topic in response.topics {
            let topic = Topic::from_response(topic);
            self.topics.insert(Arc::from(topic.name.as_str()), topic);
        }
    }

    /// Takes over the nodes that a controller names; the one that it names as the controller is the active one.
    pub(crate) fn update_nodes(&mut self, response: DescribeClusterResponse) {
        self.cluster_id = Some(String::from(response.cluster_id));
        self.controller_id = response.controller_id;
        let nodes = response.brokers.into_iter();
        self.brokers = nodes.map(|it| Broker::named(it.broker_id, it.host, it.port, it.rack)).collect();
    }

    /// A partition, if it is known.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.iter().find(|known| known.index == partition)
    }
}

impl Topic {
    fn from_response(topic: MetadataResponseTopic) -> Topic {
        let mut partitions: Vec<Partition> = topic
            .partitions
            .into_iter()
            .map(|partition| Partition {
                index: partition.partition_index,
                error_code: partition.error_code,
                leader: partition.leader_id,
                leader_epoch: partition.leader_epoch,
                replicas: partition.replica_nodes,
                in_sync_replicas: partition.isr_nodes,
            })
            .collect();
        partitions.sort_by_key(|partition| partition.index);
        Topic {
            name: topic.name.map(String::from).unwrap_or_default(),
            id: topic.topic_id,
            error_code: topic.error_code,
            is_internal: topic.is_internal,
            partitions,
        }
    }
}
