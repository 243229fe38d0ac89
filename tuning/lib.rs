//! A read-only look at the host: what Ringlog wants of it, what it has, and how to mend it.
//!
//! Nothing is changed and nothing tried out: all of it is read from `/proc`, `/sys` and the file systems' own figures.
//! Each check is a pure function of file contents (`cpu`, `kernel`, `network`, `storage`); `host` does the reading. What
//! can't be read isn't judged.

mod cpu;
mod finding;
mod host;
mod kernel;
mod network;
mod render;
mod storage;

use std::path::PathBuf;

pub use finding::{Finding, Level};
pub use render::{json, table};

/// What is to run on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// `log.dirs`. One that doesn't exist yet is judged by its nearest parent that does.
    pub log_dirs: Vec<PathBuf>,
    /// Executors of the node (`ringlog.shards`, or what the node would choose); at least 1 is assumed.
    pub shards: usize,
}

/// Looks at the host. Findings come in the order of importance of their subjects: kernel, limits, CPU, storage, network,
/// memory.
pub fn check(subject: &Subject) -> Vec<Finding> {
    let host = host::Host::here();
    let shards = subject.shards.max(1);
    let mut findings = kernel::check_io_uring(&host.kernel());
    findings.extend(kernel::check_limits(&host.limits(), shards));
    findings.extend(cpu::check(&host.cpu(), shards));
    for directory in &subject.log_dirs {
        findings.extend(storage::check(directory, &host.storage(directory)));
    }
    findings.extend(network::check(&host.network()));
    findings.extend(kernel::check_memory(&host.memory()));
    findings
}

/// What the node says in its log when it starts: those of level [`Level::Warning`].
pub fn warnings(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.level == Level::Warning)
}
