//! Letting connections in: clients' are counted on core 0 for the whole node, those of the controller listener where they
//! are accepted.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use ringlog_metadata::image::ConfigResource;
use ringlog_ring as ring;
use rustc_hash::FxHashMap;
use tracing::warn;

use crate::core::{Core, Room};
use crate::metadata::MetadataView;
use crate::net::connection_limits::{Ledger, Limits, Refusal, parse_overrides};
use crate::net::request::ListenerInfo;
use crate::rarely::Rarely;

/// How often each kind of refusal is told of.
const SAY_EVERY_MS: u64 = 60_000;

/// What one core counts.
pub struct Admission {
    core: Rc<Core>,
    metadata: Rc<MetadataView>,
    brokers: RefCell<Ledger>,
    controllers: RefCell<Ledger>,
    said: RefCell<FxHashMap<Refusal, Rarely>>,
    overrides: RefCell<Overrides>,
}

impl Room for Admission {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl Admission {
    /// Nobody is connected.
    pub fn new(core: Rc<Core>, metadata: Rc<MetadataView>) -> Admission {
        Admission {
            core,
            metadata,
            brokers: RefCell::default(),
            controllers: RefCell::default(),
            said: RefCell::default(),
            overrides: RefCell::default(),
        }
    }

    /// Clients' connections, of all cores, that are counted on this one.
    pub fn clients(&self) -> usize {
        self.brokers.borrow().open()
    }
}

/// `max.connections.per.ip.overrides`, looked up.
#[derive(Default)]
struct Overrides {
    text: String,
    by_ip: Rc<FxHashMap<IpAddr, usize>>,
}

/// Counts a connection in; `false` when it is one too many.
pub async fn admit(admission: &Rc<Admission>, listener: &ListenerInfo, ip: IpAddr) -> bool {
    let (name, is_controller) = (listener.name.clone(), listener.is_controller);
    if is_controller {
        return admit_here(admission, &name, ip, true);
    }
    admission.ask(0, move |admission| admit_here(admission, &name, ip, is_controller)).await
}

/// A connection that was counted in has ended.
pub async fn release(admission: &Rc<Admission>, listener: &ListenerInfo, ip: IpAddr) {
    let name = listener.name.clone();
    if listener.is_controller {
        return admission.controllers.borrow_mut().release(&name.into(), ip);
    }
    admission.tell(0, move |admission| admission.brokers.borrow_mut().release(&name.into(), ip)).await;
}

fn admit_here(admission: &Rc<Admission>, listener: &str, ip: IpAddr, is_controller: bool) -> bool {
    let limits = limits(admission, listener, is_controller);
    let ledger = if is_controller { &admission.controllers } else { &admission.brokers };
    let Err(refusal) = ledger.borrow_mut().admit(&limits, &listener.into(), ip) else { return true };
    let mut said = admission.said.borrow_mut();
    let rarely = said.entry(refusal).or_default();
    if let Some(kept_back) = rarely.may_say(ring::now().monotonic, SAY_EVERY_MS) {
        warn!(listener, peer = %ip, kept_back, "connection closed: {refusal}");
    }
    false
}

/// As they are now: all but the descriptors can be changed while the node runs.
fn limits(admission: &Rc<Admission>, listener: &str, is_controller: bool) -> Limits {
    let node = &admission.core.node;
    let (descriptors, other_listeners) = if is_controller {
        (node.descriptors.controller_connections, 0)
    } else {
        (node.descriptors.broker_connections, node.config.broker_listeners().count().saturating_sub(1))
    };
    let own_key = format!("listener.name.{}.max.connections", listener.to_ascii_lowercase());
    admission.metadata.with_server_config(|config| {
        let network = &config.network;
        let count = |value: i32| usize::try_from(value).unwrap_or(usize::MAX);
        Limits {
            descriptors,
            total: count(network.max_connections),
            listener: given(admission, &own_key).and_then(|text| text.parse().ok()),
            per_ip: count(network.max_connections_per_ip),
            per_ip_overrides: overrides(admission, &network.max_connections_per_ip_overrides),
            is_privileged: other_listeners > 0 && listener == config.inter_broker_listener_name,
        }
    })
}

/// What is given for a key of one listener: for this broker, for all, or in the file.
fn given(admission: &Admission, key: &str) -> Option<String> {
    let image = admission.metadata.image();
    let dynamic = |resource: ConfigResource| {
        let configs = image.configs.get(&resource)?;
        configs.iter().find(|(name, _)| &***name == key).map(|(_, value)| value.to_string())
    };
    dynamic(ConfigResource::broker(admission.core.node.id))
        .or_else(|| dynamic(ConfigResource::broker_default()))
        .or_else(|| admission.core.node.config.properties.get(key).cloned())
}

/// Names in the overrides are looked up once, beside: until then they don't count.
fn overrides(admission: &Rc<Admission>, text: &str) -> Rc<FxHashMap<IpAddr, usize>> {
    let mut overrides = admission.overrides.borrow_mut();
    if overrides.text != text {
        let entries = parse_overrides(text);
        let literal = |(host, count): &(String, usize)| Some((host.parse::<IpAddr>().ok()?.to_canonical(), *count));
        let by_ip: FxHashMap<IpAddr, usize> = entries.iter().filter_map(literal).collect();
        *overrides = Overrides { text: text.to_owned(), by_ip: Rc::new(by_ip) };
        let names: Vec<(String, usize)> =
            entries.into_iter().filter(|(host, _)| host.parse::<IpAddr>().is_err()).collect();
        if !names.is_empty() {
            admission.core.spawn_until_stop(look_up(admission.clone(), text.to_owned(), names));
        }
    }
    overrides.by_ip.clone()
}

async fn look_up(admission: Rc<Admission>, text: String, names: Vec<(String, usize)>) {
    let mut found = Vec::new();
    for (host, count) in names {
        let addresses = ring::lookup(&host, 0).await.unwrap_or_default();
        found.extend(addresses.into_iter().map(|address| (address.ip().to_canonical(), count)));
    }
    let mut overrides = admission.overrides.borrow_mut();
    if overrides.text == text {
        let mut by_ip = (*overrides.by_ip).clone();
        by_ip.extend(found);
        overrides.by_ip = Rc::new(by_ip);
    }
}
