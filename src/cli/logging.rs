//! Where the log goes: standard output, as Kafka's console log does.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging at the level of `RINGLOG_LOG`, else `RUST_LOG`, else info.
pub fn start() {
    let filter = ["RINGLOG_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or("info")).unwrap_or_else(|fault| {
        eprintln!("RINGLOG_LOG can't be used, logging at info: {fault}");
        EnvFilter::new("info")
    });
    let is_terminal = std::io::stdout().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(is_terminal);
    // Only fails if there is one already, which does as well.
    let _ = subscriber.with_writer(std::io::stdout).try_init();
}
