//! The five codecs, in the framing that Kafka's Java client writes.

use std::io::Write;

use super::unpack::{Unpacker, snappy_header};

/// How a batch's records are compressed (attribute bits 0 to 2; `compression.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in the framing of xerial's snappy-java.
    Snappy = 2,
    /// LZ4 frames: independent blocks of 64 KiB, no checksums but the header's.
    Lz4 = 3,
    /// Zstandard frames (KIP-110; Produce 7 and Fetch 10 on).
    Zstd = 4,
}

/// Why compressed records can't be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The bytes aren't what the codec says they are.
    #[error("{} data is corrupt", .0.name())]
    Corrupt(Compression),
    /// A block of nothing within an LZ4 frame, where Kafka's readers end.
    #[error("an lz4 block is empty")]
    EmptyBlock,
    /// Unpacked, they would take more than the caller allows.
    #[error("decompressed records take more than {limit} bytes")]
    TooLarge {
        /// The caller's limit.
        limit: usize,
    },
}

/// What snappy-java puts in one block unless told otherwise.
const SNAPPY_BLOCK_LEN: usize = 32 * 1024;
const GZIP_LEVEL_DEFAULT: u32 = 6;

impl Compression {
    /// Every codec, by id.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The codec of attribute bits 0 to 2.
    pub fn from_id(id: u8) -> Option<Compression> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The number in the attributes.
    #[inline]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The codec of that name. Topics say `uncompressed` where clients say `none`; both are taken.
    pub fn from_name(name: &str) -> Option<Compression> {
        if name == "uncompressed" {
            return Some(Compression::None);
        }
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Unpacks `input`, which may give at most `limit` bytes.
    pub fn decompress(self, input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
        let mut out = Vec::new();
        let mut unpacker = Unpacker::new();
        unpacker.begin(self, limit);
        unpacker.rest_into(input, &mut out)?;
        Ok(out)
    }

    /// Packs `input`; `level` as in [`Self::compress_into`].
    pub fn compress(self, input: &[u8], level: Option<i32>) -> Vec<u8> {
        let mut out = Vec::new();
        self.compress_into(input, level, &mut out);
        out
    }

    /// Packs `input` to the end of `out`. `level`: 1 to 9 or -1 for gzip, -131072 to 22 for zstd (others are clamped);
    /// without meaning for snappy and for LZ4, of which there is only the fast form here.
    pub fn compress_into(self, input: &[u8], level: Option<i32>, out: &mut Vec<u8>) {
        const IN_MEMORY: &str = "writing to memory doesn't fail";
        match self {
            Compression::None => out.extend_from_slice(input),
            Compression::Gzip => {
                let level = match level {
                    None | Some(-1) => GZIP_LEVEL_DEFAULT,
                    Some(level) => level.clamp(1, 9) as u32,
                };
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level));
                encoder.write_all(input).expect(IN_MEMORY);
                encoder.finish().expect(IN_MEMORY);
            }
            Compression::Snappy => pack_snappy(input, out),
            Compression::Lz4 => {
                let mut settings = lz4::EncoderBuilder::new();
                settings.block_size(lz4::BlockSize::Max64KB).block_mode(lz4::BlockMode::Independent);
                settings.checksum(lz4::ContentChecksum::NoChecksum);
                let mut encoder = settings.build(out).expect("these settings are known");
                encoder.write_all(input).expect(IN_MEMORY);
                encoder.finish().1.expect(IN_MEMORY);
            }
            Compression::Zstd => {
                let range = zstd::compression_level_range();
                let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(*range.start(), *range.end());
                let mut encoder = zstd::stream::write::Encoder::new(out, level).expect("the level is in range");
                encoder.write_all(input).expect(IN_MEMORY);
                encoder.finish().expect(IN_MEMORY);
            }
        }
    }
}

fn pack_snappy(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&snappy_header());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(SNAPPY_BLOCK_LEN) {
        let length_at = out.len();
        let start = length_at + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder.compress(block, &mut out[start..]).expect("the room is what snappy asks for");
        out.truncate(start + len);
        out[length_at..start].copy_from_slice(&(len as u32).to_be_bytes());
    }
}
