//! Brokers that only exist for the controllers: they register and send heartbeats, and have no logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ringlog_client::{ClientError, ClientOptions, Connection};
use ringlog_e2e_tests::node::CLUSTER_ID;
use ringlog_protocol::messages::broker_registration_request::{Feature, Listener};
use ringlog_protocol::messages::{BrokerHeartbeatRequest, BrokerRegistrationRequest};
use ringlog_types::{ErrorCode, Random, Uuid};

/// As Kafka's brokers have it.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A broker that knows everything has read at least this far.
const EVERYTHING: i64 = i64::MAX / 2;
/// What Kafka 4.3.1's brokers say that they can do.
const FEATURES: [(&str, i16, i16); 7] = [
    ("eligible.leader.replicas.version", 0, 1),
    ("group.version", 0, 1),
    ("kraft.version", 0, 1),
    ("metadata.version", 7, 30),
    ("share.version", 0, 1),
    ("streams.version", 0, 1),
    ("transaction.version", 0, 2),
];

/// Three of them, each with a thread of its own.
pub struct Brokers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    controllers: Vec<String>,
    is_ending: AtomicBool,
    is_unfenced: [AtomicBool; 3],
}

struct Broker {
    id: i32,
    incarnation: Uuid,
    directory: Uuid,
    epoch: Option<i64>,
}

impl Brokers {
    /// Registers them, and waits until topics can be placed on them.
    pub fn start(controllers: &[String]) -> Result<Brokers> {
        let shared = Arc::new(Shared {
            controllers: controllers.to_vec(),
            is_ending: AtomicBool::new(false),
            is_unfenced: [const { AtomicBool::new(false) }; 3],
        });
        let mut random = Random::from_seed(u64::from(std::process::id()));
        let mut threads = Vec::new();
        for number in 0..3 {
            let (incarnation, directory) = (Uuid::random(&mut random), Uuid::random(&mut random));
            let broker = Broker { id: 101 + number, incarnation, directory, epoch: None };
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || shared.live(broker, number as usize)));
        }
        let brokers = Brokers { shared, threads };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !brokers.shared.is_unfenced.iter().all(|one| one.load(Ordering::Relaxed)) {
            ensure!(Instant::now() < deadline, "the simulated brokers aren't unfenced");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(brokers)
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Looks for the active controller, and stays with it as long as it is that.
    fn live(&self, mut broker: Broker, number: usize) {
        let options = ClientOptions { connect_timeout: Duration::from_secs(1), ..ClientOptions::default() };
        for address in self.controllers.iter().cycle() {
            if self.is_ending() {
                return;
            }
            if let Ok(mut connection) = Connection::connect(address, &options) {
                // Why it ended doesn't matter: another controller may know better.
                let _ = self.serve(&mut broker, number, &mut connection);
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn serve(&self, broker: &mut Broker, number: usize, connection: &mut Connection) -> Result<()> {
        while !self.is_ending() {
            let epoch = match broker.epoch {
                Some(epoch) => epoch,
                None => broker.register(connection)?,
            };
            broker.epoch = Some(epoch);
            let request = BrokerHeartbeatRequest {
                broker_id: broker.id,
                broker_epoch: epoch,
                current_metadata_offset: EVERYTHING,
                cordoned_log_dirs: Some(Vec::new()),
                ..BrokerHeartbeatRequest::default()
            };
            let response = connection.call(&request)?;
            match ErrorCode::from_code(response.error_code) {
                Some(ErrorCode::None) => self.is_unfenced[number].store(!response.is_fenced, Ordering::Relaxed),
                Some(ErrorCode::StaleBrokerEpoch) => {
                    broker.epoch = None;
                    continue;
                }
                other => bail!("a heartbeat was answered with {other:?}"),
            }
            thread::park_timeout(if response.is_fenced { Duration::from_millis(100) } else { HEARTBEAT });
        }
        Ok(())
    }
}

impl Broker {
    fn register(&self, connection: &mut Connection) -> Result<i64> {
        let listener = Listener {
            name: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port: 9000 + self.id as u16,
            ..Listener::default()
        };
        let feature = |(name, min_supported_version, max_supported_version): (&'static str, i16, i16)| Feature {
            name: name.into(),
            min_supported_version,
            max_supported_version,
        };
        let request = BrokerRegistrationRequest {
            broker_id: self.id,
            cluster_id: CLUSTER_ID.into(),
            incarnation_id: self.incarnation,
            listeners: vec![listener],
            features: FEATURES.map(feature).into(),
            log_dirs: vec![self.directory],
            previous_broker_epoch: -1,
            ..BrokerRegistrationRequest::default()
        };
        let response = connection.call(&request)?;
        ClientError::check(response.error_code, None, || format!("registering broker {}", self.id))?;
        Ok(response.broker_epoch)
    }
}
