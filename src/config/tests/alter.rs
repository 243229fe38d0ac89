//! Changes that Kafka 4.3.1 took or refused: verdicts in `data/alter.tsv` (by IncrementalAlterConfigs) and
//! `data/topic-overrides.tsv`.

use ringlog_config::{AlterOp, BrokerLayers, ConfigMap, ResourceKind, alter, validate};
use ringlog_types::ErrorCode;

fn verdict(kind: ResourceKind, name: &str, op: AlterOp, key: &str, value: Option<&str>) -> (ErrorCode, String) {
    let static_config: ConfigMap =
        [("log.dirs", "/var/lib/kafka")].iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let layers = BrokerLayers::from_static(&static_config);
    let new = match alter::apply(kind, key, None, op, value) {
        Ok(value) => value.map(|value| (key.to_owned(), value)).into_iter().collect::<ConfigMap>(),
        Err(error) => return (error.error_code(), error.to_string()),
    };
    let outcome = validate::resource_name(kind, name).and_then(|()| match kind {
        ResourceKind::Topic => validate::topic(&new, &layers),
        ResourceKind::Broker => validate::broker(&new, !name.is_empty(), &layers),
        ResourceKind::ClientMetrics => validate::client_metrics(&new),
        ResourceKind::Group => validate::group(&new, &layers),
    });
    match outcome {
        Ok(()) => (ErrorCode::None, String::new()),
        Err(error) => (error.error_code(), error.to_string()),
    }
}

#[test]
fn changes_are_judged_as_by_kafka() {
    let mut wrong = Vec::new();
    for row in include_str!("data/alter.tsv").lines().skip(1) {
        let cells: Vec<&str> = row.split('\t').collect();
        let [kind, name, op, key, value, error, message] = cells[..] else { panic!("{row}") };
        let kind = match kind {
            "TOPIC" => ResourceKind::Topic,
            "BROKER" => ResourceKind::Broker,
            "GROUP" => ResourceKind::Group,
            _ => ResourceKind::ClientMetrics,
        };
        let op = (0..4).filter_map(AlterOp::from_code).find(|one| one.name() == op).expect("an operation");
        let value = Some(value).filter(|value| *value != "null");
        let (code, text) = verdict(kind, name, op, key, value);
        let not_yet = error == "NONE" && text.ends_with("which Ringlog doesn't have yet");
        if !not_yet && (code.name(), text.as_str()) != (error, message) {
            wrong.push(format!("{row}\n  -> {code} {text}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn topic_overrides_are_judged_as_by_kafka() {
    let mut wrong = Vec::new();
    let empty = ConfigMap::new();
    for row in include_str!("data/topic-overrides.tsv").lines().skip(1) {
        let mut cells = row.split('\t');
        let (verdict, message) = (cells.next().expect("a verdict"), cells.next().expect("a message"));
        let split = |cell: &str| cell.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let overrides: ConfigMap = cells.filter_map(split).collect();
        let outcome = validate::topic(&overrides, &BrokerLayers::from_static(&empty));
        let agrees = match &outcome {
            Ok(()) => verdict == "OK",
            Err(error) => {
                verdict == "FAIL" && error.to_string() == message && error.error_code() == ErrorCode::InvalidConfig
            }
        };
        if !agrees {
            wrong.push(format!("{row}\n  -> {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_dynamic_change_must_leave_the_broker_consistent() {
    let empty = ConfigMap::new();
    let layers = BrokerLayers::from_static(&empty);
    let new: ConfigMap = [("log.roll.ms".to_owned(), "0".to_owned())].into();
    let error = validate::broker(&new, false, &layers).expect_err("a refusal");
    assert_eq!(error.to_string(), "requirement failed: log.roll.ms must be greater than or equal to 1");
    let several: ConfigMap = ["node.id", "broker.rack"].iter().map(|key| ((*key).to_owned(), "3".to_owned())).collect();
    let error = validate::broker(&several, true, &layers).expect_err("a refusal");
    assert_eq!(error.to_string(), "Cannot update these configs dynamically: [broker.rack, node.id]");
}

#[test]
fn with_eligible_leader_replicas_only_the_clusters_smallest_isr_changes() {
    assert_eq!(validate::min_insync_replicas_with_elr(false, false), Ok(()));
    for (per_broker, removed) in [(true, false), (true, true), (false, true)] {
        let error = validate::min_insync_replicas_with_elr(per_broker, removed).expect_err("a refusal");
        assert_eq!(error.error_code(), ErrorCode::InvalidConfig);
    }
}

#[test]
fn names_are_checked() {
    let refused = |kind, name| validate::resource_name(kind, name).map_err(|error| error.to_string());
    assert_eq!(
        refused(ResourceKind::Broker, "abc"),
        Err("Unable to parse broker name as a base 10 number.".to_owned())
    );
    assert_eq!(refused(ResourceKind::Broker, ""), Ok(()));
    assert_eq!(refused(ResourceKind::Topic, "a"), Ok(()));
    assert!(refused(ResourceKind::Topic, "a b").is_err());
}

#[test]
fn numbers_of_threads_at_most_double_or_halve_at_a_time() {
    let static_config: ConfigMap = [("num.io.threads".to_owned(), "9".to_owned())].into();
    let layers = BrokerLayers::from_static(&static_config);
    let text = |key: &str, value: &str, per_broker: bool| {
        let new: ConfigMap = [(key.to_owned(), value.to_owned())].into();
        let refused = validate::broker(&new, per_broker, &layers).err()?;
        assert_eq!(refused.error_code(), ErrorCode::InvalidRequest);
        Some(refused.to_string())
    };
    let wrapped = |text: &str| {
        let exception = "org.apache.kafka.common.config.ConfigException";
        Some(format!("Invalid value {exception}: {text} for configuration Invalid dynamic configuration"))
    };
    for per_broker in [false, true] {
        let failed = |count| format!("Dynamic thread count update validation failed for num.io.threads={count}");
        assert_eq!(text("num.io.threads", "18", per_broker), None);
        let expected = format!("{}, value should not be greater than double the current value 9", failed(19));
        assert_eq!(text("num.io.threads", "19", per_broker), wrapped(&expected));
        assert_eq!(text("num.io.threads", "4", per_broker), None);
        let expected = format!("{}, value should be at least half the current value 9", failed(3));
        assert_eq!(text("num.io.threads", "3", per_broker), wrapped(&expected));
        assert_eq!(text("log.cleaner.threads", "2", per_broker), None);
        let expected = "Log cleaner threads cannot be increased to more than double the current value 1";
        assert_eq!(text("log.cleaner.threads", "100", per_broker), wrapped(expected));
    }
}
