//! `server` (`kafka-server-start`): runs a node until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use ringlog_config::{ConfigMap, ServerConfig, properties};
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
    match read_config(args) {
        Ok(config) => serve(config, || ()),
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

/// Starts the node, says so by `on_started`, and stops it when a signal comes or it can't go on.
pub fn serve(config: ServerConfig, on_started: impl FnOnce()) -> u8 {
    let stop = match signals::stop_flag() {
        Ok(stop) => stop,
        Err(fault) => {
            error!("{fault}");
            return 1;
        }
    };
    let node = match ringlog_shards::start(config, random_seed()) {
        Ok(node) => node,
        Err(fault) => {
            error!("the node does not start: {fault}");
            return 1;
        }
    };
    on_started();
    let handle = node.stop_handle();
    watch_for_signal(stop, move || handle.stop());
    match node.join() {
        Ok(()) => 0,
        Err(fault) => {
            error!("the node failed: {fault}");
            1
        }
    }
}

/// How soon a signal is seen.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

#[allow(clippy::disallowed_methods, reason = "the main thread waits for the node, so another one waits for signals")]
fn watch_for_signal(stop: Arc<AtomicBool>, on_signal: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(SIGNAL_CHECK);
        }
        info!("stopping on a signal; a second one ends the process at once");
        on_signal();
    });
}
