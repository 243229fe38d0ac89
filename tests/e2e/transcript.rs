//! Transcripts: commands with what they print, in files that are run top to bottom against a node.
//!
//! ```text
//! # A comment.
//! $ kafka-topics --bootstrap-server $BOOTSTRAP --describe --topic one
//!   < a line for the command's standard input
//!     a line that it writes
//!   ! a line that it writes to standard error
//!   = 1
//! ```
//!
//! `= STATUS` stands there if it isn't 0. A command after `$?` is repeated for a while until its output is this. One
//! after `$#` has its numbers compared only as being numbers, one after `$~` its lines in any order. Two commands are the transcript's own: `write NAME` makes a
//! file of its input in `$DIR`; `member join TOPIC GROUP` and `member leave` have one member of a group come and go.
//!
//! With `RINGLOG_E2E_GOLDEN=write` the outputs in the file are replaced with what the node gives; only real Kafka's
//! count.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::jvm::{Jvm, Outcome};
use crate::node::Node;
use crate::programs::{Member, Program};
use crate::wait_until;

const PATIENCE: Duration = Duration::from_secs(15);

/// A line of output in which Ringlog means to differ from Kafka.
#[derive(Debug)]
pub struct Difference {
    /// The command begins so.
    pub command: &'static str,
    /// Lines that contain this are not compared, on either side.
    pub line: &'static str,
    /// Why.
    pub reason: &'static str,
}

#[derive(Debug, Default, Clone)]
struct Step {
    comments: Vec<String>,
    mark: String,
    command: String,
    input: Vec<String>,
    expected: Vec<String>,
}

/// Runs a transcript; an error names every command that printed something else.
pub fn play(file: &Path, node: &Node, differences: &[Difference]) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut steps = parse(&text)?;
    let is_recording = env::var("RINGLOG_E2E_GOLDEN").as_deref() == Ok("write");
    let folder = node.folder().join(file.file_stem().context("a file has a name")?);
    fs::create_dir_all(&folder)?;
    let mut player = Player { node, folder, member: None };
    let mut failures = Vec::new();
    for step in &mut steps {
        let got = if is_recording { player.record(step)? } else { player.compare(step, differences)? };
        if is_recording {
            step.expected = got;
        } else if !is_same(step, &got, differences) {
            let show = |lines: &[String]| lines.iter().map(|line| format!("  {line}\n")).collect::<String>();
            failures.push(format!("$ {}\nexpected:\n{}got:\n{}", step.command, show(&step.expected), show(&got)));
        }
    }
    if is_recording {
        fs::write(file, steps.iter().map(write).collect::<String>())?;
    }
    ensure!(failures.is_empty(), "{} of {} commands differ\n\n{}", failures.len(), steps.len(), failures.join("\n"));
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut comments = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            comments.push(line.to_owned());
        } else if let Some(rest) = line.strip_prefix('$') {
            let (mark, command) = rest.split_once(' ').context("a command follows")?;
            let comments = std::mem::take(&mut comments);
            steps.push(Step { comments, mark: mark.to_owned(), command: command.to_owned(), ..Step::default() });
        } else {
            let step = steps.last_mut().with_context(|| format!("no command before {line}"))?;
            match line.strip_prefix("  < ") {
                Some(input) => step.input.push(input.to_owned()),
                None => step.expected.push(line.strip_prefix("  ").unwrap_or(line).to_owned()),
            }
        }
    }
    Ok(steps)
}

fn write(step: &Step) -> String {
    let mut lines = step.comments.clone();
    lines.push(format!("${} {}", step.mark, step.command));
    lines.extend(step.input.iter().map(|line| format!("  < {line}")));
    lines.extend(step.expected.iter().map(|line| format!("  {line}").trim_end().to_owned()));
    lines.join("\n") + "\n"
}

fn is_same(step: &Step, got: &[String], differences: &[Difference]) -> bool {
    let is_meant = |line: &&String| {
        let meant = |one: &Difference| step.command.starts_with(one.command) && line.contains(one.line);
        differences.iter().any(meant)
    };
    let shape =
        |line: &String| if step.mark.contains('#') { without_numbers(line) } else { line.trim_end().to_owned() };
    let kept = |lines: &[String]| lines.iter().filter(|line| !is_meant(line)).map(shape).collect::<Vec<_>>();
    let (mut expected, mut got) = (kept(&step.expected), kept(got));
    if step.mark.contains('~') {
        expected.sort();
        got.sort();
    }
    expected == got
}

struct Player<'a> {
    node: &'a Node,
    folder: PathBuf,
    member: Option<Member>,
}

