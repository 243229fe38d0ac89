//! What a leader answers those who would change the voters when it must refuse, asked of either kind of quorum.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use ringlog_client::{ClientOptions, Connection};
use ringlog_e2e_tests::node::{CLUSTER_ID, Kind, Node, NodePlan, Roles};
use ringlog_e2e_tests::place::Place;
use ringlog_e2e_tests::wait_until;
use ringlog_protocol::messages::*;
use ringlog_protocol::{Request, messages::describe_quorum_request::TopicData};
use ringlog_types::{CLUSTER_METADATA_TOPIC, ErrorCode, Uuid};

use super::requests::text;

const PATIENCE: Duration = Duration::from_secs(60);
/// A directory that nobody has.
const UNKNOWN: Uuid = Uuid([9; 16]);

/// A leader of a dynamic quorum, an observer of it, and a leader of a static quorum.
struct Nodes {
    kind: Kind,
    nodes: Vec<Node>,
    directories: Vec<Uuid>,
    answers: Vec<String>,
}

/// All answers of nodes of this kind, under names that don't differ.
pub fn answers(kind: Kind) -> Result<Vec<String>> {
    let mut nodes = Nodes::start(kind)?;
    nodes.additions()?;
    nodes.removals()?;
    nodes.of_others()?;
    nodes.updates()?;
    nodes.descriptions()?;
    nodes.second_voter()?;
    Ok(nodes.answers)
}

/// The directory's id, from its meta.properties.
fn directory(node: &Node) -> Result<Uuid> {
    let properties = fs::read_to_string(node.folder().join("data/meta.properties"))?;
    let id = properties.lines().find_map(|line| line.strip_prefix("directory.id=")).context("it has an id")?;
    Ok(id.replace('\\', "").parse()?)
}

/// What a node says of its quorum.
fn described(node: &Node) -> Result<describe_quorum_response::PartitionData> {
    let view = Connection::connect(&node.controller(), &ClientOptions::default())?.call(&Nodes::describe())?;
    let topic = view.topics.into_iter().next().context("an answer for the topic")?;
    topic.partitions.into_iter().next().context("an answer for the partition")
}

impl Nodes {
    fn start(kind: Kind) -> Result<Nodes> {
        let mut nodes: Vec<Node> = Vec::new();
        for id in 1..=3 {
            let mut node = Node::new(NodePlan {
                name: format!("voters-{kind:?}-{id}").to_lowercase(),
                kind,
                id,
                roles: Roles::Controller,
                log_dirs: "data".to_owned(),
                settings: String::new(),
                place: Place::loopback(),
                java_options: Vec::new(),
            })?;
            match id {
                1 => node.set("controller.quorum.bootstrap.servers", &node.controller())?,
                2 => node.set("controller.quorum.bootstrap.servers", &nodes[0].controller())?,
                _ => node.set("controller.quorum.voters", &format!("{id}@{}", node.controller()))?,
            }
            let how: &[&str] = match id {
                1 => &["--standalone"],
                2 => &["--no-initial-controllers"],
                _ => &["--feature", "kraft.version=0"],
            };
            node.format(how)?;
            node.spawn()?;
            nodes.push(node);
        }
        nodes.iter_mut().try_for_each(Node::wait_until_ready)?;
        let directories = nodes.iter().map(directory).collect::<Result<Vec<_>>>()?;
        // Until a leader has committed something it refuses for that reason.
        for leader in [&nodes[0], &nodes[2]] {
            wait_until("a leader to know its high watermark", PATIENCE, || {
                let partition = described(leader)?;
                Ok((partition.error_code == 0 && partition.high_watermark > 0).then_some(()))
            })?;
        }
        Ok(Nodes { kind, nodes, directories, answers: Vec::new() })
    }

    fn port(&self, node: usize) -> Result<u16> {
        Ok(self.nodes[node - 1].controller().rsplit_once(':').context("it has a port")?.1.parse()?)
    }

    fn ask<R>(&mut self, node: usize, request: R) -> Result<R::Response>
    where
        R: Request + std::fmt::Debug,
        R::Response: std::fmt::Debug,
    {
        let options = ClientOptions { request_timeout: Duration::from_secs(60), ..ClientOptions::default() };
        let mut connection = Connection::connect(&self.nodes[node - 1].controller(), &options)?;
        let answer = connection.call(&request).with_context(|| format!("{:?}: {request:?}", self.kind))?;
        let mut line = format!("{node}: {request:?}\n    {answer:?}");
        for (index, directory) in self.directories.iter().enumerate() {
            line = line.replace(&directory.to_string(), &format!("<directory {}>", index + 1));
        }
        for node in 1..=self.nodes.len() {
            line = line.replace(&self.port(node)?.to_string(), &format!("<port {node}>"));
        }
        self.answers.push(line);
        Ok(answer)
    }

    fn addition(&self, voter_id: i32, directory: Uuid, listeners: &[(&str, &str, u16)]) -> AddRaftVoterRequest {
        let listener = |(name, host, port): &(&str, &str, u16)| add_raft_voter_request::Listener {
            name: text(name),
            host: text(host),
            port: *port,
        };
        AddRaftVoterRequest {
            cluster_id: Some(text(CLUSTER_ID)),
            timeout_ms: 5_000,
            voter_id,
            voter_directory_id: directory,
            listeners: listeners.iter().map(listener).collect(),
            ack_when_committed: true,
        }
    }

