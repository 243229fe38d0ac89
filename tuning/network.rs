//! Sizes of queues and buffers of the network.

use crate::finding::{Finding, Level};

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
}

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
}
