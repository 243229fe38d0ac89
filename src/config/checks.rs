//! The checks of a node's configuration that look at more than one key, in Kafka's words.

use ringlog_types::NodeId;
use rustc_hash::FxHashMap;

use crate::ConfigMap;
use crate::listener::{
    Listener, SecurityProtocol, Voter, parse_bootstrap_servers, parse_listeners, parse_security_protocol_map,
    parse_voters,
};
use crate::server::{ConfigError, Values, Warning};

/// Listeners and quorum of a node.
pub(crate) struct Endpoints {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) advertised: Vec<Listener>,
    pub(crate) advertised_controller: Vec<Listener>,
    pub(crate) controller_names: Vec<String>,
    pub(crate) inter_broker_name: String,
    pub(crate) protocols: FxHashMap<String, SecurityProtocol>,
    pub(crate) early_start: Vec<String>,
    pub(crate) voters: Vec<Voter>,
    pub(crate) bootstrap_servers: Vec<(String, u16)>,
}

fn conflict<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Conflict(text.into()))
}

fn upper(names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| name.to_ascii_uppercase()).collect()
}

/// Reads listeners and quorum and checks them against the node's roles.
pub(crate) fn endpoints(given: &ConfigMap, values: &Values) -> Result<Endpoints, ConfigError> {
    let controller_names = upper(values.get("controller.listener.names"));
    let listener_texts: Vec<String> = values.get("listeners");
    let protocols = protocols(given, values, &controller_names, &listener_texts)?;
    let listeners = parse_listeners(&listener_texts, &protocols, true)?;
    let advertised_texts: Option<Vec<String>> = values.get("advertised.listeners");
    let all_advertised = match &advertised_texts {
        Some(texts) => parse_listeners(texts, &protocols, false)?,
        None => listeners.clone(),
    };
    let is_controller = |listener: &Listener| controller_names.contains(&listener.name);
    let mut advertised_controller: Vec<Listener> = listeners.iter().filter(|one| is_controller(one)).cloned().collect();
    for listener in &mut advertised_controller {
        if let Some(given) = all_advertised.iter().find(|one| one.name == listener.name) {
            listener.clone_from(given);
        }
    }
    let endpoints = Endpoints {
        advertised: all_advertised.into_iter().filter(|one| !is_controller(one)).collect(),
        advertised_controller,
        inter_broker_name: inter_broker_name(given, values, &protocols)?,
        early_start: early_start(values, &listeners, &controller_names)?,
        voters: parse_voters(&values.get::<Vec<String>>("controller.quorum.voters"))?,
        bootstrap_servers: parse_bootstrap_servers(&values.get::<Vec<String>>("controller.quorum.bootstrap.servers"))?,
        listeners,
        controller_names,
        protocols,
    };
    check_roles(values, &endpoints)?;
    Ok(endpoints)
}

/// The security protocol per listener name. Unless the map is given, or TLS or SASL is in play, controller listeners
/// are plaintext.
fn protocols(
    given: &ConfigMap,
    values: &Values,
    controller_names: &[String],
    listeners: &[String],
) -> Result<FxHashMap<String, SecurityProtocol>, ConfigError> {
    let key = "listener.security.protocol.map";
    let mut protocols = parse_security_protocol_map(&values.get::<String>(key))?;
    let secured =
        |name: &str| SecurityProtocol::from_name(name).is_some_and(|protocol| protocol != SecurityProtocol::Plaintext);
    let listener_name = |text: &String| text.split_once("://").map_or_else(String::new, |(name, _)| name.to_owned());
    let any_secured =
        controller_names.iter().any(|name| secured(name)) || listeners.iter().any(|text| secured(&listener_name(text)));
    if !given.contains_key(key) && !any_secured {
        for name in controller_names {
            protocols.insert(name.clone(), SecurityProtocol::Plaintext);
        }
    }
    Ok(protocols)
}

fn inter_broker_name(
    given: &ConfigMap,
    values: &Values,
    protocols: &FxHashMap<String, SecurityProtocol>,
) -> Result<String, ConfigError> {
    let Some(name) = values.get::<Option<String>>("inter.broker.listener.name") else {
        return Ok(values.get("security.inter.broker.protocol"));
    };
    if given.contains_key("security.inter.broker.protocol") {
        return conflict("Only one of inter.broker.listener.name and security.inter.broker.protocol should be set.");
    }
    let name = name.to_ascii_uppercase();
    if !protocols.contains_key(&name) {
        return conflict(format!(
            "Listener with name {name} defined in inter.broker.listener.name not found in \
             listener.security.protocol.map."
        ));
    }
    Ok(name)
}

