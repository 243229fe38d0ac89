//! The command line: `ringlog TOOL …`, or a link named like Kafka's own tool.

mod admin;
mod argparse;
mod client_config;
mod console_consumer;
mod console_producer;
mod dev;
mod exception;
mod failure;
mod feature_tables;
mod features;
mod java_hash;
mod java_time;
mod java_uuid;
mod jopt;
mod leader_election;
mod log_dirs;
mod logging;
mod metadata_quorum;
mod output;
mod reassign_partitions;
mod replica_verification;
mod server;
mod signals;
mod storage;
mod takeover;
mod tool;
mod topic_filter;
mod topics;
mod tune;

#[cfg(test)]
mod recorded_runs_tests;
#[cfg(test)]
mod rules_tests;

use output::{Output, Terminal};
use signals::Stop;
use tool::Refusal;

/// A tool's name, its other names, and what it does.
const TOOLS: &[(&str, &[&str], &str)] = &[
    ("server", &["server-start"], "Run a node: server FILE [--override KEY=VALUE]…"),
    ("dev", &[], "Run a node for development on localhost, formatting its directory if needed"),
    ("storage", &[], "Format log directories and look at them"),
    ("topics", &[], "Create, delete, describe and change topics"),
    ("console-producer", &[], "Write standard input's lines to a topic"),
    ("console-consumer", &[], "Print a topic's records"),
    ("metadata-quorum", &[], "Show the controllers' quorum and change who is in it"),
    ("features", &[], "Show and change which features the cluster uses"),
    ("leader-election", &[], "Have leaders of partitions elected: preferred ones, or any where there is none"),
    ("log-dirs", &[], "Show what lies in the brokers' log directories"),
    ("replica-verification", &[], "Compare the replicas of topics all the time"),
    ("reassign-partitions", &[], "Move partitions between brokers and log directories"),
    ("takeover", &[], "Say what stands in the way of taking a Kafka node's place: takeover check"),
    ("tune", &[], "Say what the host should be like, or have it so: tune --check, --apply, --revert"),
];

/// Runs the tool that the arguments name and returns the process's exit code.
pub fn run(arguments: Vec<String>) -> u8 {
    let mut out = match Terminal::new() {
        Ok(out) => out,
        Err(fault) => {
            eprintln!("standard output can't be used: {fault}");
            return 1;
        }
    };
    let exit_code = run_with(arguments, &mut out);
    out.finish(exit_code)
}

fn run_with(arguments: Vec<String>, out: &mut Terminal) -> u8 {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let (called, rest) = match tool_of_link(&program) {
        Some(name) => return run_tool(name, &rest, out),
        None => match rest.split_first() {
            None => {
                out.error(&overview());
                return 1;
            }
            Some((first, rest)) => (first.clone(), rest.to_vec()),
        },
    };
    match called.as_str() {
        "--help" | "-h" | "help" => {
            out.line(&overview());
            0
        }
        "--version" | "-V" => {
            out.line(&tool::version_text());
            0
        }
        called => run_tool(called.strip_prefix("kafka-").unwrap_or(called), &rest, out),
    }
}

fn run_tool(called: &str, arguments: &[String], out: &mut Terminal) -> u8 {
    match find(called) {
        Some(name) => dispatch(name, arguments, out).unwrap_or_else(|refusal| refuse(&refusal, out)),
        None => {
            out.error(&format!("ringlog: there is no tool named '{called}'\n\n{}", overview()));
            1
        }
    }
}

/// `/some/where/kafka-topics.sh` is `topics`. A link like one of Kafka's scripts is meant as that, whether it is here or
/// not.
fn tool_of_link(program: &str) -> Option<&str> {
    let file = program.rsplit('/').next()?;
    match (file.strip_suffix(".sh"), file.strip_prefix("kafka-")) {
        (Some(script), _) => Some(script.strip_prefix("kafka-").unwrap_or(script)),
        (None, tool) => tool,
    }
}

