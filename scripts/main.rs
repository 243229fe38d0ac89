//! The project's chores, run as `cargo xtask COMMAND`. See `cargo xtask help`.

mod ci;
mod e2e;
mod fuzz;
mod hang;
mod kafka;
mod mutants;
mod orphans;
mod paths;
mod rooms;
mod rounds;
mod setup;
mod sim;
mod tidy;

use std::process::{Command as Process, ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

/// Chores of the Ringlog project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Prepare what a build needs: the patched glommio. Run once in a fresh clone.
    Setup,
    /// Set up, build and run a node for trying out: `cargo xtask dev [ARGS]`.
    Dev {
        /// Arguments for `ringlog dev`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything that must hold before a change lands.
    Ci,
    /// Rules about the tree: crate edges, file lengths, where unsafe code may be.
    Tidy,
    /// Whole nodes in a simulated, faulty world: fixed seeds and fresh ones for 30 seconds, unless told otherwise.
    Simnode(sim::Options),
    /// Fuzz the decoders.
    Fuzz {
        /// For how many seconds.
        #[arg(default_value_t = 60)]
        time_s: u64,
    },
    /// Real clients against a real node: `cargo xtask e2e [PROGRAM] [TEST ARGS]`.
    E2e {
        /// A program of tests/e2e (such as `clients`), then arguments for it: a name to filter by, options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Rounds of faults on clusters of real processes, with a checker of what clients saw.
    Rounds(rounds::Options),
    /// Show the hang of unpatched glommio, and that the patched one doesn't have it.
    Hang,
    /// The throughput run, or the controllers' by `metadata`, optimised: `cargo xtask bench [metadata] [ARGS]`.
    Bench {
        /// `metadata` or nothing, then arguments for the run; `--help` names them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A tool or server of real Kafka 4.3.1: `cargo xtask kafka TOOL ARGS`. Fetched through Maven when first used.
    Kafka {
        /// Name the tools.
        #[arg(long)]
        list: bool,
        /// Only fetch, and print where the jars are.
        #[arg(long)]
        install: bool,
        /// The tool's name and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::run(),
        Command::Dev { arguments } => dev(&arguments),
        Command::Ci => ci::run(),
        Command::Tidy => tidy::run(),
        Command::Simnode(options) => sim::run(&options),
        Command::Fuzz { time_s } => fuzz::run(time_s),
        Command::E2e { arguments } => e2e::run(&arguments),
        Command::Rounds(options) => rounds::run(&options),
        Command::Hang => hang::run(),
        Command::Bench { arguments } => bench(&arguments),
        Command::Kafka { list, install, arguments } => run_kafka(list, install, &arguments),
    }
}

fn dev(arguments: &[String]) -> Result<()> {
    setup::run()?;
    let mut command = Process::new(paths::cargo());
    command.args(["run", "--release", "-p", "ringlog", "--", "dev"]).current_dir(paths::root());
    if !arguments.iter().any(|argument| argument.starts_with("--data-dir")) {
        // Where git doesn't look.
        command.arg("--data-dir").arg(ci::target_folder()?.join("ringlog-data"));
    }
    ci::run_command(command.args(arguments))
}

/// The node and the load generator are built alike; the generator finds the node in `RINGLOG_BIN`.
fn bench(arguments: &[String]) -> Result<()> {
    setup::run()?;
    ci::cargo(["build", "--release", "-p", "ringlog"])?;
    let is_metadata = arguments.first().is_some_and(|first| first == "metadata");
    let program = if is_metadata { "metadata" } else { "produce-consume" };
    let mut command = Process::new(paths::cargo());
    command.args(["run", "--release", "-p", "ringlog-bench", "--bin", program, "--"]);
    command.args(&arguments[usize::from(is_metadata)..]).current_dir(paths::root());
    if is_metadata {
        // Kafka's tools prepare the directories, also those of Ringlog alone.
        command.env("KAFKA_DIR", kafka::install()?);
    }
    command.env("RINGLOG_BIN", ci::target_folder()?.join("release").join("ringlog"));
    command.env("RINGLOG_XTASK", std::env::current_exe()?);
    ci::run_command(&mut command)
}

fn run_kafka(list: bool, install: bool, arguments: &[String]) -> Result<()> {
    if list {
        kafka::list();
        return Ok(());
    }
    if install {
        println!("{}", kafka::install()?.display());
        return Ok(());
    }
    let (tool, arguments) = arguments.split_first().context("which tool? `cargo xtask kafka --list` names them")?;
    kafka::run(tool, arguments)
}
