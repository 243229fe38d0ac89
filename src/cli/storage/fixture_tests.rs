//! `storage format` against 13 runs of Kafka's tool: arguments, output, exit code and files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::format::FormatArgs;
use super::*;
use crate::cli::output::Output;
use ringlog_types::NodeId;

const RUNS: &[u8] = include_bytes!("../../../tests/data/fixtures/formatted.tar.gz");
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

#[derive(Default)]
struct Printed(String);

impl Output for Printed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 += std::str::from_utf8(bytes).expect("output is text");
    }

    fn write_error(&mut self, text: &str) {
        self.0 += text;
    }
}

/// Files by run and name.
fn runs() -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    let mut runs: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(RUNS));
    for entry in archive.entries().expect("a tar file") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_str().expect("text").trim_start_matches("./").to_owned();
        let Some((run, name)) = path.split_once('/') else { continue };
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("the content");
            runs.entry(run.to_owned()).or_default().insert(name.to_owned(), content);
        }
    }
    runs
}

/// A directory of this test run that is removed at its end.
struct TestDirectory(PathBuf);

impl TestDirectory {
    fn new(name: &str) -> TestDirectory {
        let path = std::env::temp_dir().join(format!("ringlog-format-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        TestDirectory(path)
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).expect("text")
}

fn directory_id(meta_properties: &[u8]) -> Uuid {
    let properties = ringlog_log::meta_properties::MetaProperties::parse(meta_properties).expect("meta.properties");
    properties.directory_id.expect("an id")
}

/// A snapshot's bytes without what differs from run to run: checksums, times, and this directory's id.
fn comparable(mut snapshot: Vec<u8>, own: Uuid) -> Vec<u8> {
    let mut at = 0;
    while at < snapshot.len() {
        let length = i32::from_be_bytes(snapshot[at + 8..at + 12].try_into().expect("four bytes"));
        snapshot[at + 17..at + 21].fill(0);
        snapshot[at + 27..at + 43].fill(0);
        at += 12 + usize::try_from(length).expect("a length");
    }
    // The time of the last record that it covers, in the header record.
    snapshot[73..81].fill(0);
    let places: Vec<usize> =
        snapshot.windows(16).enumerate().filter(|(_, it)| **it == own.0).map(|(at, _)| at).collect();
    places.into_iter().for_each(|at| snapshot[at..at + 16].fill(0));
    snapshot
}

fn check_files(run: &str, expected: &BTreeMap<String, Vec<u8>>, data: &Path) {
    let expected: BTreeMap<&str, &Vec<u8>> =
        expected.iter().filter_map(|(name, content)| Some((name.strip_prefix("data/")?, content))).collect();
    if expected.is_empty() {
        assert!(!data.exists(), "{run}: nothing is written");
        return;
    }
    let meta = fs::read(data.join("meta.properties")).expect("meta.properties");
    for (name, content) in &expected {
        let written = fs::read(data.join(name)).unwrap_or_else(|fault| panic!("{run}: {name}: {fault}"));
        if *name == "meta.properties" {
            let lines = |bytes: &[u8]| -> Vec<String> {
                let text = String::from_utf8(bytes.to_vec()).expect("text");
                text.lines().filter(|line| !line.starts_with(['#', 'd'])).map(str::to_owned).collect()
            };
            assert_eq!(lines(&written), lines(content), "{run}");
        } else if run == "dynamic-initial" && name.starts_with("__cluster_metadata-0/") {
            // Kafka writes the voters in no order.
            let summary = |bytes: &[u8]| {
                let summary = ringlog_raft::snapshot::read(bytes, |_| ()).expect("a whole snapshot");
                (summary.kraft_version, summary.voters, bytes.len())
            };
            assert_eq!(summary(&written), summary(content), "{run}: {name}");
        } else if run != "scram-two" {
            let own = comparable(written, directory_id(&meta));
            let kafkas = comparable((*content).clone(), directory_id(expected["meta.properties"]));
            assert_eq!(own, kafkas, "{run}: {name}");
        }
    }
    let is_quorum_there = data.join("__cluster_metadata-0").exists();
    assert_eq!(is_quorum_there, expected.keys().any(|name| name.starts_with("__cluster_metadata-0/")), "{run}");
}

#[test]
fn directories_are_formatted_as_kafka_formats_them() {
    let runs = runs();
    assert_eq!(runs.len(), 13);
    for (run, files) in &runs {
        let directory = TestDirectory::new(run);
        let data = directory.0.join("data");
        let properties = text(files, "server.properties");
        let kafkas = properties.lines().find_map(|line| line.strip_prefix("log.dirs=")).expect("log.dirs").to_owned();
        let config = directory.0.join("server.properties");
        let data_text = data.to_str().expect("a path of text");
        fs::write(&config, properties.replace(&kafkas, data_text)).expect("a file is written");
        let mut arguments = vec!["format".to_owned(), "-c".to_owned(), config.to_str().expect("text").to_owned()];
        arguments.extend(["-t".to_owned(), CLUSTER_ID.to_owned()]);
        arguments.extend(text(files, "args.txt").split_whitespace().map(str::to_owned));
        let mut out = Printed::default();
        let args = StorageArgs::read("kafka-storage", &arguments).expect("good arguments");
        let exit_code = crate::cli::storage::run(args, &mut out);
        let expected = text(files, "output.txt");
        let printed = format!("{}exit {exit_code}", out.0.replace(data_text, &kafkas));
        if run == "scram-two" {
            // Salts are drawn; the derivation is tested by itself.
            assert!(printed.contains("UserScramCredentialRecord(name='bob', mechanism=2, salt=["), "{printed}");
            assert!(printed.ends_with(
                "iterations=8192) at version 0)], metadataVersionLevel=30, source=format command)\n\
                 Formatting metadata directory fmt/scram-two/data with metadata.version 4.3-IV0.\nexit 0"
            ));
        } else {
            assert_eq!(printed.trim(), expected.trim(), "{run}");
        }
        check_files(run, files, &data);
    }
}

#[test]
fn a_formatted_directory_is_left_alone_and_shown() {
    let directory = TestDirectory::new("twice");
    let data = directory.0.join("data");
    let config = ServerConfig::dev(data.to_str().expect("text"), 9092);
    let mut random = Random::from_seed(1);
    let mut out = Printed::default();
    format_directories(&config, CLUSTER_ID, &mut random, &mut out).expect("it is formatted");
    let before = fs::read(data.join("meta.properties")).expect("meta.properties");
    let fault = format_directories(&config, CLUSTER_ID, &mut random, &mut out).expect_err("it is formatted already");
    assert!(
        fault.ends_with("is already formatted. Use --ignore-formatted to ignore this directory and format the others.")
    );
    assert_eq!(fs::read(data.join("meta.properties")).expect("meta.properties"), before);
}

/// What Kafka's tool says of each, also when formatted directories are to be skipped.
#[test]
fn a_directory_of_another_cluster_or_node_is_never_taken_for_formatted() {
    const OTHER: &str = "b3RoZXItY2x1c3Rlci0xMg";
    let folder = TestDirectory::new("foreign");
    let (first, second) = (folder.0.join("a"), folder.0.join("b"));
    let config = |data: &str| ServerConfig::dev(data, 9092);
    let one = config(first.to_str().expect("text"));
    let both =
        ServerConfig { log_dirs: vec![first.display().to_string(), second.display().to_string()], ..one.clone() };
    let mut random = Random::from_seed(1);
    let mut out = Printed::default();
    format_directories(&one, CLUSTER_ID, &mut random, &mut out).expect("it is formatted");
    let mut format = |config: &ServerConfig, cluster_id: &str, ignore_formatted: bool| {
        let args = FormatArgs { cluster_id: cluster_id.to_owned(), ignore_formatted, ..FormatArgs::default() };
        let mut out = Printed::default();
        super::format::format(&args, config, &mut random, super::now(), &mut out).map(|()| out.0)
    };
    let file = first.join("meta.properties").display().to_string();
    let foreign = format!("Invalid cluster.id in: {file}. Expected {OTHER}, but read {CLUSTER_ID}");
    for config in [&one, &both] {
        for ignore_formatted in [false, true] {
            assert_eq!(format(config, OTHER, ignore_formatted), Err(foreign.clone()));
        }
    }
    assert!(!second.exists(), "nothing is written before all is checked");
    let mut moved = one.clone();
    moved.node_id = NodeId(4);
    let text = format(&moved, CLUSTER_ID, true).expect_err("another node's");
    assert!(text.starts_with(&format!("Stored node id 1 doesn't match previous node id 4 in {file}.")), "{text}");
    let all = "All of the log directories are already formatted.\n";
    assert_eq!(format(&one, CLUSTER_ID, true).as_deref(), Ok(all));
    fs::write(&file, "garbage").expect("a file is written");
    let none = "No available log directories to format.";
    assert_eq!(format(&one, CLUSTER_ID, true), Err(none.to_owned()));
    assert_eq!(format(&one, CLUSTER_ID, false), Err(none.to_owned()));
    format(&both, CLUSTER_ID, false).expect("the other one is formatted");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "garbage");
    assert!(second.join("meta.properties").exists());
}

#[test]
fn scram_keys_are_those_that_kafka_derives() {
    // What Kafka's tool printed for alice, with the salt that it drew.
    let argument = "SCRAM-SHA-256=[name=alice,salt=\"bTRjMTV3Y3l2bnFsY21mc2pibnhqcWNraA==\",password=alice-secret]";
    let record = scram::parse(argument, &mut Random::from_seed(1)).expect("a credential");
    let stored: [i8; 32] = [
        -23, 7, -81, -110, 6, -8, -46, -35, 117, -35, -23, -65, 83, 90, 85, 81, 105, -33, 80, 31, 107, -109, -39, 79,
        102, -118, -39, 27, 74, 4, -84, -84,
    ];
    let server: [i8; 32] = [
        -20, 78, 122, 49, 25, 5, -117, 59, 108, 54, -40, -39, 41, -58, -39, -40, -22, -4, 115, -77, -99, -71, -117,
        -112, -76, 35, -70, -100, 89, -50, 14, -51,
    ];
    assert_eq!(record.stored_key[..], stored.map(i8::cast_unsigned));
    assert_eq!(record.server_key[..], server.map(i8::cast_unsigned));
    assert_eq!((record.mechanism, record.iterations), (1, 4096));
    for (argument, expected) in [
        ("SCRAM-SHA-256=[name=a]", "You must supply one of 'password' or 'saltedpassword' to add-scram"),
        ("SCRAM-SHA-257=[name=a,password=b]", "The add-scram mechanism SCRAM-SHA-257 is not supported."),
        (
            "SCRAM-SHA-256=[name=a,password=b,iterations=1]",
            "The 'iterations' value must be >= 4096 for add-scram using SCRAM_SHA_256",
        ),
    ] {
        assert_eq!(scram::parse(argument, &mut Random::from_seed(1)).expect_err("it is refused"), expected);
    }
}

#[test]
fn feature_tables_are_printed_as_kafkas() {
    let mut out = Printed::default();
    feature_tables::version_mapping(None, &mut out).expect("there is a mapping");
    feature_dependencies("eligible.leader.replicas.version=1", &mut out).expect("it is known");
    feature_dependencies("metadata.version=7", &mut out).expect("it is known");
    let expected = "metadata.version=30 (4.3-IV0)\nkraft.version=1\ntransaction.version=2\ngroup.version=1\n\
                    eligible.leader.replicas.version=1\nshare.version=1\nstreams.version=1\n\
                    eligible.leader.replicas.version=1 requires:\n    metadata.version=23 (4.0-IV1)\n\
                    metadata.version=7 (3.3-IV3) has no dependencies.\n";
    assert_eq!(out.0, expected);
    assert_eq!(feature_dependencies("foo=1", &mut out), Err("Unknown feature: foo".to_owned()));
}
