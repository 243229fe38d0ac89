//! Sockets: who is let in, how a request is read and its answer sent, what peers may make this node hold, and
//! connections to other nodes.

pub mod admission;
pub mod connection;
pub mod connection_limits;
pub mod listener;
pub mod peer;
pub mod request;
pub mod response_memory;
pub mod service;
