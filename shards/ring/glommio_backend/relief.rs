//! What an executor does when it is short of descriptors.

use std::cell::RefCell;
use std::rc::Rc;

type Relief = Rc<dyn Fn()>;

thread_local! {
    static RELIEF: RefCell<Option<Relief>> = const { RefCell::new(None) };
}

pub(crate) fn set(relief: Relief) {
    RELIEF.set(Some(relief));
}

/// That of this thread.
pub(crate) fn get() -> Option<Relief> {
    RELIEF.with_borrow(Clone::clone)
}
