//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The exit code after a second signal: what a shell shows for a process that SIGTERM ended.
const EXIT_CODE_AT_ONCE: i32 = 143;
/// How long a tool that a signal ends may take to leave things in order.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A flag that the first signal sets.
pub fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before this signal sets it.
        flag::register_conditional_shutdown(signal, EXIT_CODE_AT_ONCE, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(unhandled)?;
    }
    Ok(stop)
}

/// Calls this on a thread of its own when the first signal comes.
#[allow(clippy::disallowed_methods, reason = "the main thread is busy with the node")]
pub fn on_first(call: impl FnOnce() + Send + 'static) -> Result<(), String> {
    stop_flag()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(unhandled)?;
    let wait = move || {
        if signals.forever().next().is_some() {
            call();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop).map_err(unhandled)
}

/// Has signals end the process at once, with the exit codes of Kafka's tools: for tools that have nothing to put in
/// order.
pub fn exit_at_once() -> Result<(), String> {
    let always = Arc::new(AtomicBool::new(true));
    for signal in [SIGINT, SIGTERM] {
        let exit_code = exit_code_of(usize::try_from(signal).unwrap_or_default());
        flag::register_conditional_shutdown(signal, i32::from(exit_code), always.clone()).map_err(unhandled)?;
    }
    Ok(())
}

fn unhandled(fault: std::io::Error) -> String {
    format!("signals can't be handled: {fault}")
}

/// What a shell shows for a process that the signal ended.
fn exit_code_of(signal: usize) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| 128 + signal)
}

/// A tool's end by a signal.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// Sees signals from now on. A tool that isn't through a little after [`CLOSE_LIMIT`], because it is stuck in
    /// something that can't be called off, is ended.
    pub fn on_signals() -> Result<Stop, String> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM] {
            let number = usize::try_from(signal).unwrap_or_default();
            let exit_code = i32::from(exit_code_of(number));
            flag::register_conditional_shutdown(signal, exit_code, stop.flag.clone())
                .and_then(|_| flag::register_usize(signal, stop.signal.clone(), number))
                .and_then(|_| flag::register(signal, stop.flag.clone()))
                .map_err(unhandled)?;
        }
        let watched = stop.clone();
        end_in_time(watched);
        Ok(stop)
    }

    /// The flag that a signal sets.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// The exit code that goes with the signal, if one came.
    pub fn exit_code(&self) -> Option<u8> {
        self.is_set().then(|| exit_code_of(self.signal.load(Ordering::Relaxed)))
    }
}

#[allow(clippy::disallowed_methods, reason = "the main thread may be stuck, so another one waits for signals")]
fn end_in_time(stop: Stop) {
    std::thread::spawn(move || {
        while !stop.is_set() {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(CLOSE_LIMIT + Duration::from_secs(1));
        std::process::exit(i32::from(stop.exit_code().unwrap_or(1)));
    });
}
