//! `server` (`kafka-server-start`): runs a node until it is told to stop.

use std::path::Path;

use clap::Parser;
use ringlog_config::{ConfigMap, ServerConfig, properties};
use ringlog_shards::StopRequest;
use ringlog_tuning::Subject;
use tracing::{error, info, warn};

use super::client_config::read_properties;
use super::jopt::{self, Words};
use super::logging::{self, Stream};
use super::output::Output;
use super::tool::{self, Refusal};
use super::{random_seed, signals};

/// Run a node.
#[derive(Debug, Parser)]
#[command(override_usage = "ringlog server server.properties [--override property=value]…")]
pub struct ServerArgs {
    /// The configuration: server.properties.
    #[arg(value_name = "server.properties")]
    files: Vec<String>,
    /// A property that replaces what the file says, key=value. May be given several times.
    #[arg(long = "override", value_name = "property=value")]
    overrides: Vec<String>,
    /// Print the version.
    #[arg(long)]
    version: bool,
    /// Refused: run the node under a service manager instead.
    #[arg(long, hide = true)]
    daemon: bool,
}

impl ServerArgs {
    /// Reads and checks the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<ServerArgs, Refusal> {
        let args: ServerArgs =
            jopt::parse(tool, Words::Kept, arguments).map_err(|fault| fault.with_help::<ServerArgs>(tool))?;
        if args.version {
            return Err(tool::version_asked());
        }
        if args.daemon {
            let text = "-daemon is not supported: run the node under a service manager, or with nohup … &";
            return Err(Refusal::error(text));
        }
        match args.files.as_slice() {
            [_] => Ok(args),
            [] => Err(Refusal::with_help::<ServerArgs>(tool, "server.properties is missing")),
            [_, rest @ ..] => {
                let text = format!("Found non argument parameters: {}", rest.join(","));
                Err(Refusal::with_help::<ServerArgs>(tool, &text))
            }
        }
    }
}

/// Runs the node until it has stopped and returns the exit code.
pub fn run(args: &ServerArgs, out: &mut dyn Output) -> u8 {
    logging::start(Stream::Out, "info");
    out.flush();
    let Some(stop) = watch_signals() else { return 1 };
    match read_config(args) {
        Ok(config) => serve(config, &stop, || ()),
        Err(faults) => {
            faults.iter().for_each(|fault| error!("{fault}"));
            1
        }
    }
}

/// All that is wrong, a text each.
fn read_config(args: &ServerArgs) -> Result<ServerConfig, Vec<String>> {
    let file = args.files.first().map(String::as_str).unwrap_or_default();
    let mut given: ConfigMap = read_properties(Path::new(file)).map_err(|fault| vec![fault])?;
    properties::apply_overrides(&mut given, &args.overrides).map_err(|fault| vec![fault.to_string()])?;
    let (config, warnings) = ServerConfig::from_properties(&given)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    Ok(config)
}

/// Starts the node, says so by `on_started`, and stops it when that is asked for or it can't go on.
pub fn serve(config: ServerConfig, stop: &StopRequest, on_started: impl FnOnce()) -> u8 {
    match ringlog_shards::block_on(ringlog_shards::start(config, random_seed(), stop)) {
        Ok(Some(node)) => {
            check_host(Subject { log_dirs: node.log_dirs.clone(), shards: node.shards });
            on_started();
            match ringlog_shards::block_on(node.join()) {
                Ok(()) => 0,
                Err(fault) => {
                    error!("the node can't go on: {fault}");
                    1
                }
            }
        }
        Ok(None) => {
            info!("stopped before it served");
            0
        }
        Err(fault) => {
            error!("the node does not start: {fault}");
            1
        }
    }
}

/// Warns of what slows the node down on this host. Once, on a thread of its own: clients are served already.
#[allow(clippy::disallowed_methods, reason = "reading what the kernel says of the host takes a while")]
fn check_host(subject: Subject) {
    let check = move || {
        for finding in ringlog_tuning::warnings(&ringlog_tuning::check(&subject)) {
            warn!("{finding}");
        }
    };
    if let Err(fault) = std::thread::Builder::new().name("host-check".to_owned()).spawn(check) {
        warn!("the host can't be checked: {fault}");
    }
}

/// From here on a signal asks the node to stop, whatever it is doing. `None`, and an error in the log, if signals can't
/// be handled.
pub fn watch_signals() -> Option<StopRequest> {
    let stop = StopRequest::default();
    let request = stop.clone();
    let on_signal = move || {
        info!("stopping on a signal; a second one ends the process at once");
        request.request();
    };
    signals::on_first(on_signal).inspect_err(|fault| error!("the node does not start: {fault}")).ok()?;
    Some(stop)
}