fn find(name: &str) -> Option<&'static str> {
    TOOLS.iter().find(|(tool, others, _)| *tool == name || others.contains(&name)).map(|(tool, ..)| *tool)
}

fn overview() -> String {
    let mut text = "ringlog runs Kafka nodes and their tools. Usage: ringlog TOOL [OPTIONS], or a link named \
                    kafka-TOOL or kafka-TOOL.sh to it.\n\n"
        .to_owned();
    for (name, _, what) in TOOLS {
        text += &format!("  {name:<20} {what}\n");
    }
    text += "\nringlog TOOL --help lists a tool's options.";
    text
}

fn dispatch(name: &'static str, arguments: &[String], out: &mut Terminal) -> Result<u8, Refusal> {
    if !matches!(name, "server" | "dev" | "console-producer" | "console-consumer") {
        signals::exit_at_once().map_err(Refusal::error)?;
    }
    Ok(match name {
        "server" => server::run(&server::ServerArgs::read("ringlog server", arguments)?, out),
        "dev" => dev::run(&dev::DevArgs::read("ringlog dev", arguments)?, out),
        "storage" => storage::run(storage::StorageArgs::read("kafka-storage", arguments)?, out),
        "takeover" => takeover::run(&takeover::TakeoverArgs::read("ringlog takeover", arguments)?, out),
        "tune" => tune::run(&tune::TuneArgs::read("ringlog tune", arguments)?, out),
        "topics" => topics::run(&topics::TopicsArgs::read("kafka-topics", arguments)?, out),
        "metadata-quorum" => metadata_quorum::run(&metadata_quorum::MetadataQuorumArgs::read(arguments)?, out),
        "features" => features::run(&features::FeaturesArgs::read(arguments)?, out),
        "leader-election" => {
            leader_election::run(&leader_election::ElectionArgs::read("kafka-leader-election", arguments)?, out)
        }
        "log-dirs" => log_dirs::run(&log_dirs::LogDirsArgs::read("kafka-log-dirs", arguments)?, out),
        "replica-verification" => {
            let args = replica_verification::VerificationArgs::read("kafka-replica-verification", arguments)?;
            replica_verification::run(&args, out)
        }
        "reassign-partitions" => {
            let args = reassign_partitions::ReassignPartitionsArgs::read(arguments)?;
            reassign_partitions::run(&args, random_seed(), out)
        }
        "console-producer" => {
            let plan = console_producer::ProducerArgs::read("kafka-console-producer", arguments)?;
            let stop = Stop::on_signals().map_err(Refusal::error)?;
            console_producer::run(&plan, random_seed(), &stop, out)
        }
        "console-consumer" => {
            let seed = random_seed();
            let plan = console_consumer::ConsumerArgs::read("kafka-console-consumer", arguments, seed)?;
            let stop = Stop::on_signals().map_err(Refusal::error)?;
            console_consumer::run(&plan, &stop, out)
        }
        _ => unreachable!("every tool of the table is here"),
    })
}

fn refuse(refusal: &Refusal, out: &mut Terminal) -> u8 {
    out.write(refusal.stdout.as_bytes());
    out.flush();
    out.write_error(&refusal.stderr);
    refusal.exit_code
}

/// Entropy from the system, for ids and for what shall differ between runs.
fn random_seed() -> u64 {
    getrandom::u64().expect("the system gives random numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_called_by_kafkas_names() {
        assert_eq!(tool_of_link("/opt/kafka/bin/kafka-topics.sh"), Some("topics"));
        assert_eq!(tool_of_link("kafka-server-start"), Some("server-start"));
        assert_eq!(tool_of_link("bin/kafka-metadata-quorum.sh"), Some("metadata-quorum"));
        assert_eq!(tool_of_link("./ringlog"), None);
        assert_eq!(tool_of_link("kafka-configs.sh"), Some("configs"), "what it is called, though it isn't there");
        assert_eq!(tool_of_link("/usr/bin/connect-distributed.sh"), Some("connect-distributed"));
    }
}
