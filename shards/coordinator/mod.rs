//! Drives the group coordinators: one for each partition of `__consumer_offsets` that this broker leads, on the core
//! where the partition lives.
//!
//! A request goes to the home of its group's partition ([`handle`]); the coordinator decides (`ringlog_coordinator`);
//! records are appended to the partition like any others, and answers leave once they are committed. Leading a
//! partition begins with reading all of it ([`ReplicaObserver::on_leadership`]); until then its groups answer
//! `COORDINATOR_LOAD_IN_PROGRESS`.

mod driver;
mod machine;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ringlog_config::ServerConfig;
use ringlog_coordinator::group::{self, GroupConfig, GroupCoordinator, Route, Token, TopicView};
use ringlog_metadata::MetadataImage;
use ringlog_protocol::records::Compression;
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, GROUP_METADATA_TOPIC, PartitionIndex, TopicIdPartition, Uuid};
use rustc_hash::FxHashMap;
use tracing::error;

use self::driver::{CoordinatorDriver, WriteSettings};
use crate::core::{Core, Room};
use crate::data::replica::Replica;
use crate::data::replicas::ReplicaObserver;
use crate::mesh::LocalFuture;
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

/// A group coordinator and what drives it.
type GroupDriver = CoordinatorDriver<GroupCoordinator>;

/// The coordinators of one core.
pub struct Coordinators {
    core: Rc<Core>,
    metadata: Rc<MetadataView>,
    /// Itself, for the tasks that it starts.
    own: Weak<Coordinators>,
    groups: RefCell<FxHashMap<PartitionIndex, Rc<GroupDriver>>>,
    next_token: Cell<u64>,
}

impl Room for Coordinators {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

/// The topics as this node's metadata shows them.
struct ImageTopics(Arc<MetadataImage>);

impl TopicView for ImageTopics {
    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.0.topics.id(name)
    }

    fn topic_name(&self, id: Uuid) -> Option<StrBytes> {
        self.0.topics.name(id).map(|name| StrBytes::copy_from(name))
    }

    fn partition_count(&self, name: &str) -> i32 {
        self.0.topics.by_name(name).map_or(0, |topic| topic.partitions.len() as i32)
    }
}

/// Answers a request about groups.
pub async fn handle(coordinators: &Rc<Coordinators>, context: &RequestContext, request: RequestBody) -> ResponseBody {
    let asked = group::Asked::of(&request, context.api_version);
    group::finish(ask(coordinators, context, request).await, asked)
}

async fn ask(coordinators: &Rc<Coordinators>, context: &RequestContext, request: RequestBody) -> ResponseBody {
    let image = coordinators.metadata.image();
    let Some(topic) = image.topics.by_name(GROUP_METADATA_TOPIC) else {
        if let RequestBody::ListGroups(_) = &request {
            return ringlog_protocol::messages::ListGroupsResponse::default().into();
        }
        return group::error_response(&request, context.api_version, ErrorCode::NotCoordinator);
    };
    let count = topic.partitions.len() as i32;
    let parts = match group::split(request, context.api_version, count) {
        Route::One(partition, request) => vec![(partition, request)],
        Route::Several(parts) => parts,
        Route::All(request) => (0..count).map(|partition| (PartitionIndex(partition), request.clone())).collect(),
    };
    let client_host = StrBytes::from(format!("/{}", context.peer.address.ip()));
    let caller = Caller {
        api_version: context.api_version,
        client_id: context.client_id.as_deref().map_or_else(StrBytes::default, StrBytes::copy_from),
        client_host,
    };
    let mut pending = Vec::with_capacity(parts.len());
    for (partition, request) in parts {
        let home = coordinators.core.node.home_of(TopicIdPartition { topic_id: topic.id, partition });
        let caller = caller.clone();
        let work = move |coordinators: &Rc<Coordinators>| -> LocalFuture<ResponseBody> {
            Box::pin(handle_here(coordinators.clone(), partition, caller, request))
        };
        pending.push(coordinators.begin_on(home, work).await);
    }
    let mut responses = Vec::with_capacity(pending.len());
    for response in pending {
        responses.push(response.answer().await);
    }
    group::merge(responses).expect("a request of groups has at least one part")
}

/// The client, for the answer's version and the member's description.
#[derive(Clone)]
struct Caller {
    api_version: i16,
    client_id: StrBytes,
    client_host: StrBytes,
}

