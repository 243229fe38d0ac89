//! What the check finds: a line each, and what they come to.

use std::fmt;

use crate::cli::output::Output;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// The node can be replaced, but something doesn't work as before.
    Warn,
    /// The node can't be replaced, or it would harm somebody.
    Stop,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Stop => "stop",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was found, and what to do about it.
    pub text: String,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(text: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, text: text.into() }
    }

    /// Something doesn't work as before; the text says what to do.
    pub fn warn(text: impl Into<String>) -> Finding {
        Finding { level: Level::Warn, text: text.into() }
    }

    /// It stands in the way; the text says what to do.
    pub fn stop(text: impl Into<String>) -> Finding {
        Finding { level: Level::Stop, text: text.into() }
    }

    fn line(&self) -> String {
        // A value may have line ends; a finding is a line.
        format!("{:<4} {}", self.level, self.text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// Prints the findings and what they come to. The exit code.
pub fn print(findings: &[Finding], subject: &str, out: &mut dyn Output) -> u8 {
    findings.iter().for_each(|finding| out.line(&finding.line()));
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (stops, warnings) = (count(Level::Stop), count(Level::Warn));
    let warnings = counted(warnings, "warning", "warnings");
    out.line(&match stops {
        0 => format!("Ringlog can take the place of {subject}: nothing stands in the way, {warnings}."),
        _ => format!(
            "Ringlog can't take the place of {subject} yet: {} in the way, {warnings}.",
            counted(stops, "finding stands", "findings stand")
        ),
    });
    u8::from(stops > 0)
}

/// `1 partition`, `2 partitions`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// How many names a line has at most.
const EXAMPLES: usize = 5;

/// The first of the names; that there are more is said.
pub fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(EXAMPLES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(EXAMPLES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Captured;

    #[test]
    fn a_finding_is_a_line_and_the_last_line_sums_up() {
        let mut out = Captured::default();
        let found = [Finding::ok("fine"), Finding::warn("so\nso"), Finding::stop("bad: mend it")];
        assert_eq!(print(&found[..2], "a node", &mut out), 0);
        assert_eq!(print(&found, "node 3", &mut out), 1);
        let expected = "\
ok   fine
warn so so
Ringlog can take the place of a node: nothing stands in the way, 1 warning.
ok   fine
warn so so
stop bad: mend it
Ringlog can't take the place of node 3 yet: 1 finding stands in the way, 1 warning.
";
        assert_eq!(out.stdout, expected);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..7).map(|number: i32| number.to_string()).collect();
        assert_eq!(some_of(&names), "0, 1, 2, 3, 4 and 2 more");
        assert_eq!(some_of(&names[..2]), "0, 1");
    }
}
