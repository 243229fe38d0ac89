//! Argument rules, against what Kafka's tools were seen to do. The table in `tests/data/cli-rules.tsv` has a row per
//! line of arguments: the tool, the arguments, how it ends, and the gist of the refusal.

use super::console_consumer::ConsumerArgs;
use super::console_producer::ProducerArgs;
use super::features::FeaturesArgs;
use super::leader_election::ElectionArgs;
use super::log_dirs::LogDirsArgs;
use super::metadata_quorum::MetadataQuorumArgs;
use super::reassign_partitions::ReassignPartitionsArgs;
use super::replica_verification::VerificationArgs;
use super::server::ServerArgs;
use super::storage::StorageArgs;
use super::tool::Refusal;
use super::topics::TopicsArgs;

const RULES: &str = include_str!("../../tests/data/cli-rules.tsv");

fn read(tool: &str, arguments: &[String]) -> Option<Result<(), Refusal>> {
    Some(match tool {
        "kafka-topics" => TopicsArgs::read(tool, arguments).map(drop),
        "kafka-console-producer" => ProducerArgs::read(tool, arguments).map(drop),
        "kafka-console-consumer" => ConsumerArgs::read(tool, arguments, 1).map(drop),
        "kafka-leader-election" => ElectionArgs::read(tool, arguments).map(drop),
        "kafka-log-dirs" => LogDirsArgs::read(tool, arguments).map(drop),
        "kafka-replica-verification" => VerificationArgs::read(tool, arguments).map(drop),
        "kafka-storage" => StorageArgs::read(tool, arguments).map(drop),
        "kafka-metadata-quorum" => MetadataQuorumArgs::read(arguments).map(drop),
        "kafka-features" => FeaturesArgs::read(arguments).map(drop),
        "kafka-reassign-partitions" => ReassignPartitionsArgs::read(arguments).map(drop),
        "kafka-server-start" => ServerArgs::read(tool, arguments).map(drop),
        _ => return None,
    })
}

/// The words that a refusal must have for the gist of Kafka's.
fn expected_text(tool: &str, gist: &str) -> String {
    if let Some(option) = gist.strip_prefix("missing ") {
        if tool == "kafka-leader-election" {
            return format!("Missing required option(s): {option}");
        }
        return format!("Missing required argument \"[{option}]\"");
    }
    if let Some((option, other)) = gist.split_once(" excludes ") {
        return match option {
            "from-beginning" => "Options from-beginning and offset cannot be specified together.".to_owned(),
            "consumer-property" => {
                "Options --consumer-property and --command-property cannot be specified together.".to_owned()
            }
            _ if tool == "kafka-console-producer" => {
                format!("Options --{other} and --{option} cannot be specified together.")
            }
            _ => format!("Option \"[{option}]\" can't be used with option \"[{other}]\""),
        };
    }
    match gist {
        "usage printed" if tool == "kafka-features" => "Type --help for help.".to_owned(),
        "usage printed" if tool == "kafka-metadata-quorum" => format!("usage: {tool} "),
        gist if gist.starts_with("wants one action of") => "Command must include exactly one action: ".to_owned(),
        gist if tool == "kafka-leader-election" && gist.starts_with("wants exactly one of") => {
            "One and only one of the following options is required: topic, all-topic-partitions".to_owned()
        }
        gist if gist.starts_with("wants exactly one of") => {
            "Exactly one of the following arguments is required: [topic], [include]".to_owned()
        }
        "offset wants partition" => "The partition is required when offset is specified.".to_owned(),
        _ => "Usage:".to_owned(),
    }
}