/// On the home core of the group's partition.
async fn handle_here(
    coordinators: Rc<Coordinators>,
    partition: PartitionIndex,
    caller: Caller,
    request: RequestBody,
) -> ResponseBody {
    let version = caller.api_version;
    let driven = coordinators.groups.borrow().get(&partition).cloned();
    let Some(driven) = driven else {
        return group::error_response(&request, version, ErrorCode::NotCoordinator);
    };
    let token = Token(coordinators.next_token.replace(coordinators.next_token.get() + 1));
    let Caller { api_version, client_id, client_host } = caller;
    let context = group::RequestContext { token, api_version, client_id, client_host };
    let topics = ImageTopics(coordinators.metadata.image());
    let answer = driven.ask(token, |machine| machine.handle(request.clone(), &context, ring::now(), &topics));
    let Some(answer) = answer else {
        return group::error_response(&request, version, ErrorCode::CoordinatorLoadInProgress);
    };
    match answer.await {
        Ok(response) => response,
        // The coordinator moved away.
        Err(ring::Disconnected) => group::error_response(&request, version, ErrorCode::NotCoordinator),
    }
}

impl ReplicaObserver for Coordinators {
    /// This broker became the leader of a partition of `__consumer_offsets`, or leads it in a new epoch, or no longer.
    fn on_leadership(&self, replica: &Rc<Replica>, is_leader: bool) {
        if &*replica.name.topic != GROUP_METADATA_TOPIC {
            return;
        }
        let partition = replica.id.partition;
        let old = self.groups.borrow_mut().remove(&partition);
        if let Some(old) = old {
            old.resign();
        }
        if !is_leader {
            return;
        }
        let config = &self.core.node.config.group;
        let settings = WriteSettings {
            commit_timeout_ms: u64::try_from(config.offsets_commit_timeout_ms).unwrap_or(0),
            compression: u8::try_from(config.offsets_topic_compression_codec)
                .ok()
                .and_then(Compression::from_id)
                .unwrap_or(Compression::None),
        };
        let driven = CoordinatorDriver::new(self.core.clone(), replica.clone(), settings);
        self.groups.borrow_mut().insert(partition, driven.clone());
        let machine =
            GroupCoordinator::new(group_config(&self.core.node.config), self.core.random.borrow_mut().next_u64());
        let coordinators = self.own.upgrade();
        self.core.spawn(async move {
            let Err(fault) = driven.clone().run(machine).await else { return };
            if driven.has_resigned() {
                return;
            }
            error!(partition = %driven.replica().name, "group state can't be loaded: {fault}");
            // As Kafka's: members look for another coordinator instead of waiting for this one to load.
            if let Some(coordinators) = coordinators {
                coordinators.on_closed(driven.replica());
            }
        });
    }

    /// A replica was closed: it no longer leads anything.
    fn on_closed(&self, replica: &Replica) {
        if &*replica.name.topic != GROUP_METADATA_TOPIC {
            return;
        }
        let mut groups = self.groups.borrow_mut();
        let is_its = |driven: &Rc<GroupDriver>| driven.replica().id == replica.id;
        let driven = groups.get(&replica.id.partition).filter(|driven| is_its(driven)).cloned();
        if let Some(driven) = driven {
            groups.remove(&replica.id.partition);
            drop(groups);
            driven.resign();
        }
    }

    /// Topics are gone: their committed offsets go too.
    fn on_topics_deleted(&self, topics: &[(StrBytes, Uuid)]) {
        let all: Vec<Rc<GroupDriver>> = self.groups.borrow().values().cloned().collect();
        for driven in all {
            driven.tell(|machine| machine.on_topics_deleted(topics, ring::now()));
        }
    }
}

impl Coordinators {
    /// None yet.
    pub fn new(core: Rc<Core>, metadata: Rc<MetadataView>) -> Rc<Coordinators> {
        Rc::new_cyclic(|own| Coordinators {
            core,
            metadata,
            own: own.clone(),
            groups: RefCell::default(),
            next_token: Cell::default(),
        })
    }

    /// The node stops: nobody is answered any more, so that members find their next coordinator.
    pub fn resign_all(&self) {
        for (_, driven) in self.groups.borrow_mut().drain() {
            driven.resign();
        }
    }
}

fn group_config(config: &ServerConfig) -> GroupConfig {
    let group = &config.group;
    GroupConfig {
        min_session_timeout_ms: group.min_session_timeout_ms,
        max_session_timeout_ms: group.max_session_timeout_ms,
        initial_rebalance_delay_ms: u32::try_from(group.initial_rebalance_delay_ms).unwrap_or(0),
        max_group_size: usize::try_from(group.max_size).unwrap_or(usize::MAX),
        max_offset_metadata_bytes: usize::try_from(group.offset_metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: i64::from(group.offsets_retention_minutes) * 60_000,
        offsets_retention_check_interval_ms: u64::try_from(group.offsets_retention_check_interval_ms)
            .unwrap_or(600_000),
        ..GroupConfig::default()
    }
}
