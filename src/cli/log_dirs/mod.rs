//! `log-dirs` (`kafka-log-dirs`): shows what lies in the brokers' log directories (KIP-113).

mod args;
mod json;

use std::collections::BTreeSet;

use ringlog_client::Target;
use ringlog_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

pub use args::LogDirsArgs;

use super::admin::Admin;
use super::client_config::ClientProperties;
use super::exception::Exception;
use super::failure::Failure;
use super::java_hash;
use super::output::Output;

/// Why the tool ends with nothing shown.
enum End {
    /// By an exception.
    Failed(Failure),
    /// Brokers that the user named aren't there.
    NoSuchBrokers(String),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

/// Runs the tool and returns its exit code. The texts are those that Kafka's tool prints.
pub fn run(args: &LogDirsArgs, out: &mut dyn Output) -> u8 {
    match describe(args, out) {
        Ok(()) => 0,
        Err(End::Failed(failure)) => failure.print(out),
        Err(End::NoSuchBrokers(text)) => {
            out.error(&text);
            1
        }
    }
}

fn describe(args: &LogDirsArgs, out: &mut dyn Output) -> Result<(), End> {
    let properties = ClientProperties::from_optional_file(args.command_config.as_ref());
    let properties = properties.map_err(|fault| Failure::new(&fault))?;
    let admin = Admin::new(args.bootstrap_server.clone(), None, &properties);
    let mut admin = admin.map_err(|fault| Failure::of_admin(&fault))?;
    let existing = admin.metadata("listNodes", out).map_err(|fault| Failure::of_call(&fault))?.brokers;
    let brokers = selected(args, &existing.into_keys().collect())?;
    out.line("Querying brokers for log directories information");
    out.flush();
    let mut answers = Vec::new();
    for broker in &brokers {
        answers.push((*broker, ask(&mut admin, *broker, out).map_err(|fault| Failure::of_call(&fault))?));
    }
    out.line(&format!("Received log directory information from brokers {}", join(&brokers)));
    out.line(&json::document(&answers, &args.topics()));
    Ok(())
}

/// The brokers that the user named, or all, in the order in which Kafka's tool has them.
fn selected(args: &LogDirsArgs, existing: &BTreeSet<i32>) -> Result<Vec<i32>, End> {
    let not_a_number = |text: &str| {
        let exception = Exception::new("java.lang.NumberFormatException", format!("For input string: \"{text}\""));
        End::Failed(Failure::new(&exception))
    };
    let named = args.brokers().into_iter().map(|text| text.parse().map_err(|_| not_a_number(text)));
    let named = named.collect::<Result<BTreeSet<i32>, End>>()?;
    let ordered = |brokers: BTreeSet<i32>| java_hash::iteration_order(brokers.into_iter().collect(), |id: &i32| *id);
    let missing: BTreeSet<i32> = named.difference(existing).copied().collect();
    if !missing.is_empty() {
        return Err(End::NoSuchBrokers(format!(
            "ERROR: The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            join(&ordered(missing)),
            join(&ordered(existing.clone()))
        )));
    }
    Ok(ordered(if named.is_empty() { existing.clone() } else { named }))
}

fn ask(admin: &mut Admin, broker: i32, out: &mut dyn Output) -> Result<DescribeLogDirsResponse, Exception> {
    // All topics: what isn't asked for is left out here, as in Kafka's tool.
    let request = DescribeLogDirsRequest { topics: None };
    let response = admin.ask("describeLogDirs", Target::Node(broker), &request, |_| false, out)?;
    if response.results.is_empty() {
        Exception::check(response.error_code, None)?;
    }
    Ok(response)
}

fn join(brokers: &[i32]) -> String {
    brokers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
