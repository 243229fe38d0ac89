//! Decodes arbitrary bytes as a request, response or record; what can be decoded must survive another round.
//!
//! Run with `cargo xtask fuzz`. The input is a byte that chooses the kind of message,
//! a byte for the API or record type, one for the version, and the message.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringlog_protocol::coordinator_records::{group, share, transaction};
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::{ApiKey, Decoder, Encoder, RequestBody, ResponseBody, frame};

/// Decodes, encodes, decodes and encodes again: both encodings have to be the same.
macro_rules! round_trip {
    ($body:ident, $key:expr, $version:expr, $bytes:expr) => {
        let decode = |bytes| $body::decode($key, $version, &mut Decoder::new(bytes));
        let encode = |body: &$body| {
            let mut out = Encoder::new();
            body.encode(&mut out, $version).map(|()| out.into_contiguous())
        };
        // A message that was decoded may hold what its version can't say only where null isn't allowed: an error.
        if let Ok(once) = decode($bytes).map_err(drop).and_then(|body| encode(&body).map_err(drop)) {
            let again = decode(once.clone()).expect("what was encoded can be decoded");
            assert_eq!(again.size($version), Ok(once.len()));
            assert_eq!(encode(&again), Ok(once));
        }
    };
}

fuzz_target!(|input: &[u8]| {
    let [kind, which, version, rest @ ..] = input else { return };
    let (bytes, version) = (Bytes::copy_from_slice(rest), i16::from(*version));
    let key = ApiKey::ALL[usize::from(*which) % ApiKey::ALL.len()];
    match kind % 5 {
        0 => {
            round_trip!(RequestBody, key, version, bytes);
        }
        1 => {
            round_trip!(ResponseBody, key, version, bytes);
        }
        2 => {
            let _ = frame::decode_request_header(&mut Decoder::new(bytes));
        }
        3 => {
            if let Ok((record, version)) = MetadataRecord::decode_framed(bytes) {
                let once = record.encode_framed(version).expect("what was decoded can be encoded");
                let (again, _) = MetadataRecord::decode_framed(once.clone()).expect("and decoded");
                assert_eq!(again.encode_framed(version), Ok(once));
            }
        }
        _ => {
            let _ = group::GroupRecordKey::decode(bytes.clone());
            let _ = share::ShareRecordKey::decode(bytes.clone());
            let _ = transaction::TransactionRecordKey::decode(bytes.clone());
            let _ = group::GroupRecordValue::decode(i16::from(*which), bytes.clone());
            let _ = share::ShareRecordValue::decode(i16::from(*which), bytes.clone());
            let _ = transaction::TransactionRecordValue::decode(i16::from(*which), bytes);
        }
    }
});
