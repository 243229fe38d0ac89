//! The rooms of `shards/`: which may use which, and that no files go round in a circle.
//!
//! What a file uses is read from its paths: `crate::…`, `super::…`, and those that begin with a module of its own. A name
//! that a module only hands on (`pub use`) counts as a use of the file that has it. A file of a room and the folder of its
//! name count as one. Tests may use anything.

use std::collections::{BTreeMap, BTreeSet};

/// The folder that they are in.
const HOUSE: &str = "shards/";
/// Crates of their own in there.
const CRATES: &[&str] = &["shards/ring/"];

/// Files at the top that every room may rest on, and that know none.
const FOUNDATION: &[&str] = &[
    "core",
    "descriptors",
    "directories",
    "flag",
    "format",
    "lasting",
    "log_levels",
    "mesh",
    "metrics",
    "node",
    "placement",
    "rarely",
    "scatter",
    "stop",
];
/// Files at the top that know all rooms.
const ROOF: &[&str] = &["lib", "boot", "shard", "dispatch", "admit"];

/// The rooms, each after those that it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("metadata", &[]),
    ("storage", &[]),
    ("net", &["metadata"]),
    ("data", &["metadata", "storage", "net"]),
    ("log_dirs", &["metadata", "storage", "data"]),
    ("controller", &["metadata", "storage", "net"]),
    ("coordinator", &["metadata", "storage", "net", "data"]),
    ("broker", &["metadata", "net", "data", "log_dirs", "controller"]),
    ("admin", &["metadata", "storage", "net", "data", "log_dirs", "controller"]),
];

/// Files that are in a circle with others for now. It may only fall.
const FILES_IN_CIRCLES: usize = 0;

/// Names every breach. `read` gives a file's text.
pub fn check(files: &[String], read: impl Fn(&str) -> String, breaches: &mut Vec<String>) {
    check_within(files, read, FILES_IN_CIRCLES, breaches);
}

fn check_within(files: &[String], read: impl Fn(&str) -> String, files_in_circles: usize, breaches: &mut Vec<String>) {
    for (place, (room, uses)) in ROOMS.iter().enumerate() {
        for used in *uses {
            if !ROOMS[..place].iter().any(|(earlier, _)| earlier == used) {
                breaches.push(format!("scripts/rooms.rs: {room} may not use {used}: rooms would form a circle"));
            }
        }
    }
    let house = House::read(files, read);
    for (file, used) in house.edges() {
        let (from, to) = (room_of(&file), room_of(&used));
        if !may_use(&from, &to) {
            breaches.push(format!("{HOUSE}{file} uses {used}: {from} may not use {to}"));
        }
    }
    let circles = circles(&house.edges());
    let count: usize = circles.iter().map(Vec::len).sum();
    if count > files_in_circles {
        for circle in circles {
            breaches.push(format!("{HOUSE}: files use each other in a circle: {}", circle.join(", ")));
        }
    } else if count < files_in_circles {
        breaches.push(format!("scripts/rooms.rs: {count} files are in circles now; lower FILES_IN_CIRCLES"));
    }
}

fn may_use(from: &str, to: &str) -> bool {
    let is_roof = |name: &str| ROOF.contains(&name);
    if from == to || is_roof(from) {
        return true;
    }
    if FOUNDATION.contains(&to) {
        return true;
    }
    ROOMS.iter().any(|(room, uses)| *room == from && uses.contains(&to))
}

/// The folder of a file, or its own name at the top.
fn room_of(file: &str) -> String {
    file.split(['/', '.']).next().unwrap_or_default().to_owned()
}

/// `room/file.rs` for what is in the folder `room/file`.
fn whole_of(file: &str) -> String {
    let mut parts = file.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(room), Some(folder), Some(_)) => format!("{room}/{folder}.rs"),
        _ => file.to_owned(),
    }
}

/// Where a module's names are.
struct Module {
    file: String,
    text: String,
    /// What it hands on: the name, and the path where that is.
    handed_on: BTreeMap<String, Vec<String>>,
    uses: Vec<Vec<String>>,
}

/// All modules by their paths.
struct House(BTreeMap<Vec<String>, Module>);

