//! What the host lets us do, what it is called, which addresses names have; and the end of the process.

use std::fs;
use std::io;
use std::mem;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process;

use crate::backend::apart::blocking_apart;
use crate::vocabulary::{HostMemory, Refusal, numeric};

/// Locked memory below which glommio refuses to start.
const MIN_MEMLOCK_BYTES: u64 = 512 * 1024;

/// Tries to set up a ring and throws it away.
pub fn probe() -> Result<(), Refusal> {
    // The kernel writes its answer into this: struct io_uring_params is 120 bytes, zero means defaults.
    let mut params = [0u32; 30];
    // SAFETY: the second argument points to 120 writable, zeroed bytes, which live through the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8 as libc::c_long, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(refusal(&io::Error::last_os_error()));
    }
    // SAFETY: the call above made this descriptor, and nobody else knows it.
    unsafe { libc::close(fd as libc::c_int) };
    let (soft, _) = limit(libc::RLIMIT_MEMLOCK);
    if soft < MIN_MEMLOCK_BYTES {
        return Err(Refusal::LockedMemory { limit_bytes: soft });
    }
    Ok(())
}

fn refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Refusal::Forbidden { sysctl: describe_sysctl() },
        Some(libc::ENOSYS) => Refusal::NoIoUring { release: read_word("/proc/sys/kernel/osrelease") },
        Some(libc::ENOMEM) => Refusal::LockedMemory { limit_bytes: limit(libc::RLIMIT_MEMLOCK).0 },
        Some(libc::EMFILE | libc::ENFILE) => Refusal::FileDescriptors,
        _ => Refusal::Other { message: error.to_string() },
    }
}

fn describe_sysctl() -> String {
    match read_word("/proc/sys/kernel/io_uring_disabled").as_str() {
        "0" => "kernel.io_uring_disabled is 0, so a seccomp filter or a security module forbids it".to_owned(),
        "" => "a seccomp filter or a security module forbids it".to_owned(),
        value => format!("kernel.io_uring_disabled is {value}"),
    }
}

fn read_word(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Soft and hard limit.
fn limit(resource: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    let result = unsafe { libc::getrlimit(resource, &mut limit) };
    if result == 0 { (limit.rlim_cur, limit.rlim_max) } else { (u64::MAX, u64::MAX) }
}

/// Raises the soft limit of open files to the hard one; the soft limit then in force.
pub fn raise_nofile() -> u64 {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    if soft >= hard {
        return soft;
    }
    let wanted = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `wanted` is a valid limit, read during the call only.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) };
    limit(libc::RLIMIT_NOFILE).0
}

/// The host's name; empty when it has none.
pub fn hostname() -> String {
    read_word("/proc/sys/kernel/hostname")
}

/// The addresses of a name; a number is one. An IPv6 address may stand in brackets.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = numeric(host) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    blocking_apart("lookup", move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
}

/// Ends the process at once: nothing is written out, no destructor runs.
pub fn halt(code: u8) -> ! {
    process::exit(i32::from(code))
}

/// The CPUs that this process may run on (its affinity mask), ascending.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // 8192 CPUs; the kernel refuses a mask smaller than its own.
    let mut mask = [0u64; 128];
    // SAFETY: the mask is valid for its size in bytes, and pid 0 is this thread.
    let result = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&mask), mask.as_mut_ptr().cast()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let bits = |(word, bits): (usize, &u64)| {
        let bits = *bits;
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
    };
    Ok(mask.iter().enumerate().flat_map(bits).collect())
}

/// [`allowed_cpus`] cut to the cgroup's CPU quota, rounded up: what to start executors on. Never empty.
pub fn usable_cpus() -> io::Result<Vec<usize>> {
    let mut cpus = allowed_cpus()?;
    if let Some(quota) = cpu_quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) {
        cpus.truncate((quota.ceil() as usize).max(1));
    }
    Ok(cpus)
}

/// How much memory there is, and how much of it is left; `None` where the system doesn't say.
pub fn memory() -> Option<HostMemory> {
    memory_of(Path::new("/proc/meminfo"), Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
}

fn memory_of(meminfo: &Path, own_groups: &Path, mount: &Path) -> Option<HostMemory> {
    let text = fs::read_to_string(meminfo).ok()?;
    let mut memory = HostMemory {
        total_bytes: 1024 * number_after(&text, "MemTotal:")?,
        available_bytes: 1024 * number_after(&text, "MemAvailable:")?,
    };
    for folder in group_folders(own_groups, mount, "memory") {
        let Some((limit, used)) = group_memory_v2(&folder).or_else(|| group_memory_v1(&folder)) else { continue };
        memory.total_bytes = memory.total_bytes.min(limit);
        memory.available_bytes = memory.available_bytes.min(limit.saturating_sub(used));
    }
    Some(memory)
}

/// Limit of a group, and what of it can't be had back by dropping what files have in memory.
fn group_memory_v2(folder: &Path) -> Option<(u64, u64)> {
    let limit = read_number(&folder.join("memory.max"))?;
    let used = read_number(&folder.join("memory.current"))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    Some((limit, used.saturating_sub(number_after(&stat, "inactive_file").unwrap_or(0))))
}

fn group_memory_v1(folder: &Path) -> Option<(u64, u64)> {
    let limit = read_number(&folder.join("memory.limit_in_bytes"))?;
    let used = read_number(&folder.join("memory.usage_in_bytes"))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    Some((limit, used.saturating_sub(number_after(&stat, "total_inactive_file").unwrap_or(0))))
}

/// `None` also when it says `max`.
fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a line's first word.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == word).then(|| words.next()?.parse().ok())?)
}

