//! What clients were told, and what must follow from it. Shares no code with what it checks.

pub mod commits;
pub mod groups;
pub mod ledger;
pub mod topics;
