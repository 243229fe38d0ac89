//! `reassign-partitions` (`kafka-reassign-partitions`): moves partitions between brokers and log directories (KIP-455,
//! KIP-113, KIP-73).

mod args;
mod cancel;
mod cluster;
mod execute;
mod fault;
mod generate;
mod input;
mod java_hash;
mod json;
mod json_reader;
mod json_scalars;
mod log_dirs;
mod placement;
mod plan;
mod throttle;
mod verify;

#[cfg(test)]
mod tests;

use std::time::Duration;

use ringlog_types::Random;

pub use args::ReassignPartitionsArgs;

use self::cluster::Cluster;
use self::execute::Execution;
use self::fault::Fault;
use self::input::Reassignment;
use super::admin::Admin;
use super::client_config::ClientProperties;
use super::exception::Exception;
use super::output::Output;

/// How long moves between log directories may take to begin, in milliseconds.
const DEFAULT_TIMEOUT_MS: i64 = 10_000;
/// No throttle.
const UNLIMITED: i64 = -1;

/// Runs the tool and returns its exit code. The texts are those that Kafka's tool prints. `seed` is chance for proposals.
pub fn run(args: &ReassignPartitionsArgs, seed: u64, out: &mut dyn Output) -> u8 {
    match execute(args, seed, out) {
        Ok(()) => 0,
        Err(fault) => {
            out.write(fault.to_string().as_bytes());
            1
        }
    }
}

fn execute(args: &ReassignPartitionsArgs, seed: u64, out: &mut dyn Output) -> Result<(), Fault> {
    let properties = ClientProperties::from_optional_file(args.command_config.as_ref()).map_err(Fault::from_thrown)?;
    if [&args.bootstrap_server, &args.bootstrap_controller].into_iter().flatten().any(Option::is_none) {
        return Err(Fault::from_thrown(Exception::new("java.lang.NullPointerException", "")));
    }
    let servers = args.bootstrap_server.clone().flatten();
    let controllers = args.bootstrap_controller.clone().flatten();
    let mut admin = Admin::new(servers, controllers, &properties)?;
    let mut cluster = Cluster { admin: &mut admin, out };
    let cluster = &mut cluster;
    let file = |path: &Option<String>| input::read(path.as_deref().unwrap_or_default());
    let timeout = || -> Result<Duration, Fault> {
        let millis = number(args.timeout.as_ref(), "timeout", DEFAULT_TIMEOUT_MS)?;
        Ok(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    };
    if args.list {
        return list(cluster);
    }
    if args.generate {
        let text = file(&args.topics_to_move_json_file)?;
        let brokers = input::parse_brokers(args.broker_list.as_deref().unwrap_or_default())?;
        let topics = input::parse_topics(&text)?;
        let random = &mut Random::from_seed(seed);
        return generate::run(cluster, &topics, &brokers, !args.disable_rack_aware, random);
    }
    let text = file(&args.reassignment_json_file)?;
    if args.verify {
        return verify::run(cluster, &Reassignment::parse(&text)?, args.preserve_throttles);
    }
    if args.cancel {
        let timeout = timeout()?;
        return cancel::run(cluster, &Reassignment::parse(&text)?, timeout, args.preserve_throttles);
    }
    let how = Execution {
        is_additional: args.additional,
        rate: number(args.throttle.as_ref(), "throttle", UNLIMITED)?,
        log_dirs_rate: number(
            args.replica_alter_log_dirs_throttle.as_ref(),
            "replica-alter-log-dirs-throttle",
            UNLIMITED,
        )?,
        timeout: timeout()?,
        may_change_factor: !args.disallow_replication_factor_change,
    };
    execute::run(cluster, &Reassignment::parse(&text)?, &how)
}

/// `--list`: what is under way.
fn list(cluster: &mut Cluster<'_>) -> Result<(), Fault> {
    let ongoing = cluster.ongoing(None)?;
    if ongoing.is_empty() {
        cluster.out.line("No partition reassignments found.");
        return Ok(());
    }
    cluster.out.line("Current partition reassignments:");
    for (partition, reassignment) in ongoing {
        let mut line = format!("{partition}: replicas: {}.", plan::join(&reassignment.replicas));
        for (what, replicas) in
            [("adding", &reassignment.adding_replicas), ("removing", &reassignment.removing_replicas)]
        {
            if !replicas.is_empty() {
                line += &format!(" {what}: {}.", plan::join(replicas));
            }
        }
        cluster.out.line(&line);
    }
    Ok(())
}

fn number(text: Option<&String>, option: &str, default: i64) -> Result<i64, Fault> {
    let Some(text) = text else { return Ok(default) };
    text.parse().map_err(|_| {
        let format = Exception::new("java.lang.NumberFormatException", format!("For input string: \"{text}\""));
        let reflection = Exception::new("joptsimple.internal.ReflectionException", format.to_string());
        let message = format!("Cannot parse argument '{text}' of option {option}");
        let outer = Exception::new("joptsimple.OptionArgumentConversionException", message);
        Fault::Thrown(vec![outer, reflection, format])
    })
}
