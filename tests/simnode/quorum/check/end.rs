//! Who may be hurt, and what has to be once nothing is wrong any more.

use super::super::disk_log::{self, DiskLog, Entry, View};
use super::{Checks, Found, ensure};

impl Checks {
    /// Whether a majority of the voters stays unhurt if this node is hurt, too. One that loses its disk loses its vote and
    /// its epoch, of which nobody can tell it again where voters are known by their ids alone: so only while all know of
    /// the leader in office.
    pub fn may_hurt(&self, node: usize, loses_memory: bool) -> bool {
        if self.changes_asked_for > 0 {
            return false;
        }
        let voters = self.committed.present_voters();
        let views = || self.nodes.iter().filter(|view| view.is_controller);
        // A change that is in a file, and isn't safe yet, may be so before long.
        let has_others = |view: &super::NodeView| {
            let mut seen = DiskLog::new(View::Seen);
            seen.look(&self.world, view.host);
            [&view.safe, &seen].into_iter().any(|log| log.voters().is_some_and(|own| own != voters))
        };
        if !self.are_whole() || views().any(has_others) {
            return false;
        }
        let unhurt = views().filter(|view| view.id != self.nodes[node].id && voters.holds(view.id, view.directory));
        if unhurt.count() * 2 <= voters.count() {
            return false;
        }
        let Some((epoch, leader)) = self.elections.leaders.last_key_value() else { return false };
        let knows = |view: &super::NodeView| {
            let of_file = disk_log::election(&self.world, view.host).map_or(0, |file| file.epoch);
            view.safe.end() > 0 && of_file == *epoch
        };
        *leader != self.nodes[node].id && (!loses_memory || views().all(knows))
    }

    /// Whether no controller lacks anything of what it had.
    pub fn are_whole(&self) -> bool {
        self.nodes.iter().filter(|view| view.is_controller).all(|view| {
            // It may have all of it again and not know that yet: until then it has no vote.
            !view.is_hurt && !view.is_damaged && !disk_log::is_rebuilding(&self.world, view.host)
        })
    }

    /// How many bytes of a segment are known to hold batches that are safe, to the node as well: by its mark, which it
    /// writes now and then. What is lost above that looks like a write that was torn.
    pub fn safe_bytes(&self, node: usize, name: &str) -> u64 {
        let base = name.split('.').next().and_then(|base| base.parse().ok()).unwrap_or(i64::MAX);
        let view = &self.nodes[node];
        let known = view.told.min(disk_log::durable_mark(&self.world, view.host));
        let next = view.safe.from(base).iter().filter(|entry| entry.end <= known);
        next.map(|entry| entry.bytes.len() as u64).sum::<u64>().min(8_000)
    }

    /// Where in a segment the batches begin.
    pub fn batches_of(&self, node: usize, name: &str) -> Vec<u64> {
        let base = name.strip_suffix(".log").and_then(|base| base.parse().ok()).unwrap_or(i64::MAX);
        let mut position = 0;
        let begin = |entry: &Entry| {
            let begin = position;
            position += entry.bytes.len() as u64;
            begin
        };
        self.nodes[node].safe.from(base).iter().map(begin).collect()
    }

    /// A bit of a file turned.
    pub fn on_rotten(&mut self, node: usize, name: &str) {
        let known = self.batches_of(node, name).len();
        let view = &self.nodes[node];
        let base = name.strip_suffix(".log").and_then(|base| base.parse().ok()).unwrap_or(i64::MAX);
        let committed = view.safe.from(base)[..known].iter().filter(|entry| entry.end <= view.owed);
        let whole = committed.map(|entry| entry.bytes.len() as u64).sum();
        let view = &mut self.nodes[node];
        view.is_damaged = true;
        view.rotten = Some((name.to_owned(), whole));
        view.safe = DiskLog::new(View::Safe);
    }

    /// Whom something is missing.
    pub fn behind(&self, wanted: i64) -> Option<String> {
        let behind = self.nodes.iter().find(|view| view.published < wanted - 1);
        behind.map(|view| format!("node {} has images up to {} of {wanted}", view.id, view.published))
    }

    /// Whether the voters that are there can elect a leader at all.
    pub fn has_possible_majority(&self) -> bool {
        let voters = self.committed.present_voters();
        let present = self.nodes.iter().filter(|view| view.is_controller && voters.holds(view.id, view.directory));
        let sets = self.nodes.iter().filter(|view| view.is_controller).filter_map(|view| view.safe.voters());
        present.filter(|view| !view.is_damaged).count() > voters.count() / 2
            && sets.into_iter().all(|set| set == voters)
    }

    /// What is known of all nodes.
    pub fn describe(&self) -> String {
        let leader = self.elections.leaders.last_key_value();
        let mut text = format!(
            "committed {}, leader {leader:?}, voters {:?}",
            self.committed.end(),
            self.committed.present_voters()
        );
        for view in &self.nodes {
            let file = disk_log::election(&self.world, view.host);
            text += &format!(
                "\nnode {}: {file:?}, log to {:?}, snapshot {:?}, images to {}, told {}, hurt {}, damaged {}, voters {:?}",
                view.id,
                view.safe.position(),
                view.safe.snapshot,
                view.published,
                view.told,
                view.is_hurt,
                view.is_damaged,
                view.safe.voters()
            );
        }
        text
    }

    /// All logs say the same, as far as they go.
    pub fn compare_all(&mut self) {
        for node in 0..self.nodes.len() {
            let found = self.compare(node).and_then(|()| self.check_promises_at_the_end());
            self.complain(node, found);
        }
    }

    fn compare(&mut self, node: usize) -> Found {
        let mut log = DiskLog::new(View::Seen);
        log.look(&self.world, self.nodes[node].host);
        self.compare_epochs(node, &log)?;
        let end = self.nodes[node].published + 1;
        for entry in log.entries.iter().filter(|entry| entry.end <= end) {
            let is_same = self.committed.at(entry.base).is_some_and(|committed| committed.bytes == entry.bytes);
            ensure!(is_same, "has another record at {} than the one that is committed", entry.base);
        }
        Ok(())
    }

    /// What the file of epochs says of records that are there is what they say.
    fn compare_epochs(&self, node: usize, log: &DiskLog) -> Found {
        let file = View::Seen.file(&self.world, self.nodes[node].host, "leader-epoch-checkpoint").unwrap_or_default();
        let text = String::from_utf8_lossy(&file).into_owned();
        for row in text.lines().skip(2) {
            let numbers: Vec<i64> = row.split(' ').filter_map(|number| number.parse().ok()).collect();
            let [epoch, start] = numbers[..] else { return Err(format!("its file of epochs has a row {row:?}")) };
            let of_log = log.from(start).first().filter(|entry| entry.base == start).map(|entry| entry.epoch);
            let is_inside = log.entries.iter().any(|entry| entry.base < start && start < entry.end);
            ensure!(
                !is_inside && of_log.is_none_or(|of_log| i64::from(of_log) == epoch),
                "its file says that epoch {epoch} begins at {start}, where its log has one of {of_log:?}"
            );
        }
        Ok(())
    }
}
