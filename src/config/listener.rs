//! Listeners, quorum voters and bootstrap servers out of their texts.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ringlog_types::NodeId;
use rustc_hash::FxHashMap;

use crate::value::InvalidValue;

/// How peers talk on a listener. [`SecurityProtocol::code`] is the number in registration records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Every protocol.
    pub const ALL: [SecurityProtocol; 4] = [
        SecurityProtocol::Plaintext,
        SecurityProtocol::Ssl,
        SecurityProtocol::SaslPlaintext,
        SecurityProtocol::SaslSsl,
    ];

    /// The number on the wire.
    pub const fn code(self) -> i16 {
        match self {
            SecurityProtocol::Plaintext => 0,
            SecurityProtocol::Ssl => 1,
            SecurityProtocol::SaslPlaintext => 2,
            SecurityProtocol::SaslSsl => 3,
        }
    }

    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    /// The protocol of that name, whatever the case.
    pub fn from_name(name: &str) -> Option<SecurityProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An endpoint that a node listens on or advertises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in upper case.
    pub name: String,
    /// The host without brackets; empty for every address of the machine.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// What is spoken there.
    pub security_protocol: SecurityProtocol,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.name, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.name, self.host, self.port)
        }
    }
}

/// A voter of a static quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// The voter's node id.
    pub id: NodeId,
    /// Its host, without brackets.
    pub host: String,
    /// Its controller listener's port.
    pub port: u16,
}

/// Parses `listener.security.protocol.map`: `NAME:PROTOCOL` entries, of a repeated name the last.
pub fn parse_security_protocol_map(text: &str) -> Result<FxHashMap<String, SecurityProtocol>, InvalidValue> {
    let key = "listener.security.protocol.map";
    let mut map = FxHashMap::default();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let Some((name, protocol)) = entry.rsplit_once(':') else {
            let rule = "each entry should be in the form NAME:PROTOCOL";
            return Err(InvalidValue(format!("Error parsing configuration property '{key}': {entry}: {rule}")));
        };
        let Some(protocol_value) = SecurityProtocol::from_name(protocol.trim()) else {
            return Err(InvalidValue(format!("Invalid security protocol `{protocol}` defined in {key}")));
        };
        map.insert(name.trim().to_ascii_uppercase(), protocol_value);
    }
    Ok(map)
}

/// Parses the entries of `listeners` or `advertised.listeners`: `NAME://HOST:PORT`, names distinct. With
/// `distinct_ports` also ports must be distinct, except 0 and for one IPv4 and one IPv6 address.
pub fn parse_listeners(
    entries: &[String],
    protocols: &FxHashMap<String, SecurityProtocol>,
    distinct_ports: bool,
) -> Result<Vec<Listener>, InvalidValue> {
    let refuse = |reason: String| {
        InvalidValue(format!("Error creating broker listeners from '[{}]': {reason}", entries.join(", ")))
    };
    let mut listeners: Vec<Listener> = Vec::with_capacity(entries.len());
    for entry in entries {
        let listener = parse_listener(entry, protocols).map_err(refuse)?;
        if listeners.iter().any(|other| other.name == listener.name) {
            let all = entries.join(", ");
            return Err(refuse(format!("Each listener must have a different name, listeners: [{all}]")));
        }
        listeners.push(listener);
    }
    if distinct_ports {
        check_ports(&listeners, entries).map_err(refuse)?;
    }
    Ok(listeners)
}

fn check_ports(listeners: &[Listener], entries: &[String]) -> Result<(), String> {
    let all = entries.join(", ");
    let is_v4 = |listener: &Listener| listener.host.parse::<Ipv4Addr>().is_ok();
    let is_v6 = |listener: &Listener| listener.host.parse::<Ipv6Addr>().is_ok();
    for listener in listeners.iter().filter(|listener| listener.port != 0) {
        let same: Vec<_> = listeners.iter().filter(|other| other.port == listener.port).collect();
        match same.as_slice() {
            [_] => {}
            [first, second] if (is_v4(first) && is_v6(second)) || (is_v6(first) && is_v4(second)) => {}
            many if many.iter().all(|listener| is_v4(listener) || is_v6(listener)) => {
                return Err(format!(
                    "If you have two listeners on the same port then one needs to be IPv4 and the other IPv6, \
                     listeners: [{all}], port: {}",
                    listener.port
                ));
            }
            _ => return Err(format!("Each listener must have a different port, listeners: [{all}]")),
        }
    }
    Ok(())
}

