//! The options of `takeover`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cli::tool::{self, Refusal};

/// The exit code of a check that could not be made.
pub const NOT_CHECKED: u8 = 2;

/// Take the place of a Kafka node.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true)]
pub struct TakeoverArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Look at a live cluster, and at the node that is to be replaced if it is named, and say what stands in the way.
    /// Nothing is changed. Ends with 0 if nothing does, 1 if something does, 2 if it can't be found out.
    Check(CheckArgs),
}

/// What to look at.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Brokers to begin with, HOST:PORT[,HOST:PORT].
    #[arg(long)]
    pub bootstrap_server: String,
    /// A properties file for the client.
    #[arg(long)]
    pub command_config: Option<String>,
    /// The server.properties of the node that is to be replaced. Its directories are looked at if they are on this
    /// machine; the node may still run.
    #[arg(long)]
    pub config: Option<PathBuf>,
}

impl TakeoverArgs {
    /// Reads the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<TakeoverArgs, Refusal> {
        // 1 would say that something stands in the way.
        let as_unchecked = |refusal: Refusal| match refusal.exit_code {
            0 => refusal,
            _ => Refusal { exit_code: NOT_CHECKED, ..refusal },
        };
        tool::parse(tool, arguments).map_err(as_unchecked)
    }

    /// What to look at.
    pub fn check(&self) -> &CheckArgs {
        let Action::Check(check) = &self.action;
        check
    }
}
