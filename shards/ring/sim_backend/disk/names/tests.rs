//! Which names a power failure may leave.

use std::collections::BTreeSet;
use std::path::Path;

use ringlog_types::TimestampMs;

use super::Names;
use crate::backend::streams::Stream;

const NOW: TimestampMs = TimestampMs(5);

fn names(steps: &[&str]) -> Names {
    let mut names = Names::default();
    for step in steps {
        let words: Vec<&Path> = step.split(' ').map(Path::new).collect();
        let done = match (words[0].to_str(), &words[1..]) {
            (Some("touch"), [path]) => names.create_file(path, NOW).map(drop),
            (Some("mkdir"), [path]) => names.create_dir(path, NOW),
            (Some("rm"), [path]) => names.remove(path, false, NOW),
            (Some("rmdir"), [path]) => names.remove(path, true, NOW),
            (Some("mv"), [from, to]) => names.rename(from, to, NOW),
            (Some("sync"), [path]) => names.find(path).map(|folder| names.sync_dir(folder)),
            _ => panic!("no step: {step}"),
        };
        done.unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    names
}

/// All files and folders below one, one after the other.
fn tree(names: &Names, folder: &Path) -> String {
    let entries = names.list(folder).expect("a folder");
    let text = |(name, id): (std::ffi::OsString, u64)| {
        let path = folder.join(&name);
        let below = if names.inode(id).is_some_and(super::Inode::is_dir) { tree(names, &path) } else { String::new() };
        format!("{} {below}", path.display())
    };
    entries.into_iter().map(text).collect()
}

fn outcomes(steps: &[&str], has_one_journal: bool) -> BTreeSet<String> {
    let stream = Stream::new(7, "test");
    let left = |_| {
        let mut names = names(steps);
        names.lose(&stream, 50, has_one_journal);
        tree(&names, Path::new("")).trim().to_owned()
    };
    (0..500).map(left).collect()
}

fn set(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_name_is_safe_when_its_folder_is_synced() {
    assert_eq!(outcomes(&["touch a"], false), set(&["", "a"]));
    assert_eq!(outcomes(&["touch a", "sync ."], false), set(&["a"]));
    assert_eq!(outcomes(&["touch a", "sync .", "rm a"], false), set(&["", "a"]));
    // The name in a folder is of no use without the folder's.
    assert_eq!(outcomes(&["mkdir d", "touch d/a", "sync d"], false), set(&["", "d d/a"]));
    assert_eq!(outcomes(&["mkdir d", "sync .", "touch d/a"], false), set(&["d", "d d/a"]));
}

#[test]
fn a_rename_happens_in_both_folders_or_in_neither() {
    let steps = ["mkdir x", "mkdir y", "touch x/a", "sync .", "sync x", "mv x/a y/a"];
    assert_eq!(outcomes(&steps, false), set(&["x x/a y", "x y y/a"]));
    for folder in ["sync x", "sync y"] {
        assert_eq!(outcomes(&[&steps[..], &[folder]].concat(), false), set(&["x y y/a"]));
    }
    let replaced = ["touch a", "touch b", "sync .", "mv a b"];
    assert_eq!(outcomes(&replaced, false), set(&["a b", "b"]), "never none");
}

#[test]
fn changes_of_a_folder_are_kept_from_the_first_on() {
    let steps = ["touch a", "touch b", "touch c"];
    assert_eq!(outcomes(&steps, false), set(&["", "a", "a b", "a b c"]));
    let folders = ["mkdir x", "mkdir y", "sync .", "touch x/a", "touch y/a"];
    let both = ["x y", "x x/a y", "x x/a y y/a"];
    assert_eq!(outcomes(&folders, true), set(&both), "one journal for all");
    assert_eq!(outcomes(&folders, false), set(&[&both[..], &["x y y/a"]].concat()));
}

#[test]
fn syncing_a_folder_makes_safe_what_its_changes_rest_on() {
    // What came into z from y came there from x.
    let steps =
        ["mkdir x", "mkdir y", "mkdir z", "touch x/a", "sync .", "sync x", "mv x/a y/a", "mv y/a z/a", "sync z"];
    assert_eq!(outcomes(&steps, false), set(&["x y z z/a"]));
}

#[test]
fn names_are_refused_as_by_the_kernel() {
    let mut names = names(&["mkdir d", "touch d/a", "touch f", "mkdir e"]);
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().expect("a number");
    assert_eq!(errno(names.create_dir(Path::new("d"), NOW)), libc::EEXIST);
    assert_eq!(errno(names.create_dir(Path::new("no/d"), NOW)), libc::ENOENT);
    assert_eq!(errno(names.create_dir(Path::new("f/d"), NOW)), libc::ENOTDIR);
    assert_eq!(errno(names.remove(Path::new("d"), true, NOW)), libc::ENOTEMPTY);
    assert_eq!(errno(names.remove(Path::new("d"), false, NOW)), libc::EISDIR);
    assert_eq!(errno(names.remove(Path::new("f"), true, NOW)), libc::ENOTDIR);
    assert_eq!(errno(names.rename(Path::new("e"), Path::new("d"), NOW)), libc::ENOTEMPTY);
    assert_eq!(errno(names.rename(Path::new("f"), Path::new("e"), NOW)), libc::EISDIR);
    assert_eq!(errno(names.rename(Path::new("e"), Path::new("f"), NOW)), libc::ENOTDIR);
    assert_eq!(errno(names.rename(Path::new("d"), Path::new("d/e"), NOW)), libc::EINVAL);
    names.rename(Path::new("e"), Path::new("g"), NOW).expect("free");
    names.rename(Path::new("g"), Path::new("g"), NOW).expect("nothing to do");
}

#[test]
fn what_nobody_needs_is_forgotten() {
    let mut names = Names::default();
    for _ in 0..10_000 {
        names.create_file(Path::new("a"), NOW).unwrap();
        names.remove(Path::new("a"), false, NOW).unwrap();
        names.sync_all();
    }
    assert!(names.ids().len() < 200);
}
