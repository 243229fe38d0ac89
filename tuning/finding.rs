//! One thing that was looked at.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As wanted.
    Ok,
    /// Works; better could be had.
    Advice,
    /// Costs records, availability or much of the speed; also said when the node starts.
    Warning,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Ok => "ok",
            Level::Advice => "advice",
            Level::Warning => "WARNING",
        })
    }
}

/// One thing that was looked at. Displayed, it is the sentence for the node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is: a sysctl, a limit, a device.
    pub name: String,
    /// What it is set to.
    pub value: String,
    /// What Ringlog wants.
    pub wanted: String,
    /// Why it wants that.
    pub why: String,
    /// How much it matters.
    pub level: Level,
    /// What to do; empty when nothing is to be done.
    pub remedy: String,
}

impl Finding {
    /// A finding that is as wanted, until [`Finding::unless`] says otherwise.
    pub(crate) fn new(
        name: impl Into<String>,
        value: impl Into<String>,
        wanted: impl Into<String>,
        why: &str,
    ) -> Finding {
        Finding {
            name: name.into(),
            value: value.into(),
            wanted: wanted.into(),
            why: why.to_owned(),
            level: Level::Ok,
            remedy: String::new(),
        }
    }

    /// Where `good` doesn't hold, the finding gets this level and remedy.
    pub(crate) fn unless(mut self, good: bool, level: Level, remedy: impl Into<String>) -> Finding {
        if !good && level > self.level {
            self.level = level;
            self.remedy = remedy.into();
        }
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, wanted: {} ({})", self.name, self.value, self.wanted, self.why)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, ". {}", self.remedy) }
    }
}
