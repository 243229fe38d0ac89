//! A node of real Kafka and one of Ringlog in the same state, that are asked the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ringlog_client::{ClientError, ClientOptions, Connection};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::wait_until;

use super::masks::mask;
use super::names::Names;
use super::wire::{Api, Value, apis};

/// The client's name in requests, and the beginning of members' ids.
pub const CLIENT_ID: &str = "answers";
const PATIENCE: Duration = Duration::from_secs(20);
/// Within this time what was changed has reached everything in both nodes.
pub const SPREADING: Duration = Duration::from_secs(5);

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// This answer, under common names, without what differs by nature.
    Answer(Value),
    /// No answer was due, and others are answered.
    Silence,
    /// The connection was closed.
    Closed,
    /// The answer can't be read.
    Unreadable(String),
}

/// An API and the versions of it.
pub type Served = (&'static Api, i16, i16);

/// Both nodes.
pub struct Pair {
    kafka: Side,
    ringlog: Side,
    /// All APIs, by their names.
    pub apis: BTreeMap<&'static str, &'static Api>,
}

struct Side {
    node: Node,
    connection: Option<Connection>,
    names: Names,
    correlation_id: i32,
    is_controller: bool,
    /// Keys of APIs that only one of the nodes serves.
    others: Vec<i16>,
}

impl Pair {
    /// Starts both with these settings; the controller's listener is asked if `is_controller`.
    pub fn start(settings: &str, is_controller: bool) -> Result<Pair> {
        let side = |kind: Kind| -> Result<Side> {
            let name = format!("answers-{kind:?}").to_lowercase();
            let node = Node::start_new(&name, kind, settings)?;
            Ok(Side {
                node,
                connection: None,
                names: Names::default(),
                correlation_id: 0,
                is_controller,
                others: Vec::new(),
            })
        };
        let all: &'static BTreeMap<i16, Api> = Box::leak(Box::new(apis()?));
        let apis = all.values().map(|api| (api.name, api)).collect();
        Ok(Pair { kafka: side(Kind::Kafka)?, ringlog: side(Kind::Ringlog)?, apis })
    }

    /// What Ringlog says it serves, with the versions that both know, and what Kafka serves beyond that.
    pub fn served(&mut self) -> Result<(Vec<Served>, Vec<String>)> {
        let (kafka, ringlog) = (self.kafka.versions()?, self.ringlog.versions()?);
        let (mut served, mut others) = (Vec::new(), Vec::new());
        for (key, (first, last)) in &kafka {
            let api = self.apis.values().find(|api| api.key == *key).context("an API that no schema is of")?;
            match ringlog.get(key) {
                Some(own) if own == &(*first, *last) => {
                    let versions = api.request.versions;
                    served.push((*api, versions.0.max(*first), versions.1.min(*last)));
                }
                Some((own_first, own_last)) => others.push(format!("{} {own_first} to {own_last}", api.name)),
                None => others.push(api.name.to_owned()),
            }
        }
        let only_there: Vec<i16> = kafka.keys().copied().filter(|key| !ringlog.contains_key(key)).collect();
        self.kafka.others.clone_from(&only_there);
        others.extend(ringlog.keys().filter(|key| !kafka.contains_key(key)).map(|key| format!("only here: {key}")));
        Ok((served, others))
    }

    /// Asks both.
    pub fn ask(&mut self, api: &'static Api, version: i16, body: &Value) -> Result<(Outcome, Outcome)> {
        self.kafka.send(api, version, body)?;
        self.ringlog.send(api, version, body)?;
        let kafka = self.kafka.receive(api, version, body)?;
        let ringlog = self.ringlog.receive(api, version, body)?;
        Ok((kafka, ringlog))
    }

    /// Asks both for what asking again doesn't change, until they answer alike or long enough.
    pub fn ask_until_alike(
        &mut self,
        api: &'static Api,
        version: i16,
        body: &Value,
        patience: Duration,
    ) -> Result<(Outcome, Outcome)> {
        let deadline = Instant::now() + patience;
        loop {
            let outcomes = self.ask(api, version, body)?;
            if outcomes.0 == outcomes.1 || Instant::now() > deadline {
                return Ok(outcomes);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends bytes that need not be a request.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(Outcome, Outcome)> {
        Ok((self.kafka.send_bytes(bytes)?, self.ringlog.send_bytes(bytes)?))
    }

    /// Waits until both accept this answer to the request.
    pub fn wait_for(&mut self, api: &str, version: i16, body: &Value, is_right: impl Fn(&Value) -> bool) -> Result<()> {
        let api = self.apis.get(api).context("a known API")?;
        for side in [&mut self.kafka, &mut self.ringlog] {
            wait_until(api.name, PATIENCE, || {
                side.send(api, version, body)?;
                match side.receive(api, version, body)? {
                    Outcome::Answer(answer) => Ok(is_right(&answer).then_some(())),
                    other => bail!("{} is answered by {other:?}", api.name),
                }
            })?;
        }
        Ok(())
    }

    /// The last words of both.
    pub fn explanation(&self) -> String {
        format!("{}\n{}", self.kafka.node.explanation(), self.ringlog.node.explanation())
    }
}

impl Side {
    fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
            let address = if self.is_controller { self.node.controller() } else { self.node.bootstrap() };
            let opened = Connection::open(&address, &options);
            self.connection = Some(opened.with_context(|| self.node.explanation())?);
        }
        self.connection.as_mut().context("it was just made")
    }

    fn send(&mut self, api: &Api, version: i16, body: &Value) -> Result<()> {
        let mut body = body.clone();
        self.names.make_own(&mut body);
        self.correlation_id += 1;
        let mut bytes = api.encode_request(version, self.correlation_id, CLIENT_ID, &body);
        if is_unanswered(api, &body) {
            // Something behind it shows when it was done.
            bytes.extend(probe(self.correlation_id));
        }
        self.connection()?.send_bytes(&bytes)?;
        Ok(())
    }

    fn receive(&mut self, api: &Api, version: i16, body: &Value) -> Result<Outcome> {
        let frame = match self.connection()?.recv_frame() {
            Ok(frame) => frame,
            Err(fault) => return self.lost(fault),
        };
        if is_unanswered(api, body) {
            return Ok(Outcome::Silence);
        }
        Ok(match self.understand(api, version, &frame) {
            Ok(answer) => Outcome::Answer(answer),
            Err(fault) => Outcome::Unreadable(format!("{fault:#}")),
        })
    }

    fn lost(&mut self, fault: ClientError) -> Result<Outcome> {
        self.connection = None;
        let is_closed = match &fault {
            ClientError::Closed { .. } => true,
            fault => format!("{fault:?}").contains("ConnectionReset"),
        };
        if is_closed && self.node.is_alive() {
            return Ok(Outcome::Closed);
        }
        Err(fault).with_context(|| self.node.explanation())
    }

    fn understand(&mut self, api: &Api, version: i16, frame: &Bytes) -> Result<Value> {
        let (correlation_id, mut answer) = api.decode_response(version, frame)?;
        if correlation_id != self.correlation_id {
            bail!("an answer to request {correlation_id}, not {}", self.correlation_id);
        }
        self.names.make_common(&mut answer);
        if api.name == "ApiVersions" {
            leave_out_what_is_not_served(&mut answer, &self.others);
        }
        mask(api.name, &mut answer);
        Ok(answer)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<Outcome> {
        self.connection()?.send_bytes(bytes)?;
        self.connection()?.send_bytes(&probe(0))?;
        match self.connection()?.recv_frame() {
            Ok(frame) if frame.starts_with(&[0; 4]) => Ok(Outcome::Silence),
            Ok(frame) => {
                // Its own answer; that to the probe is behind.
                let _ = self.connection()?.recv_frame();
                Ok(Outcome::Unreadable(format!("{:02x?}", &frame[..frame.len().min(16)])))
            }
            Err(fault) => self.lost(fault),
        }
    }

    fn versions(&mut self) -> Result<BTreeMap<i16, (i16, i16)>> {
        let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
        let address = if self.is_controller { self.node.controller() } else { self.node.bootstrap() };
        let mut connection = Connection::connect(&address, &options)?;
        let answer = connection.call(&ringlog_protocol::messages::ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: "1".into(),
        })?;
        Ok(answer.api_keys.iter().map(|it| (it.api_key, (it.min_version, it.max_version))).collect())
    }
}

fn leave_out_what_is_not_served(answer: &mut Value, keys: &[i16]) {
    answer.visit("", &mut |name, value| {
        if let (Value::List(items), "ApiKeys") = (value, name) {
            items.retain(|it| it.get("ApiKey").and_then(Value::int).is_none_or(|key| !keys.contains(&(key as i16))));
        }
    });
}

/// Produce with acks 0.
fn is_unanswered(api: &Api, body: &Value) -> bool {
    api.name == "Produce" && body.get("Acks").and_then(Value::int) == Some(0)
}

/// ApiVersions version 0, which every node answers.
fn probe(correlation_id: i32) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 10, 0, 18, 0, 0];
    frame.extend(correlation_id.to_be_bytes());
    frame.extend([0xff, 0xff]);
    frame
}