impl Player<'_> {
    fn compare(&mut self, step: &Step, differences: &[Difference]) -> Result<Vec<String>> {
        if !step.mark.contains('?') {
            return self.run(step);
        }
        let mut last = Vec::new();
        let reached = wait_until(&step.command, PATIENCE, || {
            last = self.run(step)?;
            Ok(is_same(step, &last, differences).then_some(()))
        });
        // Too late is told as a difference.
        let _ = reached;
        Ok(last)
    }

    /// Repeats until it says the same thrice, where the transcript waits for a state.
    fn record(&mut self, step: &Step) -> Result<Vec<String>> {
        let mut last = self.run(step)?;
        if step.mark.contains('?') {
            let mut same = 0;
            wait_until(&step.command, PATIENCE, || {
                std::thread::sleep(Duration::from_millis(200));
                let next = self.run(step)?;
                same = if next == last { same + 1 } else { 0 };
                last = next;
                Ok((same >= 2).then_some(()))
            })?;
        }
        Ok(last)
    }

    fn run(&mut self, step: &Step) -> Result<Vec<String>> {
        let words = words(&self.fill_in(&step.command))?;
        let (name, arguments) = words.split_first().context("a command has a name")?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let input: String = step.input.iter().map(|line| self.fill_in(line) + "\n").collect();
        match (name.as_str(), arguments.as_slice()) {
            ("write", [file]) => {
                fs::write(self.folder.join(file), input)?;
                Ok(Vec::new())
            }
            ("member", ["join", topic, group]) => {
                let mut member = Program::Java.join(&self.node.bootstrap(), topic, group)?;
                wait_until("partitions", PATIENCE, || Ok((!member.assigned()?.is_empty()).then_some(())))?;
                self.member = Some(member);
                Ok(Vec::new())
            }
            ("member", ["leave"]) => {
                self.member.take().context("a member has joined")?.leave()?;
                Ok(Vec::new())
            }
            _ => Ok(self.lines(&Jvm::shared()?.tool(name, &arguments, input.as_bytes())?)),
        }
    }

    fn fill_in(&self, text: &str) -> String {
        text.replace("$BOOTSTRAP", &self.node.bootstrap())
            .replace("$CONTROLLER", &self.node.controller())
            .replace("$DIR", &self.folder.display().to_string())
    }

    /// The outcome as lines of a transcript, without what is different each time.
    fn lines(&self, outcome: &Outcome) -> Vec<String> {
        // Empty lines only part others.
        let output = outcome.output.lines().filter(|line| !line.trim().is_empty());
        let mut lines: Vec<String> = output.map(|line| format!("  {}", self.tidied(line))).collect();
        let errors = outcome.errors.lines().filter(|line| !line.trim().is_empty());
        let errors = errors.filter(|line| !is_log_line(line) && !is_stack_frame(line));
        lines.extend(errors.map(|line| format!("! {}", self.tidied(line))));
        if outcome.status != 0 {
            lines.push(format!("= {}", outcome.status));
        }
        lines
    }

    fn tidied(&self, line: &str) -> String {
        let mut text = line.to_owned();
        for (found, name) in [(self.node.bootstrap(), "$BOOTSTRAP"), (self.node.controller(), "$CONTROLLER")] {
            text = text.replace(&found, name);
            let port = found.rsplit(':').next().unwrap_or_default();
            text = text.replace(port, "$PORT");
        }
        text = text.replace(&self.folder.display().to_string(), "$DIR");
        text = text.replace(&self.node.folder().display().to_string(), "$NODE");
        let mut tidy: Vec<String> = Vec::new();
        for word in text.split(' ') {
            // Columns are as wide as their widest cell, which may be an id.
            if word.is_empty() && tidy.last().is_some_and(String::is_empty) {
                continue;
            }
            let before = tidy.iter().rev().find(|word| !word.is_empty()).map_or("", String::as_str);
            let is_counter = ["Epoch:", "HighWatermark:"].contains(&before.trim_start_matches('\t'));
            let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            let next = if is_counter && is_number { "$NUMBER".to_owned() } else { tidied_word(word) };
            tidy.push(next);
        }
        tidy.join(" ")
    }
}

/// What log4j writes: `[2026-01-01 00:00:00,000] WARN ...`.
fn is_log_line(line: &str) -> bool {
    line.starts_with("[20") || line.starts_with("SLF4J") || line.starts_with("ERROR StatusConsoleListener")
}

fn is_stack_frame(line: &str) -> bool {
    line.starts_with("\tat ") || line.starts_with("\t...")
}

/// Ids, times and member names become `$ID`, `$TIME`, `$MEMBER`.
fn tidied_word(word: &str) -> String {
    let is_of_id = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let mut tidy = String::new();
    for piece in word.split_inclusive(|letter: char| !is_of_id(letter)) {
        let (body, end) = match piece.char_indices().next_back() {
            Some((at, letter)) if !is_of_id(letter) => piece.split_at(at),
            _ => (piece, ""),
        };
        let is_number = !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_digit());
        // Names of APIs may be as long as an id; a bracket follows them.
        let name = if body.len() == 22 && end != "(" && has_mixed_letters(body) {
            "$ID"
        } else if body.starts_with("consumer-") && body.len() > 36 {
            "$MEMBER"
        } else if is_number && body.len() == 13 {
            "$TIME"
        } else {
            body
        };
        tidy.push_str(name);
        tidy.push_str(end);
    }
    tidy
}

/// Random ids have them, words don't.
fn has_mixed_letters(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase()) && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    for letter in line.trim_end().chars() {
        if letter.is_ascii_digit() {
            if !text.ends_with('N') {
                text.push('N');
            }
        } else {
            text.push(letter);
        }
    }
    text.replace("N.N", "N").replace("-N", "N").replace("N:N:N", "N")
}

/// Words parted by blanks; single quotes hold one together.
fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    if line.matches('\'').count() % 2 == 1 {
        bail!("an open quote in {line}");
    }
    Ok(words)
}
