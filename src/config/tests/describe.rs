//! DescribeConfigs entries against what Kafka 4.3.1 answered.
//!
//! `data/described.tsv` holds the answers of a Kafka node started with `data/described-server.properties`, after the
//! dynamic changes below; `data/configs-describe-*.txt` is what `kafka-configs --describe --all` printed on another.

use std::collections::BTreeMap;

use ringlog_config::{BrokerLayers, ConfigEntryDescription, ConfigMap, ServerConfig, describe, properties};

const ANSWERS: &str = include_str!("data/described.tsv");

fn map(entries: &[(&str, &str)]) -> ConfigMap {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn per_broker() -> ConfigMap {
    map(&[
        ("log.cleaner.threads", "3"),
        ("log.retention.ms", "7200000"),
        ("log.retention.bytes", "123"),
        ("log.cleanup.policy", "delete,compact"),
        ("leader.replication.throttled.rate", "1000"),
        ("sasl.jaas.config", "x"),
        ("nope", "y"),
        ("listener.name.plaintext.ssl.keystore.location", "/x"),
        ("listener.name.plaintext.max.connections", "55"),
        ("listener.name.plaintext.nope", "3"),
    ])
}

fn cluster_default() -> ConfigMap {
    map(&[
        ("nope", "x"),
        ("num.io.threads", "6"),
        ("log.retention.ms", "3600000"),
        ("log.roll.ms", "100000"),
        ("min.insync.replicas", "2"),
        ("follower.replication.throttled.rate", "2000"),
        ("max.connections.per.ip.overrides", "zz:1"),
        ("listener.name.plaintext.max.connections", "66"),
    ])
}

fn static_config() -> ConfigMap {
    let given = properties::parse(include_bytes!("data/described-server.properties")).expect("properties");
    ServerConfig::from_properties(&given).expect("a valid configuration").0.properties
}

/// The lines below `== RESOURCE`.
fn answer(resource: &str) -> Vec<&'static str> {
    let mut lines = ANSWERS.lines().skip_while(|line| line.strip_prefix("== ") != Some(resource));
    assert!(lines.next().is_some(), "no answer for {resource}");
    lines.take_while(|line| !line.starts_with("== ")).collect()
}

fn line(entry: &ConfigEntryDescription) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let synonym = |synonym: &ringlog_config::ConfigSynonym| {
        format!("{}:{}={}", synonym.source.name(), synonym.name, value(&synonym.value))
    };
    let synonyms: Vec<String> = entry.synonyms.iter().map(synonym).collect();
    let cells = [
        entry.name.clone(),
        value(&entry.value),
        entry.source.name().to_owned(),
        if entry.read_only { "ro" } else { "rw" }.to_owned(),
        if entry.sensitive { "sensitive" } else { "plain" }.to_owned(),
        entry.config_type.map_or("UNKNOWN", |config_type| config_type.name()).to_owned(),
        synonyms.join(";"),
    ];
    cells.join("\t")
}

fn assert_answer(resource: &str, entries: &[ConfigEntryDescription]) {
    let by_name = |lines: Vec<String>| -> BTreeMap<String, String> {
        lines.into_iter().map(|line| (line.split('\t').next().unwrap_or_default().to_owned(), line)).collect()
    };
    let ours = by_name(entries.iter().map(line).collect());
    let kafkas = by_name(answer(resource).into_iter().map(str::to_owned).collect());
    let names = |lines: &BTreeMap<String, String>| lines.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&kafkas), "keys of {resource}");
    for (name, kafkas) in &kafkas {
        assert_eq!(ours.get(name), Some(kafkas), "{resource}");
    }
}

#[test]
fn entries_are_kafkas_in_every_field() {
    let (per_broker, cluster_default, static_config) = (per_broker(), cluster_default(), static_config());
    let layers =
        BrokerLayers { per_broker: &per_broker, cluster_default: &cluster_default, static_config: &static_config };
    let overrides = map(&[
        ("retention.ms", "1000"),
        ("retention.bytes", " 7 "),
        ("internal.segment.bytes", "1048576"),
        ("cleanup.policy", "delete"),
        ("leader.replication.throttled.replicas", "0:1,"),
    ]);
    assert_answer("TOPIC t1", &describe::topic(&overrides, &layers));
    assert_answer("BROKER 1", &describe::broker(&layers));
    assert_answer("BROKER ", &describe::broker_default(&cluster_default));
    let overrides = map(&[("consumer.session.timeout.ms", "50000"), ("share.auto.offset.reset", "by_duration:PT1H")]);
    assert_answer("GROUP g1", &describe::group(&overrides, &layers));
    assert_answer("GROUP g2", &describe::group(&ConfigMap::new(), &layers));
    let overrides = map(&[("interval.ms", "60000"), ("match", "client_id=a,client_id=b")]);
    assert_answer("CLIENT_METRICS m1", &describe::client_metrics(&overrides));
    assert_answer("CLIENT_METRICS m2", &describe::client_metrics(&ConfigMap::new()));
}

/// What `kafka-configs --describe --all` prints for an entry.
fn printed(entry: &ConfigEntryDescription) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let synonym = |synonym: &ringlog_config::ConfigSynonym| {
        format!("{}:{}={}", synonym.source.name(), synonym.name, value(&synonym.value))
    };
    let synonyms: Vec<String> = entry.synonyms.iter().map(synonym).collect();
    let (name, value, sensitive) = (&entry.name, value(&entry.value), entry.sensitive);
    format!("  {name}={value} sensitive={sensitive} synonyms={{{}}}", synonyms.join(", "))
}

fn printed_lines(output: &'static str) -> Vec<&'static str> {
    let mut lines: Vec<&str> = output.lines().filter(|line| line.starts_with("  ")).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn kafka_configs_prints_the_same() {
    let static_config = ServerConfig::from_properties(&map(&[
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("listeners", "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"),
        ("advertised.listeners", "PLAINTEXT://127.0.0.1:19092"),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.voters", "1@127.0.0.1:19093"),
        ("log.dirs", "<LOGDIR>"),
        ("num.partitions", "1"),
        ("offsets.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("transaction.state.log.replication.factor", "1"),
    ]));
    let static_config = static_config.expect("a valid configuration").0.properties;
    let cluster_default = map(&[("min.insync.replicas", "1")]);
    let per_broker = map(&[("log.cleaner.threads", "1")]);
    let layers =
        BrokerLayers { per_broker: &per_broker, cluster_default: &cluster_default, static_config: &static_config };
    let sorted = |entries: Vec<ConfigEntryDescription>| {
        let mut lines: Vec<String> = entries.iter().map(printed).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(describe::broker(&layers)), printed_lines(include_str!("data/configs-describe-broker-all.txt")),);
    let overrides = map(&[("cleanup.policy", "delete"), ("retention.ms", "3600000")]);
    assert_eq!(
        sorted(describe::topic(&overrides, &layers)),
        printed_lines(include_str!("data/configs-describe-topic-all.txt")),
    );
}
