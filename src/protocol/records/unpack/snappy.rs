//! Snappy as xerial's `SnappyInputStream` reads it: magic, int32 version, int32 compatible version, then blocks of int32
//! length and raw snappy.
//!
//! Versions aren't looked at. Streams may follow each other. One to three bytes at the end are ignored. Input without the
//! magic is one raw block.

use super::{Compression, DecompressError, room_for, take};

const CORRUPT: DecompressError = DecompressError::Corrupt(Compression::Snappy);
const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER_LEN: usize = 16;
const VERSION: [u8; 4] = 1_u32.to_be_bytes();
/// A copy element takes 3 bytes at least and gives 64 at most.
const RATIO_MAX: usize = 64;

/// What begins a stream.
pub fn snappy_header() -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION);
    header[12..].copy_from_slice(&VERSION);
    header
}

#[derive(Debug, Default)]
pub(super) struct Snappy {
    position: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Begin,
    Framed,
    Raw,
    End,
}

impl Snappy {
    pub(super) fn begin(&mut self) {
        *self = Snappy::default();
    }

    /// Of the next block, unpacked; `None` if it isn't known.
    pub(super) fn next_len(&self, input: &[u8]) -> Option<usize> {
        let mut ahead = Snappy { position: self.position, state: self.state };
        snap::raw::decompress_len(ahead.next_block(input).ok()??).ok()
    }

    pub(super) fn next(
        &mut self,
        input: &[u8],
        room: usize,
        limit: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, DecompressError> {
        while let Some(block) = self.next_block(input)? {
            let len = snap::raw::decompress_len(block).map_err(|_| CORRUPT)?;
            // More is a lie, found before memory is taken for it.
            if len > block.len().saturating_mul(RATIO_MAX) {
                return Err(CORRUPT);
            }
            if len > room {
                return Err(DecompressError::TooLarge { limit });
            }
            let written = snap::raw::Decoder::new().decompress(block, room_for(buffer, len)).map_err(|_| CORRUPT)?;
            if written != len {
                return Err(CORRUPT);
            }
            if len > 0 {
                return Ok(Some(len));
            }
        }
        Ok(None)
    }

    fn next_block<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, DecompressError> {
        if self.state == State::Begin {
            if input.is_empty() {
                return Err(CORRUPT);
            }
            let is_framed = input.len() >= HEADER_LEN && input.starts_with(&MAGIC);
            self.state = if is_framed { State::Framed } else { State::Raw };
            self.position = if is_framed { HEADER_LEN } else { 0 };
        }
        match self.state {
            State::Raw => {
                self.state = State::End;
                Ok(Some(input))
            }
            State::Framed => self.next_framed(input),
            State::Begin | State::End => Ok(None),
        }
    }

    fn next_framed<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, DecompressError> {
        loop {
            let start = self.position;
            let Some(word) = take::<4>(input, &mut self.position) else { return Ok(None) };
            if word == MAGIC[..4] {
                let header = input.get(start..start + HEADER_LEN).ok_or(CORRUPT)?;
                if !header.starts_with(&MAGIC) {
                    return Ok(None);
                }
                self.position = start + HEADER_LEN;
                continue;
            }
            let len = usize::try_from(i32::from_be_bytes(word)).map_err(|_| CORRUPT)?;
            let block = input.get(self.position..).and_then(|rest| rest.get(..len)).ok_or(CORRUPT)?;
            self.position += len;
            return Ok(Some(block));
        }
    }
}
