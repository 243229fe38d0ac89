//! `replica-verification` (`kafka-replica-verification`): compares what the replicas of topics hold, until it is ended.

mod args;
mod compare;
mod replicas;
mod start;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ringlog_client::Metadata;

pub use args::VerificationArgs;

use self::args::runtime;
use self::replicas::{Limits, Partition, Round, Watched};
use super::admin::Admin;
use super::client_config::ClientProperties;
use super::failure::Failure;
use super::output::Output;
use super::topic_filter::TopicFilter;
use super::{java_hash, java_time, tool};

/// The name in Kafka's log.
const LOGGER: &str = "org.apache.kafka.tools.ReplicaVerificationTool";
/// Before brokers that can't be reached are asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the tool until it can't go on, and returns its exit code. The texts are those that Kafka's tool prints.
pub fn run(args: &VerificationArgs, out: &mut dyn Output) -> u8 {
    out.error(&format!("WARN This tool is deprecated and may be removed in a future major release. ({LOGGER})"));
    let brokers = args.broker_list.clone().unwrap_or_default();
    if let Err(text) = args::check_broker_list(&brokers) {
        out.error(text);
        out.write_error(&tool::help::<VerificationArgs>("kafka-replica-verification"));
        return 1;
    }
    match verify(args, brokers, out) {
        Ok(()) => 1,
        Err(failure) => failure.print(out),
    }
}

/// Ends with exit code 1, however it ends.
fn verify(args: &VerificationArgs, brokers: String, out: &mut dyn Output) -> Result<(), Failure> {
    let filter = TopicFilter::new(args.topics_include());
    let filter = filter.map_err(|_| runtime(format!("{} is an invalid regex", args.topics_include())))?;
    let limits = Limits { fetch_size: args.fetch_size()?, max_wait_ms: args.max_wait_ms()? };
    let time = args.time()?;
    let admin = Admin::new(Some(brokers), None, &ClientProperties::default());
    let mut admin = admin.map_err(|fault| Failure::of_admin(&fault))?;
    let metadata = admin.call("listTopics", out, |client| client.refresh_metadata(None, false).cloned());
    let metadata = metadata.map_err(|fault| Failure::of_call(&fault))?;
    let mut watched = start::partitions(&metadata, &filter);
    if watched.is_empty() {
        out.error(&format!(
            "ERROR No topics found. [topics-include] if specified, is either filtering out all topics or there is no \
             topic. ({LOGGER})"
        ));
        return Ok(());
    }
    for (partition, state) in &mut watched {
        let offset = admin.call("listOffsets", out, |client| start::offset(client, partition, time));
        state.offset = offset.map_err(|fault| Failure::new(&fault))?;
        if state.offset < 0 {
            return Err(runtime(format!("{}-{} has no record of that time or later", partition.0, partition.1)));
        }
    }
    let interval = Duration::from_millis(u64::try_from(args.report_interval_ms()?).unwrap_or_default());
    check_brokers(&watched, &metadata)?;
    let mut verification = Verification { watched, interval, reported: now() };
    say("verification process is started", out);
    loop {
        let round = admin.call("fetch", out, |client| Ok(replicas::fetch(client, &verification.watched, limits)));
        let (round, is_answered) = round.map_err(|fault| Failure::new(&fault))?;
        if !verification.take(&round, out) || out.is_broken() {
            return Ok(());
        }
        if !is_answered {
            pause();
        }
    }
}

/// A replica whose broker isn't known can't be asked for.
fn check_brokers(watched: &BTreeMap<Partition, Watched>, metadata: &Metadata) -> Result<(), Failure> {
    for ((topic, partition), state) in watched {
        if let Some(broker) = state.replicas.iter().find(|id| !metadata.brokers.contains_key(id)) {
            let text = format!("broker {broker}, which has a replica of {topic}-{partition}, is not there");
            return Err(runtime(text));
        }
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "nobody is there to wait for")]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[allow(clippy::disallowed_methods, reason = "reports come by the clock")]
fn now() -> Instant {
    Instant::now()
}

/// A line of the report.
#[allow(clippy::disallowed_methods, reason = "each line has the time")]
fn say(text: &str, out: &mut dyn Output) {
    out.line(&format!("{}: {text}", java_time::date_time(SystemTime::now())));
    out.flush();
}

/// The comparison as it goes on.
struct Verification {
    watched: BTreeMap<Partition, Watched>,
    interval: Duration,
    reported: Instant,
}

impl Verification {
    /// Compares what the replicas hold, goes on from where they are the same, and reports when it is time. False if there
    /// is no going on.
    fn take(&mut self, round: &Round, out: &mut dyn Output) -> bool {
        let mut slowest: Option<(i64, &Partition, i64)> = None;
        let ordered = java_hash::iteration_order(round.iter().collect(), |((topic, partition), _)| {
            java_hash::of_partition(topic, *partition)
        });
        let count = ordered.len();
        for (partition, replicas) in ordered {
            let compared = compare::compare(partition, replicas);
            compared.differences.iter().for_each(|difference| say(difference, out));
            if compared.is_out_of_step {
                return false;
            }
            let Some(state) = self.watched.get_mut(partition) else { continue };
            state.offset = compared.next_offset.unwrap_or(state.offset);
            let lag = compared.high_watermark - state.offset;
            if lag >= 0 && slowest.is_none_or(|(most, ..)| lag > most) {
                slowest = Some((lag, partition, state.offset));
            }
        }
        if self.reported.elapsed() > self.interval {
            let (lag, name, offset) = match slowest {
                Some((lag, (topic, partition), offset)) => (lag, format!("{topic}-{partition}"), offset),
                // No broker has answered.
                None => (-1, "null".to_owned(), -1),
            };
            say(&format!("max lag is {lag} for partition {name} at offset {offset} among {count} partitions"), out);
            self.reported = now();
        }
        true
    }
}