impl House {
    fn read(files: &[String], read: impl Fn(&str) -> String) -> House {
        let mut modules = BTreeMap::new();
        for file in files.iter().filter(|file| file.starts_with(HOUSE) && file.ends_with(".rs")) {
            if is_test(file) || CRATES.iter().any(|folder| file.starts_with(folder)) {
                continue;
            }
            let text = without_tests(&read(file));
            let file = file.trim_start_matches(HOUSE).to_owned();
            let path = path_of(&file);
            modules.insert(path, Module { file, text, handed_on: BTreeMap::new(), uses: Vec::new() });
        }
        let known: BTreeSet<Vec<String>> = modules.keys().cloned().collect();
        for (path, module) in &mut modules {
            for (used, is_handed_on) in paths_in(&module.text, path, &known) {
                match used.last().filter(|_| is_handed_on) {
                    Some(name) => drop(module.handed_on.insert(name.clone(), used)),
                    None => module.uses.push(used),
                }
            }
        }
        House(modules)
    }

    /// Which file uses which other.
    fn edges(&self) -> BTreeSet<(String, String)> {
        let mut edges = BTreeSet::new();
        for module in self.0.values() {
            for used in &module.uses {
                let Some(used) = self.file_of(used).map(|file| whole_of(&file)) else { continue };
                let from = whole_of(&module.file);
                if from != used {
                    edges.insert((from, used));
                }
            }
        }
        edges
    }

    /// The file that has what `path` names.
    fn file_of(&self, path: &[String]) -> Option<String> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let length = (0..=path.len()).rev().find(|&length| self.0.contains_key(&path[..length]))?;
            let module = &self.0[&path[..length]];
            match path.get(length).and_then(|name| module.handed_on.get(name)) {
                Some(elsewhere) => path = elsewhere.clone(),
                // The crate's root has nothing of its own.
                None if length == 0 => return None,
                None => return Some(module.file.clone()),
            }
        }
        None
    }
}

fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.contains("test_") || file.ends_with("tests.rs")
}

/// Up to the tests at its end, and without comments.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_test = line.trim() == "#[cfg(test)]";
        if is_test && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{')) {
            break;
        }
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}

fn path_of(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() }
}

/// Every path in `text` that leads to a module of the crate, as seen from module `own`; whether it is handed on.
fn paths_in(text: &str, own: &[String], known: &BTreeSet<Vec<String>>) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    let words = words(text);
    let mut place = 0;
    while place < words.len() {
        let begins = place == 0 || words[place - 1] != "::";
        let is_path = words.get(place + 1).is_some_and(|next| next == "::");
        if begins && is_path {
            let is_use = place > 0 && words[place - 1] == "use";
            let is_handed_on = is_use && place > 1 && (words[place - 2] == "pub" || words[place - 2] == ")");
            if let Some((start, next)) = start_of(&words, place, own, known) {
                let mut leaves = Vec::new();
                let end = branches(&words, next, start, &mut leaves);
                found.extend(leaves.into_iter().map(|leaf| (leaf, is_handed_on)));
                place = end.max(place + 1);
                continue;
            }
        }
        place += 1;
    }
    found
}

/// The module at which the path at `place` starts, and where it goes on.
fn start_of(
    words: &[String],
    mut place: usize,
    own: &[String],
    known: &BTreeSet<Vec<String>>,
) -> Option<(Vec<String>, usize)> {
    let mut start = own.to_vec();
    match words[place].as_str() {
        "crate" => start.clear(),
        "self" => {}
        "super" => {
            start.pop()?;
            while words.get(place + 2).is_some_and(|word| word == "super") {
                start.pop()?;
                place += 2;
            }
        }
        name => {
            // A child of its own.
            let mut child = own.to_vec();
            child.push(name.to_owned());
            return known.contains(&child).then_some((child, place + 2));
        }
    }
    Some((start, place + 2))
}

/// Follows a path and its branches; adds all ends of it. Returns the place after it.
fn branches(words: &[String], mut place: usize, mut path: Vec<String>, leaves: &mut Vec<Vec<String>>) -> usize {
    loop {
        match words.get(place).map(String::as_str) {
            Some("{") => {
                place += 1;
                while words.get(place).is_some_and(|word| word != "}") {
                    if words[place] == "," {
                        place += 1;
                    } else {
                        place = branches(words, place, path.clone(), leaves).max(place + 1);
                    }
                }
                return place + 1;
            }
            Some("self") => {
                leaves.push(path);
                return place + 1;
            }
            Some(word) if word.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_') => {
                path.push(word.to_owned());
                place += 1;
                if words.get(place).is_some_and(|word| word == "::") {
                    place += 1;
                    continue;
                }
                // `name as other`
                if words.get(place).is_some_and(|word| word == "as") {
                    place += 2;
                }
                leaves.push(path);
                return place;
            }
            _ => {
                leaves.push(path);
                return place;
            }
        }
    }
}

