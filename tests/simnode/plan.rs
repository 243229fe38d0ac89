//! What a run is like: nodes, topics, clients, weather. All of it follows from the seed.

use ringlog_config::ConfigMap;
use ringlog_ring::sim::{CoreSettings, MS, NetworkSettings, SECOND, Settings};
use ringlog_types::Random;

use crate::client::consumer::rack_of;
use crate::nemesis::{Fault, Planned};
use crate::weather::{self, Weather};
use crate::workload::Workload;

/// The port of clients.
pub const CLIENT_PORT: u16 = 9092;
/// The port of the quorum.
pub const CONTROLLER_PORT: u16 = 9093;

/// Small limits of requests hold the largest that clients send, and hardly two.
const REQUEST_BYTES_MAX: u64 = 6 << 20;
/// The largest batches of producers.
const BATCH_BYTES_MAX: u64 = 800_000;
/// Of a hundred plans with replicas so many have brokers that are Kafka's.
const WITH_KAFKA_PERCENT: u64 = 20;
/// How long a replica may lag in runs in which one does.
const PARTED_LAG_MS: &str = "1500";
/// What batches and records take beside what is drawn of their values, at most.
const HEADER_BYTES: u64 = 100;
const RECORD_BYTES: u64 = 40;

/// A node.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// `node.id`.
    pub id: i32,
    /// Part of the quorum.
    pub is_controller: bool,
    /// Serves clients.
    pub is_broker: bool,
    /// CPUs of its host: from four on the controller has a core of its own.
    pub cpus: usize,
    /// `ringlog.shards`.
    pub shards: usize,
    /// Log directories, each on a disk of its own.
    pub log_dirs: usize,
    /// Parts per million that its clock is fast.
    pub rate_ppm: i64,
    /// It isn't one of ours but a model of Kafka's broker.
    pub is_kafka: bool,
}

/// A topic. Its partitions have one replica each.
#[derive(Debug, Clone)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// How many.
    pub partitions: i32,
    /// `flush.messages` is 1: what is acknowledged survives a power failure.
    pub flushes: bool,
    /// `internal.segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: u64,
}

