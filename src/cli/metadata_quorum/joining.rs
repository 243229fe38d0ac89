//! The controller that `add-controller` adds, out of its own configuration.

use std::collections::BTreeMap;
use std::path::Path;

use ringlog_log::meta_properties::MetaProperties;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::add_raft_voter_request::Listener;
use ringlog_types::Uuid;

use crate::cli::client_config::ClientProperties;

/// Who joins, and where the others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// Its node id.
    pub id: i32,
    /// The id of its metadata directory.
    pub directory_id: Uuid,
    /// Name, host and port of its advertised controller listeners, the preferred one first.
    endpoints: Vec<(String, String, u16)>,
}

impl Joining {
    /// Reads what is needed of a controller's properties. The file isn't checked as a node would.
    pub fn from_config(config: &ClientProperties) -> Result<Joining, String> {
        let not_found = |what: &str| format!("{what} Is this a valid controller configuration file?");
        let id = config.get("node.id").ok_or_else(|| not_found("node.id not found in configuration file."))?;
        let id: i32 = id.parse().map_err(|_| format!("For input string: \"{id}\""))?;
        if id < 0 {
            return Err(not_found("node.id was negative in configuration file."));
        }
        if !config.get("process.roles").unwrap_or_default().contains("controller") {
            return Err(not_found("process.roles did not contain 'controller' in configuration file."));
        }
        let first_log_dir = config.get("log.dirs").map(|dirs| dirs.split(',').next().unwrap_or_default());
        let directory = config.get("metadata.log.dir").or(first_log_dir);
        let directory = directory.ok_or_else(|| not_found("Neither metadata.log.dir nor log.dirs were found."))?;
        let directory_id = directory_id(directory)?;
        let endpoints = endpoints(config)?;
        Ok(Joining { id, directory_id, endpoints })
    }

    /// For the request.
    pub fn listeners(&self) -> Vec<Listener> {
        let listener = |(name, host, port): &(String, String, u16)| Listener {
            name: StrBytes::copy_from(name),
            host: StrBytes::copy_from(host),
            port: *port,
        };
        self.endpoints.iter().map(listener).collect()
    }

    /// `NAME://host:port, …`.
    pub fn endpoints_text(&self) -> String {
        let text = |(name, host, port): &(String, String, u16)| match host.contains(':') {
            true => format!("{name}://[{host}]:{port}"),
            false => format!("{name}://{host}:{port}"),
        };
        self.endpoints.iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

fn directory_id(directory: &str) -> Result<Uuid, String> {
    let unreadable = || format!("Unable to read meta.properties from {directory}");
    let bytes = std::fs::read(Path::new(directory).join("meta.properties")).map_err(|_| unreadable())?;
    let properties = MetaProperties::parse(&bytes).map_err(|_| unreadable())?;
    properties.directory_id.ok_or_else(|| format!("No directory id found in {directory}"))
}

/// What is advertised goes before what is listened on.
fn endpoints(config: &ClientProperties) -> Result<Vec<(String, String, u16)>, String> {
    let names = config.get("controller.listener.names");
    let names =
        names.ok_or("controller.listener.names was not found. Is this a valid controller configuration file?")?;
    let mut known = BTreeMap::new();
    for key in ["listeners", "advertised.listeners"] {
        for entry in config.get(key).unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, host, port) = endpoint(entry)?;
            known.insert(name, (host, port));
        }
    }
    // Kafka's tool takes blanks around these names for part of them.
    let names = names.trim_end_matches(',').split(',').map(listener_name);
    names
        .map(|name| {
            let name = name?;
            match known.get(&name) {
                Some((host, port)) => Ok((name, host.clone(), *port)),
                None => Err(format!("Cannot find information about controller listener name: {name}")),
            }
        })
        .collect()
}

/// `NAME://host:port`; a host that is left out is this machine.
fn endpoint(entry: &str) -> Result<(String, String, u16), String> {
    let unparsable = || format!("Unable to parse {entry} to a broker endpoint");
    let (name, address) = entry.split_once("://").ok_or_else(unparsable)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(unparsable)?;
    let port: u16 = port.parse().map_err(|_| unparsable())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_of_host = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '%' | '.' | '_' | ':');
    if !host.chars().all(is_of_host) {
        return Err(unparsable());
    }
    let host = if host.is_empty() { this_machine() } else { host.to_owned() };
    Ok((listener_name(name)?, host, port))
}

fn listener_name(name: &str) -> Result<String, String> {
    match name {
        "" => Err("The provided listener name is null or empty string".to_owned()),
        name => Ok(name.to_ascii_uppercase()),
    }
}

/// The name that a node of this machine advertises if none is configured.
fn this_machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
