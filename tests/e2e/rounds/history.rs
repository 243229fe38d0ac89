//! What the clients saw: one line for each event, as the checker reads it.
//!
//! `MILLISECONDS PROCESS OPERATION PHASE …`; a record's name is `PRODUCER:NUMBER`, and its value repeats the name:
//!
//! ```text
//! is ok idempotent | plain | reader | member GROUP | final     what the process is
//! send invoke|again PARTITION NAME                             handed to the client; sent once more by it
//! send ok PARTITION NAME OFFSET                                acknowledged; `-` where the client isn't told the offset
//! send fail|info PARTITION NAME WHY                            certainly not written; nobody knows
//! sequence fail PARTITION WHY                                  the leader refused the number that followed the last one
//! seek ok PARTITION OFFSET                                     the reader goes on there
//! assign ok PARTITION OFFSET                                   a group's member goes on there
//! commit ok|info PARTITION OFFSET                              committed; nobody knows
//! poll ok PARTITION OFFSET=NAME …                              what one poll gave of a partition
//! poll fail PARTITION WHY                                      what could not be read, and should
//! end ok PARTITION OFFSET                                      where the log ends, by the final reader
//! fault|healed|synced ok …                                     what the rounds did
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;

/// The events so far.
#[derive(Debug)]
pub struct History {
    begin: Instant,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    file: BufWriter<File>,
    text: String,
    /// How often a process succeeded, by process, operation and partition.
    successes: BTreeMap<(String, String, String), u64>,
}

impl History {
    /// An empty one, kept in this file.
    pub fn new(file: &Path) -> Result<History> {
        let told = Told { file: BufWriter::new(File::create(file)?), text: String::new(), successes: BTreeMap::new() };
        Ok(History { begin: Instant::now(), told: Mutex::new(told) })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more event of a process: `OPERATION PHASE …`.
    pub fn tell(&self, process: &str, event: &str) {
        let mut told = self.told();
        let time = self.begin.elapsed().as_millis();
        let line = format!("{time} {process} {event}\n");
        // A disk that is full is noticed when the file is looked at; the text is what is checked.
        let _ = told.file.write_all(line.as_bytes());
        told.text.push_str(&line);
        let mut words = event.split(' ');
        if let (Some(operation), Some("ok"), Some(partition)) = (words.next(), words.next(), words.next()) {
            let key = (process.to_owned(), operation.to_owned(), partition.to_owned());
            *told.successes.entry(key).or_default() += 1;
        }
    }

    /// All lines.
    pub fn text(&self) -> String {
        let mut told = self.told();
        let _ = told.file.flush();
        told.text.clone()
    }

    /// How often each process succeeded in what, by process, operation and partition.
    pub fn successes(&self) -> BTreeMap<(String, String, String), u64> {
        self.told().successes.clone()
    }
}

/// A record's value: its name, and then that again and again.
pub fn value_of(name: &str, bytes: usize) -> Vec<u8> {
    let rest = name.bytes().cycle().take(bytes.saturating_sub(name.len() + 1));
    name.bytes().chain([b' ']).chain(rest).collect()
}

/// The name in a value that is whole.
pub fn name_in(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|byte| *byte == b' ')?;
    let name = std::str::from_utf8(&value[..end]).ok()?;
    (value_of(name, value.len()) == value).then(|| name.to_owned())
}
