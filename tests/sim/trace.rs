//! What happened, for the report of a failure. Kept per thread, so that a panic doesn't lose it; noted only while
//! somebody wants it, as most runs pass.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Lines kept for a report: those before the end are what matters.
const LINES_MAX: usize = 300;

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// They aren't even made.
    Nothing,
    /// The last ones are kept.
    Last,
    /// All are printed as they come.
    Printed,
}

thread_local! {
    static LINES: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
    static WANTED: Cell<Wanted> = const { Cell::new(Wanted::Nothing) };
}

/// What is wanted of this thread's lines from now on.
pub(crate) fn want(wanted: Wanted) {
    WANTED.set(wanted);
    drop(LINES.take());
}

/// Notes a line.
pub(crate) fn note(line: impl FnOnce() -> String) {
    match WANTED.get() {
        Wanted::Nothing => {}
        Wanted::Last => LINES.with_borrow_mut(|lines| {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line());
        }),
        Wanted::Printed => println!("  {}", line()),
    }
}

/// Takes the lines that were kept.
pub(crate) fn take() -> Vec<String> {
    LINES.take().into()
}
