//! Rules about the tree that compiler and lints don't know.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{orphans, paths, rooms};

/// Which crates of the project each may depend on, besides for tests.
const EDGES: &[(&str, &[&str])] = &[
    ("ringlog-types", &[]),
    ("ringlog-protocol", &["types"]),
    ("ringlog-config", &["types"]),
    ("ringlog-log", &["types", "protocol"]),
    ("ringlog-partition", &["types", "protocol", "log"]),
    ("ringlog-raft", &["types", "protocol"]),
    ("ringlog-metadata", &["types", "protocol", "config"]),
    ("ringlog-quorum", &["types", "protocol", "raft", "metadata"]),
    ("ringlog-coordinator", &["types", "protocol", "config"]),
    ("ringlog-client", &["types", "protocol"]),
    ("ringlog-ring", &["types"]),
    ("ringlog-tuning", &["types"]),
    (
        "ringlog-shards",
        &["types", "protocol", "config", "log", "partition", "raft", "metadata", "quorum", "coordinator", "ring"],
    ),
    ("ringlog", &["types", "protocol", "config", "log", "metadata", "raft", "client", "shards", "tuning"]),
    ("ringlog-bench", &["types", "protocol", "log", "partition", "client", "e2e-tests"]),
    ("ringlog-e2e-tests", &["types", "protocol", "client"]),
    ("ringlog-simnode-tests", &["types", "protocol", "config", "log", "raft", "metadata", "ring", "shards"]),
];

const MAX_LINES: usize = 800;
/// Files that are longer for now, with their length: it may only fall.
const LONGER: &[(&str, usize)] = &[];

/// Texts that don't belong into any file, in two parts so that this file may hold them.
const BANNED: &[(&str, &str, &str)] = &[
    ("/wor", "k/", "a path of somebody's machine"),
    ("/roo", "t/", "a path of somebody's machine"),
    ("/hom", "e/", "a path of somebody's machine"),
];

/// Texts that don't belong into Rust code.
const BANNED_IN_CODE: &[(&str, &str, &str)] = &[
    ("#[igno", "re", "a test that nobody runs"),
    ("tod", "o!(", "unfinished work"),
    ("unimplemen", "ted!(", "unfinished work"),
    ("db", "g!(", "debugging left over"),
];

/// What the simulation doesn't see: `shards/` reaches files, threads, names and clocks by `ringlog_ring` alone.
const BEHIND_THE_RING: &[&str] =
    &["std::fs", "std::thread", "std::process", "ToSocketAddrs", "net::Tcp", "SystemTime::now", "Instant::now"];

/// Only here may be unsafe code; and in this workspace, where the compiler forbids it, text that looks like it.
const UNSAFE_FOLDERS: &[&str] = &["shards/ring/", "scripts/"];

/// Checks all rules and names every breach.
pub fn run() -> Result<()> {
    let mut breaches = Vec::new();
    check_edges(&metadata()?, &mut breaches)?;
    let files = tracked_files()?;
    let read = |file: &Path| fs::read_to_string(paths::root().join(file)).unwrap_or_default();
    let orphans = orphans::find(&files, read).into_iter().filter(|file| paths::root().join(file).exists());
    breaches.extend(orphans.map(|file| format!("{file}: no crate includes it")));
    rooms::check(&files, |file| read(Path::new(file)), &mut breaches);
    for file in files {
        // What isn't text (fixtures) has no rules here; a file may also have just been removed.
        if let Ok(text) = fs::read_to_string(paths::root().join(&file)) {
            check_file(&file, &text, &mut breaches);
        }
    }
    for breach in &breaches {
        println!("{breach}");
    }
    ensure!(breaches.is_empty(), "{} breaches of the tree's rules", breaches.len());
    Ok(())
}

