//! The last things that happened, for the report of a failure. Kept per thread, so that a panic doesn't lose them.

use std::cell::RefCell;
use std::collections::VecDeque;

/// Lines kept.
const LINES_MAX: usize = 150;

thread_local! {
    static LINES: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// Notes a line.
pub(crate) fn note(line: String) {
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
