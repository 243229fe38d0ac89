//! Snappy in xerial's framing: magic, int32 version, int32 compatible version, then blocks of int32 length and raw snappy.
//!
//! Input without the magic is one raw snappy block, as snappy-java reads it.

use super::{Compression, DecompressError};

const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const HEADER_LEN: usize = 16;
/// What snappy-java puts in one block unless told otherwise.
const BLOCK_LEN: usize = 32 * 1024;
const CORRUPT: DecompressError = DecompressError::Corrupt(Compression::Snappy);

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK_LEN) {
        let length_at = out.len();
        let start = length_at + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder.compress(block, &mut out[start..]).expect("the room is what snappy asks for");
        out.truncate(start + len);
        out[length_at..start].copy_from_slice(&(len as u32).to_be_bytes());
    }
}

pub(super) fn decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
    let before = out.len();
    if !input.starts_with(MAGIC) {
        return decompress_block(input, limit, before, out);
    }
    let mut rest = input;
    while !rest.is_empty() {
        if rest.starts_with(MAGIC) {
            // Streams may be put one after another.
            rest = rest.get(HEADER_LEN..).ok_or(CORRUPT)?;
            continue;
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or(CORRUPT)?;
        let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| CORRUPT)?;
        let (block, after) = after.split_at_checked(len).ok_or(CORRUPT)?;
        decompress_block(block, limit, before, out)?;
        rest = after;
    }
    Ok(())
}

/// Unpacks one block to the end of `out`, of which `before` bytes were there before this stream.
fn decompress_block(block: &[u8], limit: usize, before: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
    let len = snap::raw::decompress_len(block).map_err(|_| CORRUPT)?;
    let start = out.len();
    if len > limit - (start - before) {
        return Err(DecompressError::TooLarge { limit });
    }
    // A copy element takes 3 bytes at least and gives 64 at most: more is a lie, found before memory is taken for it.
    if len > block.len().saturating_mul(64) {
        return Err(CORRUPT);
    }
    out.resize(start + len, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|_| CORRUPT)?;
    if written == len { Ok(()) } else { Err(CORRUPT) }
}
