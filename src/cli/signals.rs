//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

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
