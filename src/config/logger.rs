//! Loggers: Kafka's names for the parts of a node that write its log, and the level of each (KIP-412).
//!
//! A logger without a level of its own has that of the nearest logger above it that has one: `kafka.server.KafkaApis`
//! that of `kafka.server`, if there is such a logger, else of `kafka`, else of `root`. That, and what may be altered and
//! with which words it is refused, is log4j's and Kafka's way. `data/loggers.tsv` says which of our modules write under
//! which name; a logger without modules is one that operators' files name, and that nothing here writes to yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use ringlog_types::ErrorCode;

use crate::alter::AlterOp;

/// The logger above all others.
pub const ROOT: &str = "root";

/// How important a line must be to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing is. Only a node's start can ask for it.
    Off,
    /// No line of this node is so important.
    Fatal,
    /// What needs somebody's hand.
    Error,
    /// What may come to need it.
    Warn,
    /// What an operator likes to know.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The levels that can be set, in the order in which Kafka lists them.
    const SETTABLE: [LogLevel; 6] =
        [LogLevel::Debug, LogLevel::Error, LogLevel::Fatal, LogLevel::Info, LogLevel::Trace, LogLevel::Warn];

    /// As requests name it: in capitals, and nothing else.
    fn from_name(name: &str) -> Option<LogLevel> {
        LogLevel::SETTABLE.into_iter().find(|level| level.name() == name)
    }

    /// `DEBUG`.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Off => "OFF",
            LogLevel::Fatal => "FATAL",
            LogLevel::Error => "ERROR",
            LogLevel::Warn => "WARN",
            LogLevel::Info => "INFO",
            LogLevel::Debug => "DEBUG",
            LogLevel::Trace => "TRACE",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why loggers aren't altered, in Kafka's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggerError {
    /// No logger has this name.
    #[error("Logger {0} does not exist!")]
    Unknown(String),
    /// Not a level.
    #[error(
        "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels are \
         DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
    )]
    Level {
        /// The logger.
        logger: String,
        /// What it was to be set to.
        level: String,
    },
    /// There is nothing above the root to inherit from.
    #[error("Removing the log level of the root logger is not allowed")]
    DeletesRoot,
    /// Levels aren't lists.
    #[error("{0} operation is not allowed for the BROKER_LOGGER resource")]
    NotAList(&'static str),
}

impl LoggerError {
    /// The code that goes with the text.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            LoggerError::Unknown(_) | LoggerError::Level { .. } => ErrorCode::InvalidConfig,
            LoggerError::DeletesRoot | LoggerError::NotAList(_) => ErrorCode::InvalidRequest,
        }
    }
}

struct Logger {
    name: &'static str,
    modules: Vec<&'static str>,
    level: Option<LogLevel>,
}

fn known() -> &'static [Logger] {
    static KNOWN: LazyLock<Vec<Logger>> = LazyLock::new(|| {
        let rows = include_str!("data/loggers.tsv").lines().skip(1);
        let logger = |row: &'static str| {
            let mut cells = row.split('\t');
            let mut cell = || cells.next().unwrap_or_default();
            let (name, modules, level) = (cell(), cell(), cell());
            let modules = modules.split(',').filter(|module| !module.is_empty()).collect();
            Logger { name, modules, level: LogLevel::from_name(level) }
        };
        rows.map(logger).collect()
    });
    &KNOWN
}

/// Who gave a logger its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Start,
    Request,
}

/// The loggers of a node and their levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loggers {
    /// Loggers with a level of their own; the root always has one.
    own: BTreeMap<&'static str, (LogLevel, Origin)>,
    /// Levels that the start gave to single modules.
    modules: BTreeMap<String, LogLevel>,
}

