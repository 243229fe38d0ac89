//! Looks on while a quorum elects its leaders: what its nodes keep in `quorum-state`, and what leaders say is committed.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::quorum_view;

/// Between two looks. A state that lasts for less may be missed; what is seen must be legal all the same.
const PAUSE: Duration = Duration::from_millis(20);

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Epochs that somebody led.
    pub leaders: usize,
    /// Different states of nodes.
    pub states: usize,
    /// The last high watermark.
    pub high_watermark: i64,
}

/// Looks on until it is asked what it saw.
pub struct QuorumWatch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

impl QuorumWatch {
    /// Begins to watch the controllers that the cluster has now.
    pub fn start(cluster: &Cluster) -> QuorumWatch {
        let folders = cluster.controller_nodes().map(|node| (node.id(), node.metadata_folder())).collect();
        let mut watcher = Watcher { folders, controllers: cluster.controllers(), ..Watcher::default() };
        let is_over = Arc::new(AtomicBool::new(false));
        let asked = is_over.clone();
        let thread = thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                watcher.look()?;
                thread::sleep(PAUSE);
            }
            let (leaders, states) = (watcher.leaders.len(), watcher.states);
            Ok(Seen { leaders, states, high_watermark: watcher.high_watermark })
        });
        QuorumWatch { is_over, thread }
    }

    /// Ends it; the first thing that isn't legal is the error.
    pub fn finish(self) -> Result<Seen> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("who watches doesn't panic")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    epoch: i32,
    /// -1 while it knows of none.
    leader: i32,
    /// -1 if it gave its vote to nobody.
    voted: i32,
}

#[derive(Debug, Default)]
struct Watcher {
    folders: Vec<(i32, PathBuf)>,
    controllers: Vec<String>,
    /// By node and directory: one that was wiped begins anew.
    last: BTreeMap<(i32, String), State>,
    /// By epoch.
    leaders: BTreeMap<i32, i32>,
    states: usize,
    /// The highest that was told, and the epoch of who told it.
    high_watermark: i64,
    told_in: i32,
}

impl Watcher {
    fn look(&mut self) -> Result<()> {
        for (id, folder) in self.folders.clone() {
            let Some((directory, state)) = read(&folder)? else { continue };
            self.see(id, directory, state)?;
        }
        for controller in self.controllers.clone() {
            let Some(view) = quorum_view::ask(&controller)? else { continue };
            self.see_leader(view.epoch, view.leader)?;
            self.see_high_watermark(view.epoch, view.high_watermark)?;
        }
        Ok(())
    }

    fn see(&mut self, id: i32, directory: String, state: State) -> Result<()> {
        let before = self.last.insert((id, directory), state);
        if before != Some(state) {
            self.states += 1;
        }
        if let Some(before) = before {
            let turned = |before: i32, now: i32| before >= 0 && now >= 0 && before != now;
            let is_legal = state.epoch > before.epoch
                || state.epoch == before.epoch
                    && !turned(before.leader, state.leader)
                    && !turned(before.voted, state.voted);
            ensure!(is_legal, "node {id} goes from {before:?} to {state:?}");
        }
        self.see_leader(state.epoch, state.leader)
    }

    fn see_leader(&mut self, epoch: i32, leader: i32) -> Result<()> {
        if leader < 0 {
            return Ok(());
        }
        let known = *self.leaders.entry(epoch).or_insert(leader);
        ensure!(known == leader, "epoch {epoch} is led by {known} and by {leader}");
        Ok(())
    }

    /// A leader tells none before it has committed a record of its own epoch, and with that all that was committed before.
    fn see_high_watermark(&mut self, epoch: i32, told: i64) -> Result<()> {
        // One that was deposed and doesn't know it yet may tell of the past.
        if told < 0 || epoch < self.told_in {
            return Ok(());
        }
        let before = self.high_watermark;
        ensure!(told >= before, "{told} is committed in epoch {epoch}, and {before} was in epoch {}", self.told_in);
        (self.high_watermark, self.told_in) = (told, epoch);
        Ok(())
    }
}

/// What a node keeps, and the directory's id; none while there is nothing to read.
fn read(folder: &Path) -> Result<Option<(String, State)>> {
    let meta = folder.parent().context("it lies in a log directory")?.join("meta.properties");
    let text = |file: &Path| match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    };
    let (Some(before), Some(state), Some(after)) = (text(&meta)?, text(&folder.join("quorum-state"))?, text(&meta)?)
    else {
        return Ok(None);
    };
    let directory = |text: &str| text.lines().find(|line| line.starts_with("directory.id=")).map(str::to_owned);
    let (Some(directory), true) = (directory(&before), directory(&before) == directory(&after)) else {
        return Ok(None);
    };
    let state: Value = serde_json::from_str(&state).with_context(|| format!("quorum-state: {state:?}"))?;
    let number = |name: &str| -> Result<i32> {
        let value = state[name].as_i64().with_context(|| format!("{name} in {state}"))?;
        Ok(i32::try_from(value)?)
    };
    let state = State { epoch: number("leaderEpoch")?, leader: number("leaderId")?, voted: number("votedId")? };
    Ok(Some((directory, state)))
}

#[cfg(test)]
mod tests {
    use super::{State, Watcher};

    #[test]
    fn what_must_not_be_is_seen() {
        let state = |epoch, leader, voted| State { epoch, leader, voted };
        let ends = |states: &[(i32, State)]| {
            let mut watcher = Watcher::default();
            states.iter().try_for_each(|(id, state)| watcher.see(*id, "a".to_owned(), *state)).is_ok()
        };
        assert!(ends(&[(1, state(1, -1, 1)), (1, state(1, 1, 1)), (1, state(2, -1, -1)), (2, state(1, 1, -1))]));
        assert!(!ends(&[(1, state(2, -1, -1)), (1, state(1, -1, -1))]), "an epoch that falls");
        assert!(!ends(&[(1, state(1, -1, 1)), (1, state(1, -1, 2))]), "two votes");
        assert!(!ends(&[(1, state(1, 1, -1)), (1, state(1, 2, -1))]), "two leaders, by one node");
        assert!(!ends(&[(1, state(1, 1, -1)), (2, state(1, 2, -1))]), "two leaders, by two nodes");
        let told = |told: &[(i32, i64)]| {
            let mut watcher = Watcher::default();
            told.iter().try_for_each(|(epoch, told)| watcher.see_high_watermark(*epoch, *told)).is_ok()
        };
        assert!(told(&[(1, 5), (1, 7), (2, -1), (2, 8), (1, 7)]));
        assert!(!told(&[(1, 7), (1, 6)]));
        assert!(!told(&[(1, 7), (2, 6)]));
    }
}
