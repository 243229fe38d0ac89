//! The levels of this process's loggers, and the filter that keeps to them. One for all cores: what is altered holds on
//! each of them from the next line on.
//!
//! A line that nobody wants costs a look at its call site's cached answer; the cache is made anew when levels change.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ringlog_config::logger::{LogLevel, LoggerError, Loggers};
use ringlog_config::{AlterOp, ConfigEntryDescription, ConfigSource};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::reload;

/// A layer that lets through what is to be written.
pub type Filter = reload::Layer<Targets, Registry>;

struct LogLevels {
    loggers: Mutex<Loggers>,
    handle: reload::Handle<Targets, Registry>,
}

/// Set by [`filter`]; a process that doesn't log has none.
static LOG_LEVELS: OnceLock<LogLevels> = OnceLock::new();

/// The process's filter at its start: `root` is for all that `others`, by names of loggers or modules, doesn't mention.
/// To be called once; the levels of a second call aren't altered by requests.
pub fn filter(start: &Targets) -> Filter {
    let root = start.default_level().map_or(LogLevel::Off, from_tracing);
    let named = start.iter().map(|(name, level)| (name, from_tracing(level)));
    let loggers = Loggers::new(root, named);
    let (layer, handle) = reload::Layer::new(targets(&loggers));
    let _ = LOG_LEVELS.set(LogLevels { loggers: Mutex::new(loggers), handle });
    layer
}

/// The loggers as DescribeConfigs shows them; none in a process that doesn't log.
pub fn describe() -> Vec<ConfigEntryDescription> {
    let Some(levels) = LOG_LEVELS.get() else { return Vec::new() };
    let entry = |(name, level): (&'static str, LogLevel)| ConfigEntryDescription {
        name: name.to_owned(),
        value: Some(level.name().to_owned()),
        source: ConfigSource::DynamicBrokerLogger,
        is_default: false,
        read_only: false,
        sensitive: false,
        config_type: None,
        synonyms: Vec::new(),
        // Kafka's loggers have empty ones.
        documentation: Some(""),
    };
    levels.loggers().levels().map(entry).collect()
}

/// Does what IncrementalAlterConfigs asks for, or only says whether it could be done.
pub fn alter(edits: &[(&str, AlterOp, Option<&str>)], validate_only: bool) -> Result<(), LoggerError> {
    let Some(levels) = LOG_LEVELS.get() else {
        return edits.first().map_or(Ok(()), |(name, ..)| Err(LoggerError::Unknown((*name).to_owned())));
    };
    let mut loggers = levels.loggers();
    let mut altered = loggers.clone();
    altered.alter(edits.iter().copied())?;
    if !validate_only && altered != *loggers {
        // It fails only when the subscriber is gone, and then nobody logs.
        let _ = levels.handle.reload(targets(&altered));
        *loggers = altered;
    }
    Ok(())
}

impl LogLevels {
    fn loggers(&self) -> MutexGuard<'_, Loggers> {
        self.loggers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn targets(loggers: &Loggers) -> Targets {
    let mut targets = Targets::new();
    for (module, level) in loggers.module_levels() {
        let level = to_tracing(level);
        targets = if module.is_empty() { targets.with_default(level) } else { targets.with_target(module, level) };
    }
    targets
}

fn from_tracing(level: LevelFilter) -> LogLevel {
    match level {
        LevelFilter::OFF => LogLevel::Off,
        LevelFilter::ERROR => LogLevel::Error,
        LevelFilter::WARN => LogLevel::Warn,
        LevelFilter::INFO => LogLevel::Info,
        LevelFilter::DEBUG => LogLevel::Debug,
        _ => LogLevel::Trace,
    }
}

/// Nothing that a node writes is fatal: what is gets an ERROR, and the process's end.
fn to_tracing(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off | LogLevel::Fatal => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;

    struct Counter(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Counter {
        fn on_event(&self, _event: &tracing::Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_a_request_alters_holds_from_the_next_line_on() {
        let start: Targets = "info,ringlog_shards::log_dirs=error".parse().expect("a filter");
        let written = Arc::new(AtomicUsize::new(0));
        let subscriber = tracing_subscriber::registry().with(filter(&start)).with(Counter(written.clone()));
        let line = || {
            let before = written.load(Ordering::Relaxed);
            tracing::debug!(target: "ringlog_shards::data::fetch", "of KafkaApis");
            tracing::info!(target: "ringlog_shards::log_dirs::open", "of LogLoader");
            tracing::info!(target: "ringlog_shards::log_dirs::other", "of LogManager");
            written.load(Ordering::Relaxed) - before
        };
        let set = |name, level| alter(&[(name, AlterOp::Set, Some(level))], false).expect("it can be set");
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(line(), 1, "LogLoader's own modules are INFO, others of the log manager ERROR");
            set("kafka.server.KafkaApis", "DEBUG");
            assert_eq!(line(), 2);
            alter(&[("root", AlterOp::Set, Some("ERROR"))], true).expect("it could be set");
            assert_eq!(line(), 2, "it was only asked whether it could be");
            set("kafka.log.LogManager", "INFO");
            assert_eq!(line(), 3);
            set("root", "FATAL");
            assert_eq!(line(), 2, "two loggers have levels of their own");
        });
        let shown = describe();
        let shown = |name: &str| shown.iter().find(|it| it.name == name).and_then(|it| it.value.clone());
        assert_eq!(shown("kafka.server.KafkaApis").as_deref(), Some("DEBUG"));
        assert_eq!(shown("org.apache.kafka.raft.KafkaRaftClient").as_deref(), Some("FATAL"));
    }

    #[test]
    fn the_modules_of_the_table_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        for module in ringlog_config::logger::modules() {
            let mut parts = module.split("::");
            let of_crate = parts.next().unwrap_or_default();
            // Names that aren't a crate's are those of lines that say themselves whose they are.
            let Some(name) = of_crate.strip_prefix("ringlog_") else { continue };
            let folder = match name {
                "shards" | "tuning" => root.join(name),
                name => root.join("src").join(name),
            };
            let path = parts.fold(folder, |path, part| path.join(part));
            assert!(path.is_dir() || path.with_extension("rs").is_file(), "{module}");
        }
    }
}
