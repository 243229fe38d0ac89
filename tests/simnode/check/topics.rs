//! Topics that an admin made and deleted.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// An answer to a request about it is missing.
    Unknown,
    Made,
    Deleted,
}

/// See the module's text. Each name has one admin.
#[derive(Debug, Default)]
pub struct Topics {
    states: BTreeMap<String, State>,
    /// How often a name was given up: a request about it whose answer is missing may be carried out at any time.
    given_up: BTreeMap<u64, u64>,
    /// Names that were asked about while nodes may have been cut off from each other. A broker whose connection to the controller
    /// fails sends what it forwards again, as Kafka's does: the first of the two may come last.
    twice: BTreeSet<String>,
}

impl Topics {
    /// The name that now stands for a number.
    pub fn name(&mut self, number: u64) -> String {
        let times = self.given_up.entry(number).or_default();
        let is_unknown = |times: u64| self.states.get(&format!("made-{number}-{times}")) == Some(&State::Unknown);
        if is_unknown(*times) {
            *times += 1;
        }
        format!("made-{number}-{times}")
    }

    /// It is about to be made or deleted. `may_be_twice` when that may be carried out a second time, later.
    pub fn on_attempt(&mut self, name: &str, may_be_twice: bool) {
        self.states.insert(name.to_owned(), State::Unknown);
        if may_be_twice {
            self.twice.insert(name.to_owned());
        }
    }

    /// It was made, as an answer says.
    pub fn on_made(&mut self, name: &str) {
        self.states.insert(name.to_owned(), State::Made);
    }

    /// It was deleted, as an answer says.
    pub fn on_deleted(&mut self, name: &str) {
        self.states.insert(name.to_owned(), State::Deleted);
    }

    /// What is wrong with a list of all topics.
    pub fn check(&self, listed: &[String]) -> Result<(), String> {
        for (name, state) in self.states.iter().filter(|(name, _)| !self.twice.contains(*name)) {
            let is_there = listed.contains(name);
            if (*state == State::Made && !is_there) || (*state == State::Deleted && is_there) {
                return Err(format!("topic {name} is {state:?}, and {}", if is_there { "there" } else { "not there" }));
            }
        }
        Ok(())
    }
}
