//! What a cluster and its load are, by its seed.

use std::fmt;

use ringlog_e2e_tests::node::Kind;

use super::dice::Dice;
use super::producers;

/// `max.message.bytes` of all topics.
pub const MAX_MESSAGE_BYTES: usize = 60_000;
/// Partitions of each topic.
pub const PARTITIONS: i32 = 3;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Which programs the nodes of clusters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Only Ringlog.
    Ringlog,
    /// Ringlog and Kafka in each cluster.
    Mixed,
    /// Each third cluster is a mixture.
    Both,
}

impl Kinds {
    /// As it is said on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Kinds::Ringlog => "ringlog",
            Kinds::Mixed => "mixed",
            Kinds::Both => "both",
        }
    }
}

/// No such kinds of nodes.
#[derive(Debug)]
pub struct UnknownKinds;

impl fmt::Display for UnknownKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`ringlog`, `mixed` or `both`")
    }
}

impl std::error::Error for UnknownKinds {}

impl std::str::FromStr for Kinds {
    type Err = UnknownKinds;

    fn from_str(text: &str) -> Result<Kinds, UnknownKinds> {
        let all = [Kinds::Ringlog, Kinds::Mixed, Kinds::Both];
        all.into_iter().find(|kinds| kinds.word() == text).ok_or(UnknownKinds)
    }
}

/// A topic.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// What it asks for.
    pub min_insync_replicas: &'static str,
    /// Replicas by partition.
    pub replicas: Vec<Vec<i32>>,
}

/// A cluster.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What all of it follows from.
    pub seed: u64,
    /// The nodes' programs, from id 1 on.
    pub kinds: Vec<Kind>,
    /// What is written to.
    pub topics: Vec<Topic>,
}

impl Plan {
    /// The cluster of a seed.
    pub fn new(seed: u64, kinds: Kinds) -> Plan {
        let mut dice = Dice::new(seed);
        let is_mixed = match kinds {
            Kinds::Ringlog => false,
            Kinds::Mixed => true,
            Kinds::Both => seed % 3 == 2,
        };
        // Three of Kafka beside two of ours are too many for a small machine.
        let count = if is_mixed { 3 } else { dice.pick(&[3, 3, 3, 4, 5]) };
        let mixtures = [[Kind::Ringlog, Kind::Kafka, Kind::Ringlog], [Kind::Kafka, Kind::Ringlog, Kind::Ringlog]];
        let kinds = if is_mixed { dice.pick(&mixtures).to_vec() } else { vec![Kind::Ringlog; count] };
        let mut topics = Vec::new();
        for (name, min_insync_replicas) in [("strict", "2"), ("loose", "1")] {
            let first = dice.below(count);
            let id = |number: usize| ((first + number) % count + 1) as i32;
            let replicas = (0..PARTITIONS as usize).map(|partition| (partition..partition + 3).map(id).collect());
            topics.push(Topic { name, min_insync_replicas, replicas: replicas.collect() });
        }
        Plan { seed, kinds, topics }
    }

    /// Lines for every node.
    pub fn settings() -> &'static str {
        "broker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=200\nreplica.lag.time.max.ms=1200\n\
         replica.fetch.backoff.ms=200\nreplica.socket.timeout.ms=3000\ncontroller.quorum.fetch.timeout.ms=1500\n\
         controller.quorum.election.timeout.ms=500\ncontroller.quorum.request.timeout.ms=1500\n\
         controller.socket.timeout.ms=3000\nauto.leader.rebalance.enable=true\n\
         leader.imbalance.check.interval.seconds=5\nauto.create.topics.enable=false\n\
         unclean.leader.election.enable=false\noffsets.topic.replication.factor=3\noffsets.topic.num.partitions=3\n\
         min.insync.replicas=2\nlog.segment.bytes=1048576\nlog.retention.ms=-1\nlog.cleaner.enable=false\n\
         group.initial.rebalance.delay.ms=0"
    }

    /// All partitions.
    pub fn places(&self) -> Vec<Place> {
        let of = |topic: &Topic| {
            let name = topic.name.to_owned();
            (0..PARTITIONS).map(move |partition| Place { topic: name.clone(), partition })
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// Our own producers.
    pub fn producers(&self) -> Vec<producers::Plan> {
        let plan = |(name, is_idempotent, value_bytes): (&str, bool, usize)| producers::Plan {
            name: name.to_owned(),
            is_idempotent,
            places: self.places(),
            value_bytes,
        };
        [("numbered", true, 300), ("large", true, 4000), ("plain", false, 300)].map(plan).to_vec()
    }
}
