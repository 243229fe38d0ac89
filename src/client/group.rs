//! Membership in a group by the classic protocol, with the range assignor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use ringlog_protocol::consumer_protocol::consumer_protocol_assignment::TopicPartition as AssignedPartitions;
use ringlog_protocol::consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use ringlog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringlog_protocol::messages::join_group_response::JoinGroupResponseMember;
use ringlog_protocol::messages::leave_group_request::MemberIdentity;
use ringlog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringlog_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use ringlog_protocol::{Message, Request, StrBytes};
use ringlog_types::ErrorCode;

use crate::{Client, ClientError, CoordinatorType};

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";
/// The version of the subscription and assignment that is written; any newer one begins with the same fields.
const SUBSCRIPTION_VERSION: i16 = 1;
/// Joins in a row before it is given up.
const MAX_JOINS: usize = 100;

/// Partitions by topic.
pub(crate) type Assignment = BTreeMap<String, Vec<i32>>;

/// A member, joined or not.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) group_id: String,
    instance_id: Option<StrBytes>,
    session_timeout: Duration,
    heartbeat_interval: Duration,
    rebalance_timeout: Duration,
    member_id: StrBytes,
    generation: i32,
    last_heartbeat: Option<Instant>,
    rejoin: bool,
}

impl Member {
    pub(crate) fn new(
        group_id: String,
        instance_id: Option<String>,
        session_timeout: Duration,
        heartbeat_interval: Duration,
        rebalance_timeout: Duration,
    ) -> Member {
        Member {
            group_id,
            instance_id: instance_id.map(StrBytes::from),
            session_timeout,
            heartbeat_interval,
            rebalance_timeout,
            member_id: StrBytes::default(),
            generation: -1,
            last_heartbeat: None,
            rejoin: true,
        }
    }

    pub(crate) fn must_join(&self) -> bool {
        self.rejoin
    }

    pub(crate) fn ask_to_rejoin(&mut self) {
        self.rejoin = true;
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn member_id(&self) -> &StrBytes {
        &self.member_id
    }

    pub(crate) fn instance_id(&self) -> Option<StrBytes> {
        self.instance_id.clone()
    }

    /// Sends a heartbeat if one is due.
    pub(crate) fn heartbeat(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let is_due = self.last_heartbeat.is_none_or(|at| at.elapsed() >= self.heartbeat_interval);
        if self.rejoin || !is_due {
            return Ok(());
        }
        let request = HeartbeatRequest {
            group_id: StrBytes::copy_from(&self.group_id),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
        };
        let response = self.send(client, &request, Duration::ZERO)?;
        self.last_heartbeat = Some(Instant::now());
        self.on_code(client, response.error_code, "heartbeat")
    }

    /// Takes an error code of any answer of the group's coordinator into account; retriable ones are no errors then.
    pub(crate) fn on_code(&mut self, client: &mut Client, code: i16, what: &str) -> Result<(), ClientError> {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => return Ok(()),
            Some(ErrorCode::RebalanceInProgress) => {}
            Some(ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId) => {
                self.generation = -1;
                if code == ErrorCode::UnknownMemberId.code() {
                    self.member_id = StrBytes::default();
                }
            }
            Some(
                ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable | ErrorCode::CoordinatorLoadInProgress,
            ) => {
                client.forget_coordinator(CoordinatorType::Group, &self.group_id);
                return client.pause(client.options().retry_backoff);
            }
            _ => return ClientError::check(code, None, || format!("{what} in group '{}'", self.group_id)),
        }
        self.rejoin = true;
        Ok(())
    }

    /// Joins or rejoins, waiting for the other members, and returns this member's partitions. `partition_counts` is
    /// asked for the topics of the whole group if this member turns out to be the leader.
    pub(crate) fn join(
        &mut self,
        client: &mut Client,
        topics: &[String],
        mut partition_counts: impl FnMut(&mut Client, &BTreeSet<String>) -> Result<BTreeMap<String, i32>, ClientError>,
    ) -> Result<Assignment, ClientError> {
        for _ in 0..MAX_JOINS {
            let joined = self.send_join(client, topics)?;
            if joined.error_code == ErrorCode::MemberIdRequired.code() {
                self.member_id = joined.member_id;
                continue;
            }
            if joined.error_code != 0 {
                self.on_code(client, joined.error_code, "join")?;
                continue;
            }
            self.member_id = joined.member_id.clone();
            self.generation = joined.generation_id;
            let is_leader = joined.leader == joined.member_id && !joined.skip_assignment;
            let assignments = match is_leader {
                true => {
                    let subscriptions = subscriptions(&joined.members);
                    let all: BTreeSet<String> = subscriptions.values().flatten().cloned().collect();
                    let counts = partition_counts(client, &all)?;
                    encode_assignments(&range_assign(&subscriptions, &counts))
                }
                false => Vec::new(),
            };
            let request = SyncGroupRequest {
                group_id: StrBytes::copy_from(&self.group_id),
                generation_id: self.generation,
                member_id: self.member_id.clone(),
                group_instance_id: self.instance_id.clone(),
                protocol_type: Some(StrBytes::from(PROTOCOL_TYPE)),
                protocol_name: Some(StrBytes::from(ASSIGNOR)),
                assignments,
            };
            let synced = self.send(client, &request, self.rebalance_timeout)?;
            if synced.error_code != 0 {
                self.on_code(client, synced.error_code, "sync")?;
                continue;
            }
            self.rejoin = false;
            self.last_heartbeat = Some(Instant::now());
            return Ok(decode_assignment(synced.assignment));
        }
        let code = ErrorCode::RebalanceInProgress.code();
        Err(ClientError::Broker { context: format!("group '{}' never settles", self.group_id), code, message: None })
    }

