//! Long loops that others run between.

use crate::backend::tasks::{needs_preempt, yield_now};
use crate::backend::timer::monotonic_ns;

/// As long as an executor's own slices are by default.
const TURN_NS: u64 = 1_000_000;
/// Steps between two looks at the clock, which cost some 30 ns each.
const STEPS_PER_LOOK: u32 = 16;

/// The turns of a task that goes through very many things, each of which takes next to no time.
///
/// The kernel says when a slice is over, but on a busy machine it may do so some milliseconds late: not before its next
/// tick. So the clock is looked at, too.
#[derive(Debug)]
pub struct Turns {
    begun_ns: u64,
    steps: u32,
}

impl Turns {
    /// A turn that begins now.
    pub fn begin() -> Turns {
        Turns { begun_ns: monotonic_ns(), steps: 0 }
    }

    /// To be called for each thing: lets others run when this task has had its time.
    pub async fn step(&mut self) {
        self.steps = self.steps.wrapping_add(1);
        if needs_preempt() || (self.steps.is_multiple_of(STEPS_PER_LOOK) && self.is_over()) {
            yield_now().await;
            self.begun_ns = monotonic_ns();
        }
    }

    fn is_over(&self) -> bool {
        monotonic_ns().saturating_sub(self.begun_ns) >= TURN_NS
    }
}
