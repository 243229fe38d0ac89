//! The last things that happened, for the report of a failure. Kept per thread, so that a panic doesn't lose them; noted
//! only while somebody wants them, as most runs pass.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Lines kept.
const LINES_MAX: usize = 40000;

thread_local! {
    static LINES: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
    static IS_WANTED: Cell<bool> = const { Cell::new(false) };
}

/// From now on lines are wanted, or not.
pub(crate) fn want(is_wanted: bool) {
    IS_WANTED.set(is_wanted);
    drop(LINES.take());
}

/// Notes a line.
pub(crate) fn note(line: impl FnOnce() -> String) {
    if !IS_WANTED.get() {
        return;
    }
    let line = line();
    if std::env::var_os("LIVE").is_some() {
        eprintln!("{line}");
    }
    LINES.with_borrow_mut(|lines| {
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    });
}

/// Takes all lines.
pub(crate) fn take() -> Vec<String> {
    LINES.take().into()
}
