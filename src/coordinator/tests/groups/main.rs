//! Group coordination from outside: requests, time and writes go in, answers and records come out.

mod admin;
mod fixtures;
mod harness;
mod membership;
mod offsets;
mod random;
mod static_members;
