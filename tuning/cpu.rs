//! CPU frequency and idle states, quota of the control group, NUMA.

use crate::finding::{Finding, Level};

/// Contents of the files about CPUs.
#[derive(Debug, Default)]
pub(crate) struct CpuFiles {
    /// `/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`; none in most virtual machines.
    pub governors: Vec<String>,
    /// Of the idle states that aren't off the one that takes longest to wake from: microseconds, and its name.
    pub deepest_idle: Option<(u64, String)>,
    /// Quotas of the control groups that this process is in.
    pub quotas: Vec<Quota>,
    /// `/sys/devices/system/node/online`.
    pub nodes: Option<String>,
}

/// How long a CPU may take to wake up.
pub(crate) const IDLE_LATENCY_MAX_US: u64 = 50;

/// The quota of one control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Quota {
    /// `cpu.max` of version 2.
    V2(String),
    /// `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1.
    V1(String, String),
}

impl Quota {
    /// CPUs' worth of time; `None` without a quota.
    fn cpus(&self) -> Option<f64> {
        let (quota, period) = match self {
            Quota::V2(text) => text.trim().split_once(' ')?,
            Quota::V1(quota, period) => (quota.trim(), period.trim()),
        };
        let (quota, period) = (quota.parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
        (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
    }
}

/// Judges them for that many executors.
pub(crate) fn check(files: &CpuFiles, shards: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut governors: Vec<&str> = files.governors.iter().map(|governor| governor.trim()).collect();
    governors.sort_unstable();
    governors.dedup();
    if !governors.is_empty() {
        let why = "executors sleep and wake within microseconds; a core that clocks down meanwhile answers late";
        let slow = governors.contains(&"powersave");
        let good = governors == ["performance"];
        let remedy = "cpupower frequency-set -g performance";
        findings.push(
            Finding::new("CPU governor", governors.join(", "), "performance", why)
                .unless(!slow, Level::Warning, remedy)
                .unless(good, Level::Advice, remedy),
        );
    }
    if let Some((latency_us, state)) = &files.deepest_idle {
        let why = "executors sleep whenever nothing is to be done; the deeper a core sleeps the later it answers";
        let wanted = format!("up to {IDLE_LATENCY_MAX_US} µs");
        let finding = Finding::new("CPU idle states", format!("up to {latency_us} µs to wake ({state})"), wanted, why);
        let remedy = format!("cpupower idle-set -D {IDLE_LATENCY_MAX_US} (it costs power)");
        findings.push(finding.unless(*latency_us <= IDLE_LATENCY_MAX_US, Level::Advice, remedy));
    }
    let least = files.quotas.iter().filter_map(Quota::cpus).min_by(f64::total_cmp);
    let why = "a group that has used up its quota stops on all cores for the rest of the period";
    let finding = match least {
        None => Finding::new("cgroup CPU quota", "none", "none", why),
        Some(cpus) => {
            let value = format!("{cpus:.2} CPUs for {shards} shards");
            let few = format!("Set ringlog.shards to {} or raise the quota.", (cpus.floor() as usize).max(1));
            let pinned = "Prefer whole CPUs (cpuset, static CPU manager) to a quota.";
            Finding::new("cgroup CPU quota", value, "none, or at least the number of shards", why)
                .unless(cpus >= shards as f64, Level::Warning, few)
                .unless(false, Level::Advice, pinned)
        }
    };
    findings.push(finding);
    if let Some(count) = files.nodes.as_deref().and_then(count_of_list) {
        let why = "memory of another node is slower, and shards hand buffers to each other";
        let remedy = "Keep a node's shards on one NUMA node: numactl --cpunodebind=N --membind=N";
        findings.push(Finding::new("NUMA nodes", count.to_string(), "1", why).unless(
            count <= 1,
            Level::Advice,
            remedy,
        ));
    }
    findings
}

/// How many numbers a list such as `0-3,8` has.
fn count_of_list(list: &str) -> Option<u32> {
    let mut count = 0_u32;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// The folders of this process's CPU control groups, under the mount of all groups, from `/proc/self/cgroup`; each with
/// those above it.
pub(crate) fn group_folders(own_groups: &str) -> Vec<String> {
    let mut folders = Vec::new();
    for line in own_groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let bases: &[&str] = match controllers {
            "" => &["", "unified"],
            list if list.split(',').any(|name| name == "cpu") => &["cpu", "cpu,cpuacct"],
            _ => continue,
        };
        for base in bases {
            let mut path = path.trim_matches('/');
            loop {
                folders.push(format!("{base}/{path}").trim_matches('/').to_owned());
                if path.is_empty() {
                    break;
                }
                path = path.rsplit_once('/').map_or("", |(above, _)| above);
            }
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_quota_counts() {
        let quotas = vec![
            Quota::V2("max 100000\n".to_owned()),
            Quota::V2("150000 100000\n".to_owned()),
            Quota::V1("-1\n".to_owned(), "100000\n".to_owned()),
            Quota::V1("400000\n".to_owned(), "100000\n".to_owned()),
        ];
        let files = CpuFiles { quotas, ..CpuFiles::default() };
        let findings = check(&files, 2);
        assert_eq!((findings[0].level, findings[0].value.as_str()), (Level::Warning, "1.50 CPUs for 2 shards"));
        assert_eq!(check(&files, 1)[0].level, Level::Advice);
        assert_eq!(check(&CpuFiles::default(), 64)[0].level, Level::Ok);
    }

    #[test]
    fn governors_and_nodes() {
        let files = |governor: &str, nodes: &str| CpuFiles {
            governors: vec!["performance\n".to_owned(), format!("{governor}\n")],
            nodes: Some(nodes.to_owned()),
            ..CpuFiles::default()
        };
        let level = |files: &CpuFiles, at: usize| check(files, 1)[at].level;
        assert_eq!(level(&files("performance", "0\n"), 0), Level::Ok);
        assert_eq!(level(&files("schedutil", "0\n"), 0), Level::Advice);
        assert_eq!(level(&files("powersave", "0\n"), 0), Level::Warning);
        assert_eq!(level(&files("powersave", "0\n"), 2), Level::Ok);
        assert_eq!(level(&files("powersave", "0-1,3\n"), 2), Level::Advice);
        assert_eq!(count_of_list("0-1,3"), Some(3));
        assert_eq!(count_of_list("0-x"), None);
    }

    #[test]
    fn groups_of_both_versions_and_their_parents() {
        let folders = group_folders("9:memory:/a\n1:cpu,cpuacct:/b\n0::/user.slice/x\nnonsense\n");
        let found = ["cpu/b", "cpu", "cpu,cpuacct/b", "cpu,cpuacct", "user.slice/x", "user.slice", ""];
        for folder in found {
            assert!(folders.iter().any(|name| name == folder), "{folder} in {folders:?}");
        }
        assert!(!folders.iter().any(|name| name.starts_with("memory")));
    }
}
