//! Kernel, limits of the process, and memory settings.

use crate::finding::{Finding, Level};

/// Below this glommio doesn't start an executor.
const LEAST_MEMLOCK_BYTES: u64 = 512 * 1024;
/// Enough for a ring and its registered buffers, per executor.
const WANTED_MEMLOCK_BYTES: u64 = 8 * 1024 * 1024;
const WANTED_NOFILE: u64 = 100_000;
const LEAST_NOFILE: u64 = 4_096;
/// CAP_IPC_LOCK: the limit on locked memory doesn't apply.
const CAP_IPC_LOCK: u32 = 14;
const WANTED_KERNEL: (u32, u32) = (5, 15);
/// With more, memory is swapped out for the page cache's sake.
pub(crate) const WANTED_SWAPPINESS: u32 = 10;
/// Clocks that are read without a system call, the best first.
pub(crate) const QUICK_CLOCK_SOURCES: &[&str] =
    &["tsc", "kvm-clock", "xen", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

/// Contents of the files about the kernel.
#[derive(Debug, Default)]
pub(crate) struct KernelFiles {
    /// `/proc/sys/kernel/osrelease`.
    pub osrelease: Option<String>,
    /// `/proc/sys/kernel/io_uring_disabled`; absent before 6.6.
    pub io_uring_disabled: Option<String>,
    /// `/proc/self/status`.
    pub status: Option<String>,
    /// `/sys/devices/system/clocksource/clocksource0/current_clocksource`.
    pub clock_source: Option<String>,
}

/// Kernel version, whether io_uring may be used, and the clock.
pub(crate) fn check_io_uring(files: &KernelFiles) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(release) = trimmed(&files.osrelease) {
        let good = kernel_version(release).is_none_or(|version| version >= WANTED_KERNEL);
        let why = "older kernels lack operations of io_uring or have bugs in them";
        let finding = Finding::new("kernel", release, "5.15 or later, best 6.1 or later", why);
        findings.push(finding.unless(good, Level::Warning, "Use a newer kernel."));
    }
    // Before Linux 6.6 there is no such sysctl, and io_uring is allowed.
    let disabled = trimmed(&files.io_uring_disabled).unwrap_or("0");
    let privileged_only = disabled == "1" && !has_capability(files.status.as_deref().unwrap_or_default(), 21);
    let why = "all disk and network I/O goes through io_uring";
    let remedy = "sysctl -w kernel.io_uring_disabled=0";
    let good = disabled == "0" || (disabled == "1" && !privileged_only);
    findings.push(Finding::new("kernel.io_uring_disabled", disabled, "0", why).unless(good, Level::Warning, remedy));
    if let Some(mode) = files.status.as_deref().and_then(|status| status_field(status, "Seccomp")) {
        let filtered = mode == "2";
        let value = if filtered { "a filter is installed" } else { "none" };
        let why = "container runtimes' default filters forbid io_uring";
        let remedy = "If the node is refused io_uring, use a profile that allows io_uring_setup, io_uring_enter and \
                      io_uring_register.";
        findings.push(Finding::new("seccomp", value, "one that allows io_uring", why).unless(
            !filtered,
            Level::Advice,
            remedy,
        ));
    }
    if let Some(source) = trimmed(&files.clock_source) {
        let quick = QUICK_CLOCK_SOURCES.contains(&source);
        let why = "time is read many times per request; others cost a system call or a slow device read each time";
        let remedy = "Boot with clocksource=tsc where the CPU's counter is stable.";
        findings.push(Finding::new("clock source", source, "tsc", why).unless(quick, Level::Warning, remedy));
    }
    findings
}

/// Contents of the files about the process's limits.
#[derive(Debug, Default)]
pub(crate) struct LimitFiles {
    /// `/proc/self/limits`.
    pub limits: Option<String>,
    /// `/proc/self/status`.
    pub status: Option<String>,
}

/// Locked memory and open files.
pub(crate) fn check_limits(files: &LimitFiles, shards: usize) -> Vec<Finding> {
    let Some(limits) = &files.limits else { return Vec::new() };
    let shards = shards as u64;
    let mut findings = Vec::new();
    if let Some((soft, _)) = limit(limits, "Max locked memory") {
        let exempt = has_capability(files.status.as_deref().unwrap_or_default(), CAP_IPC_LOCK);
        let value = if exempt { format!("{} (not applied: CAP_IPC_LOCK)", bytes(soft)) } else { bytes(soft) };
        let wanted = format!("unlimited, or {} for {shards} shards", bytes(WANTED_MEMLOCK_BYTES * shards));
        let why =
            "rings and their buffers are locked memory; without it reads and writes get slower, or no shard starts";
        let remedy = "ulimit -l unlimited; LimitMEMLOCK=infinity in a systemd unit; --ulimit memlock=-1 for Docker";
        findings.push(
            Finding::new("locked memory (ulimit -l)", value, wanted, why)
                .unless(exempt || soft >= LEAST_MEMLOCK_BYTES * shards, Level::Warning, remedy)
                .unless(exempt || soft >= WANTED_MEMLOCK_BYTES * shards, Level::Advice, remedy),
        );
    }
    if let Some((_, hard)) = limit(limits, "Max open files") {
        let value = if hard == u64::MAX { "unlimited".to_owned() } else { hard.to_string() };
        let why = "each connection and each segment in use is an open file; the node raises its limit to the hard one";
        let remedy = "LimitNOFILE=1048576 in a systemd unit; nofile in /etc/security/limits.conf";
        findings.push(
            Finding::new("open files (ulimit -Hn)", value, format!("{WANTED_NOFILE} or more"), why)
                .unless(hard >= LEAST_NOFILE, Level::Warning, remedy)
                .unless(hard >= WANTED_NOFILE, Level::Advice, remedy),
        );
    }
    findings
}

