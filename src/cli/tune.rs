//! `tune`: what the host should be like, and what it is; and having it so.

use std::path::{Path, PathBuf};

use clap::Parser;
use ringlog_config::ConfigMap;
use ringlog_tuning::{Change, Level, Outcome, Subject, apply, changes, check, json, revert, table};

use super::client_config::read_properties;
use super::output::Output;
use super::tool::{self, Refusal};

/// Look at the host and say what should be different; or change what can be changed.
#[derive(Debug, Parser)]
pub struct TuneArgs {
    #[command(flatten)]
    what: What,
    /// With --check: print JSON rather than a table.
    #[arg(long, conflicts_with_all = ["apply", "revert"])]
    json: bool,
    /// With --apply or --revert: only say what would be changed.
    #[arg(long, conflicts_with = "check")]
    dry_run: bool,
    /// The node's server.properties, for its log.dirs and ringlog.shards.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// A log directory. May be given several times.
    #[arg(long)]
    log_dir: Vec<PathBuf>,
}

/// One of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Look at the host. Nothing is changed.
    #[arg(long)]
    check: bool,
    /// Set what isn't as it should be, now and for later starts of the host. What was there is kept for --revert.
    #[arg(long)]
    apply: bool,
    /// Set all that --apply changed to what it was before.
    #[arg(long)]
    revert: bool,
}

impl TuneArgs {
    /// Reads the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<TuneArgs, Refusal> {
        tool::parse(tool, arguments)
    }
}

/// Prints the findings and returns the exit code: 1 if there is a warning among them. Or prints the changes: 1 if one of
/// them was refused.
pub fn run(args: &TuneArgs, out: &mut dyn Output) -> u8 {
    let subject = match subject(args) {
        Ok(subject) => subject,
        Err(fault) => {
            out.error(&fault);
            return 1;
        }
    };
    if !args.what.check {
        return change(args, &subject, out);
    }
    let findings = check(&subject);
    let text = if args.json { json(&findings) } else { table(&findings) };
    out.line(text.trim_end_matches('\n'));
    u8::from(findings.iter().any(|finding| finding.level == Level::Warning))
}

fn change(args: &TuneArgs, subject: &Subject, out: &mut dyn Output) -> u8 {
    let root = Path::new("/");
    let made = if args.what.apply { apply(root, subject, args.dry_run) } else { revert(root, args.dry_run) };
    let made = match made {
        Ok(made) => made,
        Err(fault) => {
            out.error(&format!("nothing is changed, as what was there can't be kept or read: {fault}"));
            return 1;
        }
    };
    let nothing =
        if args.what.apply { "Everything that can be set is as it should be." } else { "Nothing was changed." };
    let text = if made.is_empty() { nothing.to_owned() } else { changes(&made) };
    out.line(text.trim_end_matches('\n'));
    if args.what.apply && !args.dry_run && made.iter().any(|change| change.name.starts_with("/etc/systemd")) {
        out.line("systemd reads its limits after: systemctl daemon-reload");
    }
    let is_refused = |change: &Change| matches!(change.outcome, Outcome::Refused(_));
    u8::from(made.iter().any(is_refused))
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
