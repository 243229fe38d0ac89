//! Has a host be as a node wants it, and as it was before.
//!
//! What is changed is written down first, with what was there ([`RECORD`]): whatever happens then can be taken back. A second
//! time nothing is left to do. Values are set at once, under `/proc` and `/sys`, and for later starts by files of our own for
//! sysctl, tmpfiles, udev and systemd, which hold what the record holds and nothing else. What the host refuses is told, and
//! the rest is done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::Subject;
use crate::host::Host;
use crate::settings::{self, Kept};

/// What was changed and what was there, from the root.
const RECORD: &str = "var/lib/ringlog-tune/changes.json";
/// Limits of the service, from the root.
const LIMITS: &str = "etc/systemd/system/ringlog.service.d/60-limits.conf";
const LIMITS_TEXT: &str = "[Service]\nLimitMEMLOCK=infinity\nLimitNOFILE=1048576\n";
/// Only with systemd there is anybody to read those.
const SYSTEMD: &str = "etc/systemd/system";
const HEADING: &str = "# Written by `ringlog tune --apply`; `ringlog tune --revert` removes it.\n";
const KEPT: [Kept; 4] = [Kept::Sysctl, Kept::Tmpfiles, Kept::Udev, Kept::UdevNet];

/// One thing that is done, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is called: a sysctl, a device's scheduler, a file.
    pub name: String,
    /// What was there.
    pub from: String,
    /// What is there then.
    pub to: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// It would be done.
    Planned,
    /// Somebody else has changed it since: it was left alone.
    Left,
    /// The host doesn't let us.
    Refused(String),
}

/// What was changed on a host.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// By the file under `/proc` or `/sys`.
    values: BTreeMap<PathBuf, Value>,
    /// The service's limits were written.
    has_limits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Value {
    name: String,
    before: String,
    after: String,
    kept: Kept,
}

/// Sets what isn't as a node of this kind wants it, on the host whose root this is; only says so, if `is_rehearsal`. An
/// error: nothing was changed, since it couldn't be written down.
pub fn apply(root: &Path, subject: &Subject, is_rehearsal: bool) -> io::Result<Vec<Change>> {
    let mut record = read_record(root)?;
    let mut changes = Vec::new();
    let mut wanted = Vec::new();
    for setting in settings::all(&Host::at(root), &subject.log_dirs) {
        let Ok(found) = fs::read_to_string(root.join(&setting.file)) else { continue };
        let Some(after) = setting.want.change(&found) else { continue };
        let before = current(&found).to_owned();
        changes.push(Change {
            name: setting.name.clone(),
            from: before.clone(),
            to: after.clone(),
            outcome: Outcome::Planned,
        });
        // What was there before the first time is what one goes back to.
        let known = record.values.entry(setting.file.clone()).or_insert(Value {
            name: setting.name,
            before,
            after: after.clone(),
            kept: setting.kept,
        });
        known.after.clone_from(&after);
        wanted.push((setting.file, after));
    }
    let lacks_limits =
        root.join(SYSTEMD).is_dir() && fs::read_to_string(root.join(LIMITS)).ok().as_deref() != Some(&limits());
    if lacks_limits {
        record.has_limits = true;
        let (name, to) = (format!("/{LIMITS}"), "LimitMEMLOCK=infinity, LimitNOFILE=1048576".to_owned());
        changes.push(Change { name, from: String::new(), to, outcome: Outcome::Planned });
    }
    if is_rehearsal || changes.is_empty() {
        return Ok(changes);
    }
    write_record(root, &record)?;
    for (change, (file, after)) in changes.iter_mut().zip(&wanted) {
        change.outcome = match set(&root.join(file), after) {
            Ok(()) => Outcome::Done,
            Err(error) => {
                record.values.remove(file);
                Outcome::Refused(error.to_string())
            }
        };
    }
    if lacks_limits && let Some(change) = changes.last_mut() {
        change.outcome = outcome(write(&root.join(LIMITS), &limits()));
    }
    // Without what was refused.
    write_record(root, &record)?;
    changes.extend(keep(root, &record));
    Ok(changes)
}

