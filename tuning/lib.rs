//! The host: what Ringlog wants of it, what it has, how to mend it, and mending it.
//!
//! A look ([`check`]) changes nothing and tries nothing out: all of it is read from `/proc`, `/sys` and the file systems' own
//! figures. Each check is a pure function of file contents (`cpu`, `kernel`, `network`, `storage`); `host` does the reading.
//! What can't be read isn't judged. What can be set (`settings`) is set by [`apply`], and as it was again by [`revert`].

mod apply;
mod cpu;
mod finding;
mod host;
mod kernel;
mod network;
mod render;
mod settings;
mod storage;

use std::path::{Path, PathBuf};

pub use apply::{Change, Outcome, apply, revert};
pub use finding::{Finding, Level};
pub use render::{changes, json, table};

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
    let host = host::Host::at(Path::new("/"));
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
