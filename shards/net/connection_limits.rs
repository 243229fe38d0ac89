//! Which connections are accepted: the limits that are configured, and what the process has descriptors for.
//!
//! Clients' connections of all cores are counted on core 0, those of the controller listener on the controller's core. One
//! that is too many is closed at once.

use std::net::IpAddr;
use std::rc::Rc;

use rustc_hash::FxHashMap;

/// What is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of all: what descriptors are there for.
    pub descriptors: usize,
    /// `max.connections`. The listener between brokers doesn't count towards it when there are others.
    pub total: usize,
    /// `listener.name.NAME.max.connections`.
    pub listener: Option<usize>,
    /// `max.connections.per.ip`.
    pub per_ip: usize,
    /// `max.connections.per.ip.overrides`.
    pub per_ip_overrides: Rc<FxHashMap<IpAddr, usize>>,
    /// The listener is that of other brokers, and clients have others.
    pub is_privileged: bool,
}

/// Why a connection isn't accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The process would have none left for files.
    #[error(
        "as many connections as there are file descriptors for: raise the limit on open files (ulimit -n, LimitNOFILE in a \
         systemd unit)"
    )]
    Descriptors,
    /// Of the node.
    #[error("max.connections is reached")]
    Total,
    /// Of one listener.
    #[error("max.connections of the listener is reached")]
    Listener,
    /// Of one address.
    #[error("max.connections.per.ip is reached")]
    PerIp,
}

/// The connections that are open.
#[derive(Debug, Default)]
pub struct Ledger {
    open: usize,
    by_listener: FxHashMap<Rc<str>, usize>,
    by_ip: FxHashMap<IpAddr, usize>,
}

impl Ledger {
    /// How many are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Counts a connection in, if it is allowed.
    pub fn admit(&mut self, limits: &Limits, listener: &Rc<str>, ip: IpAddr) -> Result<(), Refusal> {
        let of = |count: Option<&usize>| count.copied().unwrap_or(0);
        let ip = ip.to_canonical();
        if self.open >= limits.descriptors {
            return Err(Refusal::Descriptors);
        }
        if self.open >= limits.total && !limits.is_privileged {
            return Err(Refusal::Total);
        }
        if limits.listener.is_some_and(|limit| of(self.by_listener.get(listener)) >= limit) {
            return Err(Refusal::Listener);
        }
        let per_ip = limits.per_ip_overrides.get(&ip).copied().unwrap_or(limits.per_ip);
        if of(self.by_ip.get(&ip)) >= per_ip {
            return Err(Refusal::PerIp);
        }
        self.open += 1;
        *self.by_listener.entry(listener.clone()).or_default() += 1;
        *self.by_ip.entry(ip).or_default() += 1;
        Ok(())
    }

    /// A connection that was counted in has ended.
    pub fn release(&mut self, listener: &Rc<str>, ip: IpAddr) {
        self.open = self.open.saturating_sub(1);
        count_down(&mut self.by_listener, listener);
        // Addresses that are gone are forgotten: there may be many in the long run.
        count_down(&mut self.by_ip, &ip.to_canonical());
    }
}

fn count_down<K: std::hash::Hash + Eq>(counts: &mut FxHashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The entries of `max.connections.per.ip.overrides`: `HOST:COUNT`, separated by commas. What can't be read is left out:
/// the configuration was checked before.
pub fn parse_overrides(text: &str) -> Vec<(String, usize)> {
    let parse = |entry: &str| {
        let (host, count) = entry.trim().rsplit_once(':')?;
        Some((host.trim_matches(['[', ']']).to_owned(), count.trim().parse().ok()?))
    };
    text.split(',').filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let none = usize::MAX;
        Limits { descriptors: none, total: none, per_ip: none, ..Limits::default() }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn each_limit_refuses_one_too_many_and_lets_another_in_when_one_ends() {
        let listener: Rc<str> = "PLAINTEXT".into();
        for (limits, refusal) in [
            (Limits { descriptors: 3, ..limits() }, Refusal::Descriptors),
            (Limits { total: 3, ..limits() }, Refusal::Total),
            (Limits { listener: Some(3), ..limits() }, Refusal::Listener),
            (Limits { per_ip: 3, ..limits() }, Refusal::PerIp),
        ] {
            let mut ledger = Ledger::default();
            for _ in 0..3 {
                assert_eq!(ledger.admit(&limits, &listener, ip(1)), Ok(()));
            }
            assert_eq!(ledger.admit(&limits, &listener, ip(1)), Err(refusal));
            ledger.release(&listener, ip(1));
            assert_eq!(ledger.admit(&limits, &listener, ip(1)), Ok(()));
        }
    }

    #[test]
    fn addresses_and_listeners_are_counted_apart() {
        let (plain, other): (Rc<str>, Rc<str>) = ("PLAINTEXT".into(), "OTHER".into());
        let limits = Limits { per_ip: 1, listener: Some(2), ..limits() };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.admit(&limits, &plain, ip(1)), Ok(()));
        assert_eq!(ledger.admit(&limits, &other, ip(1)), Err(Refusal::PerIp));
        assert_eq!(ledger.admit(&limits, &other, ip(2)), Ok(()));
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 2]);
        assert_eq!(ledger.admit(&limits, &plain, mapped), Err(Refusal::PerIp), "10.0.0.2 as IPv6 writes it");
    }

    #[test]
    fn an_address_may_have_a_limit_of_its_own() {
        let listener: Rc<str> = "PLAINTEXT".into();
        let overrides = FxHashMap::from_iter([(ip(7), 2), (ip(8), 0)]);
        let limits = Limits { per_ip: 1, per_ip_overrides: Rc::new(overrides), ..limits() };
        let mut ledger = Ledger::default();
        let mut admits = |last| ledger.admit(&limits, &listener, ip(last)).is_ok();
        assert_eq!([7, 7, 7, 8, 9, 9].map(&mut admits), [true, true, false, false, true, false]);
    }

    #[test]
    fn other_brokers_get_in_beyond_the_nodes_limit() {
        let (plain, internal): (Rc<str>, Rc<str>) = ("PLAINTEXT".into(), "INTERNAL".into());
        let limits = Limits { total: 1, ..limits() };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.admit(&limits, &plain, ip(1)), Ok(()));
        assert_eq!(ledger.admit(&limits, &plain, ip(1)), Err(Refusal::Total));
        let privileged = Limits { is_privileged: true, ..limits.clone() };
        assert_eq!(ledger.admit(&privileged, &internal, ip(2)), Ok(()));
        assert_eq!(ledger.admit(&Limits { descriptors: 2, ..privileged }, &internal, ip(2)), Err(Refusal::Descriptors));
    }

    #[test]
    fn overrides_are_hosts_with_counts() {
        let parsed = parse_overrides("127.0.0.1:5, host.example:10,[::1]:3,nonsense");
        let expected = [("127.0.0.1", 5), ("host.example", 10), ("::1", 3)];
        assert_eq!(parsed, expected.map(|(host, count)| (host.to_owned(), count)));
        assert_eq!(parse_overrides(""), []);
    }
}
