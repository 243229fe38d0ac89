//! Base-128 varints, low group first; the signed ones are zig-zag coded. As in Protocol Buffers and Kafka's records.

use bytes::BufMut;

/// Why a varint can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The bytes end within it.
    #[error("a varint is cut off")]
    Truncated,
    /// It has more groups than its type can hold: 5 for 32 bits, 10 for 64.
    #[error("a varint is too long")]
    TooLong,
}

#[inline]
fn read_groups(input: &mut &[u8], groups_max: usize) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for index in 0..groups_max {
        let Some(&byte) = input.get(index) else { return Err(VarintError::Truncated) };
        value |= u64::from(byte & 0x7f) << (7 * index as u32);
        if byte & 0x80 == 0 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(VarintError::TooLong)
}

/// Takes an unsigned 32-bit varint off the front of `input`. Bits above 32 are dropped, as in Kafka.
#[inline]
pub fn read_unsigned_varint(input: &mut &[u8]) -> Result<u32, VarintError> {
    read_groups(input, 5).map(|value| value as u32)
}

/// Takes a zig-zag 32-bit varint off the front of `input`.
#[inline]
pub fn read_varint(input: &mut &[u8]) -> Result<i32, VarintError> {
    let value = match input.first() {
        Some(&byte) if byte < 0x80 => {
            *input = &input[1..];
            u32::from(byte)
        }
        _ => read_unsigned_varint(input)?,
    };
    Ok((value >> 1) as i32 ^ -((value & 1) as i32))
}

/// Takes a zig-zag 64-bit varint off the front of `input`.
#[inline]
pub fn read_varlong(input: &mut &[u8]) -> Result<i64, VarintError> {
    let value = read_groups(input, 10)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Writes an unsigned 64-bit varint (which is also the form of the 32-bit one).
#[inline]
pub fn write_unsigned_varlong(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a zig-zag 32-bit varint.
#[inline]
pub fn write_varint(out: &mut impl BufMut, value: i32) {
    write_unsigned_varlong(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Writes a zig-zag 64-bit varint.
#[inline]
pub fn write_varlong(out: &mut impl BufMut, value: i64) {
    write_unsigned_varlong(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Bytes that an unsigned varint of this value takes.
#[inline]
pub fn unsigned_varlong_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Bytes that [`write_varint`] writes.
#[inline]
pub fn varint_len(value: i32) -> usize {
    unsigned_varlong_len(u64::from(((value << 1) ^ (value >> 31)) as u32))
}

/// Bytes that [`write_varlong`] writes.
#[inline]
pub fn varlong_len(value: i64) -> usize {
    unsigned_varlong_len(((value << 1) ^ (value >> 63)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_varints_round_trip_at_every_width() {
        let mut values = vec![0i64, -1, i64::MIN, i64::MAX];
        for bit in 0..63 {
            values.extend([1i64 << bit, -(1i64 << bit), (1i64 << bit) - 1]);
        }
        for value in values {
            let mut out = Vec::new();
            write_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_len(value));
            assert_eq!(read_varlong(&mut out.as_slice()), Ok(value));
            if let Ok(value) = i32::try_from(value) {
                out.clear();
                write_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                assert_eq!(read_varint(&mut out.as_slice()), Ok(value));
            }
        }
    }

    #[test]
    fn faults_leave_the_input_alone() {
        let mut input: &[u8] = &[0x80];
        assert_eq!(read_varint(&mut input), Err(VarintError::Truncated));
        assert_eq!(input.len(), 1);
        assert_eq!(read_varint(&mut [0xff; 6].as_slice()), Err(VarintError::TooLong));
        assert_eq!(read_varlong(&mut [0xff; 11].as_slice()), Err(VarintError::TooLong));
        assert_eq!(read_varlong(&mut [].as_slice()), Err(VarintError::Truncated));
    }
}