/// Has all that [`apply`] changed be as it was; only says so, if `is_rehearsal`.
pub fn revert(root: &Path, is_rehearsal: bool) -> io::Result<Vec<Change>> {
    let record = read_record(root)?;
    let mut changes = Vec::new();
    let mut left = Record::default();
    for (file, value) in &record.values {
        let found = fs::read_to_string(root.join(file));
        let is_ours = found.as_deref().is_ok_and(|found| is_same(current(found), &value.after));
        let outcome = match is_ours {
            false => Outcome::Left,
            true if is_rehearsal => Outcome::Planned,
            true => outcome(set(&root.join(file), &value.before)),
        };
        if let Outcome::Refused(_) = outcome {
            left.values.insert(file.clone(), value.clone());
        }
        let from = found.map_or_else(|_| value.after.clone(), |found| current(&found).to_owned());
        changes.push(Change { name: value.name.clone(), from, to: value.before.clone(), outcome });
    }
    if record.has_limits {
        let outcome = if is_rehearsal { Outcome::Planned } else { outcome(remove(&root.join(LIMITS))) };
        left.has_limits = matches!(outcome, Outcome::Refused(_));
        changes.push(Change { name: format!("/{LIMITS}"), from: String::new(), to: "gone".to_owned(), outcome });
    }
    if !is_rehearsal && !changes.is_empty() {
        if left == Record::default() {
            remove(&root.join(RECORD))?
        } else {
            write_record(root, &left)?
        }
        changes.extend(keep(root, &left));
        // Folders of our own; one that still holds something stays.
        for folder in [LIMITS, RECORD].iter().filter_map(|file| Path::new(file).parent()) {
            let _ = fs::remove_dir(root.join(folder));
        }
    }
    Ok(changes)
}

/// Writes the files for later starts, or removes those that would be empty; what couldn't be.
fn keep(root: &Path, record: &Record) -> Vec<Change> {
    let mut refused = Vec::new();
    for kept in KEPT {
        let of_kind = record.values.iter().filter(|(_, value)| value.kept == kept);
        let lines: Vec<String> = of_kind.map(|(file, value)| kept.line(file, &value.after) + "\n").collect();
        let path = root.join(kept.file());
        let written =
            if lines.is_empty() { remove(&path) } else { write(&path, &(HEADING.to_owned() + &lines.concat())) };
        if let Err(error) = written {
            let (name, outcome) = (format!("/{}", kept.file().display()), Outcome::Refused(error.to_string()));
            refused.push(Change { name, from: String::new(), to: "kept for later starts".to_owned(), outcome });
        }
    }
    refused
}

fn limits() -> String {
    HEADING.to_owned() + LIMITS_TEXT
}

fn outcome(done: io::Result<()>) -> Outcome {
    done.map_or_else(|error| Outcome::Refused(error.to_string()), |()| Outcome::Done)
}

/// What a file under `/proc` or `/sys` is set to: the chosen word, where it offers several.
fn current(found: &str) -> &str {
    crate::kernel::chosen_of(found).unwrap_or(found.trim())
}

/// Three numbers may have tabs between them, and masks of CPUs more zeros before them.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.trim_start_matches(['0', ',']).to_owned();
    one.split_whitespace().map(plain).eq(other.split_whitespace().map(plain))
}

/// Files of the kernel are written in one piece, and never made.
fn set(path: &Path, value: &str) -> io::Result<()> {
    use io::Write as _;
    fs::File::options().write(true).truncate(true).open(path)?.write_all(value.as_bytes())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("new");
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_record(root: &Path) -> io::Result<Record> {
    match fs::read(root.join(RECORD)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(error),
    }
}

fn write_record(root: &Path, record: &Record) -> io::Result<()> {
    write(&root.join(RECORD), &serde_json::to_string_pretty(record)?)
}

#[cfg(test)]
mod tests;
