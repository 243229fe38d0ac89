//! Segments as they lie on the disks, read without the product's code; and faults planted in them by hand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Bytes of a batch before its length counts.
const LENGTH_BEGINS: usize = 8;
const COUNTED_FROM: usize = 12;
/// Where the checksum is, and from where on it counts.
const CRC_AT: usize = 17;
const CRC_COUNTS_FROM: usize = 21;
/// Where the number of the last record in the batch is.
const LAST_DELTA_AT: usize = 23;

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..at + BYTES)?.try_into().ok()
}

/// The lengths of the batches from the beginning: each begins where the one before ends, in offsets, too.
fn batches(bytes: &[u8], first: i64) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut expected, mut found) = (0, first, Vec::new());
    while let (Some(base), Some(length)) = (number(bytes, at), number(bytes, at + LENGTH_BEGINS)) {
        let (base, length) = (i64::from_be_bytes(base), i32::from_be_bytes(length));
        let end = at + COUNTED_FROM + length.max(0) as usize;
        let Some(last_delta) = number(bytes, at + LAST_DELTA_AT) else { break };
        if base != expected || length <= 0 || end > bytes.len() {
            break;
        }
        expected = base + i64::from(i32::from_be_bytes(last_delta)) + 1;
        found.push(at..end);
        at = end;
    }
    found
}

/// The segments of a partition, first ones first, with their base offsets.
fn segments(partition: &Path) -> Result<Vec<(i64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(partition).with_context(|| partition.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?;
            found.push((name.parse()?, path));
        }
    }
    found.sort();
    Ok(found)
}

/// All batches of a partition, one after the other.
fn content(partition: &Path) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for (base, path) in segments(partition)? {
        let bytes = fs::read(path)?;
        let end = batches(&bytes, base).last().map_or(0, |batch| batch.end);
        all.extend_from_slice(&bytes[..end]);
    }
    Ok(all)
}

/// The same bytes lie in the partition's folder of each of these; how many.
pub fn compare(folders: &[&Path], partition: &str) -> Result<usize> {
    let contents = folders.iter().map(|folder| content(&folder.join(partition))).collect::<Result<Vec<_>>>()?;
    for (folder, content) in folders.iter().zip(&contents) {
        let differs = content.iter().zip(&contents[0]).position(|(one, other)| one != other);
        ensure!(
            *content == contents[0],
            "{partition} has {} bytes in {} and {} in {}; they differ from byte {differs:?} on",
            content.len(),
            folder.display(),
            contents[0].len(),
            folders[0].display()
        );
    }
    Ok(contents.first().map_or(0, Vec::len))
}

/// Cuts the last batch off a partition's log, as if it had never been there.
pub fn cut_last_batch(partition: &Path) -> Result<()> {
    for (base, path) in segments(partition)?.into_iter().rev() {
        let bytes = fs::read(&path)?;
        if let Some(last) = batches(&bytes, base).pop() {
            return Ok(fs::write(&path, &bytes[..last.start])?);
        }
    }
    anyhow::bail!("{} has no batch", partition.display())
}

/// Puts another name in the place of a record's, and makes the batch's checksum fit.
pub fn alter_first_batch(partition: &Path) -> Result<()> {
    let (base, path) = segments(partition)?.into_iter().next().context("a segment")?;
    let mut bytes = fs::read(&path)?;
    let batch = batches(&bytes, base).into_iter().next().context("a batch")?;
    // A name's colon stands between a word and a number; other bytes may look like it.
    let is_name = |three: &[u8]| three[0].is_ascii_lowercase() && three[1] == b':' && three[2].is_ascii_digit();
    let name = bytes[batch.clone()].windows(3).position(is_name).context("a name")?;
    bytes[batch.start + name + 2] ^= 1;
    let crc = crc32c(&bytes[batch.start + CRC_COUNTS_FROM..batch.end]);
    bytes[batch.start + CRC_AT..batch.start + CRC_COUNTS_FROM].copy_from_slice(&crc.to_be_bytes());
    Ok(fs::write(&path, bytes)?)
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn the_checksum_is_the_known_one() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
