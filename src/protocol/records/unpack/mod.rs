//! Unpacks the records of a batch piece by piece into one small buffer, in the framings that Kafka's Java client reads.
//!
//! What that client takes is taken here, byte for byte, with what it ignores (such as anything after the first LZ4 frame);
//! what it refuses is refused: then a broker that unpacked a batch knows that consumers can. Each framing says what that
//! means for it. Codecs come from libraries; only frames are read here.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::ops::Range;

use super::{Compression, DecompressError};

pub(super) use snappy::snappy_header;

/// Room before each piece for what of the one before was not used.
pub const UNREAD_MAX: usize = 64;
/// What a piece has at most, unless a single block of LZ4 or snappy has more.
const PIECE_LEN: usize = 64 * 1024;
/// A buffer that a great block made grow is given up after the batch.
const BUFFER_KEPT_MAX: usize = 1 << 20;
/// A snappy block that unpacks to more than this takes milliseconds in one go.
const LONG_BLOCK_LEN: usize = 2 << 20;

/// Where unpacked bytes are put and what keeps codecs' states. Keep one and use it again.
#[derive(Debug)]
pub struct Unpacker {
    buffer: Vec<u8>,
    /// Of the last piece, within the buffer; within the input where that isn't packed.
    piece: Range<usize>,
    unpacked_len: usize,
    limit: usize,
    stream: Stream,
    gzip: gzip::Gzip,
    lz4: lz4::Lz4,
    snappy: snappy::Snappy,
    zstd: zstd::Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
    Ended,
}

impl Default for Unpacker {
    fn default() -> Unpacker {
        Unpacker::new()
    }
}

impl Unpacker {
    /// Takes no memory before it is used.
    pub fn new() -> Unpacker {
        Unpacker {
            buffer: Vec::new(),
            piece: 0..0,
            unpacked_len: 0,
            limit: 0,
            stream: Stream::Ended,
            gzip: gzip::Gzip::default(),
            lz4: lz4::Lz4::default(),
            snappy: snappy::Snappy::default(),
            zstd: zstd::Zstd::default(),
        }
    }

    /// Begins with another input, which may give `limit` bytes at most.
    pub fn begin(&mut self, compression: Compression, limit: usize) {
        if self.buffer.len() > BUFFER_KEPT_MAX {
            self.buffer = Vec::new();
        }
        (self.piece, self.unpacked_len, self.limit) = (0..0, 0, limit);
        self.stream = match compression {
            Compression::None => Stream::None,
            Compression::Gzip => Stream::Gzip,
            Compression::Snappy => Stream::Snappy,
            Compression::Lz4 => Stream::Lz4,
            Compression::Zstd => Stream::Zstd,
        };
        match self.stream {
            Stream::Gzip => self.gzip.begin(),
            Stream::Snappy => self.snappy.begin(),
            Stream::Lz4 => self.lz4.begin(),
            Stream::Zstd => self.zstd.begin(),
            Stream::None | Stream::Ended => {}
        }
    }

    /// The next piece of `input`, which is the same at each call: first the last `unread` bytes of the piece before, at
    /// most [`UNREAD_MAX`], then what is new; `None` at the end, where no unread bytes come again. After an error there is
    /// nothing more to come.
    pub fn next<'a>(&'a mut self, input: &'a [u8], unread: usize) -> Result<Option<&'a [u8]>, DecompressError> {
        let read = self.read(input, unread);
        match read {
            Ok(Some(Piece::Input)) => Ok(Some(&input[self.piece.clone()])),
            Ok(Some(Piece::Buffer)) => Ok(Some(&self.buffer[self.piece.clone()])),
            Ok(None) => {
                self.stream = Stream::Ended;
                Ok(None)
            }
            Err(fault) => {
                self.stream = Stream::Ended;
                Err(fault)
            }
        }
    }

    /// Everything that is left of `input`, to the end of `out`. After an error `out` holds part of it.
    pub fn rest_into(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), DecompressError> {
        while let Some(piece) = self.next(input, 0)? {
            out.extend_from_slice(piece);
        }
        Ok(())
    }

    /// Whether the next piece takes milliseconds: a core that has more to do lets a thread apart do that.
    pub fn is_next_long(&self, input: &[u8]) -> bool {
        self.stream == Stream::Snappy && self.snappy.next_len(input).is_some_and(|len| len > LONG_BLOCK_LEN)
    }

    /// Bytes unpacked so far.
    pub fn unpacked_len(&self) -> usize {
        self.unpacked_len
    }

    fn read(&mut self, input: &[u8], unread: usize) -> Result<Option<Piece>, DecompressError> {
        if self.stream == Stream::Ended {
            return Ok(None);
        }
        assert!(unread <= UNREAD_MAX.min(self.piece.len()), "only the end of a piece may stay unread");
        if self.stream == Stream::None {
            let start = self.piece.end;
            self.piece = start - unread..input.len().min(start + PIECE_LEN);
            self.count(self.piece.end - start)?;
            return Ok((self.piece.end > start).then_some(Piece::Input));
        }
        if self.buffer.len() < UNREAD_MAX + PIECE_LEN {
            self.buffer.resize(UNREAD_MAX + PIECE_LEN, 0);
        }
        self.buffer.copy_within(self.piece.end - unread..self.piece.end, UNREAD_MAX - unread);
        let room = self.limit - self.unpacked_len;
        let new = match self.stream {
            Stream::Gzip => self.gzip.next(input, &mut self.buffer[UNREAD_MAX..])?,
            Stream::Snappy => self.snappy.next(input, room, self.limit, &mut self.buffer)?,
            Stream::Lz4 => self.lz4.next(input, &mut self.buffer)?,
            Stream::Zstd => self.zstd.next(input, &mut self.buffer[UNREAD_MAX..])?,
            Stream::None | Stream::Ended => None,
        };
        let Some(new) = new else { return Ok(None) };
        self.count(new)?;
        self.piece = UNREAD_MAX - unread..UNREAD_MAX + new;
        Ok(Some(Piece::Buffer))
    }

    fn count(&mut self, new: usize) -> Result<(), DecompressError> {
        if new > self.limit - self.unpacked_len {
            return Err(DecompressError::TooLarge { limit: self.limit });
        }
        self.unpacked_len += new;
        Ok(())
    }
}

/// Where the next piece lies.
enum Piece {
    Input,
    Buffer,
}

/// Makes room for `len` new bytes, and gives it.
fn room_for(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    let end = UNREAD_MAX + len;
    if buffer.len() < end {
        buffer.resize(end, 0);
    }
    &mut buffer[UNREAD_MAX..end]
}

/// Takes `N` bytes off the front of what is left after `position`.
fn take<const N: usize>(input: &[u8], position: &mut usize) -> Option<[u8; N]> {
    let taken = input.get(*position..)?.first_chunk::<N>()?;
    *position += N;
    Some(*taken)
}
