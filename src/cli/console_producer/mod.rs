//! `console-producer` (`kafka-console-producer`): lines of standard input become records.

mod args;
mod line_reader;

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Instant;

use ringlog_client::{Client, Delivery, NewRecord, Producer};

pub use args::{ProducerArgs, ProducerPlan};

use super::output::Output;

/// Lines that are read ahead.
const MAX_LINES_AHEAD: usize = 1024;
/// Bytes of a line at most: far more than any broker takes.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// Runs the tool until the input ends and returns its exit code.
pub fn run(plan: ProducerPlan, seed: u64, out: &mut dyn Output) -> u8 {
    let mut client = match Client::connect(&plan.bootstrap, plan.client.clone()) {
        Ok(client) => client,
        Err(fault) => {
            out.error(&format!("ERROR {fault} (console-producer)"));
            return 1;
        }
    };
    let mut producer = Producer::new(&plan.topic, plan.producer.clone(), seed);
    let lines = read_lines();
    let outcome = produce(&plan, &mut client, &mut producer, &lines, out);
    // What was read before a bad line isn't lost.
    let deliveries = producer.flush(&mut client);
    report(&plan, deliveries, out);
    match outcome {
        Ok(()) => 0,
        Err(text) => {
            out.error(&text);
            1
        }
    }
}

fn produce(
    plan: &ProducerPlan,
    client: &mut Client,
    producer: &mut Producer,
    lines: &Receiver<std::io::Result<Vec<u8>>>,
    out: &mut dyn Output,
) -> Result<(), String> {
    let mut number = 0;
    let mut flush_at: Option<Instant> = None;
    loop {
        let line = match flush_at {
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => lines.recv_timeout(at.saturating_duration_since(now())),
        };
        match line {
            Ok(line) => {
                number += 1;
                let line = line.map_err(|fault| format!("standard input can't be read: {fault}"))?;
                let record = plan.reader.parse(&line, number)?;
                send(plan, client, producer, &record, out)?;
                flush_at = (producer.pending() > 0).then(|| flush_at.unwrap_or_else(|| now() + plan.linger));
            }
            Err(RecvTimeoutError::Timeout) => {
                let deliveries = producer.flush(client);
                report(plan, deliveries, out);
                flush_at = None;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn send(
    plan: &ProducerPlan,
    client: &mut Client,
    producer: &mut Producer,
    record: &NewRecord,
    out: &mut dyn Output,
) -> Result<(), String> {
    let outcome = producer.append(client, record);
    if plan.is_sync {
        outcome.map_err(|fault| fault.to_string())?;
        let deliveries = producer.flush(client);
        return deliveries.into_iter().try_for_each(|it| it.outcome.map(drop).map_err(|fault| fault.to_string()));
    }
    match outcome {
        Ok(delivery) => report(plan, delivery, out),
        // As in Kafka's tool a message that can't be sent doesn't end it.
        Err(fault) => {
            out.error(&format!("ERROR Error when sending message to topic {} with error: {fault}", plan.topic));
        }
    }
    Ok(())
}

fn report(plan: &ProducerPlan, deliveries: impl IntoIterator<Item = Delivery>, out: &mut dyn Output) {
    for delivery in deliveries {
        if let Err(fault) = delivery.outcome {
            let count = delivery.record_count;
            out.error(&format!(
                "ERROR Error when sending {count} message(s) to topic {} with error: {fault}",
                plan.topic
            ));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "an interactive tool waits by the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Reads in a thread of its own, as a blocked read can't be given a time limit. The thread ends with the input or the
/// process.
#[allow(clippy::disallowed_methods, reason = "standard input can only be waited for with a time limit by a thread")]
fn read_lines() -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(MAX_LINES_AHEAD);
    let is_interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(64 << 10, std::io::stdin());
        loop {
            if is_interactive {
                print!(">");
                let _ = std::io::stdout().flush();
            }
            let line = read_line(&mut input);
            let is_end = !matches!(line, Ok(Some(_)));
            if line.transpose().is_some_and(|line| sender.send(line).is_err()) || is_end {
                return;
            }
        }
    });
    receiver
}

/// A line without its end, or none at the input's end.
fn read_line(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() as u64 == MAX_LINE_BYTES {
        return Err(std::io::Error::other(format!("a line has more than {MAX_LINE_BYTES} bytes")));
    }
    for end in [b'\n', b'\r'] {
        if line.last() == Some(&end) {
            line.pop();
        }
    }
    Ok(Some(line))
}
