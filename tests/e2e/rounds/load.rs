//! All clients of a cluster, and whether they go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::history::History;
use super::plan::{Place, Plan};
use super::programs::{self, Java, KcatReader};
use super::{producers, readers};

/// How long clients may take to go on once nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// Our own reader's process.
const READER: &str = "reader";

/// The clients.
pub struct Load {
    history: Arc<History>,
    bootstrap: String,
    places: Vec<Place>,
    stop_producing: Arc<AtomicBool>,
    stop_reading: Arc<AtomicBool>,
    seeks: Arc<AtomicUsize>,
    producers: Vec<JoinHandle<Result<()>>>,
    reader: Option<JoinHandle<Result<()>>>,
    names: Vec<String>,
    java: Java,
    kcat: KcatReader,
    kcat_topic: &'static str,
    kcat_runs: Vec<JoinHandle<()>>,
    kcat_number: usize,
}

impl Load {
    /// Starts them, where this thread runs.
    pub fn start(plan: &Plan, bootstrap: &str, history: Arc<History>) -> Result<Load> {
        let topics: Vec<&str> = plan.topics.iter().map(|topic| topic.name).collect();
        let (stop_producing, stop_reading) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let seeks = Arc::new(AtomicUsize::new(0));
        let mut producing = Vec::new();
        let mut names = vec![Java::PRODUCER.to_owned()];
        for (number, producer) in (0..).zip(plan.producers()) {
            names.push(producer.name.clone());
            let (history, stop, bootstrap) = (history.clone(), stop_producing.clone(), bootstrap.to_owned());
            let seed = plan.seed.wrapping_add(number);
            producing.push(thread::spawn(move || producers::run(&producer, &bootstrap, seed, &history, &stop)));
        }
        let reader = {
            let (history, stop, seeks) = (history.clone(), stop_reading.clone(), seeks.clone());
            let (places, bootstrap) = (plan.places(), bootstrap.to_owned());
            thread::spawn(move || readers::run(READER, &places, &bootstrap, &history, &seeks, &stop))
        };
        Ok(Load {
            bootstrap: bootstrap.to_owned(),
            places: plan.places(),
            stop_producing,
            stop_reading,
            seeks,
            producers: producing,
            reader: Some(reader),
            names,
            java: Java::start(bootstrap, &topics)?,
            kcat: KcatReader::start(bootstrap, topics[0], &history)?,
            kcat_topic: topics[0],
            kcat_runs: Vec::new(),
            kcat_number: 0,
            history,
        })
    }

    /// Takes down what the programs have said by now.
    pub fn listen(&mut self) -> Result<()> {
        self.java.listen(&self.history);
        self.kcat.listen(&self.history)
    }

    /// Sends readers back to the beginning.
    pub fn seek(&mut self) -> Result<()> {
        self.seeks.fetch_add(1, Ordering::Relaxed);
        self.java.seek()
    }

    /// A few records by kcat, beside what else happens.
    pub fn send_by_kcat(&mut self) {
        let place = &self.places[self.kcat_number % self.places.len()];
        self.kcat_runs.push(programs::kcat_produce(self.kcat_number, &self.bootstrap, place, &self.history));
        self.kcat_number += 1;
    }

    /// Waits until each producer has had something acknowledged in each partition, and each reader was given something
    /// of each.
    pub fn wait_until_all_go_on(&mut self) -> Result<()> {
        let before = self.successes()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.successes()?;
            let mut behind = self.wanted();
            behind.retain(|key| now.get(key).copied().unwrap_or(0) <= before.get(key).copied().unwrap_or(0));
            if behind.is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "after {PATIENCE:?} these don't go on: {behind:?}");
            thread::sleep(Duration::from_millis(50));
        }
        for run in self.kcat_runs.drain(..) {
            if run.join().is_err() {
                bail!("a run of kcat panicked");
            }
        }
        Ok(())
    }

    /// By process, operation and partition; a group's members count as one.
    fn successes(&mut self) -> Result<BTreeMap<(String, String, String), u64>> {
        self.listen()?;
        let mut all: BTreeMap<(String, String, String), u64> = BTreeMap::new();
        for ((process, operation, place), count) in self.history.successes() {
            let process = if Java::MEMBERS.contains(&process.as_str()) { "group".to_owned() } else { process };
            *all.entry((process, operation, place)).or_default() += count;
        }
        Ok(all)
    }

    fn wanted(&self) -> BTreeSet<(String, String, String)> {
        let mut wanted = BTreeSet::new();
        for place in &self.places {
            let mut want = |process: &str, operation: &str| {
                wanted.insert((process.to_owned(), operation.to_owned(), place.to_string()));
            };
            self.names.iter().for_each(|name| want(name, "send"));
            [READER, Java::READER, "group"].iter().for_each(|name| want(name, "poll"));
            if place.topic == self.kcat_topic {
                want(KcatReader::NAME, "poll");
            }
        }
        wanted
    }

    /// Ends the producers, gives the readers time to get to the ends, and ends them.
    pub fn finish(mut self) -> Result<()> {
        self.stop_producing.store(true, Ordering::Relaxed);
        self.java.stop_producing()?;
        for producer in self.producers.drain(..) {
            producer.join().unwrap_or_else(|_| bail!("a producer panicked"))?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.java.has_stopped() {
            ensure!(Instant::now() < deadline, "Java's producer hasn't ended after {PATIENCE:?}");
            self.listen()?;
            thread::sleep(Duration::from_millis(50));
        }
        // The checker says who stayed behind; here nobody comes on any more for a while, or it is too late.
        let (mut last, mut since) = (0, Instant::now());
        while since.elapsed() < Duration::from_millis(1500) && Instant::now() < deadline {
            self.listen()?;
            let polls = |((_, operation, _), count): (&(String, String, String), &u64)| {
                if operation == "poll" { *count } else { 0 }
            };
            let polled: u64 = self.history.successes().iter().map(polls).sum();
            if polled != last {
                (last, since) = (polled, Instant::now());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.stop_reading.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap_or_else(|_| bail!("the reader panicked"))?;
        }
        self.java.finish(&self.history)?;
        self.kcat.finish(&self.history)
    }
}

impl Drop for Load {
    /// Threads of a load that was given up end soon.
    fn drop(&mut self) {
        self.stop_producing.store(true, Ordering::Relaxed);
        self.stop_reading.store(true, Ordering::Relaxed);
    }
}