/// CPUs' worth of time that the cgroup grants: the least along the way from this process's group to the root.
fn cpu_quota(own_groups: &Path, mount: &Path) -> Option<f64> {
    let folders = group_folders(own_groups, mount, "cpu");
    let quotas = folders.iter().filter_map(|folder| quota_v2(folder).or_else(|| quota_v1(folder)));
    quotas.reduce(f64::min)
}

/// The folders of this process's group, and of those above it, where `controller` has its files.
fn group_folders(own_groups: &Path, mount: &Path, controller: &str) -> Vec<PathBuf> {
    let groups = fs::read_to_string(own_groups).unwrap_or_default();
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let base = match controllers {
            "" => mount.to_path_buf(),
            list if list.split(',').any(|name| name == controller) => mount.join(list),
            _ => continue,
        };
        folders.extend(ancestors(&base, path));
    }
    folders
}

/// The folder of the group `path` under `base`, and those above it up to `base`.
fn ancestors(base: &Path, path: &str) -> Vec<PathBuf> {
    let full = base.join(path.trim_start_matches('/'));
    full.ancestors().take_while(|folder| folder.starts_with(base)).map(Path::to_path_buf).collect()
}

/// `cpu.max`: "quota period" in microseconds, or "max period".
fn quota_v2(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let mut words = text.split_whitespace();
    ratio(words.next()?, words.next()?)
}

/// `cpu.cfs_quota_us` is -1 without a quota.
fn quota_v1(folder: &Path) -> Option<f64> {
    let quota = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim())
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up host: files by name, in a folder of its own.
    fn host(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ringlog-host-{}-{name}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    const MEMINFO: &str = "MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:   5000 kB\n";

    fn memory_in(folder: &Path) -> Option<HostMemory> {
        memory_of(&folder.join("meminfo"), &folder.join("groups"), &folder.join("mount"))
    }

    #[test]
    fn memory_is_the_hosts_or_what_the_narrowest_group_has() {
        let kib = |total: u64, available: u64| {
            Some(HostMemory { total_bytes: total << 10, available_bytes: available << 10 })
        };
        let alone = host("alone", &[("meminfo", MEMINFO), ("groups", "0::/\n")]);
        assert_eq!(memory_in(&alone), kib(8000, 5000));
        // Version 2: a group without a limit in one that has one, half of which files could give back.
        let v2 = host(
            "v2",
            &[
                ("meminfo", MEMINFO),
                ("groups", "0::/outer/inner\n"),
                ("mount/outer/inner/memory.max", "max\n"),
                ("mount/outer/inner/memory.current", "1024\n"),
                ("mount/outer/memory.max", "4096000\n"),
                ("mount/outer/memory.current", "2048000\n"),
                ("mount/outer/memory.stat", "anon 1\ninactive_file 1024000\n"),
            ],
        );
        assert_eq!(memory_in(&v2), kib(4000, 3000));
        // Version 1: no limit is a number larger than any memory, and others' files don't count.
        let v1 = host(
            "v1",
            &[
                ("meminfo", MEMINFO),
                ("groups", "4:memory:/node\n3:cpu:/node\n0::/\n"),
                ("mount/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("mount/memory/memory.usage_in_bytes", "7000000\n"),
                ("mount/memory/node/memory.limit_in_bytes", "2048000\n"),
                ("mount/memory/node/memory.usage_in_bytes", "3072000\n"),
                ("mount/memory/node/memory.stat", "inactive_file 5\ntotal_inactive_file 0\n"),
            ],
        );
        assert_eq!(memory_in(&v1), kib(2000, 0));
        assert_eq!(memory_in(&host("nothing", &[("groups", "0::/\n")])), None);
        for folder in ["alone", "v2", "v1", "nothing"] {
            let _ = fs::remove_dir_all(host(folder, &[]));
        }
    }

    #[test]
    fn cpus_are_what_the_narrowest_group_grants() {
        let v2 = host(
            "cpus",
            &[
                ("groups", "0::/outer/inner\n"),
                ("mount/outer/inner/cpu.max", "max 100000\n"),
                ("mount/outer/cpu.max", "150000 100000\n"),
                ("mount/cpu.max", "400000 100000\n"),
            ],
        );
        assert_eq!(cpu_quota(&v2.join("groups"), &v2.join("mount")), Some(1.5));
        assert_eq!(cpu_quota(&v2.join("missing"), &v2.join("mount")), None);
        let v1 = host(
            "cpus",
            &[
                ("groups", "2:cpu,cpuacct:/node\n"),
                ("mount/cpu,cpuacct/node/cpu.cfs_quota_us", "-1\n"),
                ("mount/cpu,cpuacct/node/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(cpu_quota(&v1.join("groups"), &v1.join("mount")), None);
        let _ = fs::remove_dir_all(v1);
    }
}