impl Loggers {
    /// The loggers of a node that is started with `root` as the level of all of which nothing else is said.
    ///
    /// `others` are names with levels: of loggers, or of modules, which count as long as nobody alters their logger.
    pub fn new<'a>(root: LogLevel, others: impl IntoIterator<Item = (&'a str, LogLevel)>) -> Loggers {
        let preset = known().iter().filter_map(|logger| Some((logger.name, (logger.level?, Origin::Start))));
        let mut loggers = Loggers { own: preset.collect(), modules: BTreeMap::new() };
        loggers.own.insert(ROOT, (root, Origin::Start));
        for (name, level) in others {
            match known().iter().find(|logger| logger.name == name) {
                Some(logger) => drop(loggers.own.insert(logger.name, (level, Origin::Start))),
                None => drop(loggers.modules.insert(name.to_owned(), level)),
            }
        }
        loggers
    }

    /// Every logger by name, with the level that holds for it.
    pub fn levels(&self) -> impl Iterator<Item = (&'static str, LogLevel)> {
        known().iter().map(|logger| (logger.name, self.effective(logger.name).0))
    }

    /// What is to be written of which modules. An empty name is the rest.
    pub fn module_levels(&self) -> BTreeMap<String, LogLevel> {
        let mut levels = BTreeMap::from([(String::new(), self.effective(ROOT).0)]);
        for logger in known() {
            let (level, _) = self.effective(logger.name);
            levels.extend(logger.modules.iter().map(|module| ((*module).to_owned(), level)));
        }
        for (module, level) in &self.modules {
            if self.effective(logger_of(module)).1 == Origin::Start {
                levels.insert(module.clone(), *level);
            }
        }
        levels
    }

    /// The level that holds for a logger: its own, or that of the nearest one above.
    fn effective(&self, name: &str) -> (LogLevel, Origin) {
        let mut at = name;
        loop {
            if let Some(own) = self.own.get(at) {
                return *own;
            }
            at = at.rsplit_once('.').map_or(ROOT, |(above, _)| above);
        }
    }

    /// Does what IncrementalAlterConfigs asks for: all of it, or nothing.
    pub fn alter<'a>(
        &mut self,
        edits: impl IntoIterator<Item = (&'a str, AlterOp, Option<&'a str>)>,
    ) -> Result<(), LoggerError> {
        let mut own = self.own.clone();
        for (name, op, value) in edits {
            let logger = || {
                let found = known().iter().find(|logger| logger.name == name);
                found.map(|logger| logger.name).ok_or_else(|| LoggerError::Unknown(name.to_owned()))
            };
            match op {
                AlterOp::Set => {
                    let (logger, text) = (logger()?, value.unwrap_or_default());
                    let level = LogLevel::from_name(text)
                        .ok_or_else(|| LoggerError::Level { logger: name.to_owned(), level: text.to_owned() })?;
                    own.insert(logger, (level, Origin::Request));
                }
                AlterOp::Delete if logger()? == ROOT => return Err(LoggerError::DeletesRoot),
                AlterOp::Delete => drop(own.remove(name)),
                AlterOp::Append => return Err(LoggerError::NotAList("APPEND")),
                AlterOp::Subtract => return Err(LoggerError::NotAList("SUBTRACT")),
            }
        }
        self.own = own;
        Ok(())
    }
}

/// The logger that a module writes to.
fn logger_of(module: &str) -> &'static str {
    let is_within =
        |outer: &str| module.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let of = |logger: &'static Logger| logger.modules.iter().map(move |outer| (*outer, logger.name));
    let within = known().iter().flat_map(of).filter(|(outer, _)| is_within(outer));
    within.max_by_key(|(outer, _)| outer.len()).map_or(ROOT, |(_, name)| name)
}

