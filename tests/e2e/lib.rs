//! A real node and real clients, end to end: what the test programs beside this file share.
//!
//! `cargo xtask e2e` builds and runs everything. The node under test is Ringlog (`RINGLOG_BIN`, else what lies in the
//! target folder), or real Kafka 4.3.1 with `RINGLOG_E2E_NODE=kafka`, which shows that a test asks for what Kafka does.
//! The nodes of a [`cluster`] may be a mixture, by
//! `RINGLOG_E2E_CONTROLLERS=ringlog,kafka,kafka` and `RINGLOG_E2E_BROKERS=kafka`. `RINGLOG_E2E_KEEP` keeps the folders.
//! Whatever a test starts has its own directory and ports, and ends with the test, also when that is killed.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

pub mod child;
pub mod cluster;
pub mod corpus;
pub mod fetching;
pub mod jvm;
pub mod kafka;
pub mod metadata_log;
pub mod namespaces;
pub mod node;
pub mod paths;
pub mod place;
pub mod programs;
pub mod quorum_view;
pub mod quorum_watch;
pub mod replicas;
pub mod small_disk;
pub mod tool;
pub mod topics;
pub mod transcript;
pub mod wire;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again and again until there is an answer, for so long at most.
pub fn wait_until<T>(what: &str, within: Duration, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = attempt()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited {within:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
