//! The bounds of decoding, and tagged fields from newer peers.

use super::*;
use crate::messages::{ApiVersionsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest};

fn flexible(bytes: &'static [u8]) -> Decoder {
    let mut decoder = Decoder::new(Bytes::from_static(bytes));
    decoder.set_flexible(true);
    decoder
}

#[test]
fn varints_are_read_up_to_32_bits() {
    for value in [0, 1, 127, 128, 300, 16_383, 16_384, 0x0fff_ffff, 0x1000_0000, u32::MAX] {
        let mut out = Encoder::new();
        out.uvarint(value);
        let mut input = Decoder::new(out.into_contiguous());
        assert_eq!((input.uvarint(), input.remaining(), input.fault()), (value, 0, None));
    }
    for overlong in [&[0xff, 0xff, 0xff, 0xff, 0x10][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
        let mut input = Decoder::new(Bytes::from_static(overlong));
        assert_eq!(input.uvarint(), 0);
        assert_eq!(input.fault(), Some(DecodeError::InvalidVarint { position: 0 }));
    }
    let mut input = Decoder::new(Bytes::from_static(&[0x80]));
    input.uvarint();
    assert!(matches!(input.fault(), Some(DecodeError::Truncated { .. })));
}

#[test]
fn a_count_beyond_what_the_bytes_can_hold_is_refused_before_allocating() {
    let mut input = Decoder::new(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1]));
    assert_eq!(input.array::<i32>(0), Vec::<i32>::new());
    assert_eq!(input.fault(), Some(DecodeError::InvalidLength { position: 4, length: i32::MAX.into() }));

    let mut input = flexible(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
    assert_eq!(input.nullable_array::<StrBytes>(0), None);
    assert!(matches!(input.fault(), Some(DecodeError::InvalidLength { .. })));
}

#[test]
fn negative_lengths_other_than_null_and_null_where_none_may_be_are_errors() {
    let mut input = Decoder::new(Bytes::from_static(&[0xff, 0xfe]));
    assert_eq!(input.nullable_string(), None);
    assert_eq!(input.fault(), Some(DecodeError::InvalidLength { position: 2, length: -2 }));

    let mut input = Decoder::new(Bytes::from_static(&[0xff, 0xff]));
    assert_eq!(input.nullable_string(), None);
    assert_eq!(input.fault(), None);

    let mut input = flexible(&[0]);
    assert_eq!(input.string(), "");
    assert_eq!(input.fault(), Some(DecodeError::UnexpectedNull { position: 1 }));

    // A compact string may be no longer than a plain one, though its length could say so.
    let mut input = flexible(&[0x81, 0x80, 0x02]);
    input.string();
    assert_eq!(input.fault(), Some(DecodeError::InvalidLength { position: 3, length: 0x8000 }));
}

#[test]
fn text_that_is_not_utf8_is_an_error() {
    let mut input = flexible(&[3, 0xc3, 0x28]);
    input.string();
    assert_eq!(input.fault(), Some(DecodeError::InvalidUtf8 { position: 1 }));
}

#[test]
fn after_a_fault_nothing_is_read_and_the_first_fault_stays() {
    let mut input = Decoder::new(Bytes::from_static(&[0, 1, 2]));
    assert_eq!(input.i32(), 0);
    let first = input.fault();
    assert_eq!(first, Some(DecodeError::Truncated { position: 0, wanted: 4, remaining: 3 }));
    assert_eq!((input.i16(), input.remaining(), input.bytes().len()), (0, 0, 0));
    assert_eq!(input.fault(), first);
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let request = ApiVersionsRequest { client_software_name: "c".into(), client_software_version: "1".into() };
    let mut bytes = request.to_bytes(3).unwrap().to_vec();
    assert_eq!(bytes.pop(), Some(0), "the count of tagged fields");
    // Two fields: number 0 of three bytes, number 500 of none.
    bytes.extend([2, 0, 3, 9, 9, 9, 0xf4, 3, 0]);
    assert_eq!(ApiVersionsRequest::from_bytes(bytes.clone().into(), 3), Ok(request));

    bytes.truncate(bytes.len() - 5);
    assert!(matches!(ApiVersionsRequest::from_bytes(bytes.into(), 3), Err(DecodeError::Truncated { .. })));
}

#[test]
fn a_tagged_field_must_take_up_its_length_and_cannot_read_beyond_it() {
    // The request's tag 0 is a nullable string, at its end.
    let request = FetchRequest { cluster_id: Some("ab".into()), ..Default::default() };
    let bytes = request.to_bytes(12).unwrap().to_vec();
    let at = bytes.len() - 4;
    assert_eq!(bytes[at - 1..], [0, 3, 3, b'a', b'b']);
    let with_length = |length: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = length;
        bytes.extend([0; 8]);
        FetchRequest::decode(&mut Decoder::new(bytes.into()), 12)
    };
    assert!(with_length(3).is_ok());
    assert_eq!(with_length(4).unwrap_err(), DecodeError::TrailingBytes { remaining: 1 });
    assert!(matches!(with_length(2), Err(DecodeError::Truncated { .. })));
}

#[test]
fn defaults_are_the_schemas() {
    let request = FetchRequest::default();
    assert_eq!((request.replica_id, request.max_bytes), (-1, i32::MAX));
    assert_eq!(MetadataRequest::default().topics, Some(Vec::new()));
    assert!(MetadataRequest::default().allow_auto_topic_creation);
    // A version without a field leaves it at its default.
    let bytes = MetadataRequest { allow_auto_topic_creation: true, ..Default::default() }.to_bytes(1).unwrap();
    assert_eq!(MetadataRequest::from_bytes(bytes, 1), Ok(MetadataRequest::default()));
    assert_eq!(DeleteTopicsRequest::FLEXIBLE_FROM, 4);
}

#[test]
fn the_counted_size_is_the_written_one_and_the_buffer_is_allocated_once() {
    let request = FetchRequest { cluster_id: Some("cluster".into()), rack_id: "r".into(), ..Default::default() };
    let size = request.size(13).unwrap();
    let mut out = Encoder::with_capacity(size);
    request.encode(&mut out, 13).unwrap();
    assert_eq!((out.len(), out.buffered_len()), (size, size));
    assert_eq!(out.finish().len(), 1);
}
