//! What can be set on a host: where, to what, and what keeps it so when the host starts again.

use std::path::{Path, PathBuf};

use crate::cpu::IDLE_LATENCY_MAX_US;
use crate::host::Host;
use crate::kernel::{QUICK_CLOCK_SOURCES, WANTED_SWAPPINESS, chosen_of};
use crate::network::{WANTED_BACKLOG, WANTED_BUFFER_BYTES};

/// One thing that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What it is called.
    pub name: String,
    /// The file under `/proc` or `/sys` that has it, from the root.
    pub file: PathBuf,
    /// What it should be.
    pub want: Want,
    /// Where it is written down.
    pub kept: Kept,
}

/// What a setting should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Want {
    /// A number, or the last of three, of this size or more.
    AtLeast(u64),
    /// This number or less; where it is more, the second one is set.
    AtMost(u64, u64),
    /// One of these words; where it is another, the first one is set, if the file offers it.
    OneOf(&'static [&'static str]),
    /// This, where it is nothing but zeros.
    Chosen(String),
}

/// What has a setting made again at the next start of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kept {
    /// A line of `sysctl.d`.
    Sysctl,
    /// A line of `tmpfiles.d`.
    Tmpfiles,
    /// A rule for the block device of the file.
    Udev,
    /// A rule for the network interface of the file.
    UdevNet,
}

impl Want {
    /// What has to be written over `found`; `None` where it is as wanted, or can't be so.
    pub fn change(&self, found: &str) -> Option<String> {
        match self {
            Want::AtLeast(least) => {
                let words: Vec<&str> = found.split_whitespace().collect();
                let largest: u64 = words.last()?.parse().ok()?;
                let rest = &words[..words.len() - 1];
                let wanted = least.to_string();
                (largest < *least).then(|| rest.iter().copied().chain([wanted.as_str()]).collect::<Vec<_>>().join(" "))
            }
            Want::AtMost(most, wanted) => {
                let found: u64 = found.trim().parse().ok()?;
                (found > *most).then(|| wanted.to_string())
            }
            Want::OneOf(words) => {
                let is_choice = found.contains('[');
                let chosen = chosen_of(found).unwrap_or(found.trim());
                let offered = |word: &str| found.split_whitespace().any(|it| it.trim_matches(['[', ']']) == word);
                let wanted = words.first().filter(|word| !is_choice || offered(word))?;
                (!words.contains(&chosen)).then(|| (*wanted).to_owned())
            }
            Want::Chosen(wanted) => is_zero(found).then(|| wanted.clone()),
        }
    }
}

impl Kept {
    /// The file that keeps it, from the root.
    pub fn file(self) -> &'static Path {
        Path::new(match self {
            Kept::Sysctl => "etc/sysctl.d/60-ringlog.conf",
            Kept::Tmpfiles => "etc/tmpfiles.d/ringlog.conf",
            Kept::Udev => "etc/udev/rules.d/60-ringlog.rules",
            Kept::UdevNet => "etc/udev/rules.d/60-ringlog-net.rules",
        })
    }

    /// The line for a file under `/proc` or `/sys` that is to hold `value`.
    pub fn line(self, file: &Path, value: &str) -> String {
        match self {
            Kept::Sysctl => {
                let key = file.strip_prefix("proc/sys").unwrap_or(file).display().to_string().replace('/', ".");
                format!("{key} = {value}")
            }
            Kept::Tmpfiles => format!("w /{} - - - - {value}", file.display()),
            Kept::Udev => {
                // sys/…/DEVICE/queue/ATTRIBUTE
                let device = file.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default();
                let attribute = file.file_name().unwrap_or_default();
                format!(
                    "ACTION==\"add|change\", SUBSYSTEM==\"block\", KERNEL==\"{}\", ATTR{{queue/{}}}=\"{value}\"",
                    device.display(),
                    attribute.display()
                )
            }
            Kept::UdevNet => {
                // sys/class/net/INTERFACE/queues/QUEUE/ATTRIBUTE
                let interface = file.ancestors().nth(3).and_then(Path::file_name).unwrap_or_default();
                let attribute = file.strip_prefix(file.ancestors().nth(3).unwrap_or(file)).unwrap_or(file);
                format!(
                    "ACTION==\"add|change\", SUBSYSTEM==\"net\", KERNEL==\"{}\", ATTR{{{}}}=\"{value}\"",
                    interface.display(),
                    attribute.display()
                )
            }
        }
    }
}

/// Whether a mask of CPUs names none.
pub(crate) fn is_zero(mask: &str) -> bool {
    mask.contains('0') && mask.trim().chars().all(|digit| digit == '0' || digit == ',')
}

/// The mask of so many CPUs, as the kernel takes it: 32 of them between commas, the first last.
fn mask_of(cpus: usize) -> String {
    let group = |first: usize| match cpus - first {
        32.. => "ffffffff".to_owned(),
        few => format!("{:x}", (1_u64 << few) - 1),
    };
    let groups: Vec<String> = (0..cpus).step_by(32).map(group).rev().collect();
    groups.join(",")
}

