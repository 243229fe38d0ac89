//! RFC 1952 as `java.util.zip.GZIPInputStream` reads it.
//!
//! Members may follow each other; what follows a member and doesn't begin like one is ignored. That reader takes what is
//! deflated in steps of 8 KiB, and doesn't look for another member in 18 bytes or less that the last step left over.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{Compression, DecompressError, take};

const CORRUPT: DecompressError = DecompressError::Corrupt(Compression::Gzip);
const TRAILER_LEN: usize = 8;
/// How much Java's reader takes at once.
const STEP_LEN: usize = 8 * 1024;
/// The shortest member and the trailer before it, less one.
const LEFT_MIN: usize = 26;

const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

#[derive(Debug, Default)]
pub(super) struct Gzip {
    inflate: Option<Decompress>,
    crc: Crc,
    position: usize,
    /// The end of what Java's reader would have taken.
    taken: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Header,
    Data,
    Trailer,
}

impl Gzip {
    pub(super) fn begin(&mut self) {
        (self.position, self.taken, self.state) = (0, 0, State::Header);
    }

    pub(super) fn next(&mut self, input: &[u8], out: &mut [u8]) -> Result<Option<usize>, DecompressError> {
        loop {
            match self.state {
                State::Header => {
                    self.position = header_end(input, 0).ok_or(CORRUPT)?;
                    self.taken = self.position;
                    self.begin_data();
                }
                State::Data => {
                    let written = self.inflate(input, out)?;
                    if written > 0 {
                        return Ok(Some(written));
                    }
                }
                State::Trailer => {
                    if !self.end_member(input)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn begin_data(&mut self) {
        match &mut self.inflate {
            Some(inflate) => inflate.reset(false),
            None => self.inflate = Some(Decompress::new(false)),
        }
        self.crc.reset();
        self.state = State::Data;
    }

    fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, DecompressError> {
        let inflate = self.inflate.as_mut().ok_or(CORRUPT)?;
        let (read_before, written_before) = (inflate.total_in(), inflate.total_out());
        let rest = &input[self.position..];
        let status = inflate.decompress(rest, out, FlushDecompress::None).map_err(|_| CORRUPT)?;
        let read = (inflate.total_in() - read_before) as usize;
        let written = (inflate.total_out() - written_before) as usize;
        self.position += read;
        while self.taken < self.position {
            self.taken = (self.taken + STEP_LEN).min(input.len());
        }
        self.crc.update(&out[..written]);
        match status {
            Status::StreamEnd => self.state = State::Trailer,
            // The bytes end within the data.
            _ if read == 0 && written == 0 => return Err(CORRUPT),
            _ => {}
        }
        Ok(written)
    }

    /// Checks the trailer; whether another member follows.
    fn end_member(&mut self, input: &[u8]) -> Result<bool, DecompressError> {
        let left = self.taken - self.position;
        let mut position = self.position;
        let crc = take(input, &mut position).map(u32::from_le_bytes).ok_or(CORRUPT)?;
        let len = take(input, &mut position).map(u32::from_le_bytes).ok_or(CORRUPT)?;
        if (crc, len) != (self.crc.sum(), self.crc.amount()) {
            return Err(CORRUPT);
        }
        if input.len() <= self.taken.max(position) && left <= LEFT_MIN {
            return Ok(false);
        }
        let Some(data) = header_end(input, position) else { return Ok(false) };
        if left <= TRAILER_LEN + (data - position) {
            self.taken = data;
        }
        self.position = data;
        self.begin_data();
        Ok(true)
    }
}

/// Where the data of the member begins that begins at `start`, if it begins as one.
fn header_end(input: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let [0x1f, 0x8b, 8, flags, ..] = take::<10>(input, &mut at)? else { return None };
    if flags & EXTRA != 0 {
        let len = u16::from_le_bytes(take(input, &mut at)?);
        at = Some(at + usize::from(len)).filter(|end| *end <= input.len())?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            at += input.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & HEADER_CRC != 0 {
        let mut crc = Crc::new();
        crc.update(&input[start..at]);
        let stored = u16::from_le_bytes(take(input, &mut at)?);
        if stored != crc.sum() as u16 {
            return None;
        }
    }
    Some(at)
}
