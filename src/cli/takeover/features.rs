//! Which features the cluster uses, and at which level: what Ringlog doesn't know it can't take part in.

use ringlog_metadata::features::{
    GROUP_VERSION, METADATA_VERSION, MetadataVersion, NOT_SERVED, SHARE_VERSION, TRANSACTION_VERSION, feature,
};
use ringlog_protocol::messages::ApiVersionsResponse;

use super::findings::Finding;

/// Judges the levels that a broker says are finalized.
pub fn judge(response: &ApiVersionsResponse) -> Vec<Finding> {
    let levels = response.finalized_features.iter().map(|it| (it.name.as_str(), it.max_version_level));
    let levels: Vec<(&str, i16)> = levels.collect();
    if !levels.iter().any(|(name, _)| *name == METADATA_VERSION) {
        let text = "the broker doesn't say which metadata.version the cluster uses: see whether it is one of KRaft, and \
                    ask again when its controllers have a leader";
        return vec![Finding::stop(text)];
    }
    levels.into_iter().map(|(name, level)| judge_level(name, level)).collect()
}

fn judge_level(name: &str, level: i16) -> Finding {
    let Some(known) = feature(name) else {
        return match level {
            0 => Finding::ok(format!("feature {name} is off")),
            _ => Finding::stop(format!(
                "feature {name}={level} isn't known to Ringlog: turn it off with kafka-features disable --feature {name}"
            )),
        };
    };
    let range = known.supported_range(false);
    let shown = match (name, MetadataVersion::from_level(level)) {
        (METADATA_VERSION, Some(version)) => format!("{name}={} ({level})", version.name()),
        _ => format!("{name}={level}"),
    };
    if level < range.min {
        return Finding::stop(format!(
            "{shown} is below the lowest that Ringlog runs ({}): raise it with kafka-features upgrade",
            range.min
        ));
    }
    if level > range.max {
        return Finding::stop(format!(
            "{shown} is above the highest that Ringlog runs ({}): lower it with kafka-features downgrade, or wait for a \
             Ringlog that knows it",
            range.max
        ));
    }
    if level > 0 && NOT_SERVED.contains(&name) {
        return Finding::warn(format!("{shown} is taken, but {} aren't served: {}", not_served(name), instead(name)));
    }
    Finding::ok(shown)
}

fn not_served(name: &str) -> &'static str {
    match name {
        TRANSACTION_VERSION => "transactions",
        GROUP_VERSION => "groups of the consumer protocol",
        SHARE_VERSION => "share groups",
        _ => "streams groups",
    }
}

fn instead(name: &str) -> &'static str {
    match name {
        TRANSACTION_VERSION => "leave __transaction_state to Kafka nodes as long as producers use them",
        GROUP_VERSION => "leave their coordinators to Kafka nodes, or use group.protocol=classic",
        SHARE_VERSION => "leave __share_group_state and their coordinators to Kafka nodes",
        _ => "leave their coordinators to Kafka nodes, or use the classic protocol of Kafka Streams",
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::api_versions_response::FinalizedFeatureKey;

    use super::super::findings::Level;
    use super::*;

    fn levels_of(finalized: &[(&'static str, i16)]) -> Vec<Level> {
        let key = |(name, level): &(&'static str, i16)| FinalizedFeatureKey {
            name: (*name).into(),
            max_version_level: *level,
            min_version_level: *level,
        };
        let finalized_features = finalized.iter().map(key).collect();
        let findings = judge(&ApiVersionsResponse { finalized_features, ..ApiVersionsResponse::default() });
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn levels_are_judged_by_what_is_known_and_served() {
        let new = [("metadata.version", 30), ("kraft.version", 1), ("group.version", 1), ("share.version", 0)];
        assert_eq!(levels_of(&new), [Level::Ok, Level::Ok, Level::Warn, Level::Ok]);
        let strange = [("metadata.version", 31), ("kraft.version", 2), ("other", 1), ("another", 0)];
        assert_eq!(levels_of(&strange), [Level::Stop, Level::Stop, Level::Stop, Level::Ok]);
        assert_eq!(levels_of(&[("metadata.version", 6)]), [Level::Stop]);
    }

    #[test]
    fn a_cluster_that_does_not_say_is_none_to_join() {
        assert_eq!(levels_of(&[]), [Level::Stop]);
        assert_eq!(levels_of(&[("kraft.version", 0)]), [Level::Stop]);
    }
}