/// A producer.
#[derive(Debug, Clone)]
pub struct ProducerPlan {
    /// Where to, by place in the plan.
    pub topic: usize,
    /// 0, 1 or -1.
    pub acks: i16,
    /// With sequence numbers.
    pub is_idempotent: bool,
    /// Requests on their way at a time.
    pub in_flight: usize,
    /// The most records of a batch.
    pub batch_records_max: u64,
    /// The largest value, roughly.
    pub value_bytes_max: u64,
    /// The longest pause between two requests.
    pub pause_ms_max: u64,
    /// Batches are compressed.
    pub is_compressed: bool,
    /// How long it waits for an answer.
    pub answer_limit_ms: u64,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What most goes wrong.
    pub weather: Weather,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// The quorum's voters are formatted into the directories instead of standing in the configuration.
    pub has_dynamic_quorum: bool,
    /// So many controllers, the first ones, are voters of a dynamic quorum from the beginning.
    pub initial_voters: usize,
    /// How many replicas the topics' partitions have.
    pub replicas: i16,
    /// Topics.
    pub topics: Vec<TopicPlan>,
    /// Producers.
    pub producers: Vec<ProducerPlan>,
    /// How many read, one topic each.
    pub consumers: usize,
    /// How many commit offsets.
    pub committers: usize,
    /// Somebody makes and deletes topics.
    pub has_admin: bool,
    /// Somebody misbehaves.
    pub has_rude_client: bool,
    /// Somebody moves replicas.
    pub has_mover: bool,
    /// Brokers and readers have racks, and readers are sent to replicas near them.
    pub has_racks: bool,
    /// Who isn't in sync may come to lead: nothing is promised but that all replicas are the same in the end.
    pub is_unclean: bool,
    /// What else clients do.
    pub workload: Workload,
    /// What goes wrong, in the order of time.
    pub faults: Vec<Planned>,
    /// How long the nodes are left to it, at least.
    pub lasts_ns: u64,
    /// How long clients other than producers wait for an answer that needn't wait itself.
    pub answer_limit_ms: u64,
    /// Keys of server.properties that all nodes have.
    pub properties: Vec<(&'static str, String)>,
    pub(crate) out_of_order_permille: u64,
    pub(crate) partial_permille: u64,
    pub(crate) loss_permille: u64,
    pub(crate) late_permille: u64,
    pub(crate) slow_permille: u64,
}

/// Draws of plans.
pub(crate) struct Draws(pub(crate) Random);

impl Draws {
    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.below(of.len() as u64) as usize]
    }

    pub(crate) fn yes(&mut self, of_a_hundred: u64) -> bool {
        self.0.below(100) < of_a_hundred
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.0.below(most - least + 1)
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        Plan::drawn(seed, None, 1)
    }

    /// The plan of a seed in a weather.
    pub fn in_weather(seed: u64, weather: Weather) -> Plan {
        Plan::drawn(seed, Some(weather), 1)
    }

    /// The plan of a seed whose partitions have several replicas. What they are promised is that what all in-sync replicas
    /// have is there, whoever leads.
    pub fn replicated(seed: u64) -> Plan {
        Plan::with_replicas(seed, false).with_kafka_in_some()
    }

    /// The same where some brokers are Kafka's for certain.
    pub fn mixed(seed: u64) -> Plan {
        Plan::with_replicas(seed, false).with_kafka(&mut Plan::draws_of_kafka(seed).1)
    }

    /// The plan of a seed in which who isn't in sync may come to lead.
    pub fn unclean(seed: u64) -> Plan {
        Plan::with_replicas(seed, true).with_kafka_in_some()
    }

    /// Draws of their own, so that plans without such brokers stay as they are; and whether there are any.
    fn draws_of_kafka(seed: u64) -> (bool, Draws) {
        // With this number the seeds that are kept because they found something have none.
        let mut draws = Draws(Random::from_seed(seed ^ 0x4a_f4a8));
        (draws.yes(WITH_KAFKA_PERCENT), draws)
    }

    fn with_kafka_in_some(self) -> Plan {
        let (has_some, mut draws) = Plan::draws_of_kafka(self.seed);
        if has_some { self.with_kafka(&mut draws) } else { self }
    }

    /// One or two of the brokers that aren't controllers are Kafka's; where there are too few, more come.
    fn with_kafka(mut self, draws: &mut Draws) -> Plan {
        let count = draws.one(&[1, 1, 2]);
        while self.nodes.iter().filter(|node| !node.is_controller).count() < count {
            let id = self.nodes.len() as i32 + 1;
            let like = self.nodes[0].clone();
            self.nodes.push(NodePlan { id, is_controller: false, is_broker: true, ..like });
        }
        let mut alone: Vec<usize> = (0..self.nodes.len()).filter(|place| !self.nodes[*place].is_controller).collect();
        for _ in 0..count {
            let place = alone.swap_remove(draws.0.below(alone.len() as u64) as usize);
            (self.nodes[place].is_kafka, self.nodes[place].log_dirs) = (true, 1);
        }
        // They have no coordinators.
        self.workload.groups.clear();
        self.committers = 0;
        // What can't happen to them.
        let is_kafka = |node: usize| self.nodes[node].is_kafka;
        self.faults.retain(|planned| planned.fault.disk().is_none_or(|node| !is_kafka(node)));
        self
    }

    fn with_replicas(seed: u64, is_unclean: bool) -> Plan {
        let mut draws = Draws(Random::from_seed(seed ^ 0x0e91_1ca5));
        let (usual, unclean) = (draws.one(&Weather::OF_REPLICAS), draws.one(&[Weather::Succession, Weather::Kills]));
        let weather = if is_unclean { unclean } else { usual };
        let mut plan = Plan::drawn(seed, Some(weather), 3);
        plan.faults.retain(|planned| !planned.fault.takes_power());
        for producer in &mut plan.producers {
            // What the leader alone acknowledged may go with it.
            producer.acks = if producer.acks == 1 { -1 } else { producer.acks };
            producer.in_flight = if producer.is_idempotent { 1 } else { producer.in_flight };
        }
        plan.workload.make_plain();
        plan.is_unclean = is_unclean;
        plan.has_mover = !matches!(weather, Weather::Parting | Weather::Resets) && draws.yes(50);
        plan.has_racks = draws.yes(40);
        if plan.is_unclean {
            plan.workload.groups.clear();
            plan.workload.topics.iter_mut().for_each(|topic| topic.is_pruned = false);
            plan.committers = 0;
            plan.properties.push(("unclean.leader.election.enable", "true".to_owned()));
        }
        if plan.has_racks {
            let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
            plan.properties.push(("replica.selector.class", selector.to_owned()));
        }
        // While a broker is apart from the others, each may be alone.
        let is_alone = plan.is_unclean || weather == Weather::Parting;
        let min_in_sync = if is_alone { "1" } else { draws.one(&["1", "2", "2"]) };
        let (lag_ms, wait_ms) = match weather {
            // Who isn't woken is noticed. A partition that comes to another leader waits for the fetch that waits there, as in
            // Kafka: not where leaders change.
            Weather::Calm if !plan.has_mover => draws.one(&[("4000", "500"), ("30000", "20000")]),
            Weather::Parting => (PARTED_LAG_MS, "500"),
            _ => (draws.one(&["1500", "4000"]), draws.one(&["100", "500"])),
        };
        let socket_ms = draws.one(&["1000", "30000"]);
        plan.properties.extend([
            ("offsets.topic.replication.factor", "3".to_owned()),
            ("min.insync.replicas", min_in_sync.to_owned()),
            ("replica.lag.time.max.ms", lag_ms.to_owned()),
            ("replica.fetch.wait.max.ms", wait_ms.to_owned()),
            ("replica.socket.timeout.ms", if weather == Weather::Calm { "30000" } else { socket_ms }.to_owned()),
            ("replica.fetch.backoff.ms", draws.one(&["50", "300"]).to_owned()),
            ("replica.fetch.max.bytes", draws.one(&["1000", "100000", "1048576"]).to_owned()),
            ("replica.fetch.response.max.bytes", draws.one(&["1000", "100000", "10485760"]).to_owned()),
        ]);
        plan
    }

    fn drawn(seed: u64, weather: Option<Weather>, replicas: i16) -> Plan {
        let mut draws = Draws(Random::from_seed(seed ^ 0x516d_0de5));
        let drawn = draws.one(&Weather::DRAWN);
        let weather = weather.unwrap_or(drawn);
        let nodes = nodes(&mut draws, weather, replicas);
        let flushes_everywhere = draws.yes(if weather == Weather::Power { 40 } else { 60 });
        let mut topics: Vec<TopicPlan> = (0..draws.one(&[1, 1, 2]))
            .map(|number| TopicPlan {
                name: format!("orders-{number}"),
                partitions: draws.between(1, 6) as i32,
                flushes: flushes_everywhere || draws.yes(50),
                segment_bytes: draws.one(&[64 << 10, 1 << 20, 1 << 30]),
                segment_ms: draws.one(&[100, 1_000, 604_800_000]),
            })
            .collect();
        let mut workload = Workload::of(seed, topics.len());
        for (topic, more) in topics.iter_mut().zip(&mut workload.topics) {
            topic.segment_bytes = topic.segment_bytes.min(more.segment_bytes_max);
            more.message_bytes_max = more.message_bytes_max.map(|bytes| bytes.min(topic.segment_bytes / 2));
        }
        let mut producers: Vec<_> = (0..draws.between(1, 3)).map(|_| producer(&mut draws, &topics)).collect();
        for producer in &mut producers {
            // What is too large is another's business.
            if let Some(most) = workload.topics[producer.topic].message_bytes_max {
                let most = (most - HEADER_BYTES) / producer.batch_records_max - RECORD_BYTES;
                producer.value_bytes_max = producer.value_bytes_max.min(most);
            }
        }
        let lasts_ns = draws.between(2, 12) * SECOND;
        let (faults, lasts_ns) = weather::faults(&mut draws, weather, &nodes, lasts_ns);
        if faults.iter().any(|planned| planned.fault.restarts_nodes()) {
            // A producer snapshot, Kafka's as ours, holds each producer's last batch only: of several that weren't
            // answered before a restart, the others aren't known again after it.
            producers.iter_mut().filter(|producer| producer.is_idempotent).for_each(|producer| producer.in_flight = 1);
        }
        let is_watched = weather.is_watched();
        Plan {
            seed,
            weather,
            has_dynamic_quorum: draws.yes(40),
            initial_voters: usize::MAX,
            replicas,
            has_mover: false,
            has_racks: false,
            is_unclean: false,
            consumers: draws.one(&[1, 2, 3]),
            committers: draws.one(&[0, 1, 2]),
            has_admin: draws.yes(40),
            has_rude_client: draws.yes(35),
            properties: properties(&mut draws, flushes_everywhere).into_iter().chain(workload.properties()).collect(),
            workload,
            out_of_order_permille: draws.one(&[0, 0, 50]),
            partial_permille: draws.one(&[10, 10, 300]),
            // What is lost or slow may bring an election about, and a new controller gives every broker a new session.
            loss_permille: draws.one(&[0, 0, 0, 2]) * u64::from(!is_watched),
            late_permille: draws.one(&[0, 0, 20]),
            slow_permille: draws.one(&[0, 1, 20]) * u64::from(!is_watched),
            // Longer than a silent broker may be taken for alive, mostly.
            answer_limit_ms: draws.one(&[5_000, 5_000, 5_000, 45_000]),
            nodes,
            topics,
            producers,
            faults,
            lasts_ns,
        }
    }

    /// How the world is.
    pub fn world(&self) -> Settings {
        Settings {
            seed: self.seed,
            cores: CoreSettings { out_of_order_permille: self.out_of_order_permille, ..CoreSettings::default() },
            network: NetworkSettings {
                partial_permille: self.partial_permille,
                loss_permille: self.loss_permille,
                late_permille: self.late_permille,
                late_ns: 20 * MS,
                ..NetworkSettings::default()
            },
        }
    }

    /// Of a thousand operations of a disk so many are slow.
    pub fn slow_permille(&self) -> u64 {
        self.slow_permille
    }

    /// The voters as `controller.quorum.voters` has them.
    fn voters(&self) -> Vec<&NodePlan> {
        self.nodes.iter().filter(|node| node.is_controller).collect()
    }

    /// `log.index.interval.bytes`.
    pub fn index_interval_bytes(&self) -> u64 {
        let own = self.properties.iter().find(|(key, _)| *key == "log.index.interval.bytes");
        own.and_then(|(_, value)| value.parse().ok()).unwrap_or(4_096)
    }

    /// The value of a key of server.properties, if it has one: the last that stands there.
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// How long a follower may wait for an answer of its leader that got lost: not at all where none gets lost.
    pub fn lost_answer_ms(&self) -> u64 {
        if !self.faults.iter().any(|planned| planned.fault.loses_answers()) {
            return 0;
        }
        self.property("replica.socket.timeout.ms").and_then(|value| value.parse().ok()).unwrap_or(30_000)
    }

    /// Whether some producer to a topic wants answers.
    pub fn is_answered(&self, topic: usize) -> bool {
        self.producers.iter().any(|producer| producer.topic == topic && producer.acks != 0)
    }

    /// Whether a request from one node to another may be carried out long after, and a second time.
    pub fn are_nodes_parted(&self) -> bool {
        // Where no node ends, one of the two waits too long for the other.
        self.loss_permille > 0 || self.faults.iter().any(|planned| !planned.fault.restarts_nodes())
    }

    /// Whether somebody may never learn that a connection was reset: that is said once, and not again.
    pub fn are_resets_lost(&self) -> bool {
        self.loss_permille > 0
    }

    /// Whether clients are answered, or see that nobody answers, whatever goes wrong: they aren't cut off, and no node
    /// goes without a word. Nothing lasts for as long as clients wait.
    pub fn is_always_answered(&self) -> bool {
        !self.are_resets_lost()
            && self.faults.iter().all(|planned| match planned.fault {
                Fault::PowerOff { .. } | Fault::PowerOffAll | Fault::Lossy { .. } => false,
                Fault::Isolate { from_clients, .. } => !from_clients,
                _ => true,
            })
    }

    /// A node's server.properties.
    pub fn properties(&self, node: &NodePlan) -> ConfigMap {
        let host = node.host();
        let listener = |name: &str, port: u16| format!("{name}://{host}:{port}");
        let mut listeners = Vec::new();
        let mut roles = Vec::new();
        if node.is_broker {
            listeners.push(listener("PLAINTEXT", CLIENT_PORT));
            roles.push("broker");
        }
        if node.is_controller {
            listeners.push(listener("CONTROLLER", CONTROLLER_PORT));
            roles.push("controller");
        }
        let quorum = match self.has_dynamic_quorum {
            true => {
                let servers = self.voters().into_iter().map(|voter| format!("{}:{CONTROLLER_PORT}", voter.host()));
                ("controller.quorum.bootstrap.servers", servers.collect::<Vec<_>>().join(","))
            }
            false => {
                let voters = self.voters().into_iter();
                let voters = voters.map(|voter| format!("{}@{}:{CONTROLLER_PORT}", voter.id, voter.host()));
                ("controller.quorum.voters", voters.collect::<Vec<_>>().join(","))
            }
        };
        let properties = [
            ("process.roles", roles.join(",")),
            ("node.id", node.id.to_string()),
            ("listeners", listeners.join(",")),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("log.dirs", node.directories().join(",")),
            ("ringlog.shards", node.shards.to_string()),
            quorum,
        ];
        let rack = self.has_racks.then(|| ("broker.rack", rack_of(node.id)));
        let properties = properties.into_iter().chain(rack);
        // Of a key that stands there twice the last counts.
        let all = properties.into_iter().chain(self.properties.iter().map(|(key, value)| (*key, value.clone())));
        all.map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl NodePlan {
    /// Its host's name.
    pub fn host(&self) -> String {
        format!("n{}", self.id)
    }

    /// Its log directories.
    pub fn directories(&self) -> Vec<String> {
        (1..=self.log_dirs).map(|number| format!("/d{number}/data")).collect()
    }
}

fn nodes(draws: &mut Draws, weather: Weather, replicas: i16) -> Vec<NodePlan> {
    // Combined, controllers alone, brokers alone.
    let all = [
        (1, 0, 0),
        (1, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
        (3, 0, 0),
        (3, 0, 0),
        (1, 0, 2),
        (0, 1, 2),
        (0, 3, 2),
        (3, 0, 2),
        (0, 3, 4),
    ];
    // Who falls silent must be a broker alone.
    let with_brokers = [(1, 0, 2), (0, 1, 2), (0, 1, 2), (0, 3, 2)];
    let for_replicas = [(3, 0, 0), (3, 0, 0), (0, 1, 3), (0, 3, 3), (3, 0, 1), (3, 0, 2), (0, 1, 5), (0, 3, 4)];
    let apart = [(0, 1, 3), (0, 3, 3), (0, 1, 4)];
    let (combined, controllers, brokers) = match weather {
        Weather::Parting => draws.one(&apart),
        _ if replicas > 1 => draws.one(&for_replicas),
        Weather::Silence => draws.one(&with_brokers),
        _ => draws.one(&all),
    };
    let roles = [(combined, true, true), (controllers, true, false), (brokers, false, true)];
    let mut nodes = Vec::new();
    for (count, is_controller, is_broker) in roles {
        for _ in 0..count {
            let cpus = draws.one(&[1, 2, 2, 4]);
            nodes.push(NodePlan {
                id: nodes.len() as i32 + 1,
                is_controller,
                is_broker,
                cpus,
                shards: draws.between(1, cpus.min(3) as u64) as usize,
                log_dirs: draws.one(&[1, 1, 2, 3]),
                rate_ppm: draws.one(&[0, 0, 200, -200]),
                is_kafka: false,
            });
        }
    }
    nodes
}

fn producer(draws: &mut Draws, topics: &[TopicPlan]) -> ProducerPlan {
    let topic = draws.0.below(topics.len() as u64) as usize;
    // A batch has to fit into a segment.
    let batch_bytes_max = BATCH_BYTES_MAX.min(topics[topic].segment_bytes / 2);
    let is_idempotent = draws.yes(60);
    let batch_records_max = draws.one(&[1, 5, 50]);
    ProducerPlan {
        topic,
        acks: if is_idempotent { -1 } else { draws.one(&[-1, 1, 0]) },
        is_idempotent,
        in_flight: draws.one(&[1, 2, 5]),
        batch_records_max,
        value_bytes_max: draws.one(&[20, 2_000, 60_000]).min(batch_bytes_max / batch_records_max),
        pause_ms_max: draws.one(&[5, 20, 60]),
        is_compressed: draws.yes(30),
        answer_limit_ms: draws.one(&[1_000, 5_000, 5_000, 60_000]),
    }
}

fn properties(draws: &mut Draws, flushes: bool) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("offsets.topic.num.partitions", "3".to_owned()),
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("share.coordinator.state.topic.replication.factor", "1".to_owned()),
        ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("group.min.session.timeout.ms", "1000".to_owned()),
        ("broker.session.timeout.ms", "3000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
    ];
    if draws.yes(30) {
        properties.push(("socket.request.max.bytes", REQUEST_BYTES_MAX.to_string()));
        properties.push(("queued.max.request.bytes", REQUEST_BYTES_MAX.to_string()));
    }
    if flushes {
        properties.push(("log.flush.interval.messages", "1".to_owned()));
    }
    let mut small = |key, values: &[&str], of_a_hundred| {
        if draws.yes(of_a_hundred) {
            properties.push((key, draws.one(values).to_owned()));
        }
    };
    small("log.index.interval.bytes", &["0", "512"], 40);
    small("metadata.log.max.record.bytes.between.snapshots", &["2000", "20000"], 50);
    small("metadata.log.max.snapshot.interval.ms", &["2000", "0"], 40);
    small("internal.metadata.log.segment.bytes", &["5000", "40000"], 40);
    small("metadata.max.retention.bytes", &["1", "20000"], 40);
    small("log.flush.offset.checkpoint.interval.ms", &["500", "5000"], 50);
    small("log.flush.start.offset.checkpoint.interval.ms", &["500"], 30);
    small("replica.high.watermark.checkpoint.interval.ms", &["300"], 40);
    small("file.delete.delay.ms", &["0", "200"], 40);
    small("ringlog.response.memory.bytes", &["20000000"], 30);
    small("ringlog.frames.memory.bytes", &["20000000"], 30);
    small("max.connections", &["40", "40", "200"], 35);
    small("max.incremental.fetch.session.cache.slots", &["1", "2"], 25);
    small("producer.id.expiration.ms", &["86400000"], 10);
    small("controller.quorum.election.timeout.ms", &["300"], 30);
    // None, and as little as it keeps at all.
    small("ringlog.cache.memory.bytes", &["0", "2097152"], 50);
    properties
}
