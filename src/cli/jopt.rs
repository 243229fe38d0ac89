//! Command lines as jopt-simple reads them for Kafka's tools: whole names of options only, with one dash or two, values
//! behind `=` or a blank; words that belong to nothing are ignored. What a tool takes, its help and its types are
//! clap's, which gets the line in one form: `--name=value`.

use clap::{ArgAction, CommandFactory, Parser};

use super::failure::Failure;
use super::tool::{Refusal, help};

/// Why a line can't be read. The texts are jopt-simple's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no line: the user wants to know what could be on it.
    #[error("")]
    Empty,
    /// Help was asked for.
    #[error("")]
    Help,
    /// No option has this name.
    #[error("{0} is not a recognized option")]
    Unrecognized(String),
    /// An option lacks its value.
    #[error("Option {0} requires an argument")]
    MissingArgument(String),
    /// An option that has one value was given twice.
    #[error("Found multiple arguments for option {0}, but you asked for only one")]
    Repeated(String),
}

impl Fault {
    /// The refusal of a tool that shows its help after the fault.
    pub fn with_help<T: CommandFactory>(&self, tool: &str) -> Refusal {
        match self {
            Fault::Empty | Fault::Help => Refusal::to_stderr(help::<T>(tool)),
            Fault::Repeated(_) => Refusal::error(self.to_string()),
            fault => Refusal::with_help::<T>(tool, &fault.to_string()),
        }
    }

    /// The class of jopt-simple's exception.
    pub fn class(&self) -> &'static str {
        match self {
            Fault::Empty | Fault::Help | Fault::Unrecognized(_) => "joptsimple.UnrecognizedOptionException",
            Fault::MissingArgument(_) => "joptsimple.OptionMissingRequiredArgumentException",
            Fault::Repeated(_) => "joptsimple.MultipleArgumentsForOptionException",
        }
    }

    /// The refusal of a tool that shows its help only to those who ask for it, and a stack trace to others.
    pub fn with_trace<T: CommandFactory>(&self, tool: &str) -> Refusal {
        match self {
            Fault::Empty | Fault::Help => self.with_help::<T>(tool),
            fault => Failure::of_line(fault).into(),
        }
    }
}

/// What becomes of words that are no options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Nothing, as in most of Kafka's tools.
    Ignored,
    /// The tool takes them.
    Kept,
}

/// Reads a line of arguments. `tool` is the name that the user called it by.
pub fn parse<T: Parser>(tool: &str, words: Words, arguments: &[String]) -> Result<T, Fault> {
    if arguments.is_empty() {
        return Err(Fault::Empty);
    }
    let command = T::command().bin_name(tool.to_owned());
    let line = std::iter::once(tool.to_owned()).chain(in_one_form(&command, words, arguments)?);
    let outcome = command.try_get_matches_from(line).and_then(|matches| T::from_arg_matches(&matches));
    // Options and values are strings and flags, and all that could be wrong with them was found before.
    outcome.map_err(|fault| Fault::Unrecognized(fault.to_string()))
}

fn in_one_form(command: &clap::Command, words: Words, arguments: &[String]) -> Result<Vec<String>, Fault> {
    let mut line: Vec<String> = Vec::new();
    let mut given: Vec<&str> = Vec::new();
    let mut loose: Vec<String> = Vec::new();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            loose.extend(rest.by_ref().cloned());
            break;
        }
        if !is_option_like(argument) {
            loose.push(argument.clone());
            continue;
        }
        let body = argument.trim_start_matches('-');
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if name == "help" {
            return Err(Fault::Help);
        }
        let Some(option) = command.get_arguments().find(|known| known.get_long() == Some(name)) else {
            // One dash may begin a cluster of short options, of which these tools have none.
            let is_long = argument.starts_with("--");
            let shown = if is_long { name } else { &name[..name.chars().next().map_or(0, char::len_utf8)] };
            return Err(Fault::Unrecognized(shown.to_owned()));
        };
        let is_again = given.contains(&name);
        given.push(name);
        if !matches!(option.get_action(), ArgAction::Set | ArgAction::Append) {
            if !is_again {
                line.push(format!("--{name}"));
            }
            continue;
        }
        if is_again && matches!(option.get_action(), ArgAction::Set) {
            return Err(Fault::Repeated(name.to_owned()));
        }
        let is_optional = option.get_num_args().is_some_and(|range| range.min_values() == 0);
        let value = match value {
            Some(value) => Some(value),
            None if is_optional => rest.next_if(|next| !is_option_like(next)).cloned(),
            None => Some(rest.next().cloned().ok_or_else(|| Fault::MissingArgument(name.to_owned()))?),
        };
        line.push(value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}")));
    }
    if words == Words::Kept {
        line.push("--".to_owned());
        line.extend(loose);
    }
    Ok(line)
}

/// A dash alone is a word.
fn is_option_like(argument: &str) -> bool {
    argument.starts_with('-') && argument != "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Parser)]
    struct Args {
        #[arg(long)]
        list: bool,
        #[arg(long)]
        topic: Option<String>,
        #[arg(long)]
        config: Vec<String>,
        #[arg(long, num_args = 0..=1, default_missing_value = "gzip")]
        codec: Option<String>,
        file: Vec<String>,
    }

    fn read(line: &str) -> Result<Args, Fault> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse::<Args>("tool", Words::Ignored, &arguments)
    }

    #[test]
    fn whole_names_with_one_dash_or_two_and_values_behind_a_blank_or_an_equals_sign() {
        for line in
            ["--list --topic t", "-list -topic t", "--topic=t --list", "-topic=t -list=yes --list extra - words"]
        {
            let expected = Args { list: true, topic: Some("t".to_owned()), ..Args::default() };
            assert_eq!(read(line), Ok(expected), "{line}");
        }
        // A value stays as it is, even if it looks like an option.
        assert_eq!(read("--topic --list").unwrap().topic.as_deref(), Some("--list"));
        assert_eq!(read("--config a=b --config=c=d").unwrap().config, ["a=b", "c=d"]);
        assert_eq!(read("--codec --list").unwrap().codec.as_deref(), Some("gzip"));
        assert_eq!(read("--codec zstd").unwrap().codec.as_deref(), Some("zstd"));
        assert!(!read("--topic t -- --list").unwrap().list);
        let kept = parse::<Args>("tool", Words::Kept, &["a".to_owned(), "--list".to_owned(), "b".to_owned()]);
        assert_eq!(kept.unwrap().file, ["a", "b"]);
    }

    #[test]
    fn what_jopt_refuses_is_refused_in_its_words() {
        for (line, expected) in [
            ("--lis", "lis is not a recognized option"),
            ("-lis", "l is not a recognized option"),
            ("--nosuch=1", "nosuch is not a recognized option"),
            ("--list --topic", "Option topic requires an argument"),
            ("--topic a --topic b", "Found multiple arguments for option topic, but you asked for only one"),
        ] {
            assert_eq!(read(line).unwrap_err().to_string(), expected, "{line}");
        }
        assert_eq!((read("--help"), read("")), (Err(Fault::Help), Err(Fault::Empty)));
    }
}
