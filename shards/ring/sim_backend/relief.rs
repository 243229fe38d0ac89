//! What an executor does when it is short of descriptors.

use std::rc::Rc;

use super::world;

type Relief = Rc<dyn Fn()>;

pub(crate) fn set(relief: Relief) {
    let core = world::current();
    if !core.has_ended() {
        let before = core.relief.replace(Some(relief));
        drop(before);
    }
}

/// That of the core whose code runs.
pub(crate) fn get() -> Option<Relief> {
    world::try_current().and_then(|core| core.relief.borrow().clone())
}
