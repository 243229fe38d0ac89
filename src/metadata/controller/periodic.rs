//! What the active controller does without being asked, and when.

use ringlog_protocol::metadata_records::NoOpRecord;
use ringlog_types::{BrokerEpoch, MonotonicMs, NodeId, Now};

use super::context::{ControllerConfig, record};
use super::partition_change::Election;
use super::plan::Plan;
use super::state::ActiveController;

/// How soon a task runs again that found more than one run's work.
const RUN_AGAIN_MS: u64 = 10;

/// A controller that comes so late to its tasks hasn't listened to brokers either.
const MAX_LATE_MS: u64 = 500;

/// A periodic task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    NoOp,
    FenceStaleBrokers,
    ElectPreferred,
    ElectUnclean,
    ExpireTokens,
}

const TASKS: [Task; 5] =
    [Task::NoOp, Task::FenceStaleBrokers, Task::ElectPreferred, Task::ElectUnclean, Task::ExpireTokens];

/// When each task is due; `None` if it is turned off.
#[derive(Debug)]
pub(crate) struct Deadlines {
    due: [Option<MonotonicMs>; TASKS.len()],
}

fn period_ms(task: Task, config: &ControllerConfig) -> Option<u64> {
    match task {
        Task::NoOp => (config.max_idle_interval_ms > 0).then_some(config.max_idle_interval_ms),
        Task::FenceStaleBrokers => Some((config.session_timeout_ms / 8).max(1)),
        Task::ElectPreferred => {
            config.auto_leader_rebalance_enable.then_some(config.leader_imbalance_check_interval_ms.max(1))
        }
        Task::ElectUnclean => Some(config.unclean_leader_election_interval_ms.max(1)),
        Task::ExpireTokens => {
            config.delegation_token_secret.as_ref().map(|_| config.delegation_token_expiry_check_interval_ms.max(1))
        }
    }
}

impl Deadlines {
    pub(crate) fn new(config: &ControllerConfig, now: MonotonicMs) -> Deadlines {
        Deadlines { due: TASKS.map(|task| period_ms(task, config).map(|period| now.plus_ms(period))) }
    }

    pub(crate) fn next(&self) -> Option<MonotonicMs> {
        self.due.iter().flatten().min().copied()
    }
}

impl ActiveController {
    /// The first task that is due, marked as done until its next time.
    pub(crate) fn take_due_task(&mut self, now: MonotonicMs) -> Option<Task> {
        let position = self.deadlines.due.iter().position(|due| due.is_some_and(|due| due <= now))?;
        let task = TASKS[position];
        let late_ms = self.deadlines.due[position].map_or(0, |due| now.since_ms(due));
        if task == Task::FenceStaleBrokers && late_ms > MAX_LATE_MS {
            self.heartbeats.forgive(late_ms, now);
        }
        let period_ms = period_ms(task, &self.config);
        // The end of a session isn't waited for longer than it takes.
        let expiry_ms = self.heartbeats.next_expiry_ms(now).filter(|_| task == Task::FenceStaleBrokers);
        let wait_ms = period_ms.map(|period| expiry_ms.map_or(period, |expiry| period.min(expiry.max(1))));
        self.deadlines.due[position] = wait_ms.map(|wait| now.plus_ms(wait));
        Some(task)
    }

    /// A broker's process was found gone: it is fenced at once.
    pub(crate) fn on_broker_gone(&mut self, id: NodeId, epoch: BrokerEpoch, at: MonotonicMs) {
        self.heartbeats.end_with_process(id, epoch, at);
        if let Some(position) = TASKS.iter().position(|it| *it == Task::FenceStaleBrokers) {
            self.deadlines.due[position] = Some(at);
        }
    }

    fn run_again_soon(&mut self, task: Task, now: MonotonicMs) {
        if let Some(position) = TASKS.iter().position(|it| *it == task) {
            self.deadlines.due[position] = Some(now.plus_ms(RUN_AGAIN_MS));
        }
    }

    /// What `task` writes.
    pub(crate) fn run_task(&mut self, task: Task, now: Now) -> Plan {
        Plan::of(match task {
            Task::NoOp => vec![record(NoOpRecord::default().into(), 0)],
            Task::FenceStaleBrokers => return self.fence_one_stale_broker(now),
            Task::ElectPreferred | Task::ElectUnclean => {
                let election = if task == Task::ElectPreferred { Election::Preferred } else { Election::Unclean };
                let (records, is_more) = self.run_elections(election);
                if is_more {
                    self.run_again_soon(task, now.monotonic);
                }
                records
            }
            Task::ExpireTokens => self.expire_tokens(now.wall),
        })
    }

    /// Fences one broker whose session has run out, again even if it is fenced already: only expiry ends a session.
    fn fence_one_stale_broker(&mut self, now: Now) -> Plan {
        let mut plan = Plan::default();
        if let Some((id, epoch)) = self.heartbeats.take_expired(now.monotonic)
            && let Some(broker) = self.image.cluster.broker(id).filter(|broker| broker.epoch == epoch)
        {
            self.fence_broker(broker, &mut plan);
        }
        if self.heartbeats.has_expired(now.monotonic) {
            self.run_again_soon(Task::FenceStaleBrokers, now.monotonic);
        }
        plan
    }
}
