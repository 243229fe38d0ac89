//! A copy of the crates that the simulation needs, with the mistakes in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::list::Mutant;
use super::{PACKAGE, PROGRAM, VARIABLE};
use crate::{ci, paths, sim, tidy};

/// The crate that all others depend on: it holds the switch.
const TYPES: &str = "src/types";

/// Where in the copy the crates are. Cargo tells crates of the same name apart by their place in the workspace: with the
/// same one the copy and the original would take each other's place in the target folder.
const CORES: &str = "cores";

/// The text of one mistake and where it goes.
type Change<'a> = (Range<usize>, usize, &'a str);

/// Makes the copy, builds it, and says where the program is.
pub fn build(mutants: &[Mutant]) -> Result<PathBuf> {
    let target = sim::target_folder()?;
    let folder = target.join("mutants");
    let crates = crates()?;
    let mut files = BTreeMap::new();
    for file in tidy::tracked_files()? {
        if crates.iter().any(|folder| Path::new(&file).starts_with(folder)) {
            files.insert(file.clone(), fs::read(paths::root().join(&file)).with_context(|| file.clone())?);
        }
    }
    mutate(mutants, &mut files)?;
    let switch = files.get_mut(&format!("{TYPES}/lib.rs")).context("the types have a lib.rs")?;
    switch.extend_from_slice(b"\npub mod mutant;\n");
    files.insert(format!("{TYPES}/mutant.rs"), switch_code().into());
    let mut files: BTreeMap<_, _> = files.into_iter().map(|(file, bytes)| (format!("{CORES}/{file}"), bytes)).collect();
    files.insert("Cargo.toml".to_owned(), manifest(&crates)?.into());
    files.insert("Cargo.lock".to_owned(), fs::read(paths::root().join("Cargo.lock"))?);
    write(&folder, &files)?;
    // Crates of others are built already: the same target folder saves that.
    let mut command = ci::beside(paths::cargo());
    command.args(["build", "--profile", "sim", "-p", PACKAGE, "--bin", PROGRAM]);
    command.current_dir(&folder).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", sim::FLAGS);
    ci::run_command(&mut command)?;
    // Where it is built, the program without mistakes goes, too.
    let program = folder.join(PROGRAM);
    fs::copy(target.join("sim").join(PROGRAM), &program).context("the program")?;
    Ok(program)
}

/// Folders of the crates that the simulation is made of.
fn crates() -> Result<BTreeSet<PathBuf>> {
    let metadata = tidy::metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut folders = BTreeSet::new();
    let mut open = vec![PACKAGE.to_owned()];
    while let Some(name) = open.pop() {
        let package = packages.iter().find(|package| package["name"] == name.as_str());
        let package = package.with_context(|| format!("{name} is one of the workspace"))?;
        let manifest = package["manifest_path"].as_str().context("a package has a manifest")?;
        let folder = Path::new(manifest).parent().context("a manifest is in a folder")?;
        if folders.insert(paths::relative(folder)) {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let own = dependencies.filter(|dependency| dependency["path"].is_string());
            open.extend(own.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)));
        }
    }
    Ok(folders)
}

/// The root's manifest with these crates alone. What the compiler thinks of the mistakes' style is of no interest.
fn manifest(crates: &BTreeSet<PathBuf>) -> Result<String> {
    let root = fs::read_to_string(paths::root().join("Cargo.toml"))?;
    let members: Vec<String> = crates.iter().map(|folder| format!("\"{CORES}/{}\"", folder.display())).collect();
    let mut manifest = format!(
        "[workspace]\nmembers = [{}]\nresolver = \"3\"\n\n[workspace.lints.rust]\nwarnings = \"allow\"\n\n",
        members.join(", ")
    );
    let (mut is_kept, mut is_patch) = (false, false);
    for line in root.lines() {
        if line.starts_with('[') {
            is_kept =
                ["[workspace.package]", "[workspace.dependencies]"].contains(&line) || line.starts_with("[profile.");
            is_patch = line.starts_with("[patch.");
        }
        if is_patch {
            // What is patched is no crate of the workspace, and stays where it is.
            manifest += &line.replace("path = \"", &format!("path = \"{}/", paths::root().display()));
            manifest.push('\n');
        }
        if is_kept {
            manifest += &line.replace("path = \"", &format!("path = \"{CORES}/"));
            manifest.push('\n');
        }
    }
    Ok(manifest)
}