fn early_start(
    values: &Values,
    listeners: &[Listener],
    controller_names: &[String],
) -> Result<Vec<String>, ConfigError> {
    let Some(names) = values.get::<Option<Vec<String>>>("early.start.listeners") else {
        return Ok(controller_names.to_vec());
    };
    let names = upper(names);
    let known = |name: &&String| {
        listeners.iter().any(|listener| listener.name == **name) || controller_names.iter().any(|one| one == *name)
    };
    match names.iter().find(|name| !known(name)) {
        None => Ok(names),
        Some(name) => conflict(format!(
            "early.start.listeners contains listener {name}, but this is not contained in listeners or \
             controller.listener.names"
        )),
    }
}

fn check_roles(values: &Values, endpoints: &Endpoints) -> Result<(), ConfigError> {
    let roles: Vec<String> = values.get("process.roles");
    let broker = roles.iter().any(|role| role == "broker");
    let controller = roles.iter().any(|role| role == "controller");
    let node_id = NodeId(values.get("node.id"));
    let broker_id: i32 = values.get("broker.id");
    if broker_id >= 0 && broker_id != node_id.0 {
        return conflict("You must set `node.id` to the same value as `broker.id`.");
    }
    if endpoints.voters.is_empty() && endpoints.bootstrap_servers.is_empty() {
        return conflict(
            "If using process.roles, either controller.quorum.bootstrap.servers must contain the set of bootstrap \
             controllers or controller.quorum.voters must contain a parseable set of controllers.",
        );
    }
    check_voters(node_id, controller, &endpoints.voters)?;
    let is_controller = |listener: &&Listener| endpoints.controller_names.contains(&listener.name);
    let controller_listeners = endpoints.listeners.iter().filter(is_controller).count();
    if !controller && controller_listeners > 0 {
        return conflict(
            "The controller.listener.names config must not contain a value appearing in the 'listeners' configuration \
             when running KRaft with just the broker role",
        );
    }
    if !broker && controller_listeners < endpoints.listeners.len() {
        return conflict(
            "The listeners config must only contain KRaft controller listeners from controller.listener.names when \
             process.roles=controller",
        );
    }
    if controller && controller_listeners == 0 {
        return conflict(
            "controller.listener.names must contain at least one value appearing in the 'listeners' configuration \
             when running the KRaft controller role",
        );
    }
    check_controller_protocols(endpoints)?;
    let advertised = endpoints.advertised.iter().chain(&endpoints.advertised_controller);
    if advertised.into_iter().any(|listener| listener.host == "0.0.0.0") {
        return conflict(
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address.",
        );
    }
    if broker { check_advertised(endpoints) } else { Ok(()) }
}

fn check_voters(node_id: NodeId, controller: bool, voters: &[Voter]) -> Result<(), ConfigError> {
    let is_voter = voters.iter().any(|voter| voter.id == node_id);
    if voters.is_empty() || controller == is_voter {
        return Ok(());
    }
    let ids: Vec<String> = voters.iter().map(|voter| voter.id.to_string()).collect();
    let ids = ids.join(", ");
    if controller {
        conflict(format!(
            "If process.roles contains the 'controller' role, the node id {node_id} must be included in the set of \
             voters controller.quorum.voters=Set({ids})"
        ))
    } else {
        conflict(format!(
            "If process.roles contains just the 'broker' role, the node id {node_id} must not be included in the set \
             of voters controller.quorum.voters=Set({ids})"
        ))
    }
}

fn check_controller_protocols(endpoints: &Endpoints) -> Result<(), ConfigError> {
    match endpoints.controller_names.iter().find(|name| !endpoints.protocols.contains_key(*name)) {
        None => Ok(()),
        Some(name) => conflict(format!(
            "Controller listener with name {name} defined in controller.listener.names not found in \
             listener.security.protocol.map  (an explicit security mapping for each controller listener is required if \
             listener.security.protocol.map is non-empty, or if there are security protocols other than PLAINTEXT in \
             use)"
        )),
    }
}

