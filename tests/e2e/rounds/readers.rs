//! Our own reader: all partitions by assignment, now and then from the beginning again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use ringlog_client::{AutoOffsetReset, Client, ClientError, Consumer, ConsumerOptions, StartOffset, Subscription};

use super::history::{History, name_in};
use super::plan::Place;
use super::producers::options;

/// Reads until `stop`; goes back to the beginning whenever `seeks` has changed.
pub fn run(
    name: &str,
    places: &[Place],
    bootstrap: &str,
    history: &History,
    seeks: &AtomicUsize,
    stop: &AtomicBool,
) -> Result<()> {
    history.tell(name, "is ok reader");
    let mut client = Client::new(bootstrap, options(name))?;
    let mut consumer = begin(name, places, history);
    let mut done = seeks.load(Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        let wanted = seeks.load(Ordering::Relaxed);
        if wanted != done {
            done = wanted;
            consumer = begin(name, places, history);
        }
        match consumer.poll(&mut client) {
            Ok(records) => {
                let mut by_place: BTreeMap<Place, String> = BTreeMap::new();
                for record in records {
                    let place = Place { topic: record.topic.to_string(), partition: record.partition };
                    let value = record.value.as_deref().unwrap_or_default();
                    let found = name_in(value).unwrap_or_else(|| format!("damaged-at-{}", record.offset));
                    by_place.entry(place).or_default().push_str(&format!(" {}={found}", record.offset));
                }
                for (place, records) in by_place {
                    history.tell(name, &format!("poll ok {place}{records}"));
                }
            }
            Err(ClientError::CorruptBatch { partition, offset, reason }) => {
                history.tell(name, &format!("poll fail {partition} at {offset}: {}", reason.replace('\n', " ")));
                consumer = begin(name, places, history);
            }
            Err(ClientError::OffsetOutOfRange { partition, offset }) => {
                history.tell(name, &format!("poll fail {partition} offset {offset} is out of range"));
                consumer = begin(name, places, history);
            }
            // What else may go wrong while nodes come and go.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(())
}

fn begin(name: &str, places: &[Place], history: &History) -> Consumer {
    places.iter().for_each(|place| history.tell(name, &format!("seek ok {place} 0")));
    let from_start = |place: &Place| (place.topic.clone(), place.partition, StartOffset::At(0));
    let options = ConsumerOptions {
        auto_offset_reset: AutoOffsetReset::None,
        fetch_max_wait: Duration::from_millis(200),
        auto_commit_interval: None,
        ..ConsumerOptions::default()
    };
    Consumer::new(Subscription::Partitions(places.iter().map(from_start).collect()), options)
}