/// What cargo knows of the main workspace.
pub fn metadata() -> Result<Value> {
    let output = Command::new(paths::cargo())
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(paths::root())
        .output()
        .context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn check_edges(metadata: &Value, breaches: &mut Vec<String>) -> Result<()> {
    for package in metadata["packages"].as_array().context("cargo metadata lists packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            breaches.push(format!("{name}: an unknown crate; give it its edges in scripts/tidy.rs"));
            continue;
        };
        let allowed: BTreeSet<String> = allowed.iter().map(|short| format!("ringlog-{short}")).collect();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if target.starts_with("ringlog") && !for_tests && !allowed.contains(target) {
                breaches.push(format!("{name} may not depend on {target}"));
            }
            if target == "glommio" && name != "ringlog-ring" {
                breaches.push(format!("{name}: only ringlog-ring may depend on glommio"));
            }
        }
    }
    Ok(())
}

/// Files that git tracks or would.
pub fn tracked_files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(paths::root())
        .output()
        .context("running git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn check_file(file: &str, text: &str, breaches: &mut Vec<String>) {
    let lines = text.lines().count();
    let is_code = Path::new(file).extension().is_some_and(|extension| extension == "rs");
    if is_code {
        let limit = LONGER.iter().find(|(known, _)| *known == file).map_or(MAX_LINES, |(_, limit)| *limit);
        if lines > limit {
            breaches.push(format!("{file}: {lines} lines, more than {limit}"));
        } else if limit > MAX_LINES && lines < limit {
            breaches.push(format!("{file}: {lines} lines now; lower its limit in scripts/tidy.rs"));
        }
    }
    check_vocabulary(file, text, breaches);
    let banned_in_code = if is_code { BANNED_IN_CODE } else { &[] };
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        for (first, second, why) in BANNED.iter().chain(banned_in_code) {
            let found = format!("{first}{second}");
            if line.contains(&found) {
                breaches.push(format!("{place}: {found}: {why}"));
            }
        }
        if is_code && !UNSAFE_FOLDERS.iter().any(|folder| file.starts_with(folder)) && holds_unsafe(line) {
            breaches.push(format!("{place}: unsafe code outside of shards/ring"));
        }
    }
}

/// Unit tests may do what they like.
fn check_vocabulary(file: &str, text: &str, breaches: &mut Vec<String>) {
    let is_bound = file.starts_with("shards/") && !file.starts_with("shards/ring/") && file.ends_with(".rs");
    if !is_bound || file.contains("test") {
        return;
    }
    for (number, line) in text.lines().take_while(|line| *line != "mod tests {").enumerate() {
        for banned in BEHIND_THE_RING.iter().filter(|banned| line.contains(**banned)) {
            breaches.push(format!("{file}:{}: {banned}: only ringlog_ring has that", number + 1));
        }
    }
}

fn holds_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["{", "fn ", "impl ", "trait "].iter().any(|after| code.contains(&format!("unsafe {after}")))
}

#[cfg(test)]
mod tests {
    use super::{check_file, holds_unsafe};

    fn breaches(file: &str, text: &str) -> usize {
        let mut breaches = Vec::new();
        check_file(file, text, &mut breaches);
        breaches.len()
    }

    #[test]
    fn breaches_are_found() {
        assert_eq!(breaches("a.rs", "fn a() {}\n"), 0);
        assert_eq!(breaches("a.rs", &"\n".repeat(801)), 1);
        assert_eq!(breaches("a.md", &"\n".repeat(801)), 0);
        assert_eq!(breaches("a.md", concat!("see /wor", "k/x")), 1);
        assert_eq!(breaches("shards/a.rs", "use std::fs;\nstd::process::exit(1);\n"), 2);
        assert_eq!(breaches("shards/a.rs", "mod tests {\nuse std::fs;\n"), 0);
        assert_eq!(breaches("shards/ring/a.rs", "use std::fs;\n"), 0);
        assert_eq!(breaches("a.rs", concat!("    tod", "o!()")), 1);
        assert!(holds_unsafe(concat!("let a = unsafe ", "{ b };")));
        assert!(!holds_unsafe(concat!("// unsafe ", "{ b };")));
    }
}
