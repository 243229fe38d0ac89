//! Judges a history by itself: what clients saw must be what one log for each partition could have shown them.
//!
//! It knows the lines (see `history`) and nothing of the programs. From what was acknowledged with an offset and what was
//! polled follows which record each offset has; everything else is asked of that.

mod events;
mod judge;
#[cfg(test)]
mod tests;

use std::fmt;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Acknowledged or read before, and not there at the end.
    Lost,
    /// The final reader finds another record at the offset.
    Changed,
    /// One offset has had two records.
    Inconsistent,
    /// One record has two offsets, and nobody sent it twice.
    Duplicate,
    /// Records of an idempotent producer in another order than sent.
    Reordered,
    /// A reader was given what it had had, or not in order.
    WentBack,
    /// A reader was not given what lies between.
    Skipped,
    /// A record that nobody sent.
    Unheard,
    /// A record that was refused for certain is there.
    RefusedAndThere,
    /// A reader that had time didn't get to the log's end.
    Unseen,
    /// A member of a group began below what had been committed.
    CommitLost,
    /// A leader forgot, or never heard of, what an idempotent producer had been acknowledged.
    Sequence,
    /// What should be readable isn't.
    Unreadable,
    /// The history itself makes no sense.
    Malformed,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// What sort of.
    pub kind: Kind,
    /// Where and what.
    pub text: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// What is told of anomalies: the first ones of each kind.
const TOLD_OF_A_KIND: usize = 10;

/// What came of it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The first ones of each kind.
    pub anomalies: Vec<Anomaly>,
    /// How many there are in all.
    pub found: usize,
    /// Records that were acknowledged.
    pub acknowledged: usize,
    /// Records that polls gave.
    pub read: usize,
    /// Records that are there more than once, since a client that isn't idempotent sent them again.
    pub doubled_by_sending_again: usize,
    /// Records that were refused.
    pub refused: usize,
    /// Records of which nobody knows.
    pub unknown: usize,
}

impl Verdict {
    fn add(&mut self, kind: Kind, text: String) {
        self.found += 1;
        if self.anomalies.iter().filter(|known| known.kind == kind).count() < TOLD_OF_A_KIND {
            self.anomalies.push(Anomaly { kind, text });
        }
    }

    /// Whether there is one of the kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.anomalies.iter().any(|anomaly| anomaly.kind == kind)
    }
}

/// Judges a history. What has to be so at the end only is judged of partitions whose end was told.
pub fn check(history: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let mut judge = judge::Judge::default();
    for line in history.lines() {
        match events::parse(line) {
            Some((process, event)) => judge.take(process, event, &mut verdict),
            None => verdict.add(Kind::Malformed, line.to_owned()),
        }
    }
    judge.conclude(&mut verdict);
    verdict
}
