//! `console-consumer` (`kafka-console-consumer`): prints records to standard output.

mod args;
mod formatter;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ringlog_client::{Client, ClientError, ConsumedRecord, Consumer, Subscription};
use ringlog_types::is_internal_topic;

pub use args::{ConsumerArgs, ConsumerPlan, Source};

use super::output::Output;
use super::topic_filter::TopicFilter;

/// How a run ended.
enum End {
    /// As it was told to.
    Done,
    /// Nothing came for `--timeout-ms`.
    Timeout,
    /// It failed.
    Fault(String),
}

/// Runs the tool until it is told to end and returns its exit code. `stop` is set by a signal.
pub fn run(plan: &ConsumerPlan, stop: &Arc<AtomicBool>, out: &mut dyn Output) -> u8 {
    let mut count = 0;
    let end = match start(plan) {
        Ok((mut client, mut consumer)) => {
            let end = consume(plan, stop, &mut client, &mut consumer, &mut count, out);
            out.flush();
            if let Err(fault) = consumer.close(&mut client) {
                out.error(&format!("WARN the group could not be left in order: {fault} (console-consumer)"));
            }
            end
        }
        Err(text) => End::Fault(text),
    };
    let exit_code = match end {
        End::Done => 0,
        End::Timeout => {
            out.error("ERROR Error processing message, terminating consumer process:  (console-consumer)");
            out.error("org.apache.kafka.common.errors.TimeoutException");
            0
        }
        End::Fault(text) => {
            out.error(&format!(
                "ERROR Error processing message, terminating consumer process: {text} (console-consumer)"
            ));
            1
        }
    };
    out.error(&format!("Processed a total of {count} messages"));
    if plan.has_systest_events {
        out.line("shutdown_complete");
    }
    exit_code
}

fn start(plan: &ConsumerPlan) -> Result<(Client, Consumer), String> {
    let subscription = match plan.source.clone() {
        Source::Topic(topic) => Subscription::Topics(vec![topic]),
        Source::Include(pattern) => {
            let filter = TopicFilter::new(&pattern)?;
            Subscription::Matching(Box::new(move |name| filter.is_match(name) && !is_internal_topic(name)))
        }
        Source::Partition(topic, partition, start) => Subscription::Partitions(vec![(topic, partition, start)]),
    };
    let mut options = plan.consumer.clone();
    if matches!(plan.source, Source::Partition(..)) {
        // A partition that was named is read by oneself, from where the options say.
        options.group_id = None;
    }
    if let Some(timeout) = plan.timeout {
        options.fetch_max_wait = options.fetch_max_wait.min(timeout);
    }
    let client = Client::connect(&plan.bootstrap, plan.client.clone()).map_err(|fault| fault.to_string())?;
    Ok((client, Consumer::new(subscription, options)))
}

fn consume(
    plan: &ConsumerPlan,
    stop: &AtomicBool,
    client: &mut Client,
    consumer: &mut Consumer,
    count: &mut u64,
    out: &mut dyn Output,
) -> End {
    let mut last_message = now();
    if plan.max_messages == Some(0) {
        return End::Done;
    }
    while !stop.load(Ordering::Relaxed) && !out.is_closed() {
        let records = match consumer.poll(client) {
            Ok(records) => records,
            Err(ClientError::UnknownNode(_)) => Vec::new(),
            Err(fault) => return End::Fault(fault.to_string()),
        };
        let had_records = !records.is_empty();
        let mut records = records.into_iter();
        for record in records.by_ref() {
            match plan.formatter.format(&record) {
                Ok(text) => out.write(&text),
                Err(text) if plan.skips_errors => out.error(&format!("ERROR {text} (console-consumer)")),
                Err(text) => return End::Fault(text),
            }
            *count += 1;
            if plan.max_messages == Some(*count) {
                give_back(consumer, records);
                return End::Done;
            }
        }
        if had_records {
            last_message = now();
        }
        out.flush();
        if plan.timeout.is_some_and(|timeout| last_message.elapsed() >= timeout) {
            return End::Timeout;
        }
    }
    End::Done
}

/// Puts the positions back to the first records that weren't printed, so that they aren't committed.
fn give_back(consumer: &mut Consumer, records: impl Iterator<Item = ConsumedRecord>) {
    let mut seen = std::collections::BTreeSet::new();
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
