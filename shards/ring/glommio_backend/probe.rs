//! What a simulation wants to know of the code that it runs: nothing here.

/// Shows a value to a simulation's checkers: for what neither the wire nor a disk shows.
#[inline(always)]
pub fn observe<T: 'static>(_value: &T) {}

/// Tells a simulation that what the caller has just computed takes so long on a real core.
#[inline(always)]
pub fn spend_ns(_ns: u64) {}