#[test]
fn lines_end_as_with_kafkas_tools() {
    let mut checked = 0;
    for row in RULES.lines().skip(1) {
        let columns: Vec<&str> = row.split('\t').collect();
        let [tool, arguments, outcome, .., exit, gist] = columns.as_slice() else { panic!("{row}") };
        // The names of files are looked at only when the tool runs.
        if matches!(*arguments, "format -c x -t y" | "/nonexistent") {
            continue;
        }
        let arguments = arguments.replace("HOST:PORT", "localhost:9092");
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        let Some(end) = read(tool, &arguments) else { continue };
        checked += 1;
        match (end, *outcome) {
            (Ok(()), "reaches-cluster") => {}
            (Err(refusal), "rejected") => {
                assert_eq!(refusal.exit_code.to_string(), *exit, "{row}");
                assert!(refusal.stderr.contains(&expected_text(tool, gist)), "{row}\n{}", refusal.stderr);
                assert_eq!(refusal.stdout, "", "{row}");
            }
            (Err(refusal), "exit-0") => assert_eq!((refusal.exit_code, refusal.stderr.as_str()), (0, ""), "{row}"),
            (end, _) => panic!("{row}\n{end:?}"),
        }
    }
    assert!(checked >= 49, "only {checked} rows are about these tools");
}

fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn long_options_may_have_one_dash() {
    for line in ["-bootstrap-server h:1 -list", "--bootstrap-server=h:1 --list", "-bootstrap-server=h:1 --list words"] {
        let args = TopicsArgs::read("kafka-topics", &arguments(line)).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!((args.bootstrap_server.as_deref(), args.list), (Some("h:1"), true), "{line}");
    }
    let refusal = TopicsArgs::read("kafka-topics", &arguments("--boot h:1 --list")).expect_err("no such option");
    assert_eq!((refusal.exit_code, refusal.stderr.as_str()), (1, "boot is not a recognized option\n"));
}

#[test]
fn old_options_are_told_of_whatever_comes_after() {
    let line = "--bootstrap-server localhost:1 --topic t --producer-property acks=9 --property a=b";
    let refusal = ProducerArgs::read("kafka-console-producer", &arguments(line)).expect_err("no such acks");
    let notice = |old: &str, new: &str| {
        format!("Warning: --{old} is deprecated and will be removed in a future version. Use --{new} instead.\n")
    };
    let expected = notice("producer-property", "command-property") + &notice("property", "reader-property");
    assert_eq!(refusal.stdout, expected);
    assert_eq!(
        refusal.stderr,
        "org.apache.kafka.common.config.ConfigException: Invalid value 9 for configuration acks: String must be one of: \
         all, -1, 0, 1\n"
    );
    let line = "--bootstrap-server localhost:1 --topic t --consumer-property foo --timeout-ms 5";
    let plan = ConsumerArgs::read("kafka-console-consumer", &arguments(line), 1).unwrap_or_else(|it| panic!("{it:?}"));
    assert_eq!(
        plan.notices,
        "Option --consumer-property is deprecated and will be removed in a future version. Use --command-property \
         instead.\n"
    );
}

#[test]
fn help_goes_where_kafkas_goes() {
    let jopt = TopicsArgs::read("kafka-topics", &arguments("--help")).expect_err("help is no run");
    assert_eq!((jopt.exit_code, jopt.stdout.as_str()), (1, ""));
    assert!(jopt.stderr.contains("--under-min-isr-partitions"));
    let argparse = StorageArgs::read("kafka-storage", &arguments("--help")).expect_err("help is no run");
    assert_eq!((argparse.exit_code, argparse.stderr.as_str()), (0, ""));
    assert!(argparse.stdout.contains("random-uuid"));
}

#[test]
fn a_producer_has_kafkas_defaults_and_precedence() {
    let read = |line: &str| {
        let plan = ProducerArgs::read("kafka-console-producer", &arguments(line));
        plan.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    };
    let plan = read("--bootstrap-server localhost:1 --topic t");
    assert_eq!((plan.producer.acks, plan.producer.batch_bytes, plan.producer.retries), (-1, 16384, 3));
    assert_eq!((plan.linger.as_millis(), plan.client.request_timeout.as_millis()), (1000, 1500));
    let plan =
        read("--bootstrap-server localhost:1 --topic t --command-property acks=1 --command-property linger.ms=5");
    assert_eq!((plan.producer.acks, plan.linger.as_millis()), (1, 5));
    let plan = read(
        "--bootstrap-server localhost:1 --topic t --producer-property acks=1 --request-required-acks 0 --compression-codec",
    );
    assert_eq!((plan.producer.acks, plan.producer.compression.name()), (0, "gzip"));
}
