//! The tables against Kafka's own, and names.

use super::*;

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(1).filter(|line| !line.trim().is_empty()).map(|line| line.split('\t').collect())
}

#[test]
fn metadata_versions_allow_what_kafkas_do() {
    let table = include_str!("../data/metadata-version-capabilities.tsv");
    let mut count = 0;
    for row in rows(table) {
        let version = MetadataVersion::from_level(row[0].parse().unwrap()).unwrap();
        assert_eq!(version.name(), row[1]);
        assert_eq!(version.is_production(), row[2] == "true");
        let is_changed = METADATA_VERSIONS.iter().find(|it| it.0 == version.0).unwrap().2;
        let actual = [
            is_changed.to_string(),
            version.register_broker_record_version().to_string(),
            (if version.is_controller_registration_supported() { "0" } else { "unsupported" }).to_owned(),
            version.partition_record_version().to_string(),
            version.partition_change_record_version().to_string(),
            version.fetch_request_version().to_string(),
            version.list_offsets_request_version().to_string(),
            version.is_controller_registration_supported().to_string(),
            version.is_cordoned_log_dirs_supported().to_string(),
            version.is_delegation_token_supported().to_string(),
            version.is_directory_assignment_supported().to_string(),
            version.is_elr_supported().to_string(),
            version.is_leader_epoch_bump_required_on_isr_shrink().to_string(),
            version.is_metadata_transaction_supported().to_string(),
            version.is_migration_supported().to_string(),
            version.is_scram_supported().to_string(),
        ];
        assert_eq!(actual, row[3..], "{version}");
        count += 1;
    }
    assert_eq!(count, METADATA_VERSIONS.len());
}

#[test]
fn features_have_kafkas_levels_and_dependencies() {
    for row in rows(include_str!("../data/features.tsv")) {
        let (name, level) = (row[0], row[1].parse().unwrap());
        let feature = feature(name).unwrap();
        assert!(feature.has_level(level), "{name} {level}");
        if name == METADATA_VERSION {
            continue;
        }
        let bootstrap = MetadataVersion::from_name(row[3]).unwrap();
        assert_eq!(feature.levels[level as usize].bootstrap_metadata_version, bootstrap, "{name} {level}");
        let dependencies: Vec<String> =
            feature.dependencies(level).iter().map(|(name, level)| format!("{name}={level}")).collect();
        assert_eq!(format!("{{{}}}", dependencies.join(", ")), row[5]);
    }
}

#[test]
fn defaults_and_ranges_are_kafkas() {
    let table = include_str!("../data/features-defaults.tsv");
    let (ranges, defaults) = table.split_once("\n\n").unwrap();
    for row in rows(ranges) {
        let range = feature(row[0]).unwrap().supported_range(false);
        assert_eq!([range.min.to_string(), range.max.to_string()], row[1..3], "{}", row[0]);
        assert_eq!(feature(row[0]).unwrap().supported_range(true).max.to_string(), row[3]);
    }
    let names = [
        KRAFT_VERSION,
        TRANSACTION_VERSION,
        GROUP_VERSION,
        ELIGIBLE_LEADER_REPLICAS_VERSION,
        SHARE_VERSION,
        STREAMS_VERSION,
    ];
    for row in rows(defaults) {
        let version = MetadataVersion::from_name(row[0]).unwrap();
        let levels = names.map(|name| feature(name).unwrap().default_level(version).to_string());
        assert_eq!(levels, row[1..], "{version}");
    }
}

/// Nobody is to turn on what brokers can't serve; where it is on, as after Kafka's `storage format`, they say no less than
/// the cluster asks of every broker.
#[test]
fn brokers_claim_no_more_of_what_they_do_not_serve_than_the_cluster_has() {
    for feature in FEATURES {
        let supported = feature.supported_range(false);
        let (off, on) = (feature.range_of_brokers(0, false), feature.range_of_brokers(supported.max, false));
        let newer = feature.range_of_brokers(i16::MAX, false);
        let is_served = !NOT_SERVED.contains(&feature.name);
        assert_eq!(off.max, if is_served { supported.max } else { 0 }, "{}", feature.name);
        assert_eq!((on, newer), (supported, supported), "{}", feature.name);
    }
    let transactions = feature(TRANSACTION_VERSION).unwrap();
    assert_eq!(transactions.range_of_brokers(1, false).max, 1);
}

#[test]
fn names_of_releases_give_their_last_level() {
    let level = |name| MetadataVersion::from_name(name).map(|version| version.0);
    assert_eq!(level("3.7"), Some(19));
    assert_eq!(level("4.3.1"), Some(30));
    assert_eq!(level("3.7-IV0"), Some(15));
    assert_eq!(level("4.3-IV9"), None);
    assert_eq!(level("nonsense"), None);
    assert_eq!((level("4.4-IV0"), level("4.4")), (Some(31), None));
    assert!(MetadataVersion::is_metadata_changed_between(MetadataVersion(30), MetadataVersion(29)));
    assert!(!MetadataVersion::is_metadata_changed_between(MetadataVersion(29), MetadataVersion(24)));
}
