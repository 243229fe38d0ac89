//! `tune --check`: what the host should be like, and what it is.

use std::path::PathBuf;

use clap::Parser;
use ringlog_config::ConfigMap;
use ringlog_tuning::{Level, Subject, check, json, table};

use super::client_config::read_properties;
use super::output::Output;
use super::tool::{self, Refusal};

/// Look at the host and say what should be different. Nothing is changed.
#[derive(Debug, Parser)]
pub struct TuneArgs {
    /// Look at the host.
    #[arg(long, required = true)]
    check: bool,
    /// Print JSON rather than a table.
    #[arg(long)]
    json: bool,
    /// The node's server.properties, for its log.dirs and ringlog.shards.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// A log directory. May be given several times.
    #[arg(long)]
    log_dir: Vec<PathBuf>,
}

impl TuneArgs {
    /// Reads the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<TuneArgs, Refusal> {
        tool::parse(tool, arguments)
    }
}

/// Prints the findings and returns the exit code: 1 if there is a warning among them.
pub fn run(args: &TuneArgs, out: &mut dyn Output) -> u8 {
    let subject = match subject(args) {
        Ok(subject) => subject,
        Err(fault) => {
            out.error(&fault);
            return 1;
        }
    };
    let findings = check(&subject);
    let text = if args.json { json(&findings) } else { table(&findings) };
    out.line(text.trim_end_matches('\n'));
    u8::from(findings.iter().any(|finding| finding.level == Level::Warning))
}

fn subject(args: &TuneArgs) -> Result<Subject, String> {
    let mut log_dirs = args.log_dir.clone();
    let properties = args.config.as_deref().map(read_properties).transpose()?.unwrap_or_default();
    let dirs = properties.get("log.dirs").or_else(|| properties.get("log.dir"));
    log_dirs.extend(dirs.into_iter().flat_map(|dirs| dirs.split(',')).map(|dir| PathBuf::from(dir.trim())));
    Ok(Subject { log_dirs, shards: shards(&properties) })
}

/// How many shards a node with these properties has on this host.
pub fn shards(properties: &ConfigMap) -> usize {
    let configured = properties.get("ringlog.shards").and_then(|shards| shards.trim().parse().ok());
    let shards = configured.filter(|shards| *shards > 0);
    shards.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
