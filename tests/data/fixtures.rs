// Data directories that Apache Kafka 4.3.1 wrote, unpacked in memory. Included by tests with #[path].

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

/// Files by path, without the archive's top directory `data/`.
pub type Files = BTreeMap<String, Vec<u8>>;

fn folder() -> PathBuf {
    // Crates lie at different depths.
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders = crate_folder.ancestors().map(|folder| folder.join("tests/data/fixtures"));
    folders.into_iter().find(|folder| folder.is_dir()).expect("the project has fixtures")
}

/// The files of one fixture: single-node, unclean, dynamic-quorum-jbod or formatted.
pub fn load(name: &str) -> Files {
    let packed = std::fs::read(folder().join(format!("{name}.tar.gz"))).expect("the fixture is there");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
    let mut files = Files::new();
    for entry in archive.entries().expect("the fixture is a tar file") {
        let mut entry = entry.expect("the fixture is whole");
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().expect("paths are text").to_str().expect("paths are text").to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("the fixture is whole");
        files.insert(path.strip_prefix("data/").unwrap_or(&path).to_owned(), content);
    }
    assert!(!files.is_empty());
    files
}

/// What the Java consumer read from a fixture.
#[allow(dead_code, reason = "not every test reads it")]
pub fn reads_json(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.reads.json"))).expect("the fixture is there")
}

/// The files with this suffix, but those of `.deleted` and the like.
#[allow(dead_code, reason = "not every test uses it")]
pub fn with_suffix<'a>(files: &'a Files, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    files.iter().filter(move |(path, _)| path.ends_with(suffix)).map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
}
