//! The rules of one node, event by event.

mod downloads;
mod elections;
mod followers;
mod leaders;
mod node;
mod observers;
mod wiped;
