//! `console-producer` (`kafka-console-producer`): lines of standard input become records.

mod args;
mod line_reader;
mod lines;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ringlog_client::{Client, ClientError, ClientOptions, Delivery, NewRecord, Producer, RecordSizes};

pub use args::{ProducerArgs, ProducerPlan};

use super::exception::Exception;
use super::output::Output;
use super::signals::Stop;

/// How soon a signal is seen while no line comes.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// How a run ended before the input did.
enum End {
    /// A signal came.
    Stopped,
    /// It failed.
    Fault(Exception),
}

/// Runs the tool until the input ends, or a signal comes, and returns its exit code.
///
/// As in Kafka's producer each record waits `max.block.ms` for the topic's metadata, connecting included.
pub fn run(plan: &ProducerPlan, seed: u64, stop: &Stop, out: &mut dyn Output) -> u8 {
    out.write(plan.notices.as_bytes());
    out.flush();
    let options = ClientOptions { stop: Some(stop.flag()), ..plan.client.clone() };
    let mut client = match Client::new(&plan.bootstrap, options) {
        Ok(client) => client,
        Err(fault) => {
            out.error(&Exception::of_fault(&fault).to_string());
            return 1;
        }
    };
    let mut producer = Producer::new(&plan.topic, plan.producer.clone(), seed);
    let outcome = produce(plan, &mut client, &mut producer, stop, &lines::read(), out);
    // What was taken before a bad line, or a signal, isn't lost.
    let deliveries = producer.flush(&mut client);
    report(plan, deliveries, out);
    match outcome {
        Ok(()) => stop.exit_code().unwrap_or(0),
        Err(End::Stopped) => stop.exit_code().unwrap_or(1),
        Err(End::Fault(fault)) => {
            out.error(&fault.to_string());
            1
        }
    }
}

fn produce(
    plan: &ProducerPlan,
    client: &mut Client,
    producer: &mut Producer,
    stop: &Stop,
    lines: &Receiver<std::io::Result<Vec<u8>>>,
    out: &mut dyn Output,
) -> Result<(), End> {
    let kafka_exception = |text: String| End::Fault(Exception::new("org.apache.kafka.common.KafkaException", text));
    let mut number = 0;
    let mut flush_at: Option<Instant> = None;
    while !stop.is_set() {
        let until_flush = flush_at.map_or(SIGNAL_CHECK, |at| at.saturating_duration_since(now()));
        match lines.recv_timeout(until_flush.min(SIGNAL_CHECK)) {
            Ok(line) => {
                number += 1;
                let line = line.map_err(|fault| kafka_exception(format!("standard input can't be read: {fault}")))?;
                let record = plan.reader.parse(&line, number).map_err(kafka_exception)?;
                send(plan, client, producer, &record, out)?;
                flush_at = (producer.pending() > 0).then(|| flush_at.unwrap_or_else(|| now() + plan.linger));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if flush_at.is_some_and(|at| at <= now()) {
            let deliveries = producer.flush(client);
            report(plan, deliveries, out);
            flush_at = None;
        }
    }
    Err(End::Stopped)
}

fn send(
    plan: &ProducerPlan,
    client: &mut Client,
    producer: &mut Producer,
    record: &NewRecord,
    out: &mut dyn Output,
) -> Result<(), End> {
    let exception = |fault: ClientError| match fault {
        ClientError::Stopped => End::Stopped,
        fault => End::Fault(not_sent(plan, &fault)),
    };
    let outcome = producer.append(client, record).map_err(exception);
    if plan.is_sync {
        let in_future = |end: End| match end {
            End::Fault(cause) => {
                End::Fault(Exception::new("java.util.concurrent.ExecutionException", cause.to_string()))
            }
            End::Stopped => End::Stopped,
        };
        outcome.map_err(in_future)?;
        let deliveries = producer.flush(client);
        let failed = deliveries.into_iter().find_map(|delivery| delivery.outcome.err());
        return failed.map_or(Ok(()), |fault| Err(in_future(exception(fault))));
    }
    match outcome {
        Ok(delivery) => report(plan, delivery, out),
        // As in Kafka's tool a message that can't be sent doesn't end it.
        Err(End::Fault(fault)) => {
            let sizes =
                RecordSizes { key: record.key.as_ref().map(Vec::len), value: record.value.as_ref().map(Vec::len) };
            report_record(plan, sizes, &fault, out);
        }
        Err(End::Stopped) => return Err(End::Stopped),
    }
    Ok(())
}

/// Why a record wasn't sent, as Kafka's producer has it.
fn not_sent(plan: &ProducerPlan, fault: &ClientError) -> Exception {
    match fault {
        ClientError::Broker { code, .. } if *code == ringlog_types::ErrorCode::InvalidTopicException.code() => {
            Exception::new("InvalidTopicException", format!("Invalid topics: [{}]", plan.topic))
        }
        ClientError::Broker { message: Some(_), .. } => Exception::of_fault(fault),
        fault if fault.is_retriable() || matches!(fault, ClientError::OutOfTime) => {
            let ms = plan.client.retry_timeout.as_millis();
            Exception::timeout(format!("Topic {} not present in metadata after {ms} ms.", plan.topic))
        }
        fault => Exception::of_fault(fault),
    }
}

fn report(plan: &ProducerPlan, deliveries: impl IntoIterator<Item = Delivery>, out: &mut dyn Output) {
    for delivery in deliveries {
        if let Err(fault) = delivery.outcome {
            let exception = Exception::of_fault(&fault);
            delivery.records.iter().for_each(|sizes| report_record(plan, *sizes, &exception, out));
        }
    }
}

fn report_record(plan: &ProducerPlan, sizes: RecordSizes, fault: &Exception, out: &mut dyn Output) {
    let size = |size: Option<usize>| size.map_or_else(|| "null".to_owned(), |size| format!("{size} bytes"));
    out.error(&format!(
        "ERROR Error when sending message to topic {} with key: {}, value: {} with error: \
         (org.apache.kafka.clients.producer.internals.ErrorLoggingCallback)\n{fault}",
        plan.topic,
        size(sizes.key),
        size(sizes.value)
    ));
}

#[allow(clippy::disallowed_methods, reason = "an interactive tool waits by the clock")]
fn now() -> Instant {
    Instant::now()
}
