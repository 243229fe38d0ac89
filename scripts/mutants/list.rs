//! The mistakes as they stand in the lists, one after the other:
//!
//! ```text
//! [second-vote]
//! A voter votes for whoever asks next, too.
//! in src/raft/machine/votes.rs
//! - if let Some(voted) = ⟦self.voted⟧ {
//! + None::<ReplicaKey>
//! ```
//!
//! The text behind `-` must stand in the file exactly once; how it is broken into lines is all the same. What is between
//! the brackets, or all of it if there are none, is what the text behind `+` replaces: an expression, or statements if
//! it ends in `;` or `}`. With further `in` lines more places change together. A line `runs elections` before the first
//! of them names the only scenario that is tried, or several, one after the other; a line `from 17` says with which seed
//! to begin, as that one or one soon after finds it. Lines that begin with `#` are remarks.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use crate::paths;

const OPEN: char = '⟦';
const CLOSE: char = '⟧';

/// One mistake.
#[derive(Debug)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// What it breaks.
    pub text: String,
    /// The only scenarios to look for it, if some are named.
    pub scenario: Option<String>,
    /// The first seed that is tried.
    pub from: u64,
    /// What it changes.
    pub edits: Vec<Edit>,
}

/// A change of one place.
#[derive(Debug)]
pub struct Edit {
    /// The file that it is in, from the project's top folder.
    pub file: String,
    original: String,
    /// What stands there instead.
    pub mutated: String,
}

/// Reads all lists of a folder; not those of its folder `unproven`, of mistakes that nothing has been seen to find yet.
pub fn read(folder: &str) -> Result<Vec<Mutant>> {
    let folder = paths::root().join(folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        files.push(entry?.path());
    }
    files.retain(|file| file.is_file());
    files.sort();
    let mut mutants: Vec<Mutant> = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        for mutant in parse(&text).with_context(|| file.display().to_string())? {
            let is_new = mutants.iter().all(|known| known.name != mutant.name);
            ensure!(is_new, "{} stands there twice", mutant.name);
            mutants.push(mutant);
        }
    }
    Ok(mutants)
}

fn parse(list: &str) -> Result<Vec<Mutant>> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for line in list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            mutants.push(Mutant {
                name: name.to_owned(),
                text: String::new(),
                scenario: None,
                from: 0,
                edits: Vec::new(),
            });
            continue;
        }
        let mutant = mutants.last_mut().with_context(|| format!("a line before the first name: {line}"))?;
        if let Some(file) = line.strip_prefix("in ") {
            mutant.edits.push(Edit { file: file.to_owned(), original: String::new(), mutated: String::new() });
        } else if let Some(edit) = mutant.edits.last_mut() {
            let (text, addition) = match (line.strip_prefix('-'), line.strip_prefix('+')) {
                (Some(original), _) => (&mut edit.original, original),
                (None, Some(mutated)) => (&mut edit.mutated, mutated),
                (None, None) => bail!("{}: what does this line mean: {line}", mutant.name),
            };
            *text += addition;
            text.push(' ');
        } else if let Some(scenario) = line.strip_prefix("runs ") {
            mutant.scenario = Some(scenario.to_owned());
        } else if let Some(seed) = line.strip_prefix("from ").and_then(|seed| seed.parse().ok()) {
            mutant.from = seed;
        } else {
            mutant.text = format!("{} {line}", mutant.text).trim().to_owned();
        }
    }
    for mutant in &mutants {
        let are_whole = mutant.edits.iter().all(|edit| !edit.original.is_empty() && !edit.mutated.is_empty());
        ensure!(
            are_whole && !mutant.edits.is_empty() && !mutant.text.is_empty(),
            "{}: something is missing",
            mutant.name
        );
    }
    Ok(mutants)
}

impl Edit {
    /// Where in the file's text the original is that is replaced.
    pub fn place(&self, text: &str) -> Result<Range<usize>> {
        let packed = Packed::of(text);
        let wanted = Packed::of(&self.original).text;
        let wanted = wanted.trim();
        let whole: String = wanted.chars().filter(|c| ![OPEN, CLOSE].contains(c)).collect();
        let found: Vec<usize> = packed.text.match_indices(&whole).map(|(at, _)| at).collect();
        ensure!(
            found.len() == 1,
            "its original text stands {} times in {}, not once; a change there has to change the mistake, too: {whole}",
            found.len(),
            self.file
        );
        let from = wanted.find(OPEN).unwrap_or(0);
        let to = wanted.find(CLOSE).map_or(whole.len(), |at| at - OPEN.len_utf8());
        ensure!(from < to, "there is nothing between the brackets: {whole}");
        let last = packed.places[found[0] + to - 1];
        Ok(packed.places[found[0] + from]..last + 1)
    }
}

/// A text without line breaks and indentation: one space in their place.
struct Packed {
    text: String,
    /// Where each of its bytes is in the original text.
    places: Vec<usize>,
}

impl Packed {
    fn of(original: &str) -> Packed {
        let mut packed = Packed { text: String::new(), places: Vec::new() };
        for (at, character) in original.char_indices() {
            let character = if character.is_whitespace() { ' ' } else { character };
            if character == ' ' && packed.text.ends_with(' ') {
                continue;
            }
            packed.text.push(character);
            packed.places.extend(at..at + character.len_utf8());
        }
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const LIST: &str = "# A remark.\n[one]\nBreaks it.\nruns faults\nfrom 7\nin a.rs\n- let a = ⟦b\n-     + c⟧;\n+ d\n";

    #[test]
    fn the_original_is_found_however_it_is_broken_into_lines() {
        let mutants = parse(LIST).unwrap();
        let [one] = &mutants[..] else { panic!("{mutants:?}") };
        assert_eq!(
            (one.name.as_str(), one.text.as_str(), one.scenario.as_deref(), one.from),
            ("one", "Breaks it.", Some("faults"), 7)
        );
        let code = "fn f() {\n    let a =\n        b + c;\n}\n";
        assert_eq!(&code[one.edits[0].place(code).unwrap()], "b + c");
        assert!(one.edits[0].place("let a = b + c; let a = b + c;").is_err());
        assert!(one.edits[0].place("let a = c + b;").is_err());
    }

    #[test]
    fn what_lacks_something_is_refused() {
        assert!(parse(&LIST.replace("+ d\n", "")).is_err());
        assert!(parse("in a.rs\n").is_err());
    }
}
