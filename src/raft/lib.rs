//! KRaft's consensus as a state machine: one event in, effects out.
