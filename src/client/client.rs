use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringlog_protocol::messages::metadata_request::MetadataRequestTopic;
use ringlog_protocol::messages::{DescribeClusterRequest, FindCoordinatorRequest, MetadataRequest};
use ringlog_protocol::{Request, StrBytes};
use ringlog_types::ErrorCode;

use crate::bootstrap::{Bootstrap, Role};
use crate::patience::{Backoff, Patience};
use crate::{ClientError, ClientOptions, Connection, Metadata, Partition};

/// The `endpoint_type` of controllers in DescribeCluster (KIP-919).
const CONTROLLERS: i8 = 2;

/// What a coordinator coordinates (KIP-699).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoordinatorType {
    /// Groups.
    Group = 0,
    /// Transactions.
    Transaction = 1,
    /// Share groups' state.
    Share = 2,
}

/// A cluster, reached by way of its bootstrap servers or controllers. Connections to nodes are opened when they are
/// first used and once more when they were lost.
///
/// By way of controllers only administrative requests are of use: its nodes are the controllers then.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    patience: Patience,
    role: Role,
    bootstrap: Vec<String>,
    connections: BTreeMap<i32, Connection>,
    any: Option<Connection>,
    metadata: Metadata,
    metadata_at: Option<Instant>,
    coordinators: BTreeMap<(CoordinatorType, String), i32>,
}

