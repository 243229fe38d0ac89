//! `leader-election` (`kafka-leader-election`): has leaders of partitions elected (KIP-183, KIP-460).

mod args;
mod partitions;

use std::collections::BTreeMap;

use ringlog_client::Target;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::elect_leaders_request::TopicPartitions;
use ringlog_protocol::messages::elect_leaders_response::PartitionResult;
use ringlog_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use ringlog_types::ErrorCode;

pub use args::ElectionArgs;

use self::args::ElectionType;
use super::admin::Admin;
use super::client_config::ClientProperties;
use super::exception::Exception;
use super::failure::Failure;
use super::java_hash;
use super::output::Output;

/// How long the tool waits unless its properties say otherwise, in milliseconds.
const API_TIMEOUT_MS: &str = "30000";
/// How long for a single answer.
const REQUEST_TIMEOUT_MS: &str = "15000";

/// A partition, and what became of its election.
type Outcome = ((String, i32), Result<(), Exception>);

/// Runs the tool and returns its exit code. The texts are those that Kafka's tool prints.
pub fn run(args: &ElectionArgs, out: &mut dyn Output) -> u8 {
    if args.is_old_config {
        out.line(
            "Option --admin.config has been deprecated and will be removed in a future version. Use --command-config \
             instead.",
        );
    }
    match elect(args, out) {
        Ok(()) => 0,
        Err(failure) => failure.print(out),
    }
}

fn elect(args: &ElectionArgs, out: &mut dyn Output) -> Result<(), Failure> {
    let properties = ClientProperties::from_optional_file(args.command_config.as_ref());
    let mut properties = properties.map_err(|fault| Failure::new(&fault))?;
    properties.set_default("default.api.timeout.ms", API_TIMEOUT_MS);
    properties.set_default("request.timeout.ms", REQUEST_TIMEOUT_MS);
    let admin = Admin::new(Some(args.servers.clone()), None, &properties);
    let mut admin = admin.map_err(|fault| Failure::of_admin(&fault))?;
    let outcomes = ask(args, &mut admin, out).map_err(|fault| without_answer(&fault, out))?;
    report(args.election_type, outcomes, out)
}

/// Partitions by topic, in Kafka's order of both.
fn request(args: &ElectionArgs, timeout_ms: i32) -> ElectLeadersRequest {
    let by_topic = args.partitions.as_ref().map(|partitions| {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            by_topic.entry(topic).or_default().push(*partition);
        }
        let named = by_topic
            .into_iter()
            .map(|(topic, partitions)| TopicPartitions { topic: StrBytes::copy_from(topic), partitions });
        named.collect()
    });
    ElectLeadersRequest { election_type: args.election_type.code(), topic_partitions: by_topic, timeout_ms }
}

fn ask(args: &ElectionArgs, admin: &mut Admin, out: &mut dyn Output) -> Result<Vec<Outcome>, Exception> {
    let request = request(args, admin.api_timeout_ms());
    let is_other = |response: &ElectLeadersResponse| response.error_code == ErrorCode::NotController.code();
    let response = admin.ask("electLeaders", Target::Controller, &request, is_other, out)?;
    Exception::check(response.error_code, None)?;
    let outcome = |topic: &StrBytes, result: PartitionResult| {
        let checked = Exception::check(result.error_code, result.error_message.as_ref());
        ((String::from(topic.clone()), result.partition_id), checked)
    };
    let topics = response.replica_election_results.into_iter();
    Ok(topics.flat_map(|it| it.partition_result.into_iter().map(move |result| outcome(&it.topic, result))).collect())
}

fn without_answer(fault: &Exception, out: &mut dyn Output) -> Failure {
    let text = match fault.class.rsplit('.').next() {
        Some("TimeoutException") => "Timeout waiting for election results",
        Some("ClusterAuthorizationException") => "Not authorized to perform leader election",
        _ => return Failure::of_call(fault),
    };
    out.line(text);
    failed(text).caused_by(fault)
}

fn failed(text: &str) -> Failure {
    Failure::new(&Exception::new("org.apache.kafka.tools.AdminCommandFailedException", text))
}

/// Says what became of the elections, in the order in which Kafka's tool does.
fn report(election_type: ElectionType, outcomes: Vec<Outcome>, out: &mut dyn Output) -> Result<(), Failure> {
    let hash = |outcome: &Outcome| java_hash::of_partition(&outcome.0.0, outcome.0.1);
    let election = election_type.name();
    let (mut done, mut needless, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for outcome in java_hash::iteration_order(outcomes, hash) {
        match &outcome.1 {
            Ok(()) => done.push(outcome),
            Err(fault) if fault.class.ends_with(".ElectionNotNeededException") => needless.push(outcome),
            Err(_) => failures.push(outcome),
        }
    }
    let names = |outcomes: Vec<Outcome>| {
        let ordered = java_hash::iteration_order(outcomes, hash).into_iter();
        ordered.map(|((topic, partition), _)| format!("{topic}-{partition}")).collect::<Vec<_>>().join(", ")
    };
    if !done.is_empty() {
        out.line(&format!("Successfully completed leader election ({election}) for partitions {}", names(done)));
    }
    if !needless.is_empty() {
        out.line(&format!("Valid replica already elected for partitions {}", names(needless)));
    }
    if failures.is_empty() {
        return Ok(());
    }
    let mut failure = failed(&format!("{} replica(s) could not be elected", failures.len()));
    for ((topic, partition), outcome) in java_hash::iteration_order(failures, hash) {
        if let Err(fault) = outcome {
            out.line(&format!(
                "Error completing leader election ({election}) for partition: {topic}-{partition}: {fault}"
            ));
            failure = failure.suppressing(&fault);
        }
    }
    Err(failure)
}
