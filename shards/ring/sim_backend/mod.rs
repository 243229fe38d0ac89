//! The back end of simulations: whole nodes on one thread, in virtual time, decided by one seed.
//!
//! A [`world`] has hosts with disks, clocks and addresses; processes run on them, each with its cores; a network lies
//! between them. Whatever a process asks of this crate becomes an event of the world, which happens at its time. What is
//! a matter of chance on real machines (which task comes first, how long a disk takes, what a power failure leaves) is
//! drawn from streams that follow from the seed, one stream for each kind of question.
//!
//! [`sim`] is what tests see of it.

pub(crate) mod apart;
mod clock;
mod core;
mod disk;
pub(crate) mod executors;
mod faults;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod host;
pub(crate) mod lane;
pub(crate) mod mesh;
pub(crate) mod port;
pub(crate) mod probe;
mod process;
pub(crate) mod relief;
mod schedule;
mod settings;
pub mod sim;
pub(crate) mod stall;
mod streams;
pub(crate) mod tasks;
pub(crate) mod tcp;
pub(crate) mod timer;
mod trace;
mod waker;
mod world;
