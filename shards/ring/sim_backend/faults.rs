//! Faults of the programs that run in a world: what they are called, and where they are kept.

use std::any::Any;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use super::world::{self, World};

thread_local! {
    /// The last panic of simulated code: the hook knows where it was, the payload only what it said.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of simulated code are noted instead of printed: they are outcomes of a run.
pub(crate) fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| match world::try_current() {
            Some(_) => {
                let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
                let message = message_of(info.payload());
                LAST_PANIC.set(Some(format!("{message}{}", place.unwrap_or_default())));
            }
            None => before(info),
        }));
    });
}

/// What a panic said, and where it was.
pub(crate) fn describe_panic(payload: &(dyn Any + Send)) -> String {
    LAST_PANIC.take().unwrap_or_else(|| message_of(payload))
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// Notes something that no run may show.
pub(crate) fn note_violation(world: &World, text: String) {
    world.trace.tell(|| format!("VIOLATION: {text}"));
    world.violations.borrow_mut().push(text);
}
