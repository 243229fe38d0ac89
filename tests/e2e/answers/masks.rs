//! What two nodes in the same state tell differently by nature, and must not be compared.

use super::names::topic_id;
use super::wire::Value;

/// What coordinators write to.
const GROUPS_TOPIC: &str = "__consumer_offsets";
/// The length of an id in base64.
const ID_LEN: usize = 22;

/// The API (all if empty), the field, and why it isn't compared.
const MASKED: &[(&str, &str, &str)] = &[
    ("", "ThrottleTimeMs", "there are no quotas here"),
    ("", "Host", "an address of the node"),
    ("", "Port", "an address of the node"),
    ("", "BrokerEpoch", "an offset in the metadata log"),
    ("", "LogAppendTimeMs", "a time"),
    ("", "LastTimestamp", "a time"),
    ("InitProducerId", "ProducerId", "from blocks that the controller gives"),
    ("DescribeLogDirs", "LogDir", "a path"),
    ("DescribeLogDirs", "TotalBytes", "of the file system"),
    ("DescribeLogDirs", "UsableBytes", "of the file system"),
    ("DescribeQuorum", "LeaderEpoch", "counts elections"),
    ("DescribeQuorum", "HighWatermark", "counts records of the metadata log"),
    ("DescribeQuorum", "LogEndOffset", "counts records of the metadata log"),
    ("DescribeQuorum", "LastFetchTimestamp", "a time"),
    ("DescribeQuorum", "LastCaughtUpTimestamp", "a time"),
    ("ApiVersions", "FinalizedFeaturesEpoch", "an offset in the metadata log"),
    ("DescribeConfigs", "Documentation", "in words of our own"),
];

/// Settings whose values are places of the node.
const PLACES: &[&str] = &[
    "listeners",
    "advertised.listeners",
    "log.dirs",
    "log.dir",
    "metadata.log.dir",
    "controller.quorum.bootstrap.servers",
];

/// Puts nothing in the place of what isn't compared, and sorts lists, whose order follows from hash codes with Kafka.
pub fn mask(api: &str, answer: &mut Value) {
    answer.visit("", &mut |name, value| {
        if MASKED.iter().any(|(of, field, _)| *field == name && (of.is_empty() || *of == api)) {
            *value = Value::Null;
        }
    });
    answer.visit("", &mut |name, value| match value {
        Value::Text(text) if name == "ErrorMessage" => *text = without_directories(text),
        _ => {}
    });
    match api {
        "Fetch" => hide_groups(answer, "Responses", "Records"),
        "DescribeConfigs" => {
            for config in items(answer, "Results").iter_mut().flat_map(|result| items(result, "Configs")) {
                if config.get("Name").and_then(Value::text).is_some_and(|name| PLACES.contains(&name)) {
                    config.visit("", &mut |name, value| {
                        if name == "Value" {
                            *value = Value::Null;
                        }
                    });
                }
            }
            for result in items(answer, "Results") {
                if let Value::Struct(fields) = result {
                    for (_, configs) in fields.iter_mut().filter(|(name, _)| *name == "Configs") {
                        leave_out_own_keys(configs);
                    }
                }
            }
        }
        "DescribeLogDirs" => {
            for result in items(answer, "Results") {
                hide_groups(result, "Topics", "PartitionSize");
            }
        }
        _ => {}
    }
    sort(answer);
}

/// Directories have ids by chance.
fn without_directories(text: &str) -> String {
    const MARK: &str = "directoryId=";
    let mut parts = text.split(MARK);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| out + MARK + "..." + part.get(ID_LEN..).unwrap_or_default())
}

/// Keys that only Ringlog has.
fn leave_out_own_keys(configs: &mut Value) {
    if let Value::List(configs) = configs {
        configs.retain(|it| !it.get("Name").and_then(Value::text).is_some_and(|name| name.starts_with("ringlog.")));
    }
}

/// The items of a list in a field.
fn items<'a>(value: &'a mut Value, name: &str) -> &'a mut [Value] {
    let Value::Struct(fields) = value else { return &mut [] };
    match fields.iter_mut().find(|(known, _)| *known == name) {
        Some((_, Value::List(items))) => items,
        _ => &mut [],
    }
}

/// What coordinators write has times in it, and is cut into batches by chance.
fn hide_groups(answer: &mut Value, topics: &str, field: &str) {
    let id = topic_id(GROUPS_TOPIC, 1);
    for topic in items(answer, topics) {
        let is_groups =
            ["Topic", "Name"].iter().any(|name| topic.get(name).and_then(Value::text) == Some(GROUPS_TOPIC))
                || matches!(topic.get("TopicId"), Some(Value::Id(found)) if *found == id);
        if is_groups {
            topic.visit("", &mut |name, value| {
                if name == field {
                    *value = Value::Null;
                }
            });
        }
    }
}

fn sort(value: &mut Value) {
    match value {
        Value::List(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_cached_key(|item| format!("{item:?}"));
        }
        Value::Struct(fields) => fields.iter_mut().for_each(|(_, value)| sort(value)),
        _ => {}
    }
}
