//! The brokers: whether they are there, and whether Ringlog could do with their configuration.

use std::collections::BTreeMap;

use ringlog_config::{ConfigError, ConfigMap, ServerConfig};

use super::findings::Finding;

/// The source of a configuration that nobody set.
const DEFAULT_SOURCE: i8 = 5;

/// A broker that the cluster names.
#[derive(Debug, Clone, Default)]
pub struct BrokerState {
    /// Whether it is fenced, if the cluster says so of brokers.
    pub is_fenced: bool,
    /// Why it doesn't answer, if it doesn't.
    pub unreachable: Option<String>,
    /// What it is configured with, or why it doesn't tell.
    pub configs: Option<Result<ConfigMap, String>>,
}

/// What was set of a described configuration; secrets, which aren't told, have a word in their place.
pub fn set_configs<'a>(entries: impl Iterator<Item = (&'a str, Option<&'a str>, i8)>) -> ConfigMap {
    let set = entries.filter(|(_, _, source)| *source != DEFAULT_SOURCE);
    set.map(|(key, value, _)| (key.to_owned(), value.unwrap_or("hidden").to_owned())).collect()
}

/// Judges the brokers. `replaced` is the one whose place is to be taken.
pub fn judge(brokers: &BTreeMap<i32, BrokerState>, replaced: Option<i32>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, broker) in brokers {
        findings.push(judge_state(*id, broker, replaced == Some(*id)));
        match &broker.configs {
            None => {}
            Some(Ok(configs)) => findings.extend(judge_configs(*id, configs)),
            Some(Err(reason)) => findings.push(Finding::warn(format!(
                "broker {id} doesn't tell its configuration ({reason}): check its server.properties with --config"
            ))),
        }
    }
    findings
}

fn judge_state(id: i32, broker: &BrokerState, is_replaced: bool) -> Finding {
    match (broker.is_fenced, &broker.unreachable) {
        (true, _) if is_replaced => Finding::ok(format!("broker {id}, the node itself, is stopped or fenced")),
        (true, _) => Finding::warn(format!(
            "broker {id} is fenced: it is stopped, starting or cut off; have it back before another node goes"
        )),
        (false, None) => Finding::ok(format!("broker {id} answers")),
        (false, Some(reason)) => Finding::warn(format!(
            "broker {id} can't be reached from here ({reason}): check that the new node's host reaches it"
        )),
    }
}

/// What `ringlog server` would say of a broker's configuration as it runs. Faults of other kinds may come from what
/// brokers don't tell of it, such as secrets.
fn judge_configs(id: i32, configs: &ConfigMap) -> Vec<Finding> {
    let Err(errors) = ServerConfig::from_properties(configs) else {
        return vec![Finding::ok(format!("broker {id} is configured with nothing that Ringlog refuses"))];
    };
    let finding = |error: &ConfigError| match error {
        ConfigError::NotYet { .. } | ConfigError::ListenerNotYet { .. } => {
            Finding::stop(format!("broker {id}: {error}"))
        }
        _ => {
            Finding::warn(format!("broker {id}, by what it tells of its configuration (check it by --config): {error}"))
        }
    };
    errors.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::findings::Level;
    use super::*;

    const PLAIN: &[(&str, &str)] = &[
        ("node.id", "2"),
        ("process.roles", "broker"),
        ("listeners", "PLAINTEXT://:9092"),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.bootstrap.servers", "localhost:9093"),
    ];

    fn judged(more: &[(&str, &str)]) -> Vec<Finding> {
        let pairs = PLAIN.iter().chain(more);
        judge_configs(2, &pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn keys_that_are_refused_are_named_with_their_values() {
        assert_eq!(judged(&[])[0].level, Level::Ok);
        let findings = judged(&[("authorizer.class.name", "a.B"), ("num.io.threads", "9")]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Stop);
        assert!(findings[0].text.contains("authorizer.class.name=a.B"), "{findings:?}");
        let secured = judged(&[("listeners", "SSL://:9092"), ("security.inter.broker.protocol", "SSL")]);
        assert!(secured.iter().any(|finding| finding.text.contains("TLS")), "{secured:?}");
        let secret = set_configs([("delegation.token.secret.key", None, 4), ("log.dir", Some("/d"), 5)].into_iter());
        assert_eq!(secret.len(), 1);
        let pairs: Vec<(&str, &str)> = secret.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(judged(&pairs)[0].level, Level::Stop);
    }

    #[test]
    fn the_node_itself_may_be_stopped() {
        let fenced = BrokerState { is_fenced: true, ..BrokerState::default() };
        let silent = BrokerState { unreachable: Some("no route".to_owned()), ..BrokerState::default() };
        assert_eq!(judge_state(1, &fenced, true).level, Level::Ok);
        assert_eq!(judge_state(1, &fenced, false).level, Level::Warn);
        assert_eq!(judge_state(1, &silent, false).level, Level::Warn);
        assert_eq!(judge_state(1, &BrokerState::default(), false).level, Level::Ok);
    }
}
