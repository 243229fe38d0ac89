//! `storage format`: what each log directory of a new node starts with.
//!
//! Every directory gets `meta.properties` and `bootstrap.checkpoint`; the metadata's also the first snapshot of a
//! dynamic quorum with the voters in it, if they are named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::Args;
use ringlog_config::ServerConfig;
use ringlog_log::meta_properties::MetaProperties;
use ringlog_log::names::META_PROPERTIES_FILE;
use ringlog_metadata::bootstrap::{
    BootstrapMetadata, BootstrapRequest, QuorumFormat, directory_description, kraft_version,
};
use ringlog_metadata::features::{KRAFT_VERSION, METADATA_VERSION};
use ringlog_protocol::metadata_records::{MetadataRecord, UserScramCredentialRecord};
use ringlog_raft::{Endpoint, ReplicaKey, VersionRange, Voter};
use ringlog_shards::{DirectoryFormat, block_on, files_now, format_directory};
use ringlog_types::{NodeId, Random, TimestampMs, Uuid};

use super::{directories, read_config, scram};
use crate::cli::feature_tables::parse_feature;
use crate::cli::output::Output;

/// The options of `storage format`.
#[derive(Debug, Default, Args)]
pub struct FormatArgs {
    /// The Kafka configuration file to use.
    #[arg(long, short)]
    pub config: String,
    /// The cluster ID to use.
    #[arg(long, short = 't')]
    pub cluster_id: String,
    /// A SCRAM credential: 'SCRAM-SHA-256=[name=alice,password=alice-secret]' or
    /// 'SCRAM-SHA-512=[name=alice,iterations=8192,salt="N3E=",saltedpassword="YCE="]'. May be given several times.
    #[arg(long, short = 'S')]
    pub add_scram: Vec<String>,
    /// Skip over directories that are already formatted rather than fail.
    #[arg(long, short = 'g')]
    pub ignore_formatted: bool,
    /// The release version for the first feature levels: 3.3-IV3 at least. (default: 4.3-IV0)
    #[arg(long, short)]
    pub release_version: Option<String>,
    /// A feature's level, feature=level. May be given several times.
    #[arg(long, short)]
    pub feature: Vec<String>,
    /// Make this controller a dynamic quorum of one. controller.quorum.voters must not be set.
    #[arg(long, short, conflicts_with_all = ["no_initial_controllers", "initial_controllers"])]
    pub standalone: bool,
    /// Format without a quorum: the node will join one. controller.quorum.voters should not be set.
    #[arg(long, short = 'N', conflicts_with = "initial_controllers")]
    pub no_initial_controllers: bool,
    /// Make these controllers the dynamic quorum: id@host:port:directory[,…], the same on all nodes.
    #[arg(long, short = 'I')]
    pub initial_controllers: Option<String>,
}

/// Formats what isn't formatted. The error is what Kafka's tool says.
pub fn run(args: &FormatArgs, random: &mut Random, out: &mut dyn Output) -> Result<(), String> {
    let config = read_config(&args.config)?;
    format(args, &config, random, now(), out)
}

/// The wall clock.
#[allow(clippy::disallowed_methods, reason = "files carry the time at which they were written")]
pub fn now() -> TimestampMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// As [`run`] with the configuration read and the time known.
pub fn format(
    args: &FormatArgs,
    config: &ServerConfig,
    random: &mut Random,
    now: TimestampMs,
    out: &mut dyn Output,
) -> Result<(), String> {
    let quorum = quorum_format(args, config)?;
    let mut features = BTreeMap::new();
    for argument in &args.feature {
        let (name, level) = parse_feature(argument)?;
        if features.insert(name.clone(), level).is_some() {
            return Err(format!("Feature {name} was specified more than once."));
        }
    }
    let scram = args.add_scram.iter().map(|argument| scram::parse(argument, random)).collect::<Result<_, _>>()?;
    kraft_version(quorum, config.roles.controller, features.get(KRAFT_VERSION).copied())
        .map_err(|fault| fault.to_string())?;
    let unstable = config.properties.get("unstable.feature.versions.enable");
    let request = BootstrapRequest {
        release_version: args.release_version.clone(),
        feature_levels: features,
        scram,
        unstable_feature_versions_enable: unstable.is_some_and(|value| value == "true"),
    };
    let bootstrap = BootstrapMetadata::new(&request).map_err(|fault| fault.to_string())?;

    let mut taken = taken_directory_ids(config);
    let Some(new) = unformatted_directories(args, config, out)? else { return Ok(()) };
    let voters = voters(args, config, random)?;
    out.line(&format!("Bootstrap metadata: {}", show(&bootstrap)));
    let name = bootstrap.metadata_version();
    for directory in &new {
        let is_metadata = *directory == config.metadata_log_dir;
        let own = voters.iter().find(|voter| voter.key.id == config.node_id).and_then(|voter| voter.key.directory_id);
        let what = match quorum {
            QuorumFormat::InitialVoters if is_metadata && own.is_none() => "dynamic metadata directory",
            quorum => directory_description(quorum, is_metadata),
        };
        out.line(&format!("Formatting {what} {directory} with {METADATA_VERSION} {name}."));
        let id = own.filter(|_| is_metadata).unwrap_or_else(|| new_directory_id(&mut taken, random));
        let cluster_id = args.cluster_id.clone();
        let format = DirectoryFormat {
            properties: MetaProperties { cluster_id, node_id: config.node_id, directory_id: Some(id) },
            bootstrap: &bootstrap,
            voters: if is_metadata { &voters } else { &[] },
            now,
        };
        block_on(format_directory(&files_now(), Path::new(directory), &format))
            .map_err(|fault| format!("Error while writing to {directory}: {fault}"))?;
    }
    Ok(())
}