fn check_advertised(endpoints: &Endpoints) -> Result<(), ConfigError> {
    if endpoints.advertised.is_empty() {
        return conflict(
            "There must be at least one broker advertised listener. Perhaps all listeners appear in \
             controller.listener.names?",
        );
    }
    let names: Vec<&str> = endpoints.advertised.iter().map(|listener| listener.name.as_str()).collect();
    if !names.contains(&endpoints.inter_broker_name.as_str()) {
        return conflict(format!(
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid options \
             based on currently configured listeners are {}",
            names.join(",")
        ));
    }
    let listened = |name: &str| endpoints.listeners.iter().any(|listener| listener.name == name);
    match names.iter().find(|name| !listened(name)) {
        None => Ok(()),
        Some(_) => {
            let listeners: Vec<&str> = endpoints.listeners.iter().map(|listener| listener.name.as_str()).collect();
            conflict(format!(
                "advertised.listeners listener names must be equal to or a subset of the ones defined in listeners. \
                 Found {}. The valid options based on the current configuration are {}",
                names.join(","),
                listeners.join(",")
            ))
        }
    }
}

/// Points out what works, but not well.
pub(crate) fn warn(values: &Values, endpoints: &Endpoints, warnings: &mut Vec<Warning>) {
    let heartbeat: i32 = values.get("broker.heartbeat.interval.ms");
    let session: i32 = values.get("broker.session.timeout.ms");
    if i64::from(heartbeat) * 2 > i64::from(session) {
        warnings.push(Warning::Unwise(format!(
            "broker.heartbeat.interval.ms ({heartbeat} ms) must be less than or equal to half of the \
             broker.session.timeout.ms ({session} ms). The broker.session.timeout.ms is configured on controller. The \
             broker.heartbeat.interval.ms is configured on broker. If a broker doesn't send heartbeat request within \
             broker.session.timeout.ms, it loses broker lease. Please increase broker.session.timeout.ms or decrease \
             broker.heartbeat.interval.ms."
        )));
    }
    if !endpoints.voters.is_empty() && !endpoints.bootstrap_servers.is_empty() {
        warnings.push(Warning::NoEffect {
            key: "controller.quorum.bootstrap.servers".to_owned(),
            reason: "controller.quorum.voters names the quorum",
        });
    }
}

/// Checks everything but listeners and quorum. It also holds for what dynamic configuration makes of the keys.
pub(crate) fn consistency(values: &Values, errors: &mut Vec<ConfigError>) {
    let mut require = |holds: bool, text: String| {
        if !holds {
            errors.push(ConfigError::Conflict(text));
        }
    };
    times_and_sizes(values, &mut require);
    replication(values, &mut require);
    connections(values, &mut require);
    groups(values, &mut require);
    directories(values, &mut require);
}

type Require<'a> = &'a mut dyn FnMut(bool, String);

