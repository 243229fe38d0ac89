//! Reads what the checks judge.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cpu::{self, CpuFiles, Quota};
use crate::kernel::{KernelFiles, LimitFiles, MemoryFiles, QUICK_CLOCK_SOURCES};
use crate::network::{Interface, NetworkFiles};
use crate::storage::StorageFiles;

/// CPUs whose governors are looked at.
const CPUS_MAX: usize = 1024;

const CPUS: &str = "sys/devices/system/cpu";
const INTERFACES: &str = "sys/class/net";
const CLOCK_SOURCES: &str = "sys/devices/system/clocksource/clocksource0";

/// The host's `/proc` and `/sys`.
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose root this is: `/` for the one that this process runs on.
    pub(crate) fn at(root: &Path) -> Host {
        Host { root: root.to_path_buf() }
    }

    /// The clock source, where it isn't the best that there is.
    pub(crate) fn clock_source_file(&self) -> Option<PathBuf> {
        let available = self.read(Path::new(CLOCK_SOURCES).join("available_clocksource"))?;
        let has_best = available.split_whitespace().any(|source| source == QUICK_CLOCK_SOURCES[0]);
        has_best.then(|| Path::new(CLOCK_SOURCES).join("current_clocksource"))
    }

    /// Governors, by CPU; from the root.
    pub(crate) fn governor_files(&self) -> Vec<(usize, PathBuf)> {
        let file = |cpu: usize| PathBuf::from(format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
        let all = (0..CPUS_MAX).map(|cpu| (cpu, file(cpu)));
        all.filter(|(_, file)| self.root.join(file).exists()).collect()
    }

    /// CPUs that the host has.
    pub(crate) fn cpu_count(&self) -> usize {
        (0..CPUS_MAX).take_while(|cpu| self.root.join(CPUS).join(format!("cpu{cpu}")).exists()).count()
    }

    /// What idle CPUs may sink into: the CPU, the state's name, microseconds to wake from it, and the file that switches it
    /// off, from the root.
    pub(crate) fn idle_states(&self) -> Vec<(usize, String, u64, PathBuf)> {
        let mut states = Vec::new();
        for cpu in 0..self.cpu_count() {
            let folder = Path::new(CPUS).join(format!("cpu{cpu}/cpuidle"));
            for state in self.names(&folder) {
                let read = |name: &str| self.read(folder.join(&state).join(name));
                let latency_us = read("latency").and_then(|text| text.trim().parse().ok());
                let (Some(name), Some(latency_us)) = (read("name"), latency_us) else { continue };
                states.push((cpu, name.trim().to_owned(), latency_us, folder.join(&state).join("disable")));
            }
        }
        states
    }

    /// The network interfaces that have a device.
    pub(crate) fn interfaces(&self) -> Vec<Interface> {
        let mut interfaces = Vec::new();
        for name in self.names(Path::new(INTERFACES)) {
            let folder = Path::new(INTERFACES).join(&name);
            if !self.root.join(&folder).join("device").exists() {
                continue;
            }
            let mut queues = Vec::new();
            for queue in self.names(&folder.join("queues")).into_iter().filter(|queue| queue.starts_with("rx-")) {
                let path = folder.join("queues").join(&queue).join("rps_cpus");
                queues.extend(self.read(&path).map(|cpus| (queue, path, cpus)));
            }
            interfaces.push(Interface { name, queues });
        }
        interfaces
    }

    /// What lies in a folder, in order.
    fn names(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// The scheduler of the device below a log directory: the device's name, the file from the root, and whether it rotates.
    pub(crate) fn scheduler_file(&self, directory: &Path) -> Option<(String, PathBuf, bool)> {
        let queue = self.queue_of(&existing(directory))?;
        let device = queue.file_name()?.to_string_lossy().into_owned();
        let root = fs::canonicalize(&self.root).ok()?;
        let file = queue.strip_prefix(root).ok()?.join("queue/scheduler");
        let rotates = self.read(queue.join("queue/rotational")).is_some_and(|text| text.trim() == "1");
        self.root.join(&file).exists().then_some((device, file, rotates))
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    pub(crate) fn kernel(&self) -> KernelFiles {
        KernelFiles {
            osrelease: self.read("proc/sys/kernel/osrelease"),
            io_uring_disabled: self.read("proc/sys/kernel/io_uring_disabled"),
            status: self.read("proc/self/status"),
            clock_source: self.read(Path::new(CLOCK_SOURCES).join("current_clocksource")),
        }
    }

    pub(crate) fn limits(&self) -> LimitFiles {
        LimitFiles { limits: self.read("proc/self/limits"), status: self.read("proc/self/status") }
    }

    pub(crate) fn memory(&self) -> MemoryFiles {
        MemoryFiles {
            huge_pages: self.read("sys/kernel/mm/transparent_hugepage/enabled"),
            swappiness: self.read("proc/sys/vm/swappiness"),
            swaps: self.read("proc/swaps"),
        }
    }

    pub(crate) fn cpu(&self) -> CpuFiles {
        let governor = |cpu: usize| self.read(Path::new(CPUS).join(format!("cpu{cpu}/cpufreq/scaling_governor")));
        let is_on = |path: &Path| self.read(path).is_none_or(|off| off.trim() == "0");
        let idle = self.idle_states().into_iter().filter(|(.., path)| is_on(path));
        let groups = cpu::group_folders(&self.read("proc/self/cgroup").unwrap_or_default());
        CpuFiles {
            governors: (0..self.cpu_count()).filter_map(governor).collect(),
            deepest_idle: idle.map(|(_, name, latency_us, _)| (latency_us, name)).max(),
            quotas: groups.iter().filter_map(|folder| self.quota(folder)).collect(),
            nodes: self.read("sys/devices/system/node/online"),
        }
    }

    fn quota(&self, group: &str) -> Option<Quota> {
        let folder = self.root.join("sys/fs/cgroup").join(group);
        if let Some(max) = self.read(folder.join("cpu.max")) {
            return Some(Quota::V2(max));
        }
        Some(Quota::V1(self.read(folder.join("cpu.cfs_quota_us"))?, self.read(folder.join("cpu.cfs_period_us"))?))
    }

    pub(crate) fn network(&self) -> NetworkFiles {
        let read = |name: &str| self.read(Path::new("proc/sys/net").join(name));
        NetworkFiles {
            somaxconn: read("core/somaxconn"),
            tcp_max_syn_backlog: read("ipv4/tcp_max_syn_backlog"),
            rmem_max: read("core/rmem_max"),
            wmem_max: read("core/wmem_max"),
            tcp_rmem: read("ipv4/tcp_rmem"),
            tcp_wmem: read("ipv4/tcp_wmem"),
            interfaces: self.interfaces(),
            cpus: self.cpu_count(),
        }
    }

    pub(crate) fn storage(&self, directory: &Path) -> StorageFiles {
        let place = existing(directory);
        let queue = self.queue_of(&place);
        let read = |name: &str| self.read(queue.as_ref()?.join("queue").join(name));
        StorageFiles {
            mounts: self.read("proc/self/mountinfo"),
            space: space(&place),
            device: queue.as_ref().and_then(|device| Some(device.file_name()?.to_string_lossy().into_owned())),
            scheduler: read("scheduler"),
            write_cache: read("write_cache"),
            rotational: read("rotational"),
            path: place.to_string_lossy().into_owned(),
        }
    }

    /// The `/sys` folder of the whole disk that a path lies on. A partition has no queue; the folder above it has.
    fn queue_of(&self, place: &Path) -> Option<PathBuf> {
        let device = fs::metadata(place).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let folder = fs::canonicalize(self.root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
        folder.ancestors().take(2).find(|folder| folder.join("queue").is_dir()).map(Path::to_path_buf)
    }
}

/// The directory or its nearest parent that exists, absolute and without links.
fn existing(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    absolute.ancestors().find_map(|path| fs::canonicalize(path).ok()).unwrap_or_else(|| PathBuf::from("/"))
}

fn space(place: &Path) -> Option<(u64, u64)> {
    let figures = rustix::fs::statvfs(place).ok()?;
    Some((figures.f_bavail.saturating_mul(figures.f_frsize), figures.f_blocks.saturating_mul(figures.f_frsize)))
}

#[cfg(test)]
mod tests {
    use crate::{Level, Subject, check, warnings};

    #[test]
    fn this_host_can_be_looked_at() {
        let subject = Subject { log_dirs: vec!["/dev/shm/not/there".into(), "not-there".into()], shards: 1 };
        let findings = check(&subject);
        for name in ["kernel", "locked memory (ulimit -l)", "free space of /dev/shm/not/there", "cgroup CPU quota"] {
            assert!(findings.iter().any(|finding| finding.name == name), "{name}");
        }
        assert!(warnings(&findings).all(|finding| finding.level == Level::Warning && !finding.remedy.is_empty()));
    }
}
