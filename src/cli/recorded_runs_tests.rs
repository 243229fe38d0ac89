//! Runs of Kafka's tools that need no cluster, against ours: what goes to which stream, to the byte, and the exit code.
//!
//! `tests/data/cli-runs.txt` has them as they were recorded: the command after `$`, then what it wrote to standard
//! output, after `!` to standard error, and after `=` the exit code if it isn't 0. `\` marks a line without its end.
//! Stack traces were left out.

#[path = "../../tests/data/command_lines.rs"]
mod command_lines;

use command_lines::words;

use super::features::{self, FeaturesArgs};
use super::leader_election::{self, ElectionArgs};
use super::log_dirs::{self, LogDirsArgs};
use super::metadata_quorum::{self, MetadataQuorumArgs};
use super::output::Captured;
use super::reassign_partitions::{self, ReassignPartitionsArgs};
use super::replica_verification::{self, VerificationArgs};
use super::storage::{self, StorageArgs};
use super::tool::Refusal;

const RUNS: &str = include_str!("../../tests/data/cli-runs.txt");

/// Runs a tool as the command does.
fn run(tool: &str, arguments: &[String]) -> (Captured, u8) {
    let mut out = Captured::default();
    let outcome = match tool {
        "kafka-metadata-quorum" => {
            MetadataQuorumArgs::read(arguments).map(|args| metadata_quorum::run(&args, &mut out))
        }
        "kafka-features" => FeaturesArgs::read(arguments).map(|args| features::run(&args, &mut out)),
        "kafka-leader-election" => {
            ElectionArgs::read(tool, arguments).map(|args| leader_election::run(&args, &mut out))
        }
        "kafka-log-dirs" => LogDirsArgs::read(tool, arguments).map(|args| log_dirs::run(&args, &mut out)),
        "kafka-replica-verification" => {
            VerificationArgs::read(tool, arguments).map(|args| replica_verification::run(&args, &mut out))
        }
        "kafka-reassign-partitions" => {
            ReassignPartitionsArgs::read(arguments).map(|args| reassign_partitions::run(&args, 1, &mut out))
        }
        "kafka-storage" => StorageArgs::read(tool, arguments).map(|args| storage::run(args, &mut out)),
        tool => panic!("{tool} isn't known here"),
    };
    match outcome {
        Ok(exit_code) => (out, exit_code),
        Err(Refusal { exit_code, stdout, stderr }) => (Captured { stdout, stderr }, exit_code),
    }
}

/// In the form of the record.
fn show(out: &Captured, exit_code: u8) -> String {
    let mut text = String::new();
    for (stream, mark) in [(&out.stdout, " "), (&out.stderr, "!")] {
        for line in stream.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => text += format!("{mark} {line}\n").as_str(),
                None => text += format!("{mark}\\ {line}\n").as_str(),
            }
        }
    }
    if exit_code != 0 {
        text += &format!("= {exit_code}\n");
    }
    text
}

#[test]
fn tools_say_what_kafkas_say() {
    let runs: Vec<&str> = RUNS.split("$ ").skip(1).collect();
    for run_text in &runs {
        let (command, expected) = run_text.split_once('\n').expect("a command and what it says");
        let words = words(command);
        let (out, exit_code) = run(&words[0], &words[1..]);
        assert_eq!(show(&out, exit_code), expected, "$ {command}");
    }
    assert!(runs.len() > 100, "only {} runs are recorded", runs.len());
}

#[test]
fn help_is_laid_out_as_kafkas() {
    let arguments: Vec<String> = ["remove-controller", "-h"].map(str::to_owned).into();
    let (out, exit_code) = run("kafka-metadata-quorum", &arguments);
    let expected = "\
usage: kafka-metadata-quorum (--bootstrap-server BOOTSTRAP_SERVER |
                             --bootstrap-controller BOOTSTRAP_CONTROLLER)
                             remove-controller [-h]
                             --controller-id CONTROLLER_ID
                             --controller-directory-id CONTROLLER_DIRECTORY_ID
                             [--dry-run]

optional arguments:
  -h, --help             show this help message and exit
  --controller-id CONTROLLER_ID, -i CONTROLLER_ID
                         The controller's node id.
  --controller-directory-id CONTROLLER_DIRECTORY_ID, -d CONTROLLER_DIRECTORY_ID
                         The id of its metadata directory.
  --dry-run              Say what would be done, and don't do it.
";
    assert_eq!((exit_code, out.stdout.as_str(), out.stderr.as_str()), (0, expected, ""));
    let (out, exit_code) = run("kafka-features", &["--help".to_owned()]);
    let begin = "\
usage: kafka-features [-h] [--command-config COMMAND_CONFIG]
                      [--bootstrap-server BOOTSTRAP_SERVER |
                      --bootstrap-controller BOOTSTRAP_CONTROLLER]
                      {describe,upgrade,downgrade,disable,version-mapping,feature-dependencies}
                      ...
";
    assert_eq!((exit_code, out.stderr.as_str()), (0, ""));
    assert!(out.stdout.starts_with(begin), "{}", out.stdout);
    assert!(out.stdout.contains("\n    feature-dependencies\n                         Show what"), "{}", out.stdout);
}
