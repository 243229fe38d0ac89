//! Who uses what Ringlog doesn't serve yet: transactions, groups of the newer protocols, quotas.

use std::collections::BTreeMap;

use ringlog_types::{GROUP_METADATA_TOPIC, SHARE_STATE_TOPIC, TRANSACTION_STATE_TOPIC};

use super::findings::{Finding, counted, some_of};
use super::partitions::TopicState;

/// What the brokers list. What they can't list isn't there.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Transactional ids.
    pub transactional_ids: Vec<String>,
    /// Groups that aren't classic ones, by their type in lower case.
    pub groups: BTreeMap<String, Vec<String>>,
    /// How many users, clients and addresses have quotas.
    pub quotas: usize,
    /// Brokers that didn't list theirs, and why.
    pub unlisted: Vec<String>,
}

impl Usage {
    /// Adds a group, unless it is a classic one.
    pub fn add_group(&mut self, id: &str, kind: &str) {
        let kind = kind.to_ascii_lowercase();
        // Brokers before 3.8 have no types: what they have is classic.
        if !matches!(kind.as_str(), "" | "classic" | "unknown") {
            self.groups.entry(kind).or_default().push(id.to_owned());
        }
    }
}

/// Judges what is in use. `replaced` is the node whose place is to be taken.
pub fn judge(usage: &Usage, topics: &[TopicState], replaced: Option<i32>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has_topic = |name: &str| topics.iter().any(|topic| topic.name == name);
    // Its replicas count, not only leaders: whoever has one leads when others go.
    let keep = |name: &str| {
        let partitions = topics.iter().filter(|topic| topic.name == name).flat_map(|topic| &topic.partitions);
        let own = partitions.filter(|it| replaced.is_some_and(|id| it.replicas.contains(&id))).count();
        let itself = match own {
            0 => String::new(),
            own => format!(" (this node has {})", counted(own, "partition of it", "partitions of it")),
        };
        format!("do the brokers last that have replicas of {name}{itself}")
    };
    if !usage.transactional_ids.is_empty() {
        findings.push(Finding::warn(format!(
            "{}, whose producers need a coordinator on a Kafka node: {}, or don't take over yet: {}",
            counted(usage.transactional_ids.len(), "transactional id is known", "transactional ids are known"),
            keep(TRANSACTION_STATE_TOPIC),
            some_of(&usage.transactional_ids)
        )));
    } else if has_topic(TRANSACTION_STATE_TOPIC) {
        findings.push(Finding::warn(format!(
            "there were transactional producers, which need a coordinator on a Kafka node: if they come back, {}",
            keep(TRANSACTION_STATE_TOPIC)
        )));
    }
    for (kind, groups) in &usage.groups {
        let topic = if kind == "share" { SHARE_STATE_TOPIC } else { GROUP_METADATA_TOPIC };
        findings.push(Finding::warn(format!(
            "{}, which need a coordinator on a Kafka node: {}, or don't take over yet: {}",
            counted(groups.len(), &format!("group is a {kind} group"), &format!("groups are {kind} groups")),
            keep(topic),
            some_of(groups)
        )));
    }
    if !usage.groups.contains_key("share") && has_topic(SHARE_STATE_TOPIC) {
        findings.push(Finding::warn(format!(
            "there were share groups, which need a coordinator on a Kafka node: if they come back, {}",
            keep(SHARE_STATE_TOPIC)
        )));
    }
    if usage.quotas > 0 {
        findings.push(Finding::warn(format!(
            "{} for clients, which Ringlog doesn't enforce yet: clients aren't slowed down by its nodes",
            counted(usage.quotas, "quota is set", "quotas are set")
        )));
    }
    if !usage.unlisted.is_empty() {
        findings.push(Finding::warn(format!(
            "not all transactions and groups could be listed, ask again later: {}",
            some_of(&usage.unlisted)
        )));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("no transactions, no groups but classic ones, no quotas"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::findings::Level;
    use super::super::partitions::PartitionState;
    use super::*;

    fn topic(name: &str) -> TopicState {
        let on = |replicas: &[i32]| PartitionState { replicas: replicas.to_vec(), ..PartitionState::default() };
        TopicState { name: name.to_owned(), partitions: vec![on(&[1, 2]), on(&[2, 3])], ..TopicState::default() }
    }

    #[test]
    fn what_needs_a_kafka_node_is_named() {
        let mut usage = Usage::default();
        for (id, kind) in [("a", "classic"), ("b", "Consumer"), ("c", "share"), ("d", "")] {
            usage.add_group(id, kind);
        }
        usage.transactional_ids = vec!["payer".to_owned()];
        let findings = judge(&usage, &[topic(TRANSACTION_STATE_TOPIC), topic(SHARE_STATE_TOPIC)], Some(2));
        let text: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(findings.len(), 3, "{text:?}");
        assert!(text[0].ends_with("payer") && text[1].ends_with("b") && text[2].ends_with("c"), "{text:?}");
        assert!(text[0].contains("this node has 2 partitions of it") && !text[1].contains("this node"), "{text:?}");
        assert!(findings.iter().all(|finding| finding.level == Level::Warn));
    }

    #[test]
    fn topics_tell_of_those_that_may_come_back() {
        assert_eq!(judge(&Usage::default(), &[topic("t")], None)[0].level, Level::Ok);
        let findings = judge(&Usage::default(), &[topic(TRANSACTION_STATE_TOPIC)], Some(3));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Warn);
        assert!(findings[0].text.contains("(this node has 1 partition of it)"), "{findings:?}");
        assert_eq!(judge(&Usage::default(), &[topic(SHARE_STATE_TOPIC)], None)[0].level, Level::Warn);
    }

    #[test]
    fn quotas_are_not_enforced() {
        let findings = judge(&Usage { quotas: 1, ..Usage::default() }, &[], None);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.starts_with("1 quota is set"), "{findings:?}");
        assert_eq!(findings[0].level, Level::Warn);
    }
}