    fn send_join(&mut self, client: &mut Client, topics: &[String]) -> Result<JoinGroupResponse, ClientError> {
        let mut topics: Vec<StrBytes> = topics.iter().map(|topic| StrBytes::copy_from(topic)).collect();
        topics.sort();
        let subscription = ConsumerProtocolSubscription { topics, ..ConsumerProtocolSubscription::default() };
        let request = JoinGroupRequest {
            group_id: StrBytes::copy_from(&self.group_id),
            session_timeout_ms: millis(self.session_timeout),
            rebalance_timeout_ms: millis(self.rebalance_timeout),
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: StrBytes::from(PROTOCOL_TYPE),
            protocols: vec![JoinGroupRequestProtocol {
                name: StrBytes::from(ASSIGNOR),
                metadata: with_version(&subscription),
            }],
            reason: None,
        };
        self.send(client, &request, self.rebalance_timeout)
    }

    /// Leaves, so that the others needn't wait for the session's end. A static member stays (KIP-345).
    pub(crate) fn leave(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.member_id.is_empty() || self.instance_id.is_some() {
            return Ok(());
        }
        let node = client.coordinator(CoordinatorType::Group, &self.group_id)?;
        let group_id = StrBytes::copy_from(&self.group_id);
        let member_id = std::mem::take(&mut self.member_id);
        self.rejoin = true;
        client.on_node(node, |connection| {
            let version = connection.version_of::<LeaveGroupRequest>()?;
            let mut request = LeaveGroupRequest { group_id, ..LeaveGroupRequest::default() };
            if version >= 3 {
                request.members = vec![MemberIdentity { member_id, ..MemberIdentity::default() }];
            } else {
                request.member_id = member_id;
            }
            connection.call_in_version(&request, version, Duration::ZERO).map(drop)
        })
    }

    pub(crate) fn send<R: Request>(
        &self,
        client: &mut Client,
        request: &R,
        extra_wait: Duration,
    ) -> Result<R::Response, ClientError> {
        let node = client.coordinator(CoordinatorType::Group, &self.group_id)?;
        let outcome = client.on_node(node, |connection| {
            let version = connection.version_of::<R>()?;
            connection.call_in_version(request, version, extra_wait)
        });
        if outcome.is_err() {
            client.forget_coordinator(CoordinatorType::Group, &self.group_id);
        }
        outcome
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// What the consumers' protocol carries: a version, then the message in it.
fn with_version(message: &impl Message) -> Bytes {
    let body = message.to_bytes(SUBSCRIPTION_VERSION).expect("a subscription is below 2 GiB");
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_i16(SUBSCRIPTION_VERSION);
    bytes.extend_from_slice(&body);
    bytes.freeze()
}

/// Reads such a message. A version above those known is read as the highest known, as its fields come first.
fn without_version<M: Message>(bytes: Bytes) -> Option<M> {
    let version = i16::from_be_bytes(*bytes.first_chunk()?);
    let mut input = ringlog_protocol::Decoder::new(bytes.slice(2..));
    M::decode(&mut input, version.clamp(M::MIN_VERSION, M::MAX_VERSION)).ok()
}

/// Topics by member.
fn subscriptions(members: &[JoinGroupResponseMember]) -> BTreeMap<String, BTreeSet<String>> {
    let topics = |member: &JoinGroupResponseMember| -> BTreeSet<String> {
        let subscription: Option<ConsumerProtocolSubscription> = without_version(member.metadata.clone());
        subscription.map(|it| it.topics.into_iter().map(String::from).collect()).unwrap_or_default()
    };
    members.iter().map(|member| (member.member_id.as_str().to_owned(), topics(member))).collect()
}

/// The range assignor: of each topic every subscriber gets a run of partitions, the first ones one more if it doesn't
/// come out even.
pub(crate) fn range_assign(
    subscriptions: &BTreeMap<String, BTreeSet<String>>,
    partition_counts: &BTreeMap<String, i32>,
) -> BTreeMap<String, Assignment> {
    let mut assignments: BTreeMap<String, Assignment> =
        subscriptions.keys().map(|member| (member.clone(), Assignment::new())).collect();
    for (topic, count) in partition_counts {
        let members: Vec<&String> =
            subscriptions.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        let Some(each) = count.checked_div(members.len() as i32) else { continue };
        let more = count % members.len() as i32;
        let mut next = 0;
        for (index, member) in members.into_iter().enumerate() {
            let end = next + each + i32::from((index as i32) < more);
            if end > next
                && let Some(assignment) = assignments.get_mut(member)
            {
                assignment.insert(topic.clone(), (next..end).collect());
            }
            next = end;
        }
    }
    assignments
}

fn encode_assignments(assignments: &BTreeMap<String, Assignment>) -> Vec<SyncGroupRequestAssignment> {
    let encode = |(member, assignment): (&String, &Assignment)| {
        let partitions = assignment.iter().map(|(topic, partitions)| AssignedPartitions {
            topic: StrBytes::copy_from(topic),
            partitions: partitions.clone(),
        });
        let message = ConsumerProtocolAssignment { assigned_partitions: partitions.collect(), user_data: None };
        SyncGroupRequestAssignment { member_id: StrBytes::copy_from(member), assignment: with_version(&message) }
    };
    assignments.iter().map(encode).collect()
}

fn decode_assignment(bytes: Bytes) -> Assignment {
    let message: Option<ConsumerProtocolAssignment> = without_version(bytes);
    let partitions = message.map(|it| it.assigned_partitions).unwrap_or_default();
    partitions.into_iter().map(|it| (String::from(it.topic), it.partitions)).collect()
}
