//! Sockets: who is let in, how a request is read and its answer sent, what peers may make this node hold, and
//! connections to other nodes.

pub mod admission;
pub mod budgets;
pub mod connection;
pub mod connection_limits;
pub mod listener;
mod pace;
pub mod peer;
pub mod request;
pub mod request_memory;
pub mod response_memory;
pub mod service;
