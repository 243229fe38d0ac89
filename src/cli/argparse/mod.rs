//! Command lines as argparse4j reads them: sub-commands with options of their own, a pair of options of which one is
//! given, words that may be shortened as long as they stay unique. Refusals and usage are its words too, since they
//! are what users of the tool see.
//!
//! Its "Did you mean" after a mistyped word isn't here. `recorded_runs_tests` compares the rest.

mod layout;

use std::collections::BTreeMap;

/// What a tool takes.
#[derive(Debug)]
pub struct Grammar {
    /// The name that it calls itself by.
    pub program: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its options before the sub-command.
    pub options: &'static [Opt],
    /// Two of the options that exclude each other.
    pub exclusive: [&'static str; 2],
    /// Whether one of the two must be there.
    pub is_one_required: bool,
    /// The sub-commands, of which one must be there.
    pub commands: &'static [Command],
}

/// A sub-command.
#[derive(Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its options.
    pub options: &'static [Opt],
}

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Switch,
    /// A text. Given again, the last counts.
    Text,
    /// A number of 32 bits. Given again, the last counts.
    Number,
    /// A text, any number of times.
    List,
}

/// An option.
#[derive(Debug)]
pub struct Opt {
    /// Its names, the long one first, with their dashes.
    pub names: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be there.
    pub is_required: bool,
    /// The headline that the help puts it under; empty for none of its own.
    pub section: &'static str,
    /// What it means.
    pub about: &'static str,
}

impl Opt {
    /// An option that may be left out.
    pub const fn new(names: &'static [&'static str], kind: Kind, about: &'static str) -> Opt {
        Opt { names, kind, is_required: false, section: "", about }
    }

    /// The same as one that must be there.
    pub const fn required(self) -> Opt {
        Opt { is_required: true, ..self }
    }

    /// The same under a headline of the help.
    pub const fn under(self, section: &'static str) -> Opt {
        Opt { section, ..self }
    }

    /// The name that its value is found by.
    fn key(&self) -> &'static str {
        self.names[0]
    }
}

const HELP: Opt = Opt::new(&["-h", "--help"], Kind::Switch, "show this help message and exit");

/// What was on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The sub-command's name.
    pub command: &'static str,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Parsed {
    /// Whether the option was given. Options go by their first names.
    pub fn is_given(&self, option: &str) -> bool {
        self.values.contains_key(option)
    }

    /// The option's value.
    pub fn text(&self, option: &str) -> Option<String> {
        self.values.get(option)?.last().cloned()
    }

    /// The value of an option that takes a number.
    pub fn number(&self, option: &str) -> Option<i32> {
        self.values.get(option)?.last()?.parse().ok()
    }

    /// All values of an option that may be repeated.
    pub fn list(&self, option: &str) -> Vec<String> {
        self.values.get(option).cloned().unwrap_or_default()
    }
}

/// An end without a command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Help was asked for; this is it.
    Help(String),
    /// The line can't be.
    Fault {
        /// How the tool, or its sub-command, is called.
        usage: String,
        /// What is wrong.
        message: String,
    },
}

/// The message as argparse4j prints it after the program's name: in lines of equal width.
pub fn error_lines(grammar: &Grammar, message: &str) -> String {
    layout::wrap(&format!("{}: error: {message}", grammar.program), layout::WIDTH).join("\n") + "\n"
}

/// Reads a line of arguments.
pub fn parse(grammar: &'static Grammar, arguments: &[String]) -> Result<Parsed, End> {
    let mut reader = Reader { grammar, command: None, values: BTreeMap::new() };
    let mut rest = arguments.iter().map(String::as_str).peekable();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            // Neither tool has a place for plain words.
            return match rest.next() {
                Some(word) => Err(reader.unrecognized(word)),
                None => reader.finish(),
            };
        }
        if is_option_like(argument) {
            // A value never begins like an option.
            let mut value = || rest.next_if(|next| !is_option_like(next));
            reader.option(argument, &mut value)?;
        } else {
            reader.word(argument)?;
        }
    }
    reader.finish()
}

/// A dash alone and negative numbers are values.
fn is_option_like(argument: &str) -> bool {
    let Some(name) = argument.strip_prefix('-') else { return false };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = match name.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction) && !fraction.is_empty(),
        None => is_digits(name),
    };
    !name.is_empty() && !is_number
}

struct Reader {
    grammar: &'static Grammar,
    command: Option<&'static Command>,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Reader {
    fn fault(&self, message: String) -> End {
        End::Fault { usage: layout::usage(self.grammar, self.command), message }
    }

    fn unrecognized(&self, argument: &str) -> End {
        self.fault(format!("unrecognized arguments: '{argument}'"))
    }

