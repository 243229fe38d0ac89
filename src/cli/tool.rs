//! What the tools have in common: how arguments are read, refused and explained.
//!
//! Most of Kafka's tools read their arguments with jopt-simple, see [`super::jopt`]; those that are argparse4j's to the
//! byte, with [`super::argparse`]; what is ours, and `kafka-storage`, with clap alone.

use clap::{CommandFactory, Parser};

/// What `--version` says: Kafka's version first, since scripts read that.
pub fn version_text() -> String {
    format!("{} (Ringlog {})", KAFKA_VERSION, env!("CARGO_PKG_VERSION"))
}

/// The version of Kafka that Ringlog stands in for.
pub const KAFKA_VERSION: &str = "4.3.1";

/// A tool's end before it did anything: what to print where, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The process's exit code.
    pub exit_code: u8,
    /// For stdout, with its line ends.
    pub stdout: String,
    /// For stderr, with its line ends.
    pub stderr: String,
}

impl Refusal {
    /// Text for stderr, with its line ends, and exit code 1.
    pub fn to_stderr(text: impl Into<String>) -> Refusal {
        Refusal { exit_code: 1, stdout: String::new(), stderr: text.into() }
    }

    /// A sentence for stderr and exit code 1.
    pub fn error(text: impl Into<String>) -> Refusal {
        Refusal::to_stderr(text.into() + "\n")
    }

    /// A sentence and the tool's help after it, as jopt-simple's tools refuse.
    pub fn with_help<T: CommandFactory>(tool: &str, text: &str) -> Refusal {
        Refusal::to_stderr(format!("{text}\n{}", help::<T>(tool)))
    }

    /// The same after what the tool had to say before.
    pub fn after(self, notices: &str) -> Refusal {
        Refusal { stdout: notices.to_owned() + &self.stdout, ..self }
    }

    fn done(stdout: String) -> Refusal {
        Refusal { exit_code: 0, stdout, stderr: String::new() }
    }
}

/// The end that `--version` asks for.
pub fn version_asked() -> Refusal {
    Refusal::done(version_text() + "\n")
}

/// The tool's help.
pub fn help<T: CommandFactory>(tool: &str) -> String {
    T::command().bin_name(tool.to_owned()).render_help().to_string()
}

/// Reads the arguments of a tool that has clap's habits: help goes to stdout with exit code 0. `tool` is the name that
/// the user called it by.
pub fn parse<T: Parser>(tool: &str, arguments: &[String]) -> Result<T, Refusal> {
    let command = T::command().bin_name(tool.to_owned());
    let line = std::iter::once(tool.to_owned()).chain(arguments.iter().cloned());
    let matches = command.try_get_matches_from(line).map_err(|fault| refuse(&fault))?;
    T::from_arg_matches(&matches).map_err(|fault| refuse(&fault))
}

fn refuse(fault: &clap::Error) -> Refusal {
    let text = fault.render().to_string();
    match fault.kind() {
        clap::error::ErrorKind::DisplayHelp => Refusal::done(text),
        _ => Refusal::to_stderr(text),
    }
}

/// `KEY=VALUE` arguments as Kafka's tools split them: at the first `=`, and the value may be missing.
pub fn key_values(arguments: &[String]) -> Vec<(String, String)> {
    let split = |argument: &String| match argument.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (argument.clone(), String::new()),
    };
    arguments.iter().map(split).collect()
}

/// Kafka's way of excluding options. `given` are the names of the options on the line.
pub fn check_excluded<T: CommandFactory>(
    tool: &str,
    given: &dyn Fn(&str) -> bool,
    option: &str,
    excluded: &[&str],
) -> Result<(), Refusal> {
    match excluded.iter().find(|other| given(option) && given(other)) {
        Some(other) => Err(Refusal::with_help::<T>(
            tool,
            &format!("Option \"[{option}]\" can't be used with option \"[{other}]\""),
        )),
        None => Ok(()),
    }
}

/// Kafka's way of missing an option.
pub fn missing<T: CommandFactory>(tool: &str, option: &str) -> Refusal {
    Refusal::with_help::<T>(tool, &format!("Missing required argument \"[{option}]\""))
}
