//! A model of an Apache Kafka 4.3.1 broker: a simulated program that is a member of the cluster beside our nodes, and behaves on
//! the wire as Kafka's broker does, so that our controllers, leaders and followers meet one that isn't of their kind.
//!
//! It registers and sends heartbeats ([`lifecycle`]), learns the metadata as an observer of the quorum ([`observer`]), follows
//! leaders ([`fetcher`]) and is followed ([`fetch`]), takes what producers send ([`produce`]), asks for other in-sync replicas
//! ([`in_sync`]), and hands on to the controller what only that can do ([`forwarding`]). What a replica decides stands in files
//! that do nothing else: [`replica`], [`leading`], [`following`], [`reading`].
//!
//! What it writes lies in the page cache of its host ([`disk`]): it is killed, and never loses its power, since Kafka itself would
//! lose then what it acknowledged. It has no coordinators: in runs with such brokers there are no groups.

mod answers;
mod channel;
mod disk;
mod epochs;
mod fetch;
mod fetch_session;
mod fetcher;
mod following;
mod forwarding;
mod in_sync;
mod leading;
mod lifecycle;
mod log;
mod metadata_log;
mod observer;
mod peer;
mod produce;
mod producers;
mod reading;
mod replica;
mod server;
mod sessions;
mod settings;

use std::rc::Rc;

use ringlog_ring::{self as ring, sim};

pub use self::disk::Disk;
pub use self::settings::Settings;

/// The process, until it has stopped: SIGTERM stops it.
pub async fn run(settings: Settings, disk: Rc<Disk>) {
    let peer = Rc::new(peer::Peer::new(settings, disk));
    ring::spawn_detached(observer::run(peer.clone()));
    let told = peer.clone();
    ring::spawn_detached(async move {
        sim::signal(1).await;
        told.is_stopping.set(true);
        told.stopping.notify_all();
        // Who starts waits for metadata.
        told.image_changed.notify_all();
    });
    lifecycle::run(&peer).await;
}
