//! Configurations that Kafka 4.3.1 took or refused, and what Ringlog makes of them.
//!
//! `data/start.tsv` holds Kafka's verdicts and messages for changes to one good configuration.

use ringlog_config::{
    ConfigError, ConfigMap, Listener, ProcessRoles, SecurityProtocol, ServerConfig, TopicConfig, Warning, properties,
};
use ringlog_types::NodeId;

fn map(entries: &[(&str, &str)]) -> ConfigMap {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn good() -> ConfigMap {
    map(&[
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.listener.names", "CONTROLLER"),
        ("listeners", "PLAINTEXT://localhost:19392,CONTROLLER://localhost:19393"),
        ("controller.quorum.voters", "1@localhost:19393"),
        ("log.dirs", "/var/lib/kafka"),
    ])
}

fn with(changes: &[(&str, &str)]) -> Result<(ServerConfig, Vec<Warning>), Vec<ConfigError>> {
    let mut config = good();
    config.extend(map(changes));
    ServerConfig::from_properties(&config)
}

fn errors(changes: &[(&str, &str)]) -> Vec<String> {
    let errors = with(changes).expect_err("a refusal");
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn verdicts_and_messages_are_kafkas() {
    let mut wrong = Vec::new();
    for row in include_str!("data/start.tsv").lines().skip(1) {
        let mut cells = row.split('\t');
        let (verdict, message) = (cells.next().expect("a verdict"), cells.next().expect("a message"));
        let mut config = good();
        for cell in cells {
            match cell.split_once('=') {
                Some((key, value)) => drop(config.insert(key.to_owned(), value.to_owned())),
                None => drop(config.remove(cell)),
            }
        }
        let outcome = ServerConfig::from_properties(&config);
        let agrees = match &outcome {
            Ok(_) => verdict == "OK",
            Err(errors) if verdict == "OK" => errors
                .iter()
                .all(|error| matches!(error, ConfigError::NotYet { .. } | ConfigError::ListenerNotYet { .. })),
            Err(errors) => errors.iter().any(|error| error.to_string() == message),
        };
        if !agrees {
            wrong.push(format!("{row}\n  -> {:?}", outcome.map(|(_, warnings)| warnings)));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_combined_node() {
    let text = b"process.roles=broker,controller\nnode.id=7\nbroker.rack=r1\n\
        listeners=EXTERNAL://:9092,INTERNAL://10.0.0.1:9094,CONTROLLER://:9093\n\
        advertised.listeners=EXTERNAL://kafka.example.com:9092,INTERNAL://10.0.0.1:9094\n\
        listener.security.protocol.map=EXTERNAL:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
        inter.broker.listener.name=INTERNAL\ncontroller.listener.names=CONTROLLER\n\
        controller.quorum.bootstrap.servers=a:9093,[::1]:9093\nlog.dirs=/d1, /d2\nlog.retention.hours=2\n\
        ringlog.shards=3\n";
    let given = properties::parse(text).expect("properties");
    let (config, warnings) = ServerConfig::from_properties(&given).expect("a valid configuration");
    assert_eq!(warnings, []);
    assert_eq!(config.node_id, NodeId(7));
    assert_eq!(config.roles, ProcessRoles { broker: true, controller: true });
    assert_eq!(config.rack.as_deref(), Some("r1"));
    assert_eq!(
        (config.log_dirs.as_slice(), config.metadata_log_dir.as_str()),
        (&["/d1".into(), "/d2".into()][..], "/d1")
    );
    let names: Vec<&str> = config.broker_listeners().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["EXTERNAL", "INTERNAL"]);
    let controller = Listener {
        name: "CONTROLLER".to_owned(),
        host: String::new(),
        port: 9093,
        security_protocol: SecurityProtocol::Plaintext,
    };
    assert_eq!(config.controller_listeners().collect::<Vec<_>>(), [&controller]);
    assert_eq!(config.advertised_controller_listeners, [controller]);
    assert_eq!(config.advertised_listeners[0].to_string(), "EXTERNAL://kafka.example.com:9092");
    assert_eq!(config.inter_broker_listener_name, "INTERNAL");
    assert_eq!(config.quorum_bootstrap_servers, [("a".to_owned(), 9093), ("::1".to_owned(), 9093)]);
    assert_eq!(config.ringlog.shards, 3);
    let (none, layer) =
        (ConfigMap::new(), map(&[("message.max.bytes", "5"), ("max.connections", "9"), ("listeners", "x")]));
    assert_eq!(TopicConfig::from_broker(&config.layers(&layer, &none)).max_message_bytes, 5);
    let changed = config.with_dynamic(&none, &layer);
    assert_eq!((changed.network.max_connections, &changed.listeners), (9, &config.listeners));
    assert_eq!(config.properties["broker.id"], "7");
}

#[test]
fn the_built_in_node_is_valid_and_takes_any_path() {
    let config = ServerConfig::dev("/tmp/a,b", 9092);
    assert_eq!(config.log_dirs, ["/tmp/a,b"]);
    assert_eq!(config.metadata_log_dir, "/tmp/a,b");
    assert_eq!(config.quorum_voters[0].port, 9093);
    assert_eq!(config.group.offsets_topic_replication_factor, 1);
    assert_eq!(ServerConfig::dev("/d", u16::MAX).quorum_voters[0].port, u16::MAX - 1);
}

#[test]
fn functions_that_are_not_there_are_named() {
    assert_eq!(
        errors(&[("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")]),
        [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer asks for authorization, which \
          Ringlog doesn't have yet. Remove the key or set its default."
        ]
    );
    let tls = errors(&[
        ("listeners", "SSL://:9092,CONTROLLER://:9093"),
        ("security.inter.broker.protocol", "SSL"),
        ("listener.security.protocol.map", "SSL:SSL,CONTROLLER:PLAINTEXT"),
    ]);
    assert!(tls[0].starts_with("listeners=SSL://:9092 asks for TLS, which Ringlog doesn't have yet:"), "{tls:?}");
    // Kafka's own rules for the other keys come after.
    for (listener, function) in [("SASL_PLAINTEXT", "SASL"), ("SSL", "TLS"), ("SASL_SSL", "TLS and SASL")] {
        let listeners = format!("{listener}://:9092,CONTROLLER://:9093");
        let refused = errors(&[("listeners", &listeners), ("security.inter.broker.protocol", listener)]);
        let expected = format!("listeners={listener}://:9092 asks for {function}, which Ringlog doesn't have yet:");
        assert!(refused[0].starts_with(&expected), "{refused:?}");
    }
    let mapped = errors(&[
        ("listeners", "SECURE://:9092,CONTROLLER://:9093"),
        ("listener.security.protocol.map", "SECURE:SASL_PLAINTEXT"),
        ("inter.broker.listener.name", "SECURE"),
    ]);
    assert!(mapped[0].starts_with("listeners=SECURE://:9092 asks for SASL,"), "{mapped:?}");
    assert!(errors(&[("delegation.token.secret.key", "s3cret")])[0].contains("[hidden]"));
    for (key, default) in [("authorizer.class.name", ""), ("remote.log.storage.system.enable", " FALSE")] {
        assert!(with(&[(key, default)]).is_ok_and(|(_, warnings)| warnings.is_empty()), "{key} at its default");
    }
}

#[test]
fn keys_without_effect_and_unknown_keys_are_warned_about() {
    let (_, warnings) = with(&[("num.io.threads", "16"), ("zookeeper.connect", "x"), ("a.b", "c")]).expect("a start");
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "num.io.threads has no effect: shards take the place of Kafka's thread pools.",
            "These configurations '[a.b, zookeeper.connect]' were supplied but are not used yet.",
        ]
    );
    let (_, warnings) = with(&[("broker.heartbeat.interval.ms", "5000")]).expect("a start");
    assert!(warnings[0].to_string().starts_with("broker.heartbeat.interval.ms (5000 ms) must be less than or equal"));
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let found = errors(&[("node.id", "x"), ("num.partitions", "0"), ("ringlog.direct.io", "on")]);
    assert!(found.contains(&"Invalid value x for configuration node.id: Not a number of type INT".to_owned()));
    assert!(found.contains(&"Invalid value 0 for configuration num.partitions: Value must be at least 1".to_owned()));
    assert!(found.iter().any(|text| text.starts_with("Invalid value on for configuration ringlog.direct.io: ")));
}

#[test]
fn kafkas_own_example_files_start() {
    let common = "num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
        socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nlog.dirs=/tmp/kraft\n\
        num.partitions=1\nnum.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
        share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
        transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\nlog.retention.hours=168\n\
        log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
        SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\ncontroller.listener.names=CONTROLLER\n";
    for (roles, rest) in [
        (
            "broker,controller",
            "node.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
             listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
             advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n",
        ),
        (
            "broker",
            "node.id=2\ncontroller.quorum.bootstrap.servers=localhost:9093\nlisteners=PLAINTEXT://localhost:9092\n\
             inter.broker.listener.name=PLAINTEXT\nadvertised.listeners=PLAINTEXT://localhost:9092\n",
        ),
        (
            "controller",
            "node.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\nlisteners=CONTROLLER://:9093\n\
             advertised.listeners=CONTROLLER://localhost:9093\n",
        ),
    ] {
        let text = format!("process.roles={roles}\n{rest}{common}");
        let given = properties::parse(text.as_bytes()).expect("properties");
        let outcome = ServerConfig::from_properties(&given);
        assert!(outcome.is_ok(), "{roles}: {outcome:?}");
    }
}
