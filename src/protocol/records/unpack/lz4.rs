//! One LZ4 frame as Kafka's `Lz4BlockInputStream` reads it.
//!
//! Blocks must be independent. Checksums of header and blocks are checked, that of the content must be there but isn't,
//! and neither is the content's size. Whatever follows the frame is ignored.

use super::{Compression, DecompressError, room_for, take};

const CORRUPT: DecompressError = DecompressError::Corrupt(Compression::Lz4);
const MAGIC: u32 = 0x184D_2204;
/// Version 1 with independent blocks, in the bits that say so and the reserved ones.
const FLAGS_FIXED: u8 = 0b0110_0000;
const FLAGS_FIXED_MASK: u8 = 0b1110_0011;
const BLOCK_CHECKSUM: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const STORED: u32 = 1 << 31;
/// A byte of input gives 255 bytes at most.
const RATIO_MAX: usize = 255;

#[derive(Debug, Default)]
pub(super) struct Lz4 {
    position: usize,
    flags: u8,
    /// 0 before the header is read.
    block_max: usize,
}

impl Lz4 {
    pub(super) fn begin(&mut self) {
        *self = Lz4::default();
    }

    pub(super) fn next(&mut self, input: &[u8], buffer: &mut Vec<u8>) -> Result<Option<usize>, DecompressError> {
        if self.block_max == 0 {
            self.read_header(input)?;
        }
        let word = take(input, &mut self.position).map(u32::from_le_bytes).ok_or(CORRUPT)?;
        let len = (word & !STORED) as usize;
        if len == 0 {
            if self.flags & CONTENT_CHECKSUM != 0 {
                take::<4>(input, &mut self.position).ok_or(CORRUPT)?;
            }
            return Ok(None);
        }
        if len > self.block_max {
            return Err(CORRUPT);
        }
        let block = input.get(self.position..self.position + len).ok_or(CORRUPT)?;
        self.position += len;
        if self.flags & BLOCK_CHECKSUM != 0 {
            let checksum = take(input, &mut self.position).map(u32::from_le_bytes).ok_or(CORRUPT)?;
            if checksum != xxh32(block) {
                return Err(CORRUPT);
            }
        }
        if word & STORED != 0 {
            room_for(buffer, len).copy_from_slice(block);
            return Ok(Some(len));
        }
        let room = room_for(buffer, self.block_max.min(len.saturating_mul(RATIO_MAX)));
        match lz4::block::decompress_to_buffer(block, i32::try_from(room.len()).ok(), room) {
            // Kafka's own reader makes nothing of such a block: its consumers end there.
            Ok(0) => Err(DecompressError::EmptyBlock),
            Ok(written) => Ok(Some(written)),
            Err(_) => Err(CORRUPT),
        }
    }

    fn read_header(&mut self, input: &[u8]) -> Result<(), DecompressError> {
        let magic = take(input, &mut self.position).map(u32::from_le_bytes).ok_or(CORRUPT)?;
        let start = self.position;
        let [flags, block] = take(input, &mut self.position).ok_or(CORRUPT)?;
        // The size of a block is 64 KiB, 256 KiB, 1 MiB or 4 MiB; all other bits are reserved.
        if magic != MAGIC || flags & FLAGS_FIXED_MASK != FLAGS_FIXED || !matches!(block, 0x40 | 0x50 | 0x60 | 0x70) {
            return Err(CORRUPT);
        }
        if flags & CONTENT_SIZE != 0 {
            take::<8>(input, &mut self.position).ok_or(CORRUPT)?;
        }
        let checksum = (xxh32(&input[start..self.position]) >> 8) as u8;
        if take(input, &mut self.position) != Some([checksum]) {
            return Err(CORRUPT);
        }
        self.flags = flags;
        self.block_max = 1 << (2 * (block >> 4) + 8);
        Ok(())
    }
}

fn xxh32(bytes: &[u8]) -> u32 {
    twox_hash::XxHash32::oneshot(0, bytes)
}
