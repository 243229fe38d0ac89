//! The node that is to be replaced: its `server.properties` as `ringlog server` reads it, its directories, and the host.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ringlog_config::{ConfigMap, ServerConfig};
use ringlog_tuning::Subject;

use super::directories::{self, Directory, Owner, Purpose};
use super::findings::Finding;
use crate::cli::client_config::read_properties;
use crate::cli::tune;

/// Where Kafka keeps its data if nothing says where.
const DEFAULT_DIRECTORY: &str = "/tmp/kafka-logs";

/// A node by its file.
#[derive(Debug)]
pub struct NodeFile {
    given: ConfigMap,
    /// `node.id`, if it is a number.
    pub id: Option<i32>,
}

impl NodeFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<NodeFile, String> {
        Ok(NodeFile::new(read_properties(path)?))
    }

    fn new(given: ConfigMap) -> NodeFile {
        let id = given.get("node.id").or_else(|| given.get("broker.id"));
        let id = id.and_then(|id| id.trim().parse().ok());
        NodeFile { given, id }
    }

    /// Whether the node is a broker, as far as the file says.
    pub fn is_broker(&self) -> bool {
        self.given.get("process.roles").is_none_or(|roles| roles.split(',').any(|role| role.trim() == "broker"))
    }

    /// What `ringlog server` would say of the file.
    pub fn judge(&self) -> Vec<Finding> {
        match ServerConfig::from_properties(&self.given) {
            Err(errors) => errors.iter().map(|error| Finding::stop(format!("server.properties: {error}"))).collect(),
            Ok((_, warnings)) if warnings.is_empty() => {
                vec![Finding::ok("server.properties has nothing that Ringlog refuses or ignores")]
            }
            Ok((_, warnings)) => {
                let ok = Finding::ok("server.properties has nothing that Ringlog refuses");
                let warnings = warnings.iter().map(|it| Finding::warn(format!("server.properties: {it}")));
                std::iter::once(ok).chain(warnings).collect()
            }
        }
    }

    /// The log directories and that of the metadata, each once. The file may be one that Ringlog refuses.
    fn directories(&self) -> Vec<PathBuf> {
        let dirs = self.given.get("log.dirs").or_else(|| self.given.get("log.dir"));
        let dirs = dirs.map_or(DEFAULT_DIRECTORY, String::as_str).split(',');
        let all = dirs.chain(self.given.get("metadata.log.dir").map(String::as_str)).map(str::trim);
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in all.filter(|dir| !dir.is_empty()).map(PathBuf::from) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    /// What one of [`NodeFile::directories`], by its place, is there for: the metadata log's comes last where it is named
    /// apart, else it is the first.
    fn purpose(&self, path: &Path, place: usize) -> Purpose {
        let metadata = self.given.get("metadata.log.dir").map(|dir| Path::new(dir.trim()));
        let dirs = self.given.get("log.dirs").or_else(|| self.given.get("log.dir"));
        let is_log_dir =
            dirs.map_or(DEFAULT_DIRECTORY, String::as_str).split(',').any(|dir| Path::new(dir.trim()) == path);
        Purpose {
            hosts_partitions: is_log_dir && self.is_broker(),
            hosts_metadata: metadata.map_or(place == 0, |metadata| metadata == path),
        }
    }

    /// Looks at the directories, and at this host if they are here.
    pub fn judge_place(&self, cluster_id: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (place, path) in self.directories().into_iter().enumerate() {
            match Directory::look(&path, self.purpose(&path, place)) {
                Ok(directory) => found.push(directory),
                Err(fault) if fault.kind() == ErrorKind::NotFound => missing.push(path.display().to_string()),
                Err(fault) => {
                    findings.push(Finding::stop(format!("{} can't be looked at: {fault}", path.display())));
                }
            }
        }
        if found.is_empty() && findings.is_empty() {
            let text = "the node's directories aren't on this machine: run this there, too";
            return vec![Finding::warn(format!("{text}: {}", missing.join(", ")))];
        }
        findings.extend(
            missing.iter().map(|path| Finding::stop(format!("{path} isn't there: mount it, or mend log.dirs"))),
        );
        let owner = Owner { cluster_id, node_id: self.id };
        findings.extend(directories::judge(&found, owner));
        findings.extend(self.judge_host());
        findings
    }

    /// As `ringlog tune --check`: what the node would warn of when it starts. Free space is judged with the directories.
    fn judge_host(&self) -> Vec<Finding> {
        let subject = Subject { log_dirs: self.directories(), shards: tune::shards(&self.given) };
        let all = ringlog_tuning::check(&subject);
        let warnings = ringlog_tuning::warnings(&all).filter(|finding| !finding.name.starts_with("free space"));
        let warnings: Vec<Finding> = warnings.map(|finding| Finding::warn(format!("host: {finding}"))).collect();
        match warnings.is_empty() {
            true => vec![Finding::ok("host: nothing that Ringlog would warn of; ringlog tune --check has more")],
            false => warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::Level;
    use super::*;

    fn node(lines: &[(&str, &str)]) -> NodeFile {
        NodeFile::new(lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    const PLAIN: [(&str, &str); 5] = [
        ("node.id", "2"),
        ("process.roles", "broker"),
        ("listeners", "PLAINTEXT://:9092"),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.bootstrap.servers", "localhost:9093"),
    ];

    #[test]
    fn the_file_is_judged_as_the_server_does() {
        let levels = |more: &[(&str, &str)]| {
            let findings = node(&[&PLAIN[..], more].concat()).judge();
            findings.iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(levels(&[]), [Level::Ok]);
        assert_eq!(levels(&[("num.io.threads", "9")]), [Level::Ok, Level::Warn]);
        assert_eq!(levels(&[("authorizer.class.name", "a.B")]), [Level::Stop]);
    }

    #[test]
    fn each_directory_is_named_once() {
        let paths = |lines| node(lines).directories().iter().map(|it| it.display().to_string()).collect::<Vec<_>>();
        assert_eq!(paths(&[("log.dirs", "/a, /b,"), ("log.dir", "/x"), ("metadata.log.dir", "/a")]), ["/a", "/b"]);
        assert_eq!(paths(&[("metadata.log.dir", "/m")]), [DEFAULT_DIRECTORY, "/m"]);
        let apart = node(&[("log.dirs", "/a,/b"), ("metadata.log.dir", "/m"), ("process.roles", "broker")]);
        let purpose = |path: &str, place| {
            let Purpose { hosts_partitions, hosts_metadata } = apart.purpose(Path::new(path), place);
            (hosts_partitions, hosts_metadata)
        };
        assert_eq!(
            [purpose("/a", 0), purpose("/b", 1), purpose("/m", 2)],
            [(true, false), (true, false), (false, true)]
        );
        assert!(node(&[]).is_broker() && !node(&[("process.roles", "controller")]).is_broker());
        assert_eq!(node(&[("broker.id", "4")]).id, Some(4));
    }

    #[test]
    fn directories_may_be_elsewhere() {
        let findings = node(&[("log.dirs", "/no/such/folder")]).judge_place("c");
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Warn);
    }
}
