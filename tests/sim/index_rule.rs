//! Kafka's rule for index entries, written once more for the checkers.

use ringlog_protocol::records::BatchHeader;
use ringlog_types::Offset;

/// A batch and where it lies in its segment.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub position: u32,
    pub header: BatchHeader,
    pub bytes: Vec<u8>,
}

/// Content of `.index` and `.timeindex` after the batches were appended one by one. A closed segment ends with its
/// largest timestamp.
pub(crate) fn index_files(base: Offset, batches: &[Placed], interval: u32, closed: bool) -> (Vec<u8>, Vec<u8>) {
    let (mut offsets, mut times) = (Vec::new(), Vec::new());
    let mut largest = (-1_i64, base.0);
    let mut indexed_time = -1_i64;
    let mut since_entry = 0_u64;
    let relative = |offset: i64| ((offset - base.0) as i32).to_be_bytes();
    let mut time_entry = |largest: (i64, i64)| {
        if largest.0 > indexed_time {
            indexed_time = largest.0;
            times.extend_from_slice(&largest.0.to_be_bytes());
            times.extend_from_slice(&relative(largest.1));
        }
    };
    for Placed { position, header, bytes } in batches {
        if header.max_timestamp.0 > largest.0 {
            largest = (header.max_timestamp.0, header.last_offset().0);
        }
        if since_entry > u64::from(interval) {
            offsets.extend_from_slice(&relative(header.last_offset().0));
            offsets.extend_from_slice(&position.to_be_bytes());
            time_entry(largest);
            since_entry = 0;
        }
        since_entry += bytes.len() as u64;
    }
    if closed {
        time_entry(largest);
    }
    (offsets, times)
}

/// Whether each entry of an `.index` points to a batch. A log that was opened again starts its count anew, so the entries
/// needn't be those of [`index_files`].
pub(crate) fn check_offset_index(base: Offset, index: &[u8], batches: &[Placed]) -> Result<(), String> {
    let mut batches = batches.iter();
    for entry in index.chunks_exact(8) {
        let number = |at: usize| i32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let (offset, position) = (base.0 + i64::from(number(0)), number(4) as u32);
        if !batches.any(|batch| batch.header.last_offset().0 == offset && batch.position == position) {
            return Err(format!("segment {base}: the index entry {offset} at {position} points to no batch"));
        }
    }
    Ok(())
}
