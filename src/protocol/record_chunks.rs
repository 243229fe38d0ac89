//! The bytes of a `records` field, in as many chunks as they came from.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Record batches as bytes, in chunks that needn't end where a batch does. Encoding references the chunks; a decoded
/// field is one chunk that shares the request's buffer. Two are equal if their bytes are, however they are cut.
#[derive(Clone, Default)]
pub struct Records {
    chunks: SmallVec<[Bytes; 1]>,
    length: usize,
}

impl Records {
    /// The bytes of all chunks in order.
    pub fn from_chunks(chunks: Vec<Bytes>) -> Records {
        Records { length: chunks.iter().map(Bytes::len).sum(), chunks: SmallVec::from_vec(chunks) }
    }

    /// The length of all chunks in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The chunks in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// All bytes in one piece; copies if there is more than one chunk.
    pub fn into_contiguous(mut self) -> Bytes {
        if self.chunks.len() <= 1 {
            return self.chunks.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.length);
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        whole.freeze()
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records { length: bytes.len(), chunks: SmallVec::from_buf([bytes]) }
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Records) -> bool {
        self.length == other.length
            && self.chunks.iter().flatten().zip(other.chunks.iter().flatten()).all(|(a, b)| a == b)
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Records({} bytes in {} chunks)", self.length, self.chunks.len())
    }
}
