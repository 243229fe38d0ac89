//! Who uses what Ringlog doesn't serve yet: transactions, groups of the newer protocols, quotas.

use std::collections::BTreeMap;

use ringlog_types::{SHARE_STATE_TOPIC, TRANSACTION_STATE_TOPIC};

use super::findings::{Finding, counted, some_of};

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

/// Judges what is in use. `has_topic` says whether the cluster has a topic.
pub fn judge(usage: &Usage, has_topic: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let keep = "do the brokers last that lead partitions of";
    if !usage.transactional_ids.is_empty() {
        findings.push(Finding::warn(format!(
            "{}, whose producers need a coordinator on a Kafka node: {keep} {TRANSACTION_STATE_TOPIC}, or don't take over \
             yet: {}",
            counted(usage.transactional_ids.len(), "transactional id is known", "transactional ids are known"),
            some_of(&usage.transactional_ids)
        )));
    } else if has_topic(TRANSACTION_STATE_TOPIC) {
        findings.push(Finding::warn(format!(
            "{TRANSACTION_STATE_TOPIC} exists, so there were transactional producers, which need a coordinator on a Kafka \
             node: {keep} it if they come back"
        )));
    }
    for (kind, groups) in &usage.groups {
        let topic = if kind == "share" { SHARE_STATE_TOPIC } else { ringlog_types::GROUP_METADATA_TOPIC };
        findings.push(Finding::warn(format!(
            "{}, which need a coordinator on a Kafka node: {keep} {topic}, or don't take over yet: {}",
            counted(groups.len(), &format!("group is a {kind} group"), &format!("groups are {kind} groups")),
            some_of(groups)
        )));
    }
    if !usage.groups.contains_key("share") && has_topic(SHARE_STATE_TOPIC) {
        findings.push(Finding::warn(format!(
            "{SHARE_STATE_TOPIC} exists, so there were share groups, which need a coordinator on a Kafka node: {keep} it if \
             they come back"
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
    use super::*;

    #[test]
    fn what_needs_a_kafka_node_is_named() {
        let mut usage = Usage::default();
        for (id, kind) in [("a", "classic"), ("b", "Consumer"), ("c", "share"), ("d", "")] {
            usage.add_group(id, kind);
        }
        usage.transactional_ids = vec!["payer".to_owned()];
        let findings = judge(&usage, |_| true);
        let text: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(findings.len(), 3, "{text:?}");
        assert!(text[0].ends_with("payer") && text[1].ends_with("b") && text[2].ends_with("c"), "{text:?}");
        assert!(findings.iter().all(|finding| finding.level == Level::Warn));
    }

    #[test]
    fn topics_tell_of_those_that_may_come_back() {
        assert_eq!(judge(&Usage::default(), |_| false)[0].level, Level::Ok);
        let findings = judge(&Usage::default(), |topic| topic == TRANSACTION_STATE_TOPIC);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Warn);
    }

    #[test]
    fn quotas_are_not_enforced() {
        let findings = judge(&Usage { quotas: 1, ..Usage::default() }, |_| false);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.starts_with("1 quota is set"), "{findings:?}");
        assert_eq!(findings[0].level, Level::Warn);
    }
}