fn switch_code() -> String {
    format!(
        "//! Which deliberate mistake is switched on.\n\n\
         use std::sync::LazyLock;\n\n\
         static MUTANT: LazyLock<Option<usize>> = LazyLock::new(|| std::env::var({VARIABLE:?}).ok()?.parse().ok());\n\n\
         /// Whether it is this one.\n\
         pub fn is(number: usize) -> bool {{\n    *MUTANT == Some(number)\n}}\n"
    )
}

/// Puts all mistakes into the files.
fn mutate(mutants: &[Mutant], files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let mut edits: BTreeMap<&str, Vec<Change<'_>>> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate() {
        for edit in &mutant.edits {
            let bytes = files.get(&edit.file);
            let bytes = bytes.with_context(|| format!("{}: there is no file {}", mutant.name, edit.file))?;
            let place = edit.place(std::str::from_utf8(bytes)?).with_context(|| mutant.name.clone())?;
            edits.entry(&edit.file).or_default().push((place, number, edit.mutated.trim()));
        }
    }
    for (file, mut edits) in edits {
        let bytes = files.get_mut(file).context("its place was found")?;
        // The outer before the inner.
        edits.sort_by_key(|(place, number, _)| (place.start, std::cmp::Reverse(place.end), *number));
        let text = String::from_utf8(std::mem::take(bytes))?;
        let all = 0..text.len();
        *bytes = render(&text, all, &edits).with_context(|| file.to_owned())?.into();
    }
    Ok(())
}

/// The text of a range, with edits, all of which lie in it.
fn render(text: &str, range: Range<usize>, edits: &[Change<'_>]) -> Result<String> {
    let mut rendered = String::new();
    let mut at = range.start;
    let mut left = edits;
    while let Some(((place, number, mutated), rest)) = left.split_first() {
        let inner = rest.iter().take_while(|(other, ..)| other.start < place.end).count();
        let (inner, rest) = rest.split_at(inner);
        let overlaps = inner.iter().any(|(other, ..)| other.end > place.end);
        ensure!(!overlaps, "two mistakes overlap at: {}", &text[place.clone()]);
        rendered += &text[at..place.start];
        let original = render(text, place.clone(), inner)?;
        let switched = format!("if ringlog_types::mutant::is({number}) {{ {mutated} }} else {{ {original} }}");
        let are_statements = text[place.clone()].ends_with([';', '}']);
        rendered += &if are_statements { switched } else { format!("({switched})") };
        at = place.end;
        left = rest;
    }
    rendered += &text[at..range.end];
    Ok(rendered)
}

/// Makes the folder hold just these files, beside what was built. Those that are right already are left alone, so that
/// they aren't compiled again.
fn write(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let listed = folder.join(".files");
    let before = fs::read_to_string(&listed).unwrap_or_default();
    for gone in before.lines().filter(|file| !files.contains_key(*file)) {
        // It may have been removed by hand.
        let _ = fs::remove_file(folder.join(gone));
    }
    for (file, bytes) in files {
        let path = folder.join(file);
        // Cargo writes its own version of it.
        let is_right = fs::read(&path).is_ok_and(|old| old == *bytes);
        if !is_right {
            fs::create_dir_all(path.parent().context("files are in folders")?)?;
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        }
    }
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    Ok(fs::write(&listed, names.join("\n"))?)
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn mistakes_stand_beside_and_in_each_other() {
        let text = "f(a + b); g();";
        let edits = [(2..7, 0, "x"), (2..7, 1, "y"), (6..7, 2, "z"), (10..14, 3, "h();")];
        let is = |number| format!("if ringlog_types::mutant::is({number}) ");
        let rendered = format!(
            "f(({}{{ x }} else {{ ({}{{ y }} else {{ a + ({}{{ z }} else {{ b }}) }}) }})); {}{{ h(); }} else {{ g(); }}",
            is(0),
            is(1),
            is(2),
            is(3)
        );
        assert_eq!(render(text, 0..text.len(), &edits).unwrap(), rendered);
        assert!(render(text, 0..text.len(), &[(0..4, 0, "x"), (2..7, 1, "y")]).is_err());
    }
}
