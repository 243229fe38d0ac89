//! File systems and devices under the log directories.

use std::path::Path;

use crate::finding::{Finding, Level};
use crate::kernel::{bytes, chosen_of};

/// What is known of the place of one log directory.
#[derive(Debug, Default)]
pub(crate) struct StorageFiles {
    /// The directory, or its nearest parent that exists, without links.
    pub path: String,
    /// `/proc/self/mountinfo`.
    pub mounts: Option<String>,
    /// Bytes that this user may still write, and bytes in all.
    pub space: Option<(u64, u64)>,
    /// Name of the block device, where there is one.
    pub device: Option<String>,
    /// `queue/scheduler` of the device.
    pub scheduler: Option<String>,
    /// `queue/write_cache` of the device.
    pub write_cache: Option<String>,
    /// `queue/rotational` of the device.
    pub rotational: Option<String>,
}

/// A line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: String,
    kind: String,
}

/// File systems known to take direct I/O and to keep what they said they had.
const GOOD: &[&str] = &["ext4", "xfs"];
/// File systems in memory: nothing survives a restart of the host.
const IN_MEMORY: &[&str] = &["tmpfs", "ramfs"];
/// File systems on other machines.
const REMOTE: &[&str] = &["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"];

/// Judges one log directory.
pub(crate) fn check(directory: &Path, files: &StorageFiles) -> Vec<Finding> {
    let name = directory.display();
    let mut findings = Vec::new();
    if let Some(mount) = files.mounts.as_deref().and_then(|mounts| mount_of(mounts, &files.path)) {
        findings.push(check_file_system(&name.to_string(), &mount));
    }
    if let Some((free, all)) = files.space {
        let percent = free as f64 * 100.0 / all.max(1) as f64;
        let why = "records for a full disk are refused";
        let remedy = "Free space, add a directory to log.dirs, or shorten retention.bytes and retention.ms.";
        findings.push(
            Finding::new(
                format!("free space of {name}"),
                format!("{} ({percent:.0} %)", bytes(free)),
                "15 % or more",
                why,
            )
            .unless(percent >= 5.0, Level::Warning, remedy)
            .unless(percent >= 15.0, Level::Advice, remedy),
        );
    }
    findings.extend(check_device(files));
    findings
}

fn check_file_system(directory: &str, mount: &Mount) -> Finding {
    let kind = mount.kind.as_str();
    let why = "segments are written by direct I/O into preallocated files";
    let value = format!("{kind} at {}", mount.point);
    let finding = Finding::new(format!("file system of {directory}"), value, "xfs or ext4", why);
    let in_memory = "It is in memory: records are gone with the host's power, and direct I/O isn't done. Use a disk.";
    let remote = "It is on another machine: use local disks, and replication for safety.";
    let other = "Put the log directory on a file system of its own, xfs or ext4.";
    finding
        .unless(!IN_MEMORY.contains(&kind), Level::Warning, in_memory)
        .unless(!REMOTE.contains(&kind), Level::Warning, remote)
        .unless(GOOD.contains(&kind), Level::Advice, other)
}

fn check_device(files: &StorageFiles) -> Vec<Finding> {
    let Some(device) = &files.device else { return Vec::new() };
    let mut findings = Vec::new();
    let rotates = files.rotational.as_deref().is_some_and(|text| text.trim() == "1");
    if let Some(scheduler) = files.scheduler.as_deref().and_then(chosen_of) {
        let good = if rotates { scheduler != "none" } else { ["none", "mq-deadline"].contains(&scheduler) };
        let wanted = if rotates { "mq-deadline" } else { "none" };
        let why = "each write is large and placed; ordering them again costs time and CPU";
        let remedy = format!("echo {wanted} > /sys/block/{device}/queue/scheduler");
        let finding = Finding::new(format!("scheduler of {device}"), scheduler, wanted, why);
        findings.push(finding.unless(good, Level::Advice, remedy));
    }
    if let Some(cache) = files.write_cache.as_deref().map(str::trim) {
        let why = "what is acknowledged survives kill -9, but in a volatile cache not a power cut";
        let remedy = "Without power-loss protection in the device rely on replication, or set flush.messages=1.";
        let finding = Finding::new(format!("write cache of {device}"), cache, "write through, or protected", why);
        findings.push(finding.unless(cache != "write back", Level::Advice, remedy));
    }
    findings
}

/// The mount that holds a path: the one with the longest mount point above it, the latest of equals.
fn mount_of(mounts: &str, path: &str) -> Option<Mount> {
    let mounts = mounts.lines().filter_map(parse_mount);
    mounts.filter(|mount| Path::new(path).starts_with(&mount.point)).max_by_key(|mount| mount.point.len())
}

/// `id parent major:minor root point options [optional…] - type source options`.
fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let point = unescape(before.split(' ').nth(4)?);
    Some(Mount { point, kind: after.split(' ').next()?.to_owned() })
}

/// Space, tab, newline and backslash are three octal digits after a backslash there.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                          25 24 0:23 / /dev/shm rw,relatime shared:2 - tmpfs tmpfs rw\n\
                          40 27 8:1 / /data\\040one rw master:1 shared:9 - xfs /dev/sda1 rw\n\
                          41 27 0:50 / /remote rw - nfs4 host:/x rw\nnonsense\n";

    fn files(path: &str) -> StorageFiles {
        StorageFiles {
            path: path.to_owned(),
            mounts: Some(MOUNTS.to_owned()),
            space: Some((40 << 30, 100 << 30)),
            ..StorageFiles::default()
        }
    }

    #[test]
    fn the_longest_mount_point_decides() {
        let kind = |path: &str| mount_of(MOUNTS, path).map(|mount| mount.kind);
        assert_eq!(kind("/data/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/data one/x").as_deref(), Some("xfs"));
        assert_eq!(kind("/dev/shm").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/dev/shm2").as_deref(), Some("ext4"));
    }

    #[test]
    fn memory_and_other_machines_are_warned_of() {
        let level = |path: &str| check(Path::new(path), &files(path))[0].level;
        assert_eq!(level("/var/lib"), Level::Ok);
        assert_eq!(level("/dev/shm/kafka"), Level::Warning);
        assert_eq!(level("/remote/kafka"), Level::Warning);
    }

    #[test]
    fn space_runs_out() {
        let level = |free: u64| {
            let files = StorageFiles { space: Some((free, 100)), ..StorageFiles::default() };
            check(Path::new("/x"), &files)[0].level
        };
        assert_eq!(
            [level(50), level(10), level(4), level(0)],
            [Level::Ok, Level::Advice, Level::Warning, Level::Warning]
        );
    }

    #[test]
    fn devices_are_judged_by_their_kind() {
        let device = |scheduler: &str, rotational: &str, cache: &str| {
            let files = StorageFiles {
                device: Some("sda".to_owned()),
                scheduler: Some(scheduler.to_owned()),
                rotational: Some(rotational.to_owned()),
                write_cache: Some(cache.to_owned()),
                ..StorageFiles::default()
            };
            check_device(&files).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(device("[none] mq-deadline\n", "0\n", "write through\n"), [Level::Ok, Level::Ok]);
        assert_eq!(device("none [bfq]\n", "0\n", "write back\n"), [Level::Advice, Level::Advice]);
        assert_eq!(device("[none] bfq\n", "1\n", "write through\n")[0], Level::Advice);
    }
}