/// All that can be set for a node with these log directories.
pub(crate) fn all(host: &Host, log_dirs: &[PathBuf]) -> Vec<Setting> {
    let sysctl = |key: &str, want: Want| Setting {
        name: key.to_owned(),
        file: Path::new("proc/sys").join(key.replace('.', "/")),
        want,
        kept: Kept::Sysctl,
    };
    let mut settings = vec![sysctl("kernel.io_uring_disabled", Want::AtMost(0, 0))];
    for key in ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"] {
        settings.push(sysctl(key, Want::AtLeast(WANTED_BACKLOG)));
    }
    for key in ["net.core.rmem_max", "net.core.wmem_max", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
        settings.push(sysctl(key, Want::AtLeast(WANTED_BUFFER_BYTES)));
    }
    if host.memory().has_swap() {
        settings.push(sysctl("vm.swappiness", Want::AtMost(u64::from(WANTED_SWAPPINESS), 1)));
    }
    let file = |name: String, file: PathBuf, want: Want| Setting { name, file, want, kept: Kept::Tmpfiles };
    settings.push(file(
        "transparent huge pages".to_owned(),
        "sys/kernel/mm/transparent_hugepage/enabled".into(),
        Want::OneOf(&["madvise", "never"]),
    ));
    settings.extend(host.clock_source_file().map(|path| {
        let name = "clock source".to_owned();
        file(name, path, Want::OneOf(QUICK_CLOCK_SOURCES))
    }));
    let governor =
        |(cpu, path): (usize, PathBuf)| file(format!("governor of CPU {cpu}"), path, Want::OneOf(&["performance"]));
    settings.extend(host.governor_files().into_iter().map(governor));
    for (cpu, state, latency_us, path) in host.idle_states() {
        if latency_us > IDLE_LATENCY_MAX_US {
            settings.push(file(format!("idle state {state} of CPU {cpu} off"), path, Want::OneOf(&["1"])));
        }
    }
    let cpus = host.cpu_count();
    for interface in host.interfaces().iter().filter(|interface| interface.is_short_of_queues(cpus)) {
        settings.extend(interface.queues.iter().map(|(queue, path, _)| Setting {
            name: format!("CPUs for {queue} of {}", interface.name),
            file: path.clone(),
            want: Want::Chosen(mask_of(cpus)),
            kept: Kept::UdevNet,
        }));
    }
    for directory in log_dirs {
        let Some((device, path, rotates)) = host.scheduler_file(directory) else { continue };
        let want = Want::OneOf(if rotates { &["mq-deadline", "bfq"] } else { &["none", "mq-deadline"] });
        let setting = Setting { name: format!("scheduler of {device}"), file: path, want, kept: Kept::Udev };
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_as_wanted_is_written() {
        assert_eq!(Want::AtLeast(1024).change("128\n").as_deref(), Some("1024"));
        assert_eq!(Want::AtLeast(1024).change("4096\n"), None);
        assert_eq!(Want::AtLeast(9000).change("4096\t16384\t8000\n").as_deref(), Some("4096 16384 9000"));
        assert_eq!(Want::AtLeast(9000).change("many\n"), None, "what isn't understood isn't touched");
        assert_eq!(Want::AtMost(10, 1).change("60\n").as_deref(), Some("1"));
        assert_eq!(Want::AtMost(10, 1).change("10\n"), None);
        let scheduler = Want::OneOf(&["none", "mq-deadline"]);
        assert_eq!(scheduler.change("[bfq] mq-deadline none\n").as_deref(), Some("none"));
        assert_eq!(scheduler.change("bfq [mq-deadline] none\n"), None);
        assert_eq!(scheduler.change("[bfq] kyber\n"), None, "it isn't offered");
        assert_eq!(Want::OneOf(&["performance"]).change("schedutil\n").as_deref(), Some("performance"));
        let cpus = Want::Chosen(mask_of(4));
        assert_eq!(cpus.change("00000000,00000000\n").as_deref(), Some("f"));
        assert_eq!(cpus.change("3\n"), None, "somebody has chosen");
        assert_eq!(cpus.change("\n"), None);
        assert_eq!(
            (mask_of(1), mask_of(32), mask_of(33)),
            ("1".to_owned(), "ffffffff".to_owned(), "1,ffffffff".to_owned())
        );
    }

    #[test]
    fn lines_are_as_their_readers_take_them() {
        let swappiness = Path::new("proc/sys/vm/swappiness");
        assert_eq!(Kept::Sysctl.line(swappiness, "1"), "vm.swappiness = 1");
        let pages = Path::new("sys/kernel/mm/transparent_hugepage/enabled");
        assert_eq!(
            Kept::Tmpfiles.line(pages, "madvise"),
            "w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise"
        );
        let scheduler = Path::new("sys/devices/pci0000:00/nvme/nvme0/nvme0n1/queue/scheduler");
        let rule = "ACTION==\"add|change\", SUBSYSTEM==\"block\", KERNEL==\"nvme0n1\", ATTR{queue/scheduler}=\"none\"";
        assert_eq!(Kept::Udev.line(scheduler, "none"), rule);
        let queue = Path::new("sys/class/net/eth0/queues/rx-0/rps_cpus");
        let rule = "ACTION==\"add|change\", SUBSYSTEM==\"net\", KERNEL==\"eth0\", ATTR{queues/rx-0/rps_cpus}=\"f\"";
        assert_eq!(Kept::UdevNet.line(queue, "f"), rule);
    }
}
