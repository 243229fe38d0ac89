//! What a run of the quorum is like; the seed says it.

use ringlog_types::Random;

use crate::plan::{Draws, NodePlan, Plan};
use crate::weather::Weather;
use crate::workload::Workload;

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything that may go wrong does, then all is mended and has to work again.
    Faults,
    /// Leaders come and go all the time.
    Elections,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct QuorumPlan {
    /// What for.
    pub kind: Kind,
    /// Nodes and what they are configured with.
    pub plan: Plan,
    /// How many administrators there are.
    pub admins: usize,
    /// The longest that an administrator does nothing.
    pub think_ms: u64,
    /// Half of what administrators do is about the voters.
    pub changes_voters_often: bool,
    /// `controller.quorum.fetch.timeout.ms`.
    pub fetch_timeout_ms: u64,
    /// Mean time between faults.
    pub fault_every_ms: u64,
    /// Bytes of old files may rot, and disks be replaced.
    pub may_hurt: bool,
    /// And that is half of what goes wrong.
    pub hurts_often: bool,
    /// How long things go wrong.
    pub trouble_ms: u64,
    /// Where the faults come from.
    pub fault_seed: u64,
}

impl QuorumPlan {
    /// The plan of a seed.
    pub fn of(kind: Kind, seed: u64) -> QuorumPlan {
        let mut draws = Draws(Random::from_seed(seed ^ 0x9e0_5a11));
        let is_about_elections = kind == Kind::Elections;
        let controllers = match kind {
            Kind::Faults => draws.one(&[1, 3, 3, 3, 3, 3, 4, 5, 5, 7]),
            Kind::Elections => draws.one(&[3, 3, 3, 3, 4, 5]),
        };
        let brokers = if is_about_elections { 0 } else { draws.one(&[0, 1, 1, 2, 2, 4]) };
        let is_combined = !is_about_elections && draws.yes(30);
        let nodes = nodes(&mut draws, controllers, brokers, kind, is_combined);
        let has_dynamic_quorum = draws.yes(if is_about_elections { 30 } else { 50 });
        let initial_voters = match draws.one(&[0, 0, 1]) {
            1 if has_dynamic_quorum && !is_about_elections => 1,
            _ => controllers as usize,
        };
        let election_timeout_ms: u64 = draws.one(if is_about_elections { &[50, 100, 300] } else { &[300, 1_000] });
        let fetch_timeout_ms: u64 = draws.one(if is_about_elections { &[100, 200, 600] } else { &[600, 2_000] });
        let mut properties = properties(&mut draws, is_about_elections);
        properties.extend([
            ("controller.quorum.election.timeout.ms", election_timeout_ms.to_string()),
            ("controller.quorum.fetch.timeout.ms", fetch_timeout_ms.to_string()),
        ]);
        if has_dynamic_quorum && (initial_voters < controllers as usize || draws.yes(50)) {
            properties.push(("controller.quorum.auto.join.enable", "true".to_owned()));
        }
        let may_hurt = !is_about_elections && draws.yes(60);
        let (think_ms, fault_every_ms) = (draws.one(&[60, 200, 500]), draws.one(&[300, 1_000, 2_500]));
        QuorumPlan {
            kind,
            admins: draws.one(&[1, 2, 3]),
            changes_voters_often: has_dynamic_quorum && !is_about_elections && draws.yes(50),
            think_ms: if is_about_elections { 2_000 } else { think_ms },
            fetch_timeout_ms,
            fault_every_ms: if is_about_elections { draws.one(&[50, 100, 200]) } else { fault_every_ms },
            may_hurt,
            hurts_often: may_hurt && draws.yes(50),
            trouble_ms: if is_about_elections { 30_000 } else { 20_000 },
            fault_seed: draws.0.next_u64(),
            plan: Plan {
                has_mover: false,
                has_racks: false,
                is_unclean: false,
                seed,
                nodes,
                has_dynamic_quorum,
                initial_voters,
                replicas: 1,
                topics: Vec::new(),
                producers: Vec::new(),
                consumers: 0,
                committers: 0,
                has_admin: false,
                has_rude_client: false,
                weather: Weather::Calm,
                workload: Workload::default(),
                faults: Vec::new(),
                lasts_ns: 0,
                properties,
                out_of_order_permille: draws.one(&[0, 0, 50]),
                partial_permille: draws.one(&[10, 10, 300]),
                loss_permille: draws.one(&[0, 0, 2]),
                late_permille: draws.one(&[0, 0, 20]),
                slow_permille: draws.one(&[0, 1, 20]),
                answer_limit_ms: 45_000,
            },
        }
    }
}

fn nodes(draws: &mut Draws, controllers: i32, brokers: i32, kind: Kind, is_combined: bool) -> Vec<NodePlan> {
    let node = |id| {
        let is_controller = id <= controllers;
        let cpus = if kind == Kind::Elections { 1 } else { draws.one(&[1, 1, 2, 4]) };
        NodePlan {
            id,
            is_controller,
            is_broker: !is_controller || is_combined,
            cpus,
            shards: 1,
            log_dirs: 1,
            rate_ppm: draws.one(&[0, 0, 200, -200]),
            is_kafka: false,
        }
    };
    (1..=controllers + brokers).map(node).collect()
}

fn properties(draws: &mut Draws, is_about_elections: bool) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("broker.session.timeout.ms", "3000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
    ];
    // In some runs snapshots come often, and the log below them goes soon.
    let is_small = !is_about_elections && draws.yes(35);
    let mut one = |key, values: &[&str]| {
        let value = if is_small { values[0] } else { draws.one(values) };
        properties.push((key, value.to_owned()));
    };
    if is_about_elections {
        one("controller.quorum.request.timeout.ms", &["100", "200", "600"]);
        one("controller.quorum.election.backoff.max.ms", &["20", "50", "200"]);
        return properties;
    }
    one("controller.quorum.request.timeout.ms", &["600", "2000"]);
    one("controller.quorum.election.backoff.max.ms", &["200", "1000"]);
    one("controller.quorum.append.linger.ms", &["0", "5", "25"]);
    one("controller.quorum.fetch.max.bytes", &["2000", "300", "1048576"]);
    one("controller.quorum.fetch.snapshot.max.bytes", &["200", "1000", "1048576"]);
    one("metadata.log.max.record.bytes.between.snapshots", &["1000", "4000", "20971520"]);
    one("metadata.log.max.snapshot.interval.ms", &["0", "2000", "10000"]);
    one("internal.metadata.log.segment.bytes", &["6000", "10000", "40000", "1000000"]);
    one("metadata.max.retention.bytes", &["1", "10000", "104857600"]);
    one("metadata.max.retention.ms", &["2000", "600000"]);
    one("internal.metadata.delete.delay.millis", &["10", "1000", "60000"]);
    one("metadata.max.idle.interval.ms", &["100", "500", "3000"]);
    properties
}
