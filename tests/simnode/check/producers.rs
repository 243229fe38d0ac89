//! What the snapshots of a log say of its producers must be what its batches say.

use std::collections::BTreeMap;

/// The last batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBatch {
    /// The producer's epoch.
    pub epoch: i16,
    /// The sequence of its last record.
    pub last_sequence: i32,
    /// The offset of its last record.
    pub last: i64,
    /// How many offsets it takes, less one.
    pub delta: i32,
    /// The largest timestamp in it.
    pub latest_ms: i64,
}

/// A producer's batch.
pub type OfProducer = (i64, LastBatch);

const HEADER_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;

/// What is wrong with a log's snapshots, given with their offsets. `batches` are all that producers with an id wrote and that
/// is there, in order; the log starts at `start`, of what was deleted below nothing has to be known, and ends at `end`.
pub fn check(snapshots: &[(i64, Vec<u8>)], batches: &[OfProducer], start: i64, end: i64) -> Result<(), String> {
    for (offset, bytes) in snapshots {
        let found = entries(bytes).ok_or_else(|| format!("the snapshot of producers at {offset} can't be read"))?;
        if *offset > end {
            return Err(format!("it ends at {end}, and has a snapshot of producers at {offset}"));
        }
        let before: BTreeMap<i64, LastBatch> =
            batches.iter().copied().take_while(|(_, batch)| batch.last < *offset).collect();
        let mut known = before.iter().filter(|(producer, batch)| batch.last >= start || found.contains_key(producer));
        let other = known.find(|(producer, batch)| found.get(producer) != Some(batch));
        if let Some((producer, batch)) = other {
            let found = found.get(producer);
            return Err(format!(
                "the snapshot at {offset} has {found:?} of producer {producer}, whose last is {batch:?}"
            ));
        }
        let unknown = found.iter().find(|(producer, batch)| !before.contains_key(producer) && batch.last >= start);
        if let Some((producer, batch)) = unknown {
            return Err(format!(
                "the snapshot at {offset} has {batch:?} of producer {producer}, and nothing is there of it"
            ));
        }
    }
    let has_none = batches.iter().all(|(_, batch)| batch.last < start);
    match has_none || snapshots.iter().any(|(offset, _)| *offset == end) {
        true => Ok(()),
        false => Err(format!("there is no snapshot of producers at its end, {end}")),
    }
}

fn entries(bytes: &[u8]) -> Option<BTreeMap<i64, LastBatch>> {
    let count = usize::try_from(i32::from_be_bytes(bytes.get(6..HEADER_BYTES)?.try_into().ok()?)).ok()?;
    if bytes[..2] != [0, 1] || bytes.len() != HEADER_BYTES + count * ENTRY_BYTES {
        return None;
    }
    let entry = |entry: &[u8]| {
        let batch = LastBatch {
            epoch: i16::from_be_bytes(entry[8..10].try_into().ok()?),
            last_sequence: i32::from_be_bytes(entry[10..14].try_into().ok()?),
            last: i64::from_be_bytes(entry[14..22].try_into().ok()?),
            delta: i32::from_be_bytes(entry[22..26].try_into().ok()?),
            latest_ms: i64::from_be_bytes(entry[26..34].try_into().ok()?),
        };
        Some((i64::from_be_bytes(entry[..8].try_into().ok()?), batch))
    };
    bytes[HEADER_BYTES..].chunks_exact(ENTRY_BYTES).map(entry).collect()
}
