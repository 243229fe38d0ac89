//! What the seed decides about a run before it begins: how large the quorum is, how it is set up, what may go wrong.

use ringlog_log::LogConfig;
use ringlog_quorum::snapshots::SnapshotPolicy;
use ringlog_types::Random;

use super::device::Pace;
use super::network::Weather;
use super::time::{MS, SECOND, Us};

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything that may go wrong does, then all is mended and has to work again.
    Faults,
    /// Leaders come and go all the time.
    Elections,
}

/// How the voters come to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `controller.quorum.voters` names all controllers; `kraft.version` 0.
    Static,
    /// The first `initial` controllers were formatted with each other; `kraft.version` 1.
    Dynamic { initial: usize, auto_join: bool },
}

/// Times of raft, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub election_ms: u64,
    pub fetch_ms: u64,
    pub request_ms: u64,
    pub retry_ms: u64,
    pub linger_ms: u64,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub kind: Kind,
    pub seed: u64,
    pub controllers: usize,
    pub observers: usize,
    pub format: Format,
    pub brokers: usize,
    pub admins: usize,
    pub timeouts: Timeouts,
    pub fetch_max_bytes: u32,
    pub snapshot_max_bytes: u32,
    pub snapshots: SnapshotPolicy,
    /// Old snapshots are looked for this often, beside the node's own minute.
    pub clean_every_us: Us,
    pub log: LogConfig,
    pub session_timeout_ms: u64,
    pub idle_interval_ms: u64,
    pub pace: Pace,
    pub weather: Weather,
    /// How long the cores of a node take to take an image over, at most.
    pub apply_us: Us,
    /// How far clocks are off.
    pub rate_ppm: i64,
    /// Mean time between faults.
    pub fault_every_us: Us,
    /// Mean time between the doings of one client.
    pub think_us: Us,
    /// Of ten thousand bytes of old files one rots now and then.
    pub may_rot: bool,
    /// How long things go wrong.
    pub trouble_us: Us,
}

impl Plan {
    pub(crate) fn new(kind: Kind, seed: u64) -> Plan {
        let mut random = stream(seed, "plan");
        let mut one_of = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
        let controllers = one_of(&[1, 3, 3, 3, 3, 5, 5]) as usize;
        let is_dynamic = one_of(&[0, 1]) == 1;
        let format = if is_dynamic {
            let initial = one_of(&[1, controllers as u64, controllers as u64]) as usize;
            Format::Dynamic { initial, auto_join: initial < controllers || one_of(&[0, 1]) == 1 }
        } else {
            Format::Static
        };
        let timeouts = Timeouts {
            election_ms: one_of(&[300, 1_000, 1_000]),
            fetch_ms: one_of(&[600, 2_000, 2_000]),
            request_ms: one_of(&[600, 2_000, 2_000]),
            retry_ms: one_of(&[20, 20, 50]),
            linger_ms: one_of(&[0, 5, 25]),
        };
        let snapshots = snapshot_policy(&mut one_of);
        let log = log_config(&mut one_of);
        let weather = Weather {
            delay_us: (one_of(&[50, 200, 1_000]), one_of(&[1_000, 3_000, 20_000])),
            late_permille: one_of(&[0, 5, 50]),
            late_us: one_of(&[50, 500, 3_000]) * MS,
            lost_permille: one_of(&[0, 0, 5, 50]),
            doubled_permille: one_of(&[0, 0, 20, 100]),
        };
        let pace = Pace {
            read_us: one_of(&[100, 1_000]),
            write_us: one_of(&[200, 2_000]),
            sync_us: one_of(&[500, 5_000, 20_000]),
        };
        Plan {
            kind,
            seed,
            controllers,
            observers: one_of(&[0, 0, 1, 2]) as usize,
            format,
            brokers: 1 + one_of(&[2, 3, 4]) as usize,
            admins: one_of(&[1, 2, 3]) as usize,
            timeouts,
            fetch_max_bytes: one_of(&[300, 2_000, 1_048_576]) as u32,
            snapshot_max_bytes: one_of(&[200, 1_000, 1_048_576]) as u32,
            snapshots,
            clean_every_us: one_of(&[2, 5, 15]) * SECOND,
            log,
            session_timeout_ms: one_of(&[3_000, 6_000, 9_000]),
            idle_interval_ms: one_of(&[100, 500, 500]),
            pace,
            weather,
            apply_us: one_of(&[100, 5_000, 100_000]),
            rate_ppm: one_of(&[0, 100, 5_000]) as i64,
            fault_every_us: one_of(&[300, 1_000, 3_000]) * MS,
            think_us: one_of(&[30, 100, 300]) * MS,
            may_rot: one_of(&[0, 1, 1]) == 1,
            trouble_us: 40 * SECOND,
        }
    }

    /// A stream of random numbers of its own.
    pub(crate) fn stream(&self, name: &str) -> Random {
        stream(self.seed, name)
    }

    /// All nodes of the quorum.
    pub(crate) fn nodes(&self) -> usize {
        self.controllers + self.observers
    }

    /// Nodes, brokers and administrators.
    pub(crate) fn places(&self) -> usize {
        self.nodes() + self.brokers + self.admins
    }
}

/// Snapshots come often, and few are kept.
fn snapshot_policy(mut one_of: impl FnMut(&[u64]) -> u64) -> SnapshotPolicy {
    SnapshotPolicy {
        max_bytes_between: one_of(&[2_000, 8_000, 30_000, u64::MAX]),
        max_interval_ms: one_of(&[0, 5_000, 20_000]),
        max_retention_bytes: Some(one_of(&[1, 20_000, 200_000])),
        max_retention_ms: Some(one_of(&[2_000, 20_000, 600_000]) as i64),
    }
}

/// Segments are small and many.
fn log_config(mut one_of: impl FnMut(&[u64]) -> u64) -> LogConfig {
    LogConfig {
        segment_bytes: one_of(&[40_000, 100_000, 1_000_000]) as u32,
        segment_ms: one_of(&[5_000, 1_000_000]) as i64,
        index_interval_bytes: one_of(&[0, 500, 4_096]) as u32,
        max_message_bytes: 8 * 1024 * 1024,
        file_delete_delay_ms: one_of(&[10, 1_000, 60_000]) as i64,
        retention_bytes: -1,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn stream(seed: u64, name: &str) -> Random {
    let of_name = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Random::from_seed(seed ^ of_name)
}
