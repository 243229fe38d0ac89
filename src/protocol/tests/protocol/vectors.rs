//! The generated codec against 1456 messages that Kafka 4.3.1's own classes wrote, and against damaged ones.

use crate::common::{Kind, Recoded, Vector};
use bytes::Bytes;
use ringlog_types::Random;
use std::collections::{BTreeMap, BTreeSet};

fn kinds_by_name() -> BTreeMap<&'static str, Kind> {
    crate::common::kinds().into_iter().map(|kind| (kind.name, kind)).collect()
}

#[test]
fn every_vector_reads_and_writes_back_to_the_same_bytes() {
    let kinds = kinds_by_name();
    let vectors = crate::common::vectors();
    assert_eq!(vectors.len(), 1456);
    for Vector { message, version, bytes, full, json } in &vectors {
        let kind = kinds.get(message.as_str()).unwrap_or_else(|| panic!("no type {message}"));
        match (kind.recode)(bytes.clone(), *version, true) {
            Recoded::Done { bytes: again, size, debug } => {
                assert_eq!(&again, bytes, "{message} version {version}, full {full}: {debug}");
                assert_eq!(size, bytes.len(), "{message} version {version}");
                assert_fields(message, *version, json, &debug);
            }
            Recoded::Undecodable(error) => panic!("{message} version {version}, full {full}: {error}"),
            Recoded::Unencodable(error) => panic!("{message} version {version}, full {full}: {error}"),
        }
    }
}

/// Each scalar of Kafka's JSON is in the struct's text under the same name. The values of a full vector are distinct,
/// so that a swap of two fields shows.
fn assert_fields(message: &str, version: i16, json: &serde_json::Value, debug: &str) {
    let serde_json::Value::Object(fields) = json else {
        if let Some(elements) = json.as_array() {
            elements.iter().for_each(|element| assert_fields(message, version, element, debug));
        }
        return;
    };
    for (name, value) in fields {
        assert_fields(message, version, value, debug);
        let Some(number_or_text) = scalar(value) else { continue };
        // Kafka prints records as their length under a name of its own.
        if name.ends_with("ecordsSizeInBytes") {
            continue;
        }
        let name = snake(name);
        let found = ["", "_"].iter().any(|end| {
            [format!("{name}{end}: {number_or_text}"), format!("{name}{end}: Some({number_or_text})")]
                .iter()
                .any(|wanted| debug.contains(wanted.as_str()))
        });
        // Byte fields and UUIDs are base64 text in the JSON, and print differently.
        let opaque = value.as_str().is_some_and(|text| !text.starts_with('s'));
        assert!(found || opaque, "{message} version {version}: no {name}: {number_or_text} in {debug}");
    }
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        serde_json::Value::String(text) => Some(format!("{text:?}")),
        _ => None,
    }
}

fn snake(name: &str) -> String {
    let letters: Vec<char> = name.replace("kRaft", "kraft").chars().collect();
    let mut text = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let next_is_lower = letters.get(i + 1).is_some_and(|next| next.is_lowercase());
        if i > 0 && letter.is_uppercase() && (!letters[i - 1].is_uppercase() || next_is_lower) {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[test]
fn every_type_and_version_has_a_vector() {
    let covered: BTreeSet<(String, i16)> =
        crate::common::vectors().into_iter().map(|vector| (vector.message, vector.version)).collect();
    for kind in crate::common::kinds() {
        for version in kind.min_version..=kind.max_version {
            assert!(covered.contains(&(kind.name.to_string(), version)), "{} version {version}", kind.name);
        }
    }
}

#[test]
fn a_vector_that_is_cut_short_is_an_error() {
    let kinds = kinds_by_name();
    for Vector { message, version, bytes, .. } in crate::common::vectors() {
        // Every prefix of small vectors, and a bounded number of those of large ones.
        let step = bytes.len() / 64 + 1;
        for length in (0..bytes.len()).step_by(step) {
            let recoded = (kinds[message.as_str()].recode)(bytes.slice(..length), version, false);
            assert!(matches!(recoded, Recoded::Undecodable(_)), "{message} version {version} cut to {length}");
        }
    }
}

#[test]
fn flipped_bits_never_panic_and_what_is_read_can_be_read_again() {
    let kinds = kinds_by_name();
    let mut random = Random::from_seed(0x5eed);
    for Vector { message, version, bytes, .. } in crate::common::vectors() {
        for _ in 0..24 {
            let mut damaged = bytes.to_vec();
            for _ in 0..=random.below(3) {
                if let Some(byte) = damaged.get_mut(random.below(bytes.len() as u64) as usize) {
                    *byte ^= 1 << random.below(8);
                }
            }
            assert_stable(&kinds[message.as_str()], version, damaged.into());
        }
    }
}

#[test]
fn random_bytes_never_panic_in_any_type_and_version() {
    let mut random = Random::from_seed(0xf00d);
    for kind in crate::common::kinds() {
        for version in kind.min_version..=kind.max_version {
            for _ in 0..48 {
                let length = random.below(160) as usize;
                // Small numbers make counts and lengths that are met, so that decoding gets beyond the first field.
                let small = random.below(2) == 0;
                let bytes: Bytes =
                    (0..length).map(|_| if small { random.below(4) as u8 } else { random.next_u64() as u8 }).collect();
                assert_stable(&kind, version, bytes);
            }
        }
    }
}

/// Decoded bytes give a value whose encoding decodes to the same encoding.
fn assert_stable(kind: &Kind, version: i16, bytes: Bytes) {
    let Recoded::Done { bytes: once, size, .. } = (kind.recode)(bytes, version, false) else { return };
    assert_eq!(size, once.len(), "{} version {version}", kind.name);
    match (kind.recode)(once.clone(), version, false) {
        Recoded::Done { bytes: twice, .. } => assert_eq!(once, twice, "{} version {version}", kind.name),
        _ => panic!("{} version {version}: what was written can't be read", kind.name),
    }
}
