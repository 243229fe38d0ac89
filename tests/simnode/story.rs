//! A run as a story: what happens in the world and what the node logs, line by line, with time and place.

use std::fmt;

use ringlog_ring::sim::{self, World};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

struct Place;

impl FormatTime for Place {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Some(context) = sim::context() else { return Ok(()) };
        write!(writer, "{}", place(&context))
    }
}

fn place(context: &sim::Context) -> String {
    let (seconds, micros) = (context.at_ns / sim::SECOND, context.at_ns % sim::SECOND / sim::US);
    format!("{seconds:3}.{micros:06} {}/{}/{}", context.host, context.program, context.thread)
}

/// Whether a story is to tell more than usual: `RINGLOG_TELL` holds words, separated by commas.
fn is_told(wanted: &str) -> bool {
    std::env::var("RINGLOG_TELL").is_ok_and(|words| words.split(',').any(|word| word == wanted))
}

/// Prints what the nodes log from now on; with `RINGLOG_TELL=debug` all of it.
pub fn print_logs() {
    let level = if is_told("debug") { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // Only the first call counts.
    let _ = tracing_subscriber::fmt().with_timer(Place).with_ansi(false).with_max_level(level).try_init();
}

/// Prints what happens in a world; with `RINGLOG_TELL=bytes` also what goes over its connections.
pub fn tell(world: &World) {
    world.tell(|context, text| println!("{}: {text}", place(context)));
    if is_told("bytes") {
        world.tap(|tap| {
            let (seconds, micros) = (tap.at_ns / sim::SECOND, tap.at_ns % sim::SECOND / sim::US);
            let (kind, bytes, position) = (tap.kind, tap.bytes.len(), tap.position);
            let (connection, from, to) = (tap.connection, tap.from, tap.to);
            println!("{seconds:3}.{micros:06} connection {connection}, {from} to {to}: {kind:?} {bytes} at {position}");
        });
    }
}
