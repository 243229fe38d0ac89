//! `console-consumer` (`kafka-console-consumer`): prints records to standard output.
//!
//! What was not written isn't committed: a group goes on with the first record that didn't arrive whole where standard
//! output leads.

mod args;
mod formatter;
mod state;

use std::collections::BTreeSet;
use std::time::Instant;

use ringlog_client::{Client, ClientError, ClientOptions, ConsumedRecord, Consumer, Subscription};
use ringlog_types::is_internal_topic;

pub use args::{ConsumerArgs, ConsumerPlan, LOGGER, Source};

use super::exception::Exception;
use super::output::Output;
use super::signals::{CLOSE_LIMIT, Stop};
use super::topic_filter::TopicFilter;

/// How a run ended.
enum End {
    /// As it was told to.
    Done,
    /// A signal came.
    Stopped,
    /// Standard output takes no more.
    Unwritable,
    /// Nothing came for `--timeout-ms`, or the cluster failed: Kafka's tool ends with exit code 0.
    Processing(Exception),
    /// The tool failed.
    Fault(Exception),
}

/// Runs the tool until it is told to end and returns its exit code.
pub fn run(plan: &ConsumerPlan, stop: &Stop, out: &mut dyn Output) -> u8 {
    out.write(plan.notices.as_bytes());
    out.flush();
    let mut count = 0;
    let end = match start(plan, stop) {
        Ok((mut client, mut consumer)) => {
            let end = consume(plan, &mut client, &mut consumer, &mut count, out);
            client.close_within(CLOSE_LIMIT);
            if let Err(fault) = consumer.close(&mut client) {
                out.error(&format!("WARN the group could not be left in order: {fault} ({LOGGER})"));
            }
            end
        }
        Err(fault) => End::Fault(fault),
    };
    let processed = format!("Processed a total of {count} messages");
    let unwritable = "Unable to write to standard out, closing consumer.";
    let exit_code = match end {
        End::Done => 0,
        End::Stopped => stop.exit_code().unwrap_or(0),
        End::Unwritable => {
            out.error(unwritable);
            1
        }
        End::Processing(fault) => {
            out.error(&format!("ERROR Error processing message, terminating consumer process:  ({LOGGER})\n{fault}"));
            0
        }
        End::Fault(fault) => {
            out.error(&processed);
            out.error(&format!("ERROR Unknown error when running consumer:  ({LOGGER})\n{fault}"));
            return 1;
        }
    };
    out.error(&processed);
    if plan.has_systest_events {
        out.line("shutdown_complete");
    }
    exit_code
}

fn start(plan: &ConsumerPlan, stop: &Stop) -> Result<(Client, Consumer), Exception> {
    let subscription = match plan.source.clone() {
        Source::Topic(topic) => Subscription::Topics(vec![topic]),
        Source::Include(pattern) => {
            let invalid = |text| Exception::new("java.util.regex.PatternSyntaxException", text);
            let filter = TopicFilter::new(&pattern).map_err(invalid)?;
            Subscription::Matching(Box::new(move |name| filter.is_match(name) && !is_internal_topic(name)))
        }
        Source::Partition(topic, partition, start) => Subscription::Partitions(vec![(topic, partition, start)]),
    };
    let mut options = plan.consumer.clone();
    if matches!(plan.source, Source::Partition(..)) {
        // A partition that was named is read by oneself, from where the options say.
        options.group_id = None;
    }
    let client = ClientOptions { stop: Some(stop.flag()), ..plan.client.clone() };
    let client = Client::new(&plan.bootstrap, client).map_err(|fault| Exception::of_fault(&fault))?;
    Ok((client, Consumer::new(subscription, options)))
}

fn consume(
    plan: &ConsumerPlan,
    client: &mut Client,
    consumer: &mut Consumer,
    count: &mut u64,
    out: &mut dyn Output,
) -> End {
    if plan.max_messages == Some(0) {
        return End::Done;
    }
    let mut last_message = now();
    loop {
        client.set_deadline(plan.timeout.map(|timeout| last_message + timeout));
        let records = match consumer.poll(client) {
            Ok(records) => records,
            Err(ClientError::Stopped) => return End::Stopped,
            Err(fault) => return End::Processing(Exception::of_fault(&fault)),
        };
        if records.is_empty() {
            continue;
        }
        let (printed, end) = print(plan, &records, *count, out);
        *count += printed as u64;
        give_back(consumer, &records[printed..]);
        if let Some(end) = end {
            return end;
        }
        last_message = now();
    }
}

/// Prints records, of which `before` were printed before, and returns how many have arrived, and whether that was all.
fn print(plan: &ConsumerPlan, records: &[ConsumedRecord], before: u64, out: &mut dyn Output) -> (usize, Option<End>) {
    let mut ends = Vec::new();
    let mut end = None;
    for record in records {
        match plan.formatter.format(record) {
            Ok(text) => out.write(&text),
            Err(fault) if plan.skips_errors => {
                out.error(&format!("ERROR Error processing message, skipping this message:  ({LOGGER})\n{fault}"));
            }
            Err(fault) => {
                end = Some(End::Fault(fault));
                break;
            }
        }
        ends.push(out.progress().0);
        if plan.max_messages == Some(before + ends.len() as u64) {
            end = Some(End::Done);
        }
        if end.is_some() || out.is_broken() {
            break;
        }
    }
    out.flush();
    if out.take_fault().is_some() {
        let arrived = out.progress().1;
        return (ends.iter().take_while(|end| **end <= arrived).count(), Some(End::Unwritable));
    }
    (ends.len(), end)
}

/// Puts the positions back to the first records that weren't printed, so that they aren't committed.
fn give_back(consumer: &mut Consumer, records: &[ConsumedRecord]) {
    let mut seen = BTreeSet::new();
    for record in records {
        if seen.insert((record.topic.clone(), record.partition)) {
            consumer.seek(&record.topic, record.partition, record.offset);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "--timeout-ms is told by the clock")]
fn now() -> Instant {
    Instant::now()
}
