//! Replicas of one partition: byte for byte the same where they have the same offsets.

use std::collections::BTreeMap;

/// A log's batches, by their base offsets, with what they are.
pub type Batches = BTreeMap<i64, Vec<u8>>;

/// Bytes before a batch's length counts, and the shortest batch.
const PREFIX_BYTES: usize = 12;

/// The batches in a log's folder. `names` are those of its files, `read` gives what they hold.
pub fn batches(names: &[String], read: impl Fn(&str) -> Option<Vec<u8>>) -> Batches {
    let mut found = Batches::new();
    for name in names.iter().filter(|name| name.ends_with(".log")) {
        let bytes = read(name).unwrap_or_default();
        let mut rest = bytes.as_slice();
        while rest.len() >= PREFIX_BYTES {
            let base = i64::from_be_bytes(rest[..8].try_into().expect("eight bytes"));
            let len = PREFIX_BYTES + u32::from_be_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
            if len <= PREFIX_BYTES || len > rest.len() {
                break;
            }
            found.insert(base, rest[..len].to_vec());
            rest = &rest[len..];
        }
    }
    found
}

/// What is wrong with two replicas.
pub fn compare(one: &Batches, other: &Batches) -> Result<(), String> {
    let start = one.keys().next().max(other.keys().next()).copied().unwrap_or(0);
    let end = one.keys().next_back().min(other.keys().next_back()).copied().unwrap_or(-1);
    if start > end {
        return Ok(());
    }
    let (mut ours, mut theirs) = (one.range(start..=end), other.range(start..=end));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return Ok(()),
            (Some((at, _)), None) | (None, Some((at, _))) => {
                return Err(format!("a batch at {at} is in one of them only"));
            }
            (Some((a, _)), Some((b, _))) if a != b => return Err(format!("one goes on at {a}, another at {b}")),
            (Some((at, ours)), Some((_, theirs))) if ours != theirs => {
                return Err(format!("the batches at {at} differ"));
            }
            _ => {}
        }
    }
}
