//! What runs are about, and how one is run again.

use std::fmt;
use std::str::FromStr;

use ringlog_ring::sim::World;

use crate::plan::Plan;
use crate::quorum;
use crate::quorum::plan::{Kind, QuorumPlan};
use crate::run::{Outcome, run};
use crate::shrink::{Parts, leave_out, shrink};
use crate::weather::Weather;

/// See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Clients, and what they are promised, in the weather that a seed draws, or in this one.
    Nodes(Option<Weather>),
    /// The same with partitions that have several replicas.
    Replicas,
    /// The same with brokers that are Kafka's in every run, not only in some.
    Mixed,
    /// The same where who isn't in sync may come to lead.
    Unclean,
    /// The metadata quorum: to all that may happen (`faults`), or its elections.
    Quorum(Kind),
}

/// The plan of a run.
pub enum AnyPlan {
    /// Of [`Scenario::Nodes`].
    Nodes(Plan),
    /// Of [`Scenario::Quorum`].
    Quorum(QuorumPlan),
}

impl Scenario {
    /// What is run when nothing is named. The quorum's are young: what they find is as often their own fault.
    pub const DEFAULT: Scenario = Scenario::Nodes(None);
    /// Elections.
    pub const ELECTIONS: Scenario = Scenario::Quorum(Kind::Elections);

    fn name(self) -> &'static str {
        match self {
            Scenario::Nodes(None) => "nodes",
            Scenario::Nodes(Some(weather)) => weather.name(),
            Scenario::Replicas => "replicas",
            Scenario::Mixed => "mixed-replicas",
            Scenario::Unclean => "unclean",
            Scenario::Quorum(Kind::Faults) => "faults",
            Scenario::Quorum(Kind::Elections) => "elections",
        }
    }

    /// A seed's plan without some parts. Of the quorum's nothing can be left out.
    pub fn plan(self, seed: u64, without: &[Parts]) -> AnyPlan {
        match self {
            Scenario::Nodes(weather) => {
                let plan = weather.map_or_else(|| Plan::of(seed), |weather| Plan::in_weather(seed, weather));
                AnyPlan::Nodes(leave_out(plan, without))
            }
            Scenario::Replicas => AnyPlan::Nodes(leave_out(Plan::replicated(seed), without)),
            Scenario::Mixed => AnyPlan::Nodes(leave_out(Plan::mixed(seed), without)),
            Scenario::Unclean => AnyPlan::Nodes(leave_out(Plan::unclean(seed), without)),
            Scenario::Quorum(kind) => AnyPlan::Quorum(QuorumPlan::of(kind, seed)),
        }
    }

    /// What can be left out of a seed that fails so that it still does.
    pub fn shrink(self, seed: u64) -> Vec<Parts> {
        match self.plan(seed, &[]) {
            AnyPlan::Nodes(plan) => shrink(&plan),
            AnyPlan::Quorum(_) => Vec::new(),
        }
    }

    /// How a run is told again.
    pub fn again(self, seed: u64, left_out: &[Parts]) -> String {
        let parts: String = left_out.iter().map(|parts| format!(" --without {parts}")).collect();
        format!("cargo xtask simnode {self} --seed {seed}{parts} --trace")
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Scenario, String> {
        let weathers = Weather::ALL.map(|weather| Scenario::Nodes(Some(weather)));
        let plain = [
            Scenario::DEFAULT,
            Scenario::Replicas,
            Scenario::Mixed,
            Scenario::Unclean,
            Scenario::Quorum(Kind::Faults),
            Scenario::ELECTIONS,
        ];
        let mut all = plain.into_iter().chain(weathers);
        let names = all.clone().map(Scenario::name).collect::<Vec<_>>();
        all.find(|scenario| scenario.name() == text).ok_or_else(|| format!("it is one of {}", names.join(", ")))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl AnyPlan {
    /// Carries it out. `look` gets the world before anything happens in it.
    pub fn run(&self, look: impl FnOnce(&World)) -> Outcome {
        match self {
            AnyPlan::Nodes(plan) => run(plan, look),
            AnyPlan::Quorum(plan) => quorum::run::run(plan, look),
        }
    }
}

impl fmt::Debug for AnyPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyPlan::Nodes(plan) => plan.fmt(formatter),
            AnyPlan::Quorum(plan) => plan.fmt(formatter),
        }
    }
}
