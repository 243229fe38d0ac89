//! What counts as supported is read by somebody.

use std::fs;
use std::path::Path;

use ringlog_config::support::{self, Support};
use ringlog_config::{registry, sections};

/// The sources below a folder but for tests, in one text.
fn sources(folder: &Path, text: &mut String) {
    let entries = fs::read_dir(folder).expect("a folder of sources");
    for entry in entries.map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.contains("test") || name == "target" {
            continue;
        }
        if entry.is_dir() {
            sources(&entry, text);
        } else if name.ends_with(".rs") {
            text.push_str(&fs::read_to_string(&entry).expect("a source"));
        }
    }
}

#[test]
fn keys_that_count_as_supported_are_read_by_the_node() {
    let mut text = String::new();
    let shards = Path::new(env!("CARGO_MANIFEST_DIR"));
    sources(shards, &mut text);
    for name in ["coordinator", "log", "metadata", "partition", "quorum", "raft"] {
        sources(&shards.join("../src").join(name), &mut text);
    }
    let is_read = |field: &str| {
        let mut after = text.match_indices(field).map(|(at, _)| (&text[..at], &text[at + field.len()..]));
        after.any(|(before, after)| {
            before.ends_with('.') && !after.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
        })
    };
    let supported = |key: &str| {
        let is_known = registry::broker().get(key).is_some();
        is_known && support::of(key) == Some(Support::Supported)
    };
    let idle: Vec<_> = sections::fields().filter(|(key, field)| supported(key) && !is_read(field)).collect();
    assert!(idle.is_empty(), "nobody reads what these keys say; their rule in support.rs has to say so: {idle:?}");
}
