//! Settings that an admin changed.

use std::collections::BTreeMap;

/// A resource by its type and name, and a key of it.
pub type Setting = (i8, String, &'static str);

/// See the module's text. One admin changes them all, one after the other.
#[derive(Debug, Default)]
pub struct Configs {
    /// What each was set to, none for its default.
    known: BTreeMap<Setting, State>,
}

#[derive(Debug)]
enum State {
    Asked,
    /// An answer was missing: what was asked for may be carried out at any time.
    GivenUp,
    Is(Option<String>),
}

impl Configs {
    /// It is about to be changed.
    pub fn on_attempt(&mut self, setting: &Setting) {
        let state = match self.known.get(setting) {
            Some(State::Asked | State::GivenUp) => State::GivenUp,
            Some(State::Is(_)) | None => State::Asked,
        };
        self.known.insert(setting.clone(), state);
    }

    /// It was changed, as an answer says.
    pub fn on_changed(&mut self, setting: &Setting, value: Option<String>) {
        if let Some(state @ State::Asked) = self.known.get_mut(setting) {
            *state = State::Is(value);
        }
    }

    /// Those of which is known what they are; no value for what has its default.
    pub fn known(&self) -> Vec<(Setting, Option<String>)> {
        let value = |state: &State| match state {
            State::Is(value) => Some(value.clone()),
            State::Asked | State::GivenUp => None,
        };
        self.known.iter().filter_map(|(setting, state)| Some((setting.clone(), value(state)?))).collect()
    }
}
