//! What clients were told, and what must follow from it. Shares no code with what it checks.

pub mod commits;
pub mod configs;
pub mod fenced;
pub mod files;
pub mod groups;
pub mod in_sync;
pub mod ledger;
pub mod producers;
pub mod replicas;
pub mod starts;
pub mod topics;

/// When a request was sent, and on what connection.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// When the connection was opened: what it says is of no later start of the node.
    pub opened_at_ns: u64,
    /// When the request was sent.
    pub sent_at_ns: u64,
}