fn times_and_sizes(values: &Values, require: Require<'_>) {
    let scaled = |keys: [(&str, i64); 3]| {
        let given = |(key, unit): (&str, i64)| match values.value(key)? {
            crate::ConfigValue::Integer(number) => Some(number.saturating_mul(unit)),
            _ => None,
        };
        keys.into_iter().find_map(given)
    };
    let retention =
        scaled([("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)]);
    require(retention != Some(0), "log.retention.ms must be unlimited (-1) or, greater than or equal to 1".to_owned());
    let roll = scaled([("log.roll.ms", 1), ("log.roll.hours", 3_600_000), ("", 1)]);
    require(roll.is_none_or(|roll| roll >= 1), "log.roll.ms must be greater than or equal to 1".to_owned());
    let jitter = scaled([("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000), ("", 1)]);
    require(
        jitter.is_none_or(|jitter| jitter >= 0),
        "log.roll.jitter.ms must be greater than or equal to 0".to_owned(),
    );
    let threads = i64::from(values.get::<i32>("log.cleaner.threads"));
    require(threads > 0, "log.cleaner.threads must be greater than or equal to 1".to_owned());
    let per_thread = values.get::<i64>("log.cleaner.dedupe.buffer.size").checked_div(threads);
    require(
        per_thread.is_none_or(|bytes| bytes > 1 << 20),
        "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.".to_owned(),
    );
    for key in ["offsets.topic.compression.codec", "share.coordinator.state.topic.compression.codec"] {
        let codec: i32 = values.get(key);
        require((0..=4).contains(&codec), format!("Unknown compression type id: {codec}"));
    }
}

fn replication(values: &Values, require: Require<'_>) {
    let wait: i32 = values.get("replica.fetch.wait.max.ms");
    require(
        wait <= values.get::<i32>("replica.socket.timeout.ms"),
        "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent unnecessary socket \
         timeouts"
            .to_owned(),
    );
    require(
        i64::from(wait) <= values.get::<i64>("replica.lag.time.max.ms"),
        "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms to prevent frequent \
         changes in ISR"
            .to_owned(),
    );
}

fn connections(values: &Values, require: Require<'_>) {
    let queued: i64 = values.get("queued.max.request.bytes");
    let largest = i64::from(values.get::<i32>("socket.request.max.bytes"));
    require(
        queued <= 0 || queued >= largest,
        "queued.max.request.bytes must be larger or equal to socket.request.max.bytes".to_owned(),
    );
    let overrides: String = values.get("max.connections.per.ip.overrides");
    require(
        values.get::<i32>("max.connections.per.ip") != 0 || !overrides.is_empty(),
        "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set."
            .to_owned(),
    );
    for entry in overrides.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let count = entry.rsplit_once(':').and_then(|(_, count)| count.trim().parse::<i32>().ok());
        require(
            count.is_some(),
            format!(
                "Error parsing configuration property 'max.connections.per.ip.overrides': {entry}: each entry should \
                 be in the form HOST:COUNT"
            ),
        );
    }
}

fn groups(values: &Values, require: Require<'_>) {
    let protocols: Vec<String> = values.get("group.coordinator.rebalance.protocols");
    require(
        protocols.iter().any(|protocol| protocol == "classic"),
        "Disabling the 'classic' protocol is not supported.".to_owned(),
    );
    let kinds = ["group.consumer", "group.share", "group.streams"];
    let mut numbers: Vec<(&str, &str)> = Vec::new();
    for kind in kinds {
        for name in ["heartbeat.interval.ms", "session.timeout.ms", "assignment.interval.ms"] {
            numbers.push((kind, name));
        }
    }
    for name in ["record.lock.duration.ms", "delivery.count.limit", "partition.max.record.locks"] {
        numbers.push(("group.share", name));
    }
    for (kind, name) in numbers {
        let (key, smallest, largest) =
            (format!("{kind}.{name}"), format!("{kind}.min.{name}"), format!("{kind}.max.{name}"));
        let (value, min, max): (i32, i32, i32) = (values.get(&key), values.get(&smallest), values.get(&largest));
        require(max >= min, format!("{largest} must be greater than or equal to {smallest}"));
        require(value >= min, format!("{key} must be greater than or equal to {smallest}"));
        require(value <= max, format!("{key} must be less than or equal to {largest}"));
    }
    for kind in kinds {
        let (heartbeat, session) = (format!("{kind}.heartbeat.interval.ms"), format!("{kind}.session.timeout.ms"));
        require(
            values.get::<i32>(&heartbeat) < values.get(&session),
            format!("{heartbeat} must be less than {session}"),
        );
    }
    for (smaller, larger) in [
        ("group.streams.num.standby.replicas", "group.streams.max.standby.replicas"),
        ("group.share.max.size", "group.share.max.share.sessions"),
    ] {
        require(
            values.get::<i32>(smaller) <= values.get(larger),
            format!("{smaller} must be less than or equal to {larger}"),
        );
    }
}

fn directories(values: &Values, require: Require<'_>) {
    let cordoned = values.get::<Option<Vec<String>>>("cordoned.log.dirs").unwrap_or_default();
    if let Err(text) = check_cordoned(&cordoned, &values.log_dirs()) {
        require(false, text);
    }
}

/// Cordoned directories are the node's, or `*` alone.
pub(crate) fn check_cordoned(cordoned: &[String], log_dirs: &[String]) -> Result<(), String> {
    if cordoned.iter().any(|dir| dir == "*") {
        if cordoned.len() == 1 {
            return Ok(());
        }
        return Err("When cordoned.log.dirs is set to *, it must not contain other values".to_owned());
    }
    let missing: Vec<&str> = cordoned.iter().filter(|dir| !log_dirs.contains(dir)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries : {}",
        missing.join(", ")
    ))
}
