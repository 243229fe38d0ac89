//! A made-up host: a folder with what `/proc`, `/sys` and `/etc` have of it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use super::*;

/// Gone with its value.
struct MadeUp(PathBuf);

impl Drop for MadeUp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl MadeUp {
    fn new(name: &str) -> MadeUp {
        let root = env::temp_dir().join(format!("ringlog-tune-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&root);
        let host = MadeUp(root);
        host.has("proc/sys/kernel/io_uring_disabled", "2\n");
        host.has("proc/sys/net/core/somaxconn", "4096\n");
        host.has("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t1048576\n");
        host.has("proc/sys/vm/swappiness", "60\n");
        host.has("proc/swaps", "Filename Type Size Used Priority\n/dev/vdb partition 1 0 -2\n");
        host.has("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n");
        host.has("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
        for (state, name, latency, off) in [(0, "POLL", 0, 0), (1, "C1", 2, 0), (2, "C6", 133, 0), (3, "C9", 890, 1)] {
            let folder = format!("sys/devices/system/cpu/cpu0/cpuidle/state{state}");
            host.has(&format!("{folder}/name"), &format!("{name}\n"));
            host.has(&format!("{folder}/latency"), &format!("{latency}\n"));
            host.has(&format!("{folder}/disable"), &format!("{off}\n"));
        }
        host.has("sys/devices/system/cpu/cpu1/online", "1\n");
        host.has("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n");
        host.has("sys/class/net/eth0/device/vendor", "0x1af4\n");
        host.has("sys/class/net/lo/queues/rx-0/rps_cpus", "0\n");
        host.has("sys/devices/pci/nvme0n1/queue/scheduler", "[bfq] none\n");
        host.has("sys/devices/pci/nvme0n1/queue/rotational", "0\n");
        host.has("etc/systemd/system/other.service", "");
        fs::create_dir_all(host.0.join("sys/dev/block")).unwrap();
        fs::create_dir_all(host.0.join("logs")).unwrap();
        let device = fs::metadata(host.0.join("logs")).unwrap().dev();
        let link = format!("sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        symlink(host.0.join("sys/devices/pci/nvme0n1"), host.0.join(link)).unwrap();
        host
    }

    fn has(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn subject(&self) -> Subject {
        Subject { log_dirs: vec![self.0.join("logs"), self.0.join("logs/later")], shards: 1 }
    }

    /// All files and what they hold.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        fn look(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    look(&entry.path(), found);
                } else if kind.is_file() {
                    found.insert(entry.path(), fs::read_to_string(entry.path()).unwrap().trim().to_owned());
                }
            }
        }
        let mut found = BTreeMap::new();
        look(&self.0, &mut found);
        found
    }
}

fn done(changes: &[Change]) -> Vec<&str> {
    changes.iter().filter(|change| change.outcome == Outcome::Done).map(|change| change.name.as_str()).collect()
}

#[test]
fn a_host_is_set_once_kept_so_and_as_it_was_again() {
    let host = MadeUp::new("round");
    let before = host.files();
    let planned = apply(&host.0, &host.subject(), true).unwrap();
    assert!(planned.iter().all(|change| change.outcome == Outcome::Planned), "{planned:?}");
    assert_eq!(host.files(), before, "a rehearsal changes nothing");
    let changes = apply(&host.0, &host.subject(), false).unwrap();
    let names = [
        "kernel.io_uring_disabled",
        "net.ipv4.tcp_rmem",
        "vm.swappiness",
        "transparent huge pages",
        "governor of CPU 0",
        "idle state C6 of CPU 0 off",
        "CPUs for rx-0 of eth0",
        "scheduler of nvme0n1",
        "/etc/systemd/system/ringlog.service.d/60-limits.conf",
    ];
    assert_eq!(done(&changes), names);
    assert_eq!(planned.iter().map(|change| &change.name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    assert_eq!(host.text("proc/sys/net/ipv4/tcp_rmem"), "4096 131072 2097152");
    assert_eq!(host.text("sys/devices/pci/nvme0n1/queue/scheduler"), "none");
    let kept = host.text("etc/sysctl.d/60-ringlog.conf");
    assert!(
        kept.ends_with("kernel.io_uring_disabled = 0\nnet.ipv4.tcp_rmem = 4096 131072 2097152\nvm.swappiness = 1\n")
    );
    assert!(host.text("etc/tmpfiles.d/ringlog.conf").contains("transparent_hugepage/enabled - - - - madvise\n"));
    assert!(host.text("etc/udev/rules.d/60-ringlog.rules").contains("KERNEL==\"nvme0n1\""));
    assert_eq!(host.text("sys/class/net/eth0/queues/rx-0/rps_cpus"), "3");
    assert!(host.text("etc/udev/rules.d/60-ringlog-net.rules").contains("ATTR{queues/rx-0/rps_cpus}=\"3\""));
    // As the kernel of a host with room for more CPUs shows it.
    host.has("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000003\n");
    let after = host.files();
    assert_eq!(apply(&host.0, &host.subject(), false).unwrap(), [], "a second time nothing is left to do");
    assert_eq!(host.files(), after);
    let back = revert(&host.0, false).unwrap();
    assert_eq!(done(&back).len(), names.len());
    let choices = |text: &str| text.replace("[always] madvise never", "always").replace("[bfq] none", "bfq");
    let plain = |files: BTreeMap<PathBuf, String>| -> Vec<(PathBuf, String)> {
        let tidy = |text: String| choices(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        files.into_iter().map(|(path, text)| (path, tidy(text))).collect()
    };
    assert_eq!(plain(host.files()), plain(before));
    assert!(
        !host.0.join("etc/systemd/system/ringlog.service.d").exists() && !host.0.join("var/lib/ringlog-tune").exists()
    );
    assert_eq!(revert(&host.0, false).unwrap(), []);
}

#[test]
fn what_was_there_first_is_gone_back_to_and_what_others_changed_is_left() {
    let host = MadeUp::new("others");
    apply(&host.0, &host.subject(), false).unwrap();
    // Somebody undoes one, and it is applied again; another one is changed for good.
    host.has("proc/sys/vm/swappiness", "80\n");
    let changes = apply(&host.0, &host.subject(), false).unwrap();
    assert_eq!(done(&changes), ["vm.swappiness"]);
    host.has("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n");
    let back = revert(&host.0, false).unwrap();
    let governor = back.iter().find(|change| change.name.starts_with("governor")).unwrap();
    assert_eq!((&governor.outcome, governor.from.as_str()), (&Outcome::Left, "schedutil"));
    assert_eq!(host.text("proc/sys/vm/swappiness"), "60");
    assert_eq!(host.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), "schedutil\n");
    assert!(!host.0.join(RECORD).exists());
}

#[test]
fn what_is_refused_is_told_and_the_rest_done() {
    let host = MadeUp::new("refused");
    // Nobody can write to this one.
    let file = host.0.join("proc/sys/vm/swappiness");
    fs::remove_file(&file).unwrap();
    symlink("/proc/sys/kernel/random/poolsize", &file).unwrap();
    host.has("proc/sys/net/core/somaxconn", "128\n");
    let folder = host.0.join("etc/sysctl.d/60-ringlog.conf");
    fs::create_dir_all(folder).unwrap();
    let changes = apply(&host.0, &host.subject(), false).unwrap();
    assert_eq!(host.text("proc/sys/net/core/somaxconn"), "1024");
    let refused = |change: &&Change| matches!(change.outcome, Outcome::Refused(_));
    let refused: Vec<&str> = changes.iter().filter(refused).map(|change| change.name.as_str()).collect();
    assert_eq!(refused, ["vm.swappiness", "/etc/sysctl.d/60-ringlog.conf"]);
    assert_eq!(done(&revert(&host.0, false).unwrap()).len(), done(&changes).len(), "what was refused isn't taken back");
}

#[test]
fn a_record_that_is_damaged_stops_everything() {
    let host = MadeUp::new("damaged");
    host.has(RECORD, "{\"values\":");
    let before = host.files();
    assert!(apply(&host.0, &host.subject(), false).is_err());
    assert!(revert(&host.0, false).is_err());
    assert_eq!(host.files(), before);
}
