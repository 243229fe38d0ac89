//! Topics and their partitions: what can't be kept as it is, and what is away while a node is replaced.

use super::findings::{Finding, counted, some_of};

/// A partition.
#[derive(Debug, Clone, Default)]
pub struct PartitionState {
    /// Its number.
    pub index: i32,
    /// Its leader, or -1.
    pub leader: i32,
    /// Its replicas.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync: Vec<i32>,
}

/// A topic, with what counts here of its configuration.
#[derive(Debug, Clone, Default)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Whether it is one of the cluster's own.
    pub is_internal: bool,
    /// Whether `cleanup.policy` has `compact`.
    pub is_compacted: bool,
    /// `remote.storage.enable`.
    pub is_remote: bool,
    /// `min.insync.replicas`.
    pub min_in_sync: usize,
    /// Its partitions.
    pub partitions: Vec<PartitionState>,
}

/// What is wrong with a partition, or will be while a replica of it is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It has no leader.
    Offline,
    /// Fewer are in sync than producers ask for.
    UnderMinimum,
    /// The replica that goes is the last one in sync of several.
    LastInSync,
    /// Without the replica that goes there are too few for producers, because another one lags.
    TooFewLeft,
    /// A replica isn't in sync; enough are.
    UnderReplicated,
    /// It has one replica.
    Single,
    /// All are in sync, but producers ask for all of them.
    AllNeeded,
}

/// The node whose place is to be taken, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replaced {
    /// Its id.
    pub id: Option<i32>,
    /// Whether it is stopped already: then it counts as if it were in sync, since it comes back.
    pub is_stopped: bool,
}

impl PartitionState {
    fn trouble(&self, min_in_sync: usize, replaced: Replaced) -> Option<Trouble> {
        let is_awaited = |id: &i32| replaced.is_stopped && replaced.id == Some(*id) && !self.in_sync.contains(id);
        let awaited = self.replicas.iter().filter(|id| is_awaited(id)).count();
        let in_sync = self.in_sync.len() + awaited;
        let is_concerned = replaced.id.is_none_or(|id| self.replicas.contains(&id));
        let is_in_sync = replaced.id.is_none_or(|id| self.in_sync.contains(&id)) || awaited > 0;
        let left = in_sync - usize::from(is_in_sync && is_concerned && in_sync > 0);
        let is_full = in_sync >= self.replicas.len();
        if self.leader < 0 && !(awaited > 0 && self.replicas.len() == 1) {
            return Some(Trouble::Offline);
        }
        if in_sync < min_in_sync.min(self.replicas.len()) {
            return Some(Trouble::UnderMinimum);
        }
        if is_concerned && self.replicas.len() == 1 {
            return Some(Trouble::Single);
        }
        if left == 0 {
            return Some(Trouble::LastInSync);
        }
        match (is_full, left < min_in_sync && is_concerned) {
            (false, true) => Some(Trouble::TooFewLeft),
            (false, false) => Some(Trouble::UnderReplicated),
            (true, true) => Some(Trouble::AllNeeded),
            (true, false) => None,
        }
    }
}

fn finding(trouble: Trouble, partitions: &[String]) -> Finding {
    let are = counted(partitions.len(), "partition is", "partitions are");
    let have = counted(partitions.len(), "partition has", "partitions have");
    let names = some_of(partitions);
    match trouble {
        Trouble::Offline => Finding::stop(format!("{are} offline: have their brokers back first: {names}")),
        Trouble::UnderMinimum => Finding::stop(format!(
            "{have} fewer replicas in sync than min.insync.replicas: wait until they are back: {names}"
        )),
        Trouble::LastInSync => Finding::stop(format!(
            "{have} one replica in sync, which would go: wait until the others have caught up: {names}"
        )),
        Trouble::TooFewLeft => Finding::stop(format!(
            "{are} under-replicated, and would have fewer in sync than min.insync.replicas without the node: wait until \
             the others have caught up: {names}"
        )),
        Trouble::UnderReplicated => {
            Finding::warn(format!("{are} under-replicated: better wait until the others have caught up: {names}"))
        }
        Trouble::Single => {
            Finding::warn(format!("{have} a single replica, and are away while its node is replaced: {names}"))
        }
        Trouble::AllNeeded => Finding::warn(format!(
            "{have} as many replicas as min.insync.replicas: producers with acks=all wait while one is replaced: {names}"
        )),
    }
}

/// Judges the partitions, a line for each kind of trouble.
pub fn judge_partitions(topics: &[TopicState], replaced: Replaced) -> Vec<Finding> {
    let kinds = [
        Trouble::Offline,
        Trouble::UnderMinimum,
        Trouble::LastInSync,
        Trouble::TooFewLeft,
        Trouble::UnderReplicated,
        Trouble::Single,
        Trouble::AllNeeded,
    ];
    let mut troubled: Vec<(Trouble, String)> = Vec::new();
    let mut count = 0;
    for topic in topics {
        for partition in &topic.partitions {
            count += 1;
            let trouble = partition.trouble(topic.min_in_sync, replaced);
            troubled.extend(trouble.map(|trouble| (trouble, format!("{}-{}", topic.name, partition.index))));
        }
    }
    if count == 0 {
        return vec![Finding::ok("there are no partitions yet")];
    }
    if troubled.is_empty() {
        let all = counted(count, "partition has", "partitions have");
        return vec![Finding::ok(format!("{all} all replicas in sync, and enough of them without one"))];
    }
    let of_kind = |kind: Trouble| {
        let named = troubled.iter().filter(|(trouble, _)| *trouble == kind);
        let partitions: Vec<String> = named.map(|(_, name)| name.clone()).collect();
        (!partitions.is_empty()).then(|| finding(kind, &partitions))
    };
    kinds.into_iter().filter_map(of_kind).collect()
}

/// Judges what topics are configured with.
pub fn judge_topics(topics: &[TopicState]) -> Vec<Finding> {
    let names = |is_meant: &dyn Fn(&TopicState) -> bool| {
        topics.iter().filter(|topic| is_meant(topic)).map(|topic| topic.name.clone()).collect::<Vec<_>>()
    };
    let remote = names(&|topic| topic.is_remote);
    let internal = names(&|topic| topic.is_compacted && topic.is_internal);
    let compacted = names(&|topic| topic.is_compacted && !topic.is_internal);
    let mut findings = Vec::new();
    if !remote.is_empty() {
        findings.push(Finding::stop(format!(
            "remote.storage.enable=true, and Ringlog has no tiered storage: fetch back and turn it off for: {}",
            some_of(&remote)
        )));
    }
    if !compacted.is_empty() {
        findings.push(Finding::warn(format!(
            "cleanup.policy=compact isn't done by Ringlog yet: the logs on its nodes grow; watch the space of: {}",
            some_of(&compacted)
        )));
    }
    if !internal.is_empty() {
        findings.push(Finding::warn(format!(
            "internal topics aren't compacted by Ringlog yet: their logs on its nodes grow; watch the space of: {}",
            some_of(&internal)
        )));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("no topic is compacted or tiered"));
    }
    findings
}

/// Judges reassignments under way, by partition.
pub fn judge_reassignments(partitions: &[String]) -> Finding {
    match partitions {
        [] => Finding::ok("no reassignment is under way"),
        some => Finding::warn(format!("partitions are being reassigned: better let it end first: {}", some_of(some))),
    }
}

#[cfg(test)]
#[path = "partitions_tests.rs"]
mod tests;