/// Contents of the files about memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryFiles {
    /// `/sys/kernel/mm/transparent_hugepage/enabled`.
    pub huge_pages: Option<String>,
    /// `/proc/sys/vm/swappiness`.
    pub swappiness: Option<String>,
    /// `/proc/swaps`.
    pub swaps: Option<String>,
}

impl MemoryFiles {
    /// Whether anything can be swapped out at all.
    pub fn has_swap(&self) -> bool {
        // The first line of /proc/swaps is its heading.
        self.swaps.as_deref().is_some_and(|swaps| swaps.lines().count() > 1)
    }
}

/// Huge pages and swapping.
pub(crate) fn check_memory(files: &MemoryFiles) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(chosen) = files.huge_pages.as_deref().and_then(chosen_of) {
        let why = "with `always`, small heaps occupy whole huge pages and compaction stalls a core";
        let remedy = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
        let finding = Finding::new("transparent huge pages", chosen, "madvise", why);
        findings.push(finding.unless(chosen != "always", Level::Advice, remedy));
    }
    if let Some(swappiness) = trimmed(&files.swappiness).and_then(|text| text.parse::<u32>().ok()) {
        let has_swap = files.has_swap();
        let value = if has_swap { swappiness.to_string() } else { format!("{swappiness} (no swap)") };
        let why = "a swapped-out page stops a whole core until it is back";
        let good = !has_swap || swappiness <= WANTED_SWAPPINESS;
        let finding = Finding::new("vm.swappiness", value, "10 or less, or no swap", why);
        findings.push(finding.unless(good, Level::Advice, "sysctl -w vm.swappiness=1"));
    }
    findings
}

fn trimmed(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// Major and minor of a release such as `6.1.0-18-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A field of `/proc/self/status`.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn has_capability(status: &str, bit: u32) -> bool {
    let mask = status_field(status, "CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask >> bit & 1 == 1)
}

/// Soft and hard limit of that name in `/proc/self/limits`; `u64::MAX` is unlimited.
fn limit(limits: &str, name: &str) -> Option<(u64, u64)> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words =
        rest.split_whitespace().map(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
    Some((words.next()??, words.next()??))
}

/// The word in brackets of a choice such as `always [madvise] never`.
pub(crate) fn chosen_of(choices: &str) -> Option<&str> {
    let (_, rest) = choices.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen)
}

/// Bytes for people to read.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    if bytes == u64::MAX {
        return "unlimited".to_owned();
    }
    match UNITS.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) if bytes.is_multiple_of(1 << shift) => format!("{} {unit}", bytes >> shift),
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max open files            1024                 524288               files     \n\
                          Max locked memory         8388608              unlimited            bytes     \n";

    fn level(findings: &[Finding], name: &str) -> Level {
        findings.iter().find(|finding| finding.name.starts_with(name)).unwrap_or_else(|| panic!("no {name}")).level
    }

    #[test]
    fn limits_are_judged_by_the_number_of_shards() {
        let files =
            |cap: &str| LimitFiles { limits: Some(LIMITS.to_owned()), status: Some(format!("CapEff:\t{cap}\n")) };
        let plain = files("0000000000000000");
        assert_eq!(level(&check_limits(&plain, 1), "locked memory"), Level::Ok);
        assert_eq!(level(&check_limits(&plain, 8), "locked memory"), Level::Advice);
        assert_eq!(level(&check_limits(&plain, 17), "locked memory"), Level::Warning);
        assert_eq!(level(&check_limits(&files("0000000000004000"), 17), "locked memory"), Level::Ok);
        assert_eq!(level(&check_limits(&plain, 1), "open files"), Level::Ok);
    }

    #[test]
    fn a_forbidden_or_filtered_ring_is_told() {
        let mut files = KernelFiles {
            osrelease: Some("5.10.0-30-amd64\n".to_owned()),
            io_uring_disabled: Some("2\n".to_owned()),
            status: Some("Seccomp:\t2\nSeccomp_filters:\t1\n".to_owned()),
            clock_source: Some("hpet\n".to_owned()),
        };
        let findings = check_io_uring(&files);
        assert_eq!(level(&findings, "kernel.io_uring_disabled"), Level::Warning);
        assert_eq!(level(&findings, "seccomp"), Level::Advice);
        assert_eq!(level(&findings, "clock source"), Level::Warning);
        assert_eq!(findings[0].level, Level::Warning);
        files = KernelFiles { osrelease: Some("6.18.5".to_owned()), ..KernelFiles::default() };
        assert!(check_io_uring(&files).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn swapping_matters_only_where_there_is_swap() {
        let files = |swaps: &str| MemoryFiles {
            huge_pages: Some("[always] madvise never\n".to_owned()),
            swappiness: Some("60\n".to_owned()),
            swaps: Some(swaps.to_owned()),
        };
        let without = check_memory(&files("Filename Type Size Used Priority\n"));
        assert_eq!(level(&without, "vm.swappiness"), Level::Ok);
        assert_eq!(level(&without, "transparent huge pages"), Level::Advice);
        let with = check_memory(&files("Filename Type Size Used Priority\n/dev/vdb partition 1 0 -2\n"));
        assert_eq!(level(&with, "vm.swappiness"), Level::Advice);
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes(8 << 20), "8 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "unlimited");
        assert_eq!(bytes(12), "12 bytes");
    }
}
