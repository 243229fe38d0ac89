//! Sizes of queues and buffers of the network, and who serves the queues.

use std::path::PathBuf;

use crate::finding::{Finding, Level};
use crate::settings::is_zero;

/// Contents of the files about the network, under `/proc/sys/net`.
#[derive(Debug, Default)]
pub(crate) struct NetworkFiles {
    /// `core/somaxconn`.
    pub somaxconn: Option<String>,
    /// `ipv4/tcp_max_syn_backlog`.
    pub tcp_max_syn_backlog: Option<String>,
    /// `core/rmem_max`.
    pub rmem_max: Option<String>,
    /// `core/wmem_max`.
    pub wmem_max: Option<String>,
    /// `ipv4/tcp_rmem`.
    pub tcp_rmem: Option<String>,
    /// `ipv4/tcp_wmem`.
    pub tcp_wmem: Option<String>,
    /// What is below `/sys/class/net`.
    pub interfaces: Vec<Interface>,
    /// CPUs of the host.
    pub cpus: usize,
}

/// A network interface with a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// What it is called.
    pub name: String,
    /// Its receive queues: each one's name, the file from the root with the CPUs that packets of it are handed on to, and what
    /// that says.
    pub queues: Vec<(String, PathBuf, String)>,
}

impl Interface {
    /// Whether some of so many CPUs get nothing to do by the device itself.
    pub fn is_short_of_queues(&self, cpus: usize) -> bool {
        (1..cpus).contains(&self.queues.len())
    }
}

const INTERFACE: &str = "sys/class/net";
/// Connections that wait to be accepted.
pub(crate) const WANTED_BACKLOG: u64 = 1024;
/// Bytes on their way on one connection.
pub(crate) const WANTED_BUFFER_BYTES: u64 = 2 * 1024 * 1024;

/// Judges them.
pub(crate) fn check(files: &NetworkFiles) -> Vec<Finding> {
    let backlog = "when many clients reconnect at once, those beyond it are refused or wait for seconds";
    let buffer = "a buffer of bandwidth times delay keeps a connection to another data centre busy \
                  (socket.send.buffer.bytes, socket.receive.buffer.bytes)";
    let automatic = "the kernel grows a connection's buffer up to the last of the three numbers";
    let rows = [
        ("net.core.somaxconn", &files.somaxconn, WANTED_BACKLOG, backlog),
        ("net.ipv4.tcp_max_syn_backlog", &files.tcp_max_syn_backlog, WANTED_BACKLOG, backlog),
        ("net.core.rmem_max", &files.rmem_max, WANTED_BUFFER_BYTES, buffer),
        ("net.core.wmem_max", &files.wmem_max, WANTED_BUFFER_BYTES, buffer),
        ("net.ipv4.tcp_rmem", &files.tcp_rmem, WANTED_BUFFER_BYTES, automatic),
        ("net.ipv4.tcp_wmem", &files.tcp_wmem, WANTED_BUFFER_BYTES, automatic),
    ];
    let mut findings = Vec::new();
    for (name, text, wanted, why) in rows {
        let words: Vec<&str> = text.as_deref().unwrap_or_default().split_whitespace().collect();
        let Some(largest) = words.last().and_then(|word| word.parse::<u64>().ok()) else { continue };
        let remedy = match words.as_slice() {
            [least, default, _] => format!("sysctl -w {name}=\"{least} {default} {wanted}\""),
            _ => format!("sysctl -w {name}={wanted}"),
        };
        let of = if words.len() == 3 { "up to " } else { "" };
        let finding = Finding::new(name, words.join(" "), format!("{of}{wanted} or more"), why);
        findings.push(finding.unless(largest >= wanted, Level::Advice, remedy));
    }
    let cpus = files.cpus;
    for interface in files.interfaces.iter().filter(|interface| interface.is_short_of_queues(cpus)) {
        let (name, queues) = (&interface.name, interface.queues.len());
        let is_steered = interface.queues.iter().all(|(.., mask)| !is_zero(mask));
        let handed_on = if is_steered { "handed on to others" } else { "served by as many CPUs" };
        let why = "the CPU that serves a queue does the network's work for all shards, and its own shard waits";
        let wanted = format!("a queue for each of {cpus} CPUs, or packets handed on (RPS)");
        let remedy =
            format!("ringlog tune --apply, or write a mask of CPUs to /{INTERFACE}/{name}/queues/rx-*/rps_cpus");
        let finding = Finding::new(format!("receive queues of {name}"), format!("{queues}, {handed_on}"), wanted, why);
        findings.push(finding.unless(is_steered, Level::Advice, remedy));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_queues_and_buffers_are_told_with_the_command_that_mends_them() {
        let files = NetworkFiles {
            somaxconn: Some("128\n".to_owned()),
            rmem_max: Some("4194304\n".to_owned()),
            tcp_rmem: Some("4096\t131072\t33554432\n".to_owned()),
            tcp_wmem: Some("4096\t16384\t1048576\n".to_owned()),
            ..NetworkFiles::default()
        };
        let findings = check(&files);
        let levels: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Advice, Level::Ok, Level::Ok, Level::Advice]);
        assert_eq!(findings[0].remedy, "sysctl -w net.core.somaxconn=1024");
        assert_eq!(findings[3].remedy, "sysctl -w net.ipv4.tcp_wmem=\"4096 16384 2097152\"");
        assert!(check(&NetworkFiles::default()).is_empty());
    }

    #[test]
    fn a_queue_for_all_cpus_is_told_of() {
        let of = |masks: &[&str], cpus: usize| {
            let queue = |(at, mask): (usize, &&str)| (format!("rx-{at}"), PathBuf::new(), (*mask).to_owned());
            let queues = masks.iter().enumerate().map(queue).collect();
            let files = NetworkFiles {
                interfaces: vec![Interface { name: "eth0".to_owned(), queues }],
                cpus,
                ..NetworkFiles::default()
            };
            check(&files).first().map(|finding| finding.level)
        };
        assert_eq!(of(&["00\n"], 4), Some(Level::Advice));
        assert_eq!(of(&["f\n"], 4), Some(Level::Ok));
        assert_eq!(of(&["f\n", "0\n"], 4), Some(Level::Advice));
        assert_eq!(of(&["0\n", "0\n"], 2), None, "each CPU has its own");
        assert_eq!(of(&[], 2), None, "nothing is known of it");
    }
}
