//! Where the log of a node goes.

use std::io::IsTerminal;

use ringlog_shards::log_levels;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The stream that takes the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, as Kafka's console log does.
    Out,
    /// Standard error, for a command that has something else to say.
    Error,
}

/// Starts logging at the level of `RINGLOG_LOG`, else `RUST_LOG`, else `level`. A level may be followed by others for
/// single loggers or modules, as in `info,kafka.server.KafkaApis=debug`.
pub fn start(stream: Stream, level: &str) {
    let asked = ["RINGLOG_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let levels = asked.as_deref().unwrap_or(level);
    let (levels, fault) = match levels.parse::<Targets>() {
        Ok(levels) => (levels, None),
        Err(fault) => {
            (level.parse().unwrap_or_default(), Some(format!("{levels:?} is no list of log levels: {fault}")))
        }
    };
    // A log that can't be written is no reason to end, nor to tell another stream of it.
    let lines = fmt::layer().with_target(false).log_internal_errors(false);
    let filter = tracing_subscriber::registry().with(log_levels::filter(&levels));
    // Only fails if there is one already, which does as well.
    let _ = match stream {
        Stream::Out => {
            let is_terminal = std::io::stdout().is_terminal();
            filter.with(lines.with_ansi(is_terminal).with_writer(std::io::stdout)).try_init()
        }
        Stream::Error => {
            let is_terminal = std::io::stderr().is_terminal();
            filter.with(lines.with_ansi(is_terminal).with_writer(std::io::stderr)).try_init()
        }
    };
    if let Some(fault) = fault {
        tracing::error!("{fault}; logging at {level}");
    }
}
