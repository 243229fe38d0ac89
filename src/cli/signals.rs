//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The exit code after a second signal: what a shell shows for a process that SIGTERM ended.
const EXIT_CODE_AT_ONCE: i32 = 143;

/// A flag that the first signal sets.
pub fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before this signal sets it.
        flag::register_conditional_shutdown(signal, EXIT_CODE_AT_ONCE, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|fault| format!("signals can't be handled: {fault}"))?;
    }
    Ok(stop)
}

/// Calls this on a thread of its own when the first signal comes.
#[allow(clippy::disallowed_methods, reason = "the main thread is busy with the node")]
pub fn on_first(call: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let fault = |fault: std::io::Error| format!("signals can't be handled: {fault}");
    stop_flag()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(fault)?;
    let wait = move || {
        if signals.forever().next().is_some() {
            call();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop).map_err(fault)
}