    fn additions(&mut self) -> Result<()> {
        let (one, two) = (self.directories[0], self.directories[1]);
        let listeners: &[(&str, &str, u16)] = &[("CONTROLLER", "127.0.0.1", self.port(2)?)];
        let cluster_id = Some(text("another"));
        self.ask(1, AddRaftVoterRequest { cluster_id, ..self.addition(2, two, listeners) })?;
        let other: &[(&str, &str, u16)] = &[("OTHER", "127.0.0.1", 1)];
        for (id, directory, listeners) in [
            (-1, two, listeners),
            (2, Uuid::ZERO, listeners),
            (2, two, &[]),
            (2, two, other),
            (1, UNKNOWN, listeners),
            (1, one, listeners),
            (7, UNKNOWN, listeners),
        ] {
            self.ask(1, self.addition(id, directory, listeners))?;
        }
        Ok(())
    }

    fn removal(&self, voter_id: i32, voter_directory_id: Uuid) -> RemoveRaftVoterRequest {
        RemoveRaftVoterRequest { cluster_id: Some(text(CLUSTER_ID)), voter_id, voter_directory_id }
    }

    fn removals(&mut self) -> Result<()> {
        let (one, two) = (self.directories[0], self.directories[1]);
        let cluster_id = Some(text("another"));
        self.ask(1, RemoveRaftVoterRequest { cluster_id, ..self.removal(2, two) })?;
        for (id, directory) in [(-1, two), (1, Uuid::ZERO), (9, UNKNOWN), (1, UNKNOWN), (2, two), (1, one)] {
            self.ask(1, self.removal(id, directory))?;
        }
        Ok(())
    }

    /// An observer, and a quorum whose voters can't change.
    fn of_others(&mut self) -> Result<()> {
        let (two, three) = (self.directories[1], self.directories[2]);
        let listeners: &[(&str, &str, u16)] = &[("CONTROLLER", "127.0.0.1", self.port(2)?)];
        self.ask(2, self.addition(2, two, listeners))?;
        self.ask(2, self.removal(2, two))?;
        self.ask(3, self.addition(2, two, listeners))?;
        self.ask(3, self.addition(2, two, &[]))?;
        self.ask(3, self.removal(3, three))?;
        self.ask(3, self.removal(9, UNKNOWN)).map(drop)
    }

    fn describe() -> DescribeQuorumRequest {
        let topic_name = text(CLUSTER_METADATA_TOPIC);
        DescribeQuorumRequest { topics: vec![TopicData { topic_name, partitions: vec![Default::default()] }] }
    }

    fn updates(&mut self) -> Result<()> {
        let current_leader_epoch = described(&self.nodes[0])?.leader_epoch;
        let mut update = UpdateRaftVoterRequest {
            cluster_id: Some(text(CLUSTER_ID)),
            current_leader_epoch: current_leader_epoch - 1,
            voter_id: 2,
            voter_directory_id: self.directories[1],
            ..UpdateRaftVoterRequest::default()
        };
        self.ask(1, update.clone())?;
        update.current_leader_epoch = current_leader_epoch + 9;
        self.ask(1, update.clone())?;
        update.current_leader_epoch = current_leader_epoch;
        self.ask(1, update.clone())?;
        let (name, host, port) = (text("CONTROLLER"), text("127.0.0.1"), self.port(2)?);
        update.listeners = vec![update_raft_voter_request::Listener { name, host, port }];
        self.ask(1, update.clone())?;
        update.kraft_version_feature.max_supported_version = 1;
        self.ask(1, update).map(drop)
    }

    fn descriptions(&mut self) -> Result<()> {
        let mut unknown = Nodes::describe();
        unknown.topics[0].topic_name = text("another");
        self.ask(1, unknown)?;
        let mut unknown = Nodes::describe();
        unknown.topics[0].partitions[0].partition_index = 3;
        self.ask(1, unknown)?;
        self.ask(1, DescribeQuorumRequest::default())?;
        self.ask(2, Nodes::describe()).map(drop)
    }

    /// A voter that comes and goes. The texts of refusals name both voters in the order of a hash map meanwhile.
    fn second_voter(&mut self) -> Result<()> {
        let two = self.directories[1];
        let listeners: &[(&str, &str, u16)] = &[("CONTROLLER", "127.0.0.1", self.port(2)?)];
        // It may lag behind at first.
        wait_until("the second voter", PATIENCE, || {
            let before = self.answers.len();
            let answer = self.ask(1, AddRaftVoterRequest { cluster_id: None, ..self.addition(2, two, listeners) })?;
            let is_late = answer.error_code == ErrorCode::RequestTimedOut.code();
            self.answers.truncate(if is_late { before } else { before + 1 });
            Ok((!is_late).then_some(()))
        })?;
        self.ask(2, self.addition(2, two, listeners))?;
        self.ask(1, self.removal(2, two))?;
        self.ask(1, self.removal(2, two)).map(drop)
    }
}
