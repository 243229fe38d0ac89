//! Views of whole batches.

use super::header::ATTRIBUTES_START;
use super::unpack::Unpacker;
use super::{BATCH_HEADER_LEN, BatchError, BatchHeader, Compression, RecordIter};

/// The buffer that compressed records are unpacked to, with a limit. Keep one and use it again.
#[derive(Debug)]
pub struct Scratch {
    buffer: Vec<u8>,
    limit: usize,
    unpacker: Unpacker,
}

impl Scratch {
    /// A buffer that no batch may grow over `limit` bytes: a larger one is [`super::DecompressError::TooLarge`].
    pub fn new(limit: usize) -> Scratch {
        Scratch { buffer: Vec::new(), limit, unpacker: Unpacker::new() }
    }

    /// Gives back memory above `bytes`, after an unusually large batch.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.buffer.clear();
        self.buffer.shrink_to(bytes);
    }
}

/// One batch, as a view.
#[derive(Debug, Clone, Copy)]
pub struct BatchRef<'a> {
    /// The decoded header.
    pub header: BatchHeader,
    /// Exactly the batch's bytes, header included.
    pub bytes: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// The batch at the start of `bytes`, which may hold more after it.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchRef<'a>, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_in_bytes();
        match bytes.get(..needed) {
            Some(bytes) => Ok(BatchRef { header, bytes }),
            None => Err(BatchError::Incomplete { needed, available: bytes.len() }),
        }
    }

    /// Compares the checksum with the bytes.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[ATTRIBUTES_START..]);
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::CrcMismatch { stored: self.header.crc, computed })
        }
    }

    /// The records as they are stored, compressed or not.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_LEN..]
    }

    /// Walks the records, which are decompressed into `scratch` first where they need it. The CRC isn't checked.
    pub fn records<'s>(&self, scratch: &'s mut Scratch) -> Result<RecordIter<'s>, BatchError>
    where
        'a: 's,
    {
        let records = match self.header.compression()? {
            Compression::None => self.payload(),
            compression => {
                scratch.buffer.clear();
                scratch.unpacker.begin(compression, scratch.limit);
                scratch.unpacker.rest_into(self.payload(), &mut scratch.buffer)?;
                scratch.buffer.as_slice()
            }
        };
        Ok(RecordIter::new(self.header, records))
    }
}

/// Walks concatenated batches. The first error ends it; a batch cut off at the end is [`BatchError::Incomplete`].
#[derive(Debug, Clone)]
pub struct BatchIter<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> BatchIter<'a> {
    /// Over `bytes`, which start with a batch.
    pub fn new(bytes: &'a [u8]) -> BatchIter<'a> {
        BatchIter { bytes, position: 0, failed: false }
    }

    /// Bytes of the batches given out so far: where the next one, or the fault, starts.
    #[inline]
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<BatchRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if self.failed || rest.is_empty() {
            return None;
        }
        let batch = BatchRef::parse(rest);
        match &batch {
            Ok(batch) => self.position += batch.bytes.len(),
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}