fn parse_listener(entry: &str, protocols: &FxHashMap<String, SecurityProtocol>) -> Result<Listener, String> {
    let unparsable = || format!("Unable to parse {entry} to a broker endpoint");
    let (name, address) = entry.split_once("://").ok_or_else(unparsable)?;
    let (host, port) = split_host_port(address).ok_or_else(unparsable)?;
    let host_characters = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
    if name.is_empty() || !host.chars().all(host_characters) {
        return Err(unparsable());
    }
    let name = name.to_ascii_uppercase();
    let Some(security_protocol) = protocols.get(&name).copied() else {
        return Err(format!("No security protocol defined for listener {name}"));
    };
    Ok(Listener { name, host: host.to_owned(), port, security_protocol })
}

/// `HOST:PORT` or `[IPV6]:PORT`; the host may be empty.
fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// Parses the entries of `controller.quorum.voters`, `{id}@{host}:{port}`. Of a repeated id the last holds.
pub fn parse_voters(entries: &[String]) -> Result<Vec<Voter>, InvalidValue> {
    let key = "controller.quorum.voters";
    let mut voters: Vec<Voter> = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some((id, address)) = entry.split_once('@') else {
            return Err(InvalidValue(format!(
                "Invalid value [{}] for configuration {key}. Each entry should be in the form `{{id}}@{{host}}:{{port}}`.",
                entries.join(", ")
            )));
        };
        let id = id.parse().map_err(|_| InvalidValue(format!("Failed to parse voter ID as an integer from {id}")))?;
        let Some((host, port)) = split_host_port(address).filter(|(host, _)| !host.is_empty()) else {
            return Err(InvalidValue(format!(
                "Failed to parse host name from entry {entry} for the configuration {key}. Each entry should be in the \
                 form `{{id}}@{{host}}:{{port}}`."
            )));
        };
        voters.retain(|voter| voter.id != NodeId(id));
        voters.push(Voter { id: NodeId(id), host: host.to_owned(), port });
    }
    Ok(voters)
}

/// Parses the entries of `controller.quorum.bootstrap.servers`, `{host}:{port}`.
pub fn parse_bootstrap_servers(entries: &[String]) -> Result<Vec<(String, u16)>, InvalidValue> {
    let parse = |entry: &String| match split_host_port(entry).filter(|(host, _)| !host.is_empty()) {
        Some((host, port)) => Ok((host.to_owned(), port)),
        None => Err(InvalidValue(format!(
            "Failed to parse host name from {entry} for the configuration controller.quorum.bootstrap.servers. Each \
             entry should be in the form \"{{host}}:{{port}}\""
        ))),
    };
    entries.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Listener, String> {
        let protocols = parse_security_protocol_map("PLAINTEXT:PLAINTEXT, S:ssl").expect("a map");
        parse_listeners(&[text.to_owned()], &protocols, true)
            .map(|mut listeners| listeners.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn listeners_are_read_and_shown_alike() {
        for text in ["PLAINTEXT://:9092", "PLAINTEXT://[::1]:0", "S://a-b_c.example.com:65535"] {
            assert_eq!(parse(text).map(|listener| listener.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(parse("plaintext://h:1").map(|listener| listener.name), Ok("PLAINTEXT".to_owned()));
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        // Kafka takes the first two and fails when it binds.
        for text in ["PLAINTEXT://h:65536", "PLAINTEXT://h:-1", "PLAINTEXT://h:+1", "PLAINTEXT://[::1:1", "://h:1", "x"]
        {
            let refusal =
                format!("Error creating broker listeners from '[{text}]': Unable to parse {text} to a broker endpoint");
            assert_eq!(parse(text), Err(refusal));
        }
    }

    #[test]
    fn of_a_repeated_voter_the_last_holds() {
        let entries = ["1@a:1", "2@[::1]:2", "1@b:3"].map(str::to_owned);
        let voters = parse_voters(&entries).expect("voters");
        let shown: Vec<_> = voters.iter().map(|voter| (voter.id.0, voter.host.as_str(), voter.port)).collect();
        assert_eq!(shown, [(2, "::1", 2), (1, "b", 3)]);
    }
}
