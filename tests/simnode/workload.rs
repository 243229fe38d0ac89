//! What else clients do in a run, drawn apart from the rest of the plan: a new kind of client leaves the other draws of a
//! seed as they were.

use ringlog_types::Random;

/// A classic group whose members share out partitions among them.
#[derive(Debug, Clone)]
pub struct GroupPlan {
    /// How many members there are when all are there.
    pub members: usize,
    /// What they subscribe to, by place in the plan.
    pub topics: Vec<usize>,
    /// `session.timeout.ms` of its members.
    pub session_timeout_ms: i32,
    /// `max.poll.interval.ms` of its members.
    pub rebalance_timeout_ms: i32,
    /// Of a hundred beats of a member so many are its last: it leaves, or is gone without a word.
    pub leaves_percent: u64,
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// Groups.
    pub groups: Vec<GroupPlan>,
}

impl Workload {
    /// What a seed's clients do in a plan of so many topics.
    pub fn of(seed: u64, topics: usize) -> Workload {
        let mut random = Random::from_seed(seed ^ 0x0a0d_10ad);
        let mut one = |of: &[u64]| of[random.below(of.len() as u64) as usize];
        let groups = one(&[0, 0, 0, 1, 1, 2]);
        let groups = (0..groups).map(|_| {
            let (all, only) = (one(&[0, 1]) == 0, one(&[0, 1]) as usize % topics);
            GroupPlan {
                members: one(&[1, 2, 3, 4]) as usize,
                topics: if all { (0..topics).collect() } else { vec![only] },
                session_timeout_ms: one(&[1_000, 3_000, 6_000]) as i32,
                rebalance_timeout_ms: one(&[1_000, 3_000, 10_000]) as i32,
                leaves_percent: one(&[0, 2, 10]),
            }
        });
        Workload { groups: groups.collect() }
    }
}
