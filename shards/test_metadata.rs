//! A node of tests with metadata: brokers, topics and their changes, and what handlers are called with.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_metadata::image::{MetadataDelta, Provenance};
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_protocol::ApiKey;
use ringlog_protocol::metadata_records::{
    BrokerRegistrationChangeRecord, MetadataRecord, PartitionChangeRecord, RegisterBrokerRecord,
};
use ringlog_types::Uuid;

use crate::admin::test_images::{DIRECTORY, image};
use crate::broker::metadata_publisher;
use crate::core::Room as _;
use crate::mesh::LocalFuture;
use crate::net::request::{AnswerMemory, RequestContext};
use crate::net::request::{ListenerInfo, Peer};
use crate::shard::Shard;

/// The leader epoch of every partition in the beginning.
pub const EPOCH: i32 = 5;

/// [`image`] with both brokers serving; this process is broker 1.
pub fn served_image(topics: &[(&str, i32)]) -> MetadataImage {
    let this_process = RegisterBrokerRecord {
        broker_id: 1,
        broker_epoch: 11,
        incarnation_id: Uuid([1; 16]),
        log_dirs: vec![DIRECTORY],
        ..Default::default()
    };
    let other = BrokerRegistrationChangeRecord { broker_id: 2, broker_epoch: 10, fenced: -1, ..Default::default() };
    changed(&image(topics), vec![this_process.into(), other.into()])
}

/// A change that changes nothing of partition 0 of some topic.
pub fn unchanged() -> PartitionChangeRecord {
    PartitionChangeRecord { partition_id: 0, leader: -2, leader_recovery_state: -1, ..Default::default() }
}

/// The next image.
pub fn changed(image: &MetadataImage, records: Vec<MetadataRecord>) -> MetadataImage {
    let mut delta = MetadataDelta::new(image);
    for record in records {
        delta.replay(&record).expect("the record fits");
    }
    let last_contained_offset = image.provenance.last_contained_offset.plus(1);
    delta.apply(Provenance { last_contained_offset, ..image.provenance }).0
}

/// Begins to take images over on every core, with this one.
pub async fn start(shard: &Rc<Shard>, first: MetadataImage) {
    on_every_core(shard, |shard| {
        metadata_publisher::start(&shard.publisher);
        Box::pin(std::future::ready(()))
    })
    .await;
    publish(shard, first).await;
}

/// Brings the next image to every core.
pub async fn publish(shard: &Rc<Shard>, new: MetadataImage) {
    let changes = Arc::new(MetadataChanges::between(&shard.metadata.image(), &new));
    let new = Arc::new(new);
    on_every_core(shard, move |shard| shard.metadata.publish(new.clone(), changes.clone())).await;
}

/// One core after the other.
pub async fn on_every_core(shard: &Rc<Shard>, work: impl Fn(&Rc<Shard>) -> LocalFuture<()> + Clone + Send + 'static) {
    for core in 0..shard.core.node.shards {
        shard.invoke_on(core, work.clone()).await;
    }
}

/// What a handler knows of a client's request.
pub fn context(api_key: ApiKey, api_version: i16) -> RequestContext {
    let listener = Rc::new(ListenerInfo { name: "PLAINTEXT".to_owned(), is_controller: false });
    let peer = Peer { listener, address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)) };
    let answer_memory = AnswerMemory::default();
    RequestContext { peer, api_key, api_version, correlation_id: 0, client_id: None, answer_memory }
}