impl Client {
    /// A client that has asked nobody yet. A plain text names brokers.
    pub fn new<'a>(bootstrap: impl Into<Bootstrap<'a>>, options: ClientOptions) -> Result<Client, ClientError> {
        let bootstrap = bootstrap.into();
        Ok(Client {
            patience: Patience::new(options.stop.clone()),
            options,
            role: bootstrap.role(),
            bootstrap: bootstrap.addresses()?,
            connections: BTreeMap::new(),
            any: None,
            metadata: Metadata::default(),
            metadata_at: None,
            coordinators: BTreeMap::new(),
        })
    }

    /// Connects to the first bootstrap server that can be reached and asks for the cluster's nodes.
    pub fn connect<'a>(bootstrap: impl Into<Bootstrap<'a>>, options: ClientOptions) -> Result<Client, ClientError> {
        let mut client = Client::new(bootstrap, options)?;
        client.refresh_metadata(Some(&[]), false)?;
        Ok(client)
    }

    /// As [`Client::connect`], trying until `within` has passed: for a node that is still starting.
    pub fn connect_within<'a>(
        bootstrap: impl Into<Bootstrap<'a>>,
        options: &ClientOptions,
        within: Duration,
    ) -> Result<Client, ClientError> {
        let mut client = Client::new(bootstrap, options.clone())?;
        client.persist_for(within, |client| client.refresh_metadata(Some(&[]), false).map(drop))?;
        Ok(client)
    }

    /// Ends every wait at this time, with [`ClientError::OutOfTime`].
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.patience.set_deadline(deadline);
    }

    /// Gives what remains to be done so much time, whether the rest was stopped or not.
    pub fn close_within(&mut self, limit: Duration) {
        self.patience.close_within(limit);
    }

    /// Does what goes on for `grace` when a stop finds it.
    pub(crate) fn with_grace<T>(&mut self, grace: Duration, call: impl FnOnce(&mut Client) -> T) -> T {
        let before = self.patience.set_grace(grace);
        let outcome = call(self);
        self.patience.set_grace(before);
        outcome
    }

    /// Waits for so long.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), ClientError> {
        self.patience.pause(time)
    }

    /// The part of `limit` that there is time for.
    pub(crate) fn time_for(&self, limit: Duration) -> Duration {
        self.patience.cut(limit)
    }

    /// Has `call` done again, after growing pauses, while nobody can be reached or answers that it may work later. That
    /// ends with the retry timeout, and no try goes beyond it.
    pub fn persist<T>(&mut self, call: impl FnMut(&mut Client) -> Result<T, ClientError>) -> Result<T, ClientError> {
        self.persist_for(self.options.retry_timeout, call)
    }

    fn persist_for<T>(
        &mut self,
        limit: Duration,
        mut call: impl FnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + limit;
        let mut backoff = Backoff::new(self.options.reconnect_backoff, self.options.reconnect_backoff_max);
        let mut last = None;
        loop {
            let outer = self.patience.narrow(deadline);
            let outcome = call(self);
            self.patience.set_deadline(outer);
            let fault = match outcome {
                Err(fault) if fault.is_retriable() => fault,
                // It is this loop's time that was up.
                Err(ClientError::OutOfTime) if self.patience.check().is_ok() => {
                    return Err(last.unwrap_or(ClientError::OutOfTime));
                }
                outcome => return outcome,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(fault);
            }
            let pause = if fault.is_unreachable() { backoff.next() } else { self.options.retry_backoff };
            last = Some(fault);
            self.patience.pause(pause.min(left))?;
        }
    }

    /// The client's options.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// What is known of the cluster now; nothing is asked.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Sends a request to any node.
    pub fn send<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.send_up_to(request, i16::MAX)
    }

    /// As [`Client::send`], in a version not above `limit`.
    pub fn send_up_to<R: Request>(&mut self, request: &R, limit: i16) -> Result<R::Response, ClientError> {
        // A connection that was lost while idle is noticed only by its use: then another one is tried once.
        let was_open = self.any.is_some();
        let outcome = self.any_connection()?.call_up_to(request, limit);
        match outcome {
            Err(fault) if fault.is_connection_lost() => {
                self.any = None;
                match fault {
                    ClientError::Closed { .. } | ClientError::Io { .. } if was_open => {
                        self.any_connection()?.call_up_to(request, limit)
                    }
                    fault => Err(fault),
                }
            }
            outcome => outcome,
        }
    }

    /// Sends a request to a broker.
    pub fn send_to<R: Request>(&mut self, node: i32, request: &R) -> Result<R::Response, ClientError> {
        self.on_node(node, |connection| connection.call(request))
    }

    /// Sends a request to the node that takes administrative requests.
    pub fn send_to_controller<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        match self.metadata.controller_id {
            -1 => self.send(request),
            node => self.send_to(node, request),
        }
    }

    /// Uses the connection to a broker; if it turns out to be lost, it is forgotten.
    pub fn on_node<T>(
        &mut self,
        node: i32,
        call: impl FnOnce(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let outcome = call(self.connection(node)?);
        if outcome.as_ref().is_err_and(ClientError::is_connection_lost) {
            self.connections.remove(&node);
        }
        outcome
    }

    /// The connection to a broker of the known metadata.
    pub fn connection(&mut self, node: i32) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(&node) {
            let broker = self.metadata.brokers.get(&node).ok_or(ClientError::UnknownNode(node))?;
            let connection = Connection::connect_within(&broker.address(), &self.options, self.patience.clone())?;
            self.connections.insert(node, connection);
        }
        Ok(self.connections.get_mut(&node).expect("it was inserted"))
    }

    /// Asks for nodes and these topics; `None` is all topics. Controllers know of no topics.
    pub fn refresh_metadata(
        &mut self,
        topics: Option<&[&str]>,
        allow_auto_topic_creation: bool,
    ) -> Result<&Metadata, ClientError> {
        let topics = topics.map(|names| {
            let topic =
                |name: &&str| MetadataRequestTopic { name: Some(StrBytes::copy_from(name)), ..Default::default() };
            names.iter().map(topic).collect::<Vec<_>>()
        });
        if self.role == Role::Controller {
            return self.refresh_controllers();
        }
        let is_all_topics = topics.is_none();
        let request = MetadataRequest { topics, allow_auto_topic_creation, ..MetadataRequest::default() };
        let response = self.send(&request)?;
        ClientError::check(response.error_code, None, || "the cluster refuses to describe itself".to_owned())?;
        self.metadata.update(response, is_all_topics);
        self.metadata_at = Some(Instant::now());
        Ok(&self.metadata)
    }

    fn refresh_controllers(&mut self) -> Result<&Metadata, ClientError> {
        let request = DescribeClusterRequest { endpoint_type: CONTROLLERS, ..DescribeClusterRequest::default() };
        let response = self.send(&request)?;
        let context = || "the controllers refuse to describe the cluster".to_owned();
        ClientError::check(response.error_code, response.error_message.as_deref(), context)?;
        self.metadata.update_nodes(response);
        self.metadata_at = Some(Instant::now());
        // Controllers that have no leader are of no use yet, just as in Kafka's client.
        match self.metadata.controller_id {
            leader if self.metadata.brokers.contains_key(&leader) => Ok(&self.metadata),
            leader => Err(ClientError::UnknownNode(leader)),
        }
    }

    /// Whether any node has told of the cluster yet.
    pub fn has_metadata(&self) -> bool {
        self.metadata_at.is_some()
    }

    /// Whether the metadata should be asked for again.
    pub fn is_metadata_old(&self) -> bool {
        self.metadata_at.is_none_or(|at| at.elapsed() > self.options.metadata_max_age)
    }

    /// Partitions of a topic, asked for if they aren't known, with tries until the retry timeout.
    pub fn partitions(&mut self, topic: &str, allow_auto_topic_creation: bool) -> Result<Vec<Partition>, ClientError> {
        self.persist(|client| {
            if let Some(known) = client.known_partitions(topic) {
                return Ok(known);
            }
            client.refresh_metadata(Some(&[topic]), allow_auto_topic_creation)?;
            let code =
                client.metadata.topics.get(topic).map_or(ErrorCode::UnknownTopicOrPartition.code(), |it| it.error_code);
            ClientError::check(code, None, || format!("topic '{topic}'"))?;
            client.known_partitions(topic).ok_or_else(|| no_leader(format!("topic '{topic}'")))
        })
    }

    fn known_partitions(&self, topic: &str) -> Option<Vec<Partition>> {
        let known = self.metadata.topics.get(topic).filter(|known| known.error_code == 0)?;
        (!known.partitions.is_empty()).then(|| known.partitions.clone())
    }

    /// The leader of a partition, asked for if it isn't known, with tries until the retry timeout.
    pub fn leader(&mut self, topic: &str, partition: i32) -> Result<i32, ClientError> {
        self.persist(|client| client.leader_now(topic, partition))
    }

    /// As [`Client::leader`], asked for once. That there is none is an error that may mend itself.
    pub(crate) fn leader_now(&mut self, topic: &str, partition: i32) -> Result<i32, ClientError> {
        let known = |client: &Client| {
            let leader = client.metadata.partition(topic, partition).map_or(-1, |known| known.leader);
            (leader >= 0).then_some(leader)
        };
        if let Some(leader) = known(self) {
            return Ok(leader);
        }
        self.refresh_metadata(Some(&[topic]), false)?;
        known(self).ok_or_else(|| no_leader(format!("partition {topic}-{partition}")))
    }

    /// Forgets a topic, so that its leaders are asked for again.
    pub fn forget_topic(&mut self, topic: &str) {
        self.metadata.topics.remove(topic);
    }

    /// The coordinator of a group or transactional id, with tries until the retry timeout.
    pub fn coordinator(&mut self, kind: CoordinatorType, key: &str) -> Result<i32, ClientError> {
        if let Some(node) = self.coordinators.get(&(kind, key.to_owned())) {
            return Ok(*node);
        }
        let node = self.persist(|client| client.find_coordinator(kind, key))?;
        self.coordinators.insert((kind, key.to_owned()), node);
        Ok(node)
    }

    /// Forgets a coordinator that said it is none.
    pub fn forget_coordinator(&mut self, kind: CoordinatorType, key: &str) {
        self.coordinators.remove(&(kind, key.to_owned()));
    }

    fn find_coordinator(&mut self, kind: CoordinatorType, key: &str) -> Result<i32, ClientError> {
        let context = || format!("the coordinator of '{key}' can't be found");
        let version = self.any_connection()?.version_of::<FindCoordinatorRequest>()?;
        let mut request = FindCoordinatorRequest { key_type: kind as i8, ..FindCoordinatorRequest::default() };
        if version >= 4 {
            request.coordinator_keys = vec![StrBytes::copy_from(key)];
        } else {
            request.key = StrBytes::copy_from(key);
        }
        let response = self.send_up_to(&request, version)?;
        let (node, code, message) = match response.coordinators.into_iter().next() {
            Some(found) => (found.node_id, found.error_code, found.error_message),
            None => (response.node_id, response.error_code, response.error_message),
        };
        ClientError::check(code, message.as_deref(), context)?;
        if !self.metadata.brokers.contains_key(&node) {
            self.refresh_metadata(Some(&[]), false)?;
        }
        Ok(node)
    }

    /// Which kind of node the client talks to.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    fn any_connection(&mut self) -> Result<&mut Connection, ClientError> {
        if self.any.is_none() {
            self.any = Some(self.open_any()?);
        }
        Ok(self.any.as_mut().expect("it was opened"))
    }

    fn open_any(&self) -> Result<Connection, ClientError> {
        let known: Vec<String> = self.metadata.brokers.values().map(crate::Broker::address).collect();
        let mut faults = Vec::new();
        for address in self.bootstrap.iter().chain(&known) {
            match Connection::connect_within(address, &self.options, self.patience.clone()) {
                Ok(connection) => return Ok(connection),
                Err(fault @ (ClientError::OutOfTime | ClientError::Stopped)) => return Err(fault),
                Err(fault) => faults.push(fault.to_string()),
            }
        }
        Err(ClientError::NoBootstrapServer(faults.join("; ")))
    }
}

fn no_leader(context: String) -> ClientError {
    ClientError::Broker { context, code: ErrorCode::LeaderNotAvailable.code(), message: None }
}