    /// A sub-command, or one word too many.
    fn word(&mut self, word: &str) -> Result<(), End> {
        if self.command.is_some() {
            return Err(self.unrecognized(word));
        }
        let commands = self.grammar.commands;
        let is_meant = |command: &&Command| !word.is_empty() && command.name.starts_with(word);
        let found = match commands.iter().find(|command| command.name == word) {
            Some(command) => vec![command],
            None => commands.iter().filter(is_meant).collect(),
        };
        match found.as_slice() {
            [command] => {
                self.command = Some(command);
                Ok(())
            }
            [] => {
                let names: Vec<String> = commands.iter().map(|command| format!("'{}'", command.name)).collect();
                Err(self.fault(format!("invalid choice: '{word}' (choose from {})", names.join(", "))))
            }
            many => {
                let names = sorted(many.iter().map(|command| command.name));
                Err(self.fault(format!("ambiguous command: {word} could match {names}")))
            }
        }
    }

    fn option<'a>(&mut self, argument: &'a str, next: &mut dyn FnMut() -> Option<&'a str>) -> Result<(), End> {
        match argument.starts_with("--") {
            true => {
                let (name, value) = match argument.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (argument, None),
                };
                let option = self.find_long(name)?.ok_or_else(|| self.unrecognized(argument))?;
                self.take(option, value, next)
            }
            false => self.short_options(argument, next),
        }
    }

    fn options(&self) -> impl Iterator<Item = &'static Opt> + use<> {
        let own = self.command.map_or(self.grammar.options, |command| command.options);
        std::iter::once(&HELP).chain(own)
    }

    fn find_long(&self, name: &str) -> Result<Option<&'static Opt>, End> {
        if let Some(option) = self.options().find(|option| option.names.contains(&name)) {
            return Ok(Some(option));
        }
        let names = self.options().flat_map(|option| option.names.iter().map(move |known| (*known, option)));
        let found: Vec<_> = names.filter(|(known, _)| known.starts_with("--") && known.starts_with(name)).collect();
        match found.as_slice() {
            [] => Ok(None),
            [(_, option)] => Ok(Some(option)),
            many => {
                let names = sorted(many.iter().map(|(known, _)| *known));
                Err(self.fault(format!("ambiguous option: {name} could match {names}")))
            }
        }
    }

    /// `-i 1`, `-i1`, `-i=1`, and several switches in one.
    fn short_options<'a>(&mut self, argument: &'a str, next: &mut dyn FnMut() -> Option<&'a str>) -> Result<(), End> {
        for (at, letter) in argument.char_indices().skip(1) {
            let name = format!("-{letter}");
            let found = self.options().find(|option| option.names.contains(&name.as_str()));
            let option = found.ok_or_else(|| self.unrecognized(argument))?;
            let rest = &argument[at + letter.len_utf8()..];
            if option.kind != Kind::Switch || rest.starts_with('=') {
                let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
                return self.take(option, value, next);
            }
            self.take(option, None, next)?;
        }
        Ok(())
    }

    fn take<'a>(
        &mut self,
        option: &'static Opt,
        value: Option<&'a str>,
        next: &mut dyn FnMut() -> Option<&'a str>,
    ) -> Result<(), End> {
        let key = option.key();
        let names = option.names.join("/");
        let exclusive = self.grammar.exclusive;
        if exclusive.contains(&key)
            && let Some(other) = exclusive.iter().find(|other| **other != key && self.values.contains_key(*other))
        {
            return Err(self.fault(format!("argument {names}: not allowed with argument {other}")));
        }
        let value = match (option.kind, value) {
            (Kind::Switch, Some(value)) => {
                return Err(self.fault(format!("argument {names}: ignore implicit argument '{value}'")));
            }
            (Kind::Switch, None) => None,
            (_, Some(value)) => Some(value),
            (_, None) => Some(next().ok_or_else(|| self.fault(format!("argument {names}: expected one argument")))?),
        };
        if key == HELP.key() {
            return Err(End::Help(layout::help(self.grammar, self.command)));
        }
        if let (Kind::Number, Some(text)) = (option.kind, value)
            && text.parse::<i32>().is_err()
        {
            let why = format!("could not convert '{text}' to Integer (For input string: \"{text}\")");
            return Err(self.fault(format!("argument {names}: {why}")));
        }
        self.values.entry(key).or_default().extend(value.map(str::to_owned));
        Ok(())
    }

    fn finish(mut self) -> Result<Parsed, End> {
        let Some(command) = self.command else { return Err(self.fault("too few arguments".to_owned())) };
        let exclusive = self.grammar.exclusive;
        if self.grammar.is_one_required && !exclusive.iter().any(|name| self.values.contains_key(name)) {
            let message = format!("one of the arguments {} is required", exclusive.join(" "));
            self.command = None;
            return Err(self.fault(message));
        }
        // argparse4j looks at them in an order of its own; with two of them it is the last first.
        let is_missing = |option: &&Opt| option.is_required && !self.values.contains_key(option.key());
        if let Some(option) = command.options.iter().rev().find(is_missing) {
            return Err(self.fault(format!("argument {} is required", option.names.join("/"))));
        }
        Ok(Parsed { command: command.name, values: self.values })
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.join(", ")
}
