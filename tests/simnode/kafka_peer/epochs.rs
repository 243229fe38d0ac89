//! Where leader epochs begin in a log, as Kafka's `LeaderEpochFileCache` keeps it.

/// See the module's text. Epochs and offsets both rise.
#[derive(Debug, Default)]
pub struct Epochs(Vec<(i32, i64)>);

impl Epochs {
    /// The newest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.0.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch of what is at an offset.
    pub fn at(&self, offset: i64) -> Option<i32> {
        self.0.iter().rev().find(|(_, start)| *start <= offset).map(|(epoch, _)| *epoch)
    }

    /// An epoch begins. What contradicts it was never there.
    pub fn assign(&mut self, epoch: i32, start: i64) {
        if self.0.last().is_some_and(|(latest, begun)| *latest == epoch && *begun <= start) {
            return;
        }
        while self.0.last().is_some_and(|(known, begun)| *known >= epoch || *begun >= start) {
            self.0.pop();
        }
        self.0.push((epoch, start));
    }

    /// The largest epoch at or below one that is asked for, and where it ends in a log that ends there; nothing when the one
    /// that is asked for is above all. Of an epoch below all it is said that it ends where the first one begins.
    pub fn end_for(&self, asked: i32, log_end: i64) -> Option<(i32, i64)> {
        if asked < 0 {
            return None;
        }
        if self.latest() == Some(asked) {
            return Some((asked, log_end));
        }
        let higher = self.0.iter().find(|(epoch, _)| *epoch > asked)?.1;
        let floor = self.0.iter().rev().find(|(epoch, _)| *epoch <= asked);
        Some((floor.map_or(asked, |(epoch, _)| *epoch), higher))
    }

    /// The log ends there now.
    pub fn truncate_from_end(&mut self, end: i64) {
        self.0.retain(|(_, start)| *start < end);
    }

    /// The log starts there now.
    pub fn truncate_from_start(&mut self, log_start: i64) {
        let gone = self.0.iter().take_while(|(_, start)| *start <= log_start).count();
        if gone > 0 {
            // The last one goes on at the start.
            self.0.drain(..gone - 1);
            self.0[0].1 = log_start;
        }
    }

    /// Nothing is left.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
