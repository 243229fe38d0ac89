//! A broker's life in the cluster, as Kafka's `BrokerLifecycleManager` leads it: registered, fenced until the metadata has been
//! read, unfenced, and only then the port is open; in the end, leaderships go elsewhere first.

use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::broker_registration_request::{Feature, Listener};
use ringlog_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest};
use ringlog_ring::{self as ring, sleep_ms, timeout_ms};
use ringlog_types::{ErrorCode, Random, Uuid};

use super::answers::{FEATURES, cluster_id};
use super::channel::Channel;
use super::peer::Peer;
use super::{in_sync, server};
use crate::plan::CLIENT_PORT;

/// Waits after what failed: doubled each time.
const FIRST_BACKOFF_MS: u64 = 100;
const BACKOFF_MS_MAX: u64 = 3_000;
/// How long an answer is waited for.
const ANSWER_MS: u64 = 2_000;
/// The port is open so long after the broker was unfenced.
const OPENS_AFTER_MS: u64 = 17;
/// The first wait for other brokers to lead; then the heartbeat's interval.
const SHUTDOWN_AGAIN_MS: u64 = 50;
/// After so long a process that was told to stop does.
const SHUTDOWN_MS: u64 = 60_000;

/// From the start to the orderly end.
pub async fn run(peer: &Rc<Peer>) {
    let channel = Channel::default();
    let Some(epoch) = register(peer, &channel).await else { return };
    peer.epoch.set(epoch);
    if !beat_until(peer, &channel, true, |answer| answer.is_caught_up).await {
        return;
    }
    while !has_own_registration(peer) {
        peer.image_changed.wait().await;
        if peer.is_stopping.get() {
            return;
        }
    }
    peer.is_loaded.set(true);
    peer.on_image();
    ring::spawn_detached(in_sync::run(peer.clone()));
    ring::spawn_detached(in_sync::look_for_lagging(peer.clone()));
    ring::spawn_detached(save_high_watermarks(peer.clone()));
    if beat_until(peer, &channel, false, |answer| !answer.is_fenced).await {
        sleep_ms(OPENS_AFTER_MS).await;
        server::listen(peer).await;
        while !peer.is_stopping.get() {
            let _ = timeout_ms(peer.settings.heartbeat_ms, peer.stopping.wait()).await;
            if !peer.is_stopping.get() {
                beat(peer, &channel, (false, false)).await;
            }
        }
        shut_down(peer, &channel).await;
    }
    peer.save_high_watermarks();
    peer.disk.clean_epoch.set(Some(epoch));
}

/// The broker epoch; nothing when the process is told to stop before.
async fn register(peer: &Rc<Peer>, channel: &Channel) -> Option<i64> {
    let life = peer.disk.lives.get();
    peer.disk.lives.set(life + 1);
    let incarnation_id = Uuid::random(&mut Random::from_seed(peer.settings.seed ^ life << 32));
    let previous_broker_epoch = peer.disk.clean_epoch.take().unwrap_or(-1);
    let feature = |(name, min, max): &(&'static str, i16, i16)| Feature {
        name: StrBytes::from(*name),
        min_supported_version: *min,
        max_supported_version: *max,
    };
    let request = BrokerRegistrationRequest {
        broker_id: peer.id(),
        cluster_id: cluster_id(),
        incarnation_id,
        listeners: vec![Listener {
            name: StrBytes::from("PLAINTEXT"),
            host: StrBytes::copy_from(&peer.settings.host),
            port: CLIENT_PORT,
            security_protocol: 0,
        }],
        features: FEATURES.iter().map(feature).collect(),
        rack: peer.settings.rack.as_deref().map(StrBytes::copy_from),
        is_migrating_zk_broker: false,
        log_dirs: vec![peer.settings.directory_id],
        previous_broker_epoch,
    };
    let mut backoff_ms = FIRST_BACKOFF_MS;
    while !peer.is_stopping.get() {
        let answer = channel.ask(peer, &request, ANSWER_MS).await;
        let code = answer.as_ref().map_or(ErrorCode::RequestTimedOut.code(), |answer| answer.error_code);
        match ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError) {
            ErrorCode::None => return answer.map(|answer| answer.broker_epoch),
            ErrorCode::NotController | ErrorCode::RequestTimedOut | ErrorCode::DuplicateBrokerRegistration => {}
            error => peer.complain(&format!("registration is refused: {error:?}")),
        }
        let _ = timeout_ms(backoff_ms, peer.stopping.wait()).await;
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
    }
    None
}

fn has_own_registration(peer: &Peer) -> bool {
    let image = peer.image.borrow();
    image.cluster.broker(peer.id().into()).is_some_and(|broker| broker.epoch.0 >= peer.epoch.get())
}

/// Heartbeats until the controller says something. Says whether it did, before the process was told to stop.
async fn beat_until(
    peer: &Rc<Peer>,
    channel: &Channel,
    want_fence: bool,
    is_it: impl Fn(&BrokerHeartbeatResponse) -> bool,
) -> bool {
    while !peer.is_stopping.get() {
        let answer = beat(peer, channel, (want_fence, false)).await;
        if answer.is_some_and(|answer| is_it(&answer)) {
            return true;
        }
        // Who starts asks again as soon as there is more metadata.
        let news = async { if want_fence { peer.image_changed.wait().await } else { peer.stopping.wait().await } };
        let _ = timeout_ms(peer.settings.heartbeat_ms, news).await;
    }
    false
}

async fn beat(
    peer: &Peer,
    channel: &Channel,
    (want_fence, want_shut_down): (bool, bool),
) -> Option<BrokerHeartbeatResponse> {
    let request = BrokerHeartbeatRequest {
        broker_id: peer.id(),
        broker_epoch: peer.epoch.get(),
        current_metadata_offset: peer.disk.metadata.borrow().applied_offset(),
        want_fence,
        want_shut_down,
        offline_log_dirs: Vec::new(),
        cordoned_log_dirs: (!want_fence).then(Vec::new),
    };
    channel.ask(peer, &request, ANSWER_MS).await.filter(|answer| answer.error_code == 0)
}

/// Until the controller has moved all leaderships away.
async fn shut_down(peer: &Peer, channel: &Channel) {
    let deadline_ms = Peer::now_ms() + SHUTDOWN_MS;
    let mut wait_ms = SHUTDOWN_AGAIN_MS;
    while Peer::now_ms() < deadline_ms {
        let answer = beat(peer, channel, (false, true)).await;
        if answer.is_some_and(|answer| answer.should_shut_down) {
            return;
        }
        sleep_ms(wait_ms).await;
        wait_ms = peer.settings.heartbeat_ms;
    }
}

async fn save_high_watermarks(peer: Rc<Peer>) {
    loop {
        sleep_ms(peer.settings.save_ms).await;
        peer.save_high_watermarks();
    }
}