/// Every module of the table, for whoever can tell whether it is there.
pub fn modules() -> impl Iterator<Item = &'static str> {
    known().iter().flat_map(|logger| logger.modules.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const APIS: &str = "kafka.server.KafkaApis";
    const QUORUM: &str = "org.apache.kafka.controller.QuorumController";

    fn level(loggers: &Loggers, name: &str) -> &'static str {
        loggers.levels().find(|(known, _)| *known == name).expect("a known logger").1.name()
    }

    fn set(loggers: &mut Loggers, name: &str, level: &str) -> Result<(), LoggerError> {
        loggers.alter([(name, AlterOp::Set, Some(level))])
    }

    fn delete(loggers: &mut Loggers, name: &str) -> Result<(), LoggerError> {
        loggers.alter([(name, AlterOp::Delete, None)])
    }

    /// The steps and their outcomes are those of a Kafka node whose log4j2.yaml is the one that Kafka comes with.
    #[test]
    fn levels_are_inherited_as_log4j_inherits_them() {
        let mut loggers =
            Loggers::new(LogLevel::Info, [("kafka", LogLevel::Info), ("org.apache.kafka", LogLevel::Info)]);
        set(&mut loggers, "kafka", "DEBUG").unwrap();
        assert_eq!((level(&loggers, APIS), level(&loggers, "kafka.request.logger")), ("DEBUG", "WARN"));
        set(&mut loggers, APIS, "TRACE").unwrap();
        set(&mut loggers, "kafka", "ERROR").unwrap();
        assert_eq!((level(&loggers, APIS), level(&loggers, "kafka.log.LogManager")), ("TRACE", "ERROR"));
        delete(&mut loggers, APIS).unwrap();
        assert_eq!(level(&loggers, APIS), "ERROR");
        delete(&mut loggers, "kafka").unwrap();
        set(&mut loggers, ROOT, "WARN").unwrap();
        assert_eq!((level(&loggers, APIS), level(&loggers, QUORUM)), ("WARN", "INFO"));
        set(&mut loggers, "org.apache.kafka.controller", "ERROR").unwrap();
        set(&mut loggers, "org.apache.kafka", "DEBUG").unwrap();
        assert_eq!((level(&loggers, QUORUM), level(&loggers, "org.apache.kafka.raft")), ("ERROR", "DEBUG"));
        delete(&mut loggers, "org.apache.kafka.controller").unwrap();
        assert_eq!(level(&loggers, QUORUM), "DEBUG");
        delete(&mut loggers, "org.apache.kafka").unwrap();
        delete(&mut loggers, "org.apache.kafka").unwrap();
        assert_eq!(level(&loggers, QUORUM), "WARN");
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words_and_changes_nothing() {
        let mut loggers = Loggers::new(LogLevel::Info, []);
        let before = loggers.clone();
        let fault = loggers.alter([(APIS, AlterOp::Set, Some("DEBUG")), ("no.such", AlterOp::Set, Some("DEBUG"))]);
        assert_eq!(fault.unwrap_err().to_string(), "Logger no.such does not exist!");
        for level in ["debug", " DEBUG", "", "OFF", "ALL"] {
            let fault = set(&mut loggers, APIS, level).unwrap_err();
            let text = format!(
                "Cannot set the log level of {APIS} to {level} as it is not a supported log level. Valid log levels \
                 are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
            );
            assert_eq!((fault.to_string(), fault.error_code()), (text, ErrorCode::InvalidConfig));
        }
        for unknown in ["ROOT", "", "kafka.server", "ringlog_shards"] {
            assert_eq!(set(&mut loggers, unknown, "INFO"), Err(LoggerError::Unknown(unknown.to_owned())));
            assert_eq!(delete(&mut loggers, unknown), Err(LoggerError::Unknown(unknown.to_owned())));
        }
        let fault = delete(&mut loggers, ROOT).unwrap_err();
        assert_eq!(fault.error_code(), ErrorCode::InvalidRequest);
        let fault = loggers.alter([(APIS, AlterOp::Append, Some("DEBUG"))]).unwrap_err();
        assert_eq!(fault.to_string(), "APPEND operation is not allowed for the BROKER_LOGGER resource");
        assert_eq!(loggers, before);
        for level in LogLevel::SETTABLE {
            set(&mut loggers, APIS, level.name()).unwrap();
            assert_eq!(self::level(&loggers, APIS), level.name());
        }
    }

    #[test]
    fn modules_follow_their_loggers_and_a_request_counts_more_than_the_start() {
        let start = [("ringlog_shards::admin::metadata", LogLevel::Trace), ("glommio", LogLevel::Error)];
        let mut loggers = Loggers::new(LogLevel::Info, start);
        let of = |loggers: &Loggers, module: &str| loggers.module_levels().get(module).copied();
        assert_eq!(of(&loggers, ""), Some(LogLevel::Info));
        assert_eq!(of(&loggers, "ringlog_shards::admin::metadata"), Some(LogLevel::Trace));
        set(&mut loggers, "kafka", "DEBUG").unwrap();
        assert_eq!(of(&loggers, "ringlog_shards::admin"), Some(LogLevel::Debug));
        assert_eq!(of(&loggers, "ringlog_shards::admin::metadata"), None, "it is within its logger again");
        assert_eq!(of(&loggers, "glommio"), Some(LogLevel::Error));
        set(&mut loggers, ROOT, "WARN").unwrap();
        assert_eq!((of(&loggers, ""), of(&loggers, "glommio")), (Some(LogLevel::Warn), None));
    }

    #[test]
    fn the_table_is_sorted_and_no_module_is_in_it_twice() {
        let names: Vec<&str> = known().iter().map(|logger| logger.name).collect();
        assert!(names[1..].is_sorted(), "{names:?}");
        let mut modules: Vec<&str> = modules().collect();
        modules.sort_unstable();
        let count = modules.len();
        modules.dedup();
        assert_eq!(modules.len(), count);
    }
}
