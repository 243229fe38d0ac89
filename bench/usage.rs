//! What a process has used so far, from /proc.

use anyhow::Context as _;

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
}

/// Reads the usage of process `pid`. Kernel workers that io_uring starts for it count, as they are its threads.
pub fn of(pid: u32) -> anyhow::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the node has ended")?;
    let after_name = stat.rsplit_once(')').context("unexpected /proc stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux has used 100 ticks per second on every platform for decades.
    let cpu_seconds = ticks as f64 / 100.0;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(Usage { cpu_seconds, memory_bytes: kilobytes * 1024 })
}