/// The directories that aren't formatted yet; `None` if all are. Those that are must belong to this node and cluster.
fn unformatted_directories(
    args: &FormatArgs,
    config: &ServerConfig,
    out: &mut dyn Output,
) -> Result<Option<Vec<String>>, String> {
    let (mut new, mut formatted) = (Vec::new(), Vec::new());
    for directory in directories(config) {
        let file = Path::new(&directory).join(META_PROPERTIES_FILE);
        match fs::read(&file).map(|bytes| MetaProperties::parse(&bytes)) {
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => new.push(directory),
            Ok(Ok(properties)) => formatted.push((directory, file, properties)),
            unreadable => {
                let reason = match unreadable {
                    Err(fault) => fault.to_string(),
                    Ok(parsed) => parsed.err().map_or_else(String::new, |fault| fault.to_string()),
                };
                out.error(&format!("Error while reading meta.properties file {}: {reason}", file.display()));
                out.line(&format!("I/O error trying to read log directory {directory}. Ignoring..."));
            }
        }
    }
    for (_, file, MetaProperties { cluster_id, node_id, .. }) in &formatted {
        let file = file.display();
        if *cluster_id != args.cluster_id {
            let expected = &args.cluster_id;
            return Err(format!("Invalid cluster.id in: {file}. Expected {expected}, but read {cluster_id}"));
        }
        if *node_id != config.node_id {
            return Err(format!(
                "Stored node id {node_id} doesn't match previous node id {} in {file}. If you moved your data, make sure \
                 your configured node id matches. If you intend to create a new node, you should remove all data in your \
                 data directories.",
                config.node_id
            ));
        }
    }
    match formatted.first() {
        Some((directory, ..)) if !args.ignore_formatted => Err(format!(
            "Log directory {directory} is already formatted. Use --ignore-formatted to ignore this directory and format \
             the others."
        )),
        _ if !new.is_empty() => Ok(Some(new)),
        Some(_) => {
            out.line("All of the log directories are already formatted.");
            Ok(None)
        }
        None => Err("No available log directories to format.".to_owned()),
    }
}

fn quorum_format(args: &FormatArgs, config: &ServerConfig) -> Result<QuorumFormat, String> {
    let is_controller = config.roles.controller;
    let has_static_voters = !config.quorum_voters.is_empty();
    if args.standalone && !is_controller {
        return Err("You can only use --standalone on a controller.".to_owned());
    }
    if has_static_voters && (args.standalone || args.initial_controllers.is_some()) {
        return Err("You cannot specify controller.quorum.voters and format the node with --initial-controllers or \
                    --standalone. If you want to use dynamic quorum, please remove controller.quorum.voters and \
                    specify controller.quorum.bootstrap.servers instead."
            .to_owned());
    }
    if has_static_voters && args.no_initial_controllers {
        return Err("You cannot specify controller.quorum.voters and format the node with --no-initial-controllers. \
                    If you want to use dynamic quorum, please remove controller.quorum.voters and specify \
                    controller.quorum.bootstrap.servers instead."
            .to_owned());
    }
    Ok(match () {
        () if args.standalone || args.initial_controllers.is_some() => QuorumFormat::InitialVoters,
        () if args.no_initial_controllers => QuorumFormat::NoInitialVoters,
        () if has_static_voters => QuorumFormat::StaticVoters,
        () => QuorumFormat::Unspecified,
    })
}