/// Names, `::`, and single other characters.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_alphanumeric() || letter == '_' {
            let mut word = String::from(letter);
            while let Some(next) = letters.next_if(|next| next.is_alphanumeric() || *next == '_') {
                word.push(next);
            }
            words.push(word);
        } else if letter == ':' && letters.next_if_eq(&':').is_some() {
            words.push("::".to_owned());
        } else if !letter.is_whitespace() {
            words.push(letter.to_string());
        }
    }
    words
}

/// Sets of files each of which reaches every other (Tarjan's strongly connected components, by two passes).
fn circles(edges: &BTreeSet<(String, String)>) -> Vec<Vec<String>> {
    let mut open: BTreeSet<&String> = edges.iter().flat_map(|(from, to)| [from, to]).collect();
    let mut circles = Vec::new();
    while let Some(first) = open.pop_first() {
        let after = reach(first, |file| edges.iter().filter(move |(from, _)| from == file).map(|(_, to)| to));
        let before = reach(first, |file| edges.iter().filter(move |(_, to)| to == file).map(|(from, _)| from));
        let circle: BTreeSet<&String> = after.intersection(&before).copied().collect();
        if circle.len() > 1 {
            open.retain(|file| !circle.contains(file));
            circles.push(circle.into_iter().cloned().collect());
        }
    }
    circles
}

fn reach<'a, I: Iterator<Item = &'a String>>(
    first: &'a String,
    next: impl Fn(&'a String) -> I,
) -> BTreeSet<&'a String> {
    let (mut reached, mut open) = (BTreeSet::from([first]), vec![first]);
    while let Some(file) = open.pop() {
        open.extend(next(file).filter(|other| reached.insert(other)));
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches_of(files: &[(&str, &str)]) -> Vec<String> {
        let names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let read = |file: &str| files.iter().find(|(name, _)| *name == file).map_or("", |(_, text)| text).to_owned();
        let mut breaches = Vec::new();
        check_within(&names, read, 0, &mut breaches);
        breaches
    }

    #[test]
    fn rooms_use_what_lies_below_them_and_nothing_else() {
        let below = ("shards/storage/frames.rs", "use crate::core::Core;\n");
        let core = ("shards/core.rs", "pub struct Core;\n");
        let above = ("shards/data/fetch.rs", "use crate::storage::frames::{self, Frame as F};\n");
        assert_eq!(breaches_of(&[below, core, above]), [""; 0]);
        let upwards = ("shards/storage/frames.rs", "fn f() { crate::data::fetch::handle() }\n");
        let breaches = breaches_of(&[upwards, core, ("shards/data/fetch.rs", "")]);
        assert_eq!(breaches, ["shards/storage/frames.rs uses data/fetch.rs: storage may not use data"]);
        let roof = ("shards/core.rs", "use crate::shard::Shard;\n");
        assert_eq!(breaches_of(&[roof, ("shards/shard.rs", "")]).len(), 1);
    }

    #[test]
    fn circles_are_found_and_names_that_are_handed_on_are_no_part_of_them() {
        let a = ("shards/data/a.rs", "use super::b::B;\n");
        let b = ("shards/data/b.rs", "use crate::data::{a::A, c};\n");
        assert_eq!(breaches_of(&[a, b]).len(), 1);
        let index = ("shards/data/mod.rs", "mod a;\npub use a::A;\n");
        let a = ("shards/data/a.rs", "pub struct A;\n");
        let b = ("shards/data/b.rs", "use super::A;\n");
        assert_eq!(breaches_of(&[index, a, b]), [""; 0]);
        let index = ("shards/data/mod.rs", "mod b;\nstruct Room(b::B);\n");
        assert_eq!(breaches_of(&[index, ("shards/data/b.rs", "use super::Room;\n")]).len(), 1);
        let folder = [("shards/data/b.rs", "mod c;\nuse c::C;\n"), ("shards/data/b/c.rs", "use super::B;\n")];
        assert_eq!(breaches_of(&folder), [""; 0]);
        let tests = ("shards/data/b.rs", "#[cfg(test)]\nmod tests {\n    use super::super::Room;\n}\n");
        assert_eq!(breaches_of(&[index, tests]), [""; 0]);
    }
}
