//! How much of what was written and read may be kept while the host is short of memory.
//!
//! It is in files, and kept only because nobody else needs the memory. So each core looks at the host once in a while,
//! [`LOOK_EVERY_MS`], and gives its part of what is missing back until one part in [`SPARE_PART`] is left to others; when
//! there is plenty again it may have more, step by step.

use ringlog_ring::HostMemory;
use tracing::info;

use crate::storage::cache_memory::CacheMemory;

/// How often a core looks.
pub const LOOK_EVERY_MS: u64 = 1_000;
/// So much of the host's memory is left to others.
const SPARE_PART: u64 = 16;
/// A core gets so much of its memory back at a time.
const STEP_PART: usize = 16;

/// What was given back lately.
#[derive(Debug, Default)]
pub struct MemoryLimit {
    is_short: bool,
}

impl MemoryLimit {
    /// Whether the host is to be looked at: there is something to give, or to get back.
    pub fn has_to_look(&self, memory: &CacheMemory) -> bool {
        self.is_short || memory.all_in_use_bytes() > 0
    }

    /// Sets a core's limit by what the host has, of which `cores` give their part.
    pub fn adjust(&mut self, memory: &CacheMemory, host: HostMemory, cores: usize) {
        let limit = next_limit(memory.limit_bytes(), memory.all_in_use_bytes(), memory.budget_bytes(), host, cores);
        memory.set_limit(limit);
        let is_short = limit < memory.budget_bytes();
        if is_short != self.is_short {
            self.is_short = is_short;
            let (available, total) = (host.available_bytes, host.total_bytes);
            match is_short {
                true => info!(limit.bytes = limit, available, total, "the host is short of memory: less is kept"),
                false => info!(limit.bytes = limit, available, total, "there is memory for the cache again"),
            }
        }
    }
}

fn next_limit(limit: usize, in_use: usize, budget: usize, host: HostMemory, cores: usize) -> usize {
    let spare = host.total_bytes / SPARE_PART;
    if host.available_bytes < spare {
        let part = (spare - host.available_bytes) as usize / cores.max(1);
        in_use.saturating_sub(part).min(limit)
    } else if host.available_bytes > 2 * spare {
        limit.saturating_add(budget / STEP_PART).min(budget)
    } else {
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;

    fn host(available_gib: u64) -> HostMemory {
        HostMemory { total_bytes: 64 << 30, available_bytes: available_gib << 30 }
    }

    #[test]
    fn what_is_missing_is_given_back_and_comes_back_in_steps() {
        let budget = 8 * GIB;
        let mut limit = budget;
        assert_eq!(next_limit(limit, 6 * GIB, budget, host(20), 2), budget);
        limit = next_limit(limit, 6 * GIB, budget, host(2), 2);
        assert_eq!(limit, 5 * GIB, "half of the two that others miss");
        limit = next_limit(limit, 5 * GIB, budget, host(4), 2);
        assert_eq!(limit, 5 * GIB, "it is enough, and not more than that");
        limit = next_limit(limit, 5 * GIB, budget, host(9), 2);
        assert_eq!(limit, 5 * GIB + GIB / 2);
        for _ in 0..10 {
            limit = next_limit(limit, 5 * GIB, budget, host(9), 2);
        }
        assert_eq!(limit, budget);
    }

    #[test]
    fn a_core_may_have_to_do_without() {
        assert_eq!(next_limit(8 * GIB, GIB / 4, 8 * GIB, host(0), 1), 0);
        assert_eq!(next_limit(0, 0, 8 * GIB, host(0), 1), 0);
    }
}
