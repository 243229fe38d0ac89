//! What the tools have in common: how arguments are read, refused and explained.
//!
//! Most of Kafka's tools read their arguments with jopt-simple, `kafka-storage` with argparse4j. What users rely on is
//! kept: long options with one dash or two, joined by `=` or a blank, or shortened as long as they stay unique; help on
//! the stream and with the exit code of Kafka's tool. The tools that are argparse4j's to the byte read their arguments
//! with [`super::argparse`].

use clap::{ArgAction, CommandFactory, Parser};

/// What `--version` says: Kafka's version first, since scripts read that.
pub fn version_text() -> String {
    format!("{} (Ringlog {})", KAFKA_VERSION, env!("CARGO_PKG_VERSION"))
}

/// The version of Kafka that Ringlog stands in for.
pub const KAFKA_VERSION: &str = "4.3.1";

/// Whose habits a tool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Help goes to stderr with exit code 1; no arguments are a call for help.
    Jopt,
    /// Help goes to stdout with exit code 0.
    Argparse,
}

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
    /// A sentence for stderr and exit code 1.
    pub fn error(text: impl Into<String>) -> Refusal {
        Refusal { exit_code: 1, stdout: String::new(), stderr: text.into() + "\n" }
    }

    /// A sentence and the tool's help after it, as jopt-simple's tools refuse.
    pub fn with_help<T: CommandFactory>(tool: &str, text: &str) -> Refusal {
        Refusal { exit_code: 1, stdout: String::new(), stderr: format!("{text}\n{}", help::<T>(tool)) }
    }

    fn done(stdout: String) -> Refusal {
        Refusal { exit_code: 0, stdout, stderr: String::new() }
    }
}

/// The end that `--version` asks for.
pub fn version_asked() -> Refusal {
    Refusal::done(version_text() + "\n")
}

fn help<T: CommandFactory>(tool: &str) -> String {
    T::command().bin_name(tool.to_owned()).render_help().to_string()
}

/// Reads a tool's arguments. `tool` is the name that the user called it by.
pub fn parse<T: Parser>(tool: &str, style: Style, arguments: &[String]) -> Result<T, Refusal> {
    if style == Style::Jopt && arguments.is_empty() {
        return Err(Refusal { exit_code: 1, stdout: String::new(), stderr: help::<T>(tool) });
    }
    let command = T::command().bin_name(tool.to_owned());
    let arguments = match style {
        Style::Jopt => with_two_dashes(&command, arguments),
        Style::Argparse => arguments.to_vec(),
    };
    let line = std::iter::once(tool.to_owned()).chain(arguments);
    let matches = command.try_get_matches_from(line).map_err(|fault| refuse(style, &fault))?;
    T::from_arg_matches(&matches).map_err(|fault| refuse(style, &fault))
}

fn refuse(style: Style, fault: &clap::Error) -> Refusal {
    use clap::error::ErrorKind;
    let text = fault.render().to_string();
    match fault.kind() {
        ErrorKind::DisplayHelp if style == Style::Argparse => Refusal::done(text),
        _ => Refusal { exit_code: 1, stdout: String::new(), stderr: text },
    }
}

/// jopt-simple takes long options with a single dash too: `-topic t`.
fn with_two_dashes(command: &clap::Command, arguments: &[String]) -> Vec<String> {
    let mut is_value = false;
    let mut rewritten = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let dashes = argument.len() - argument.trim_start_matches('-').len();
        let name = argument[dashes..].split('=').next().unwrap_or_default();
        let find = |exact: bool| {
            command.get_arguments().find(|known| {
                known.get_long().is_some_and(|long| if exact { long == name } else { long.starts_with(name) })
            })
        };
        let known =
            (!is_value && (1..=2).contains(&dashes) && !name.is_empty()).then(|| find(true).or_else(|| find(false)));
        let known = known.flatten();
        is_value = false;
        match known {
            Some(known) => {
                let needs_value = matches!(known.get_action(), ArgAction::Set | ArgAction::Append)
                    && known.get_num_args().is_none_or(|range| range.min_values() > 0);
                is_value = needs_value && !argument.contains('=');
                rewritten.push(format!("--{}", &argument[dashes..]));
            }
            None => rewritten.push(argument.clone()),
        }
    }
    rewritten
}

/// `KEY=VALUE` arguments as jopt-simple's tools split them: at the first `=`, and the value may be missing if
/// `allow_empty`.
pub fn key_values(arguments: &[String], allow_empty: bool) -> Result<Vec<(String, String)>, Refusal> {
    let split = |argument: &String| match argument.split_once('=') {
        Some((key, value)) if allow_empty || !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some((key, _)) => Err(Refusal::error(format!("Missing value for key {key}"))),
        None if allow_empty => Ok((argument.clone(), String::new())),
        None => Err(Refusal::error(format!("Invalid command line properties: {argument}"))),
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