/// The voters that the quorum starts with: this node, or those that are named.
fn voters(args: &FormatArgs, config: &ServerConfig, random: &mut Random) -> Result<Vec<Voter>, String> {
    if args.standalone {
        let listeners = config.advertised_controller_listeners.iter();
        let endpoint = |listener: &ringlog_config::Listener| {
            (listener.name.clone(), Endpoint { host: listener.host.clone(), port: listener.port })
        };
        let key = ReplicaKey { id: config.node_id, directory_id: Some(Uuid::random(random)) };
        let endpoints = listeners.map(endpoint).collect();
        return Ok(vec![Voter { key, endpoints, kraft_version: VersionRange::SUPPORTED }]);
    }
    let Some(text) = &args.initial_controllers else { return Ok(Vec::new()) };
    let listener = config.controller_listener_names.first().cloned().unwrap_or_default();
    let voters = text.split(',').map(|voter| parse_voter(voter.trim(), &listener)).collect::<Result<Vec<_>, _>>()?;
    let ids: BTreeSet<NodeId> = voters.iter().map(|voter| voter.key.id).collect();
    match ids.len() == voters.len() {
        true => Ok(voters),
        false => Err(format!("Failed to parse the voters: a node id is there twice in {text}")),
    }
}

/// `id@host:port:directory`.
fn parse_voter(text: &str, listener: &str) -> Result<Voter, String> {
    let (id, rest) = text.split_once('@').ok_or_else(|| format!("No @ found in dynamic voter string {text}."))?;
    let id: i32 = id.parse().ok().filter(|id| *id >= 0).ok_or_else(|| format!("Invalid replica id {id} in {text}."))?;
    let (host, rest) = match rest.strip_prefix('[') {
        Some(address) => {
            let end =
                address.split_once(']').ok_or("Hostname began with left bracket, but no right bracket was found.")?;
            (end.0, end.1.strip_prefix(':').ok_or("No colon following hostname could be found.")?)
        }
        None => rest.split_once(':').ok_or("No colon following hostname could be found.")?,
    };
    let (port, directory) = rest.split_once(':').ok_or("No colon following port could be found.")?;
    let port: u16 = port.parse().map_err(|_| format!("Invalid port {port} in dynamic voter string {text}."))?;
    let directory: Uuid =
        directory.parse().map_err(|_| format!("Failed to parse directory ID {directory} in dynamic voter string."))?;
    Ok(Voter {
        key: ReplicaKey { id: NodeId(id), directory_id: Some(directory) },
        endpoints: BTreeMap::from([(listener.to_owned(), Endpoint { host: host.to_owned(), port })]),
        kraft_version: VersionRange::SUPPORTED,
    })
}

/// Ids of directories that were formatted before.
fn taken_directory_ids(config: &ServerConfig) -> BTreeSet<Uuid> {
    let read = |directory: &String| {
        let bytes = fs::read(Path::new(directory).join("meta.properties")).ok()?;
        MetaProperties::parse(&bytes).ok()?.directory_id
    };
    directories(config).iter().filter_map(read).collect()
}

fn new_directory_id(taken: &mut BTreeSet<Uuid>, random: &mut Random) -> Uuid {
    loop {
        let id = Uuid::random(random);
        if taken.insert(id) {
            return id;
        }
    }
}

/// The records as Kafka's tool prints them.
fn show(bootstrap: &BootstrapMetadata) -> String {
    let show_record = |record: &MetadataRecord| match record {
        MetadataRecord::FeatureLevel(it) => {
            format!("FeatureLevelRecord(name='{}', featureLevel={})", it.name, it.feature_level)
        }
        MetadataRecord::UserScramCredential(it) => show_credential(it),
        other => format!("{other:?}"),
    };
    let records = bootstrap
        .records
        .iter()
        .map(|record| format!("ApiMessageAndVersion({} at version {})", show_record(&record.record), record.version));
    format!(
        "BootstrapMetadata(records=[{}], metadataVersionLevel={}, source=format command)",
        records.collect::<Vec<_>>().join(", "),
        bootstrap.level(METADATA_VERSION)
    )
}

fn show_credential(credential: &UserScramCredentialRecord) -> String {
    // Java's bytes are signed.
    let bytes = |bytes: &[u8]| bytes.iter().map(|byte| byte.cast_signed().to_string()).collect::<Vec<_>>().join(", ");
    format!(
        "UserScramCredentialRecord(name='{}', mechanism={}, salt=[{}], storedKey=[{}], serverKey=[{}], iterations={})",
        credential.name,
        credential.mechanism,
        bytes(&credential.salt),
        bytes(&credential.stored_key),
        bytes(&credential.server_key),
        credential.iterations
    )
}
