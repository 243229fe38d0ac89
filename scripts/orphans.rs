//! Rust files that no crate includes: nobody compiles or tests them, and they rot.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Folders beside a manifest in which cargo finds targets by itself.
const TARGET_FOLDERS: &[&str] = &["tests", "benches", "examples", "bin"];

/// Those of `files`, paths from the top, that can't be reached from any crate's root. `read` gives a file's text.
pub fn find(files: &[String], read: impl Fn(&Path) -> String) -> Vec<String> {
    let known: BTreeSet<PathBuf> = files.iter().filter(|file| file.ends_with(".rs")).map(PathBuf::from).collect();
    let mut open: Vec<(PathBuf, bool)> = roots(files, &known, &read).into_iter().map(|root| (root, true)).collect();
    let mut reached = BTreeSet::new();
    while let Some((file, is_root)) = open.pop() {
        if !known.contains(&file) || !reached.insert(file.clone()) {
            continue;
        }
        open.extend(modules(&file, is_root, &read(&file)).into_iter().map(|module| (module, false)));
    }
    known.difference(&reached).map(|file| file.display().to_string()).collect()
}

fn roots(files: &[String], known: &BTreeSet<PathBuf>, read: &impl Fn(&Path) -> String) -> BTreeSet<PathBuf> {
    let mut roots = BTreeSet::new();
    for manifest in files.iter().map(Path::new).filter(|file| file.ends_with("Cargo.toml")) {
        let folder = manifest.parent().unwrap_or(Path::new(""));
        let text = read(manifest);
        roots.extend(text.lines().filter_map(|line| quoted(line, "path")).map(|path| normal(&folder.join(path))));
        for name in ["lib.rs", "main.rs", "build.rs", "src/lib.rs", "src/main.rs"] {
            roots.insert(folder.join(name));
        }
        for target_folder in TARGET_FOLDERS {
            let target_folder = folder.join(target_folder);
            let is_target = |file: &&PathBuf| {
                let parent = file.parent();
                parent == Some(&target_folder)
                    || (file.ends_with("main.rs") && parent.and_then(Path::parent) == Some(&target_folder))
            };
            roots.extend(known.iter().filter(is_target).cloned());
        }
    }
    roots
}

/// The files that may hold the modules which `text` declares; some of them don't exist.
fn modules(file: &Path, is_root: bool, text: &str) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let stem = file.file_stem().unwrap_or_default();
    let own = if is_root || stem == "mod" { folder.to_owned() } else { folder.join(stem) };
    let mut modules = Vec::new();
    let mut path: Option<&str> = None;
    // Modules written in place: `mod name {`, by indentation.
    let mut within: Vec<(usize, &str)> = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim();
        if code == "}" && within.last().is_some_and(|(opened, _)| *opened == indent) {
            within.pop();
        }
        if let Some(given) = code.strip_prefix("#[").and_then(|attribute| quoted(attribute, "path")) {
            path = Some(given);
        }
        let Some(name) = declared(code) else { continue };
        if let Some(name) = name.strip_suffix('{') {
            within.push((indent, name.trim()));
            continue;
        }
        let name = name.trim_end_matches(';');
        let nested = within.iter().fold(own.clone(), |folder, (_, name)| folder.join(name));
        match path.take() {
            // From the folder of the file, or of the module written in place.
            Some(path) => modules.push(normal(&if within.is_empty() { folder } else { &nested }.join(path))),
            None => {
                modules.push(nested.join(format!("{name}.rs")));
                modules.push(nested.join(name).join("mod.rs"));
            }
        }
    }
    modules
}

/// `name;` or `name {` of a line that declares a module.
fn declared(code: &str) -> Option<&str> {
    let code = code.strip_prefix("pub ").or_else(|| code.strip_prefix("pub(crate) ")).unwrap_or(code);
    let rest = code.strip_prefix("mod ")?;
    (rest.ends_with(';') || rest.ends_with('{')).then_some(rest)
}

/// What stands in `key = "…"` or `key="…"`.
fn quoted<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let after = text.split_once(key)?.1.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
    Some(after.split_once('"')?.0)
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_no_crate_includes_are_found() {
        let tree = [
            ("a/Cargo.toml", "[lib]\npath = \"lib.rs\"\n[[test]]\npath=\"suite/all.rs\"\n"),
            (
                "a/lib.rs",
                "pub mod one;\nmod two;\n#[cfg(test)]\n#[path = \"../shared.rs\"]\nmod shared;\nmod here {\n    mod deep;\n}\n",
            ),
            ("a/one.rs", "mod inner;\n"),
            ("a/one/inner.rs", ""),
            ("a/one/forgotten.rs", "mod lost;\n"),
            ("a/one/forgotten/lost.rs", ""),
            ("a/two/mod.rs", "mod inner;\n"),
            ("a/two/inner.rs", ""),
            ("a/here/deep.rs", ""),
            ("a/suite/all.rs", "mod helper;\n"),
            ("a/suite/helper.rs", ""),
            ("a/tests/target.rs", ""),
            ("a/tests/target/lost.rs", ""),
            ("shared.rs", ""),
        ];
        let files: Vec<String> = tree.iter().map(|(file, _)| (*file).to_owned()).collect();
        let read = |file: &Path| tree.iter().find(|(known, _)| Path::new(known) == file).expect("known").1.to_owned();
        assert_eq!(find(&files, read), ["a/one/forgotten/lost.rs", "a/one/forgotten.rs", "a/tests/target/lost.rs"]);
    }
}
