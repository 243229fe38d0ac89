//! Frames: sizes, headers, and records that are referenced rather than copied.

use bytes::Bytes;
use ringlog_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use ringlog_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest, SaslHandshakeRequest,
};
use ringlog_protocol::{
    ApiKey, DecodeError, Decoder, EncodeError, Frame, Message as _, Records, Request, RequestBody, ResponseBody, frame,
};

fn contiguous(frame: &Frame) -> Bytes {
    Records::from_chunks(frame.chunks.clone()).into_contiguous()
}

/// What follows the size, which has to be right.
fn payload(frame: &Frame) -> Bytes {
    let bytes = contiguous(frame);
    let (size, rest) = bytes.split_at(frame::SIZE_LENGTH);
    assert_eq!(bytes.len(), frame.len);
    assert_eq!(size, i32::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.slice(frame::SIZE_LENGTH..)
}

fn fetch_response(chunks: &[Bytes]) -> FetchResponse {
    let partition = |index: i32, records| PartitionData { partition_index: index, records, ..Default::default() };
    let partitions = vec![
        partition(0, Some(Records::from_chunks(chunks.to_vec()))),
        partition(1, None),
        partition(2, Some(Records::from(chunks[0].clone()))),
    ];
    let topic = FetchableTopicResponse { topic: "events".into(), partitions, ..Default::default() };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

#[test]
fn a_fetch_response_references_record_chunks_without_copying() {
    let chunks = [Bytes::from(vec![1; 4096]), Bytes::from(vec![2; 512])];
    let response = fetch_response(&chunks);
    for version in [4, 11, 12] {
        let frame = frame::encode_response(&response, ApiKey::Fetch, version, 7).unwrap();
        let referenced: Vec<_> = frame.chunks.iter().filter(|chunk| chunk.len() >= 512).map(|c| c.as_ptr()).collect();
        assert_eq!(referenced, [chunks[0].as_ptr(), chunks[1].as_ptr(), chunks[0].as_ptr()], "version {version}");

        let mut input = Decoder::new(payload(&frame));
        assert_eq!(frame::decode_response_header(&mut input, ApiKey::Fetch, version), Ok(7));
        let read = FetchResponse::decode(&mut input, version).unwrap();
        input.expect_end().unwrap();
        assert_eq!(read, response);
    }
}

#[test]
fn decoded_records_share_the_request_buffer() {
    let chunks = [Bytes::from(vec![9; 1024])];
    let bytes = payload(&frame::encode_response(&fetch_response(&chunks), ApiKey::Fetch, 12, 0).unwrap());
    let mut input = Decoder::new(bytes.clone());
    frame::decode_response_header(&mut input, ApiKey::Fetch, 12).unwrap();
    let read = FetchResponse::decode(&mut input, 12).unwrap();
    let records = read.responses[0].partitions[0].records.clone().unwrap().into_contiguous();
    assert!(bytes.as_ptr_range().contains(&records.as_ptr()));
}

#[test]
fn request_headers_of_both_versions_are_read() {
    for (version, client_id) in [(2, Some("reader")), (3, Some("reader")), (4, None)] {
        let request = ApiVersionsRequest { client_software_name: "name".into(), ..Default::default() };
        let frame = frame::encode_request(&request, version, 41, client_id).unwrap();
        let mut input = Decoder::new(payload(&frame));
        let header = frame::decode_request_header(&mut input).unwrap();
        assert_eq!((header.key, header.api_version, header.correlation_id), (ApiKey::ApiVersions, version, 41));
        assert_eq!(header.client_id.as_deref(), client_id);
        let body = RequestBody::decode(header.key, version, &mut input).unwrap();
        assert_eq!(input.remaining(), 0);
        assert_eq!(body.api_key(), ApiKey::ApiVersions);
    }
}

#[test]
fn an_unknown_api_is_named_and_an_unknown_version_leaves_the_header_readable() {
    for removed_or_unknown in [4i16, 93, -1] {
        let mut bytes = removed_or_unknown.to_be_bytes().to_vec();
        bytes.extend([0; 8]);
        let error = frame::decode_request_header(&mut Decoder::new(bytes.into())).unwrap_err();
        assert_eq!(error, DecodeError::Unknown { what: "API key", value: removed_or_unknown.into() });
    }

    let bytes = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 5, 0, 1, b'c', 0, 1, 2, 3]);
    let mut input = Decoder::new(bytes);
    let header = frame::decode_request_header(&mut input).unwrap();
    assert_eq!((header.key, header.api_version, header.correlation_id), (ApiKey::ApiVersions, 99, 5));
    let unsupported = DecodeError::UnsupportedVersion { message: "ApiVersionsRequest", version: 99 };
    assert_eq!(RequestBody::decode(header.key, 99, &mut input), Err(unsupported));
}

#[test]
fn the_api_versions_response_has_the_plain_header_in_every_version() {
    for version in 0..=4 {
        let frame = frame::encode_response_body(&ApiVersionsResponse::default().into(), version, 0x0102_0304).unwrap();
        let bytes = payload(&frame);
        assert_eq!(&bytes[..4], [1, 2, 3, 4]);
        assert_eq!(ApiVersionsResponse::from_bytes(bytes.slice(4..), version), Ok(ApiVersionsResponse::default()));
    }
}

#[test]
fn what_must_not_be_ignored_is_an_error_in_versions_without_it() {
    let session = FetchResponse { session_id: 5, ..Default::default() };
    let field = "FetchResponse.SessionId";
    assert_eq!(session.size(6), Err(EncodeError::FieldNotInVersion { field, version: 6 }));
    assert!(session.to_bytes(7).is_ok());

    let every_topic = MetadataRequest { topics: None, ..Default::default() };
    let field = "MetadataRequest.Topics";
    assert_eq!(every_topic.to_bytes(0), Err(EncodeError::NullNotAllowed { field, version: 0 }));
    assert!(every_topic.to_bytes(1).is_ok());

    let unsupported = EncodeError::UnsupportedVersion { message: "FetchRequest", version: 3 };
    assert_eq!(frame::encode_request(&FetchRequest::default(), 3, 0, None).unwrap_err(), unsupported);

    let long = SaslHandshakeRequest { mechanism: "x".repeat(40_000).into() };
    assert_eq!(long.to_bytes(1), Err(EncodeError::TooLong { what: "a string", length: 40_000 }));
}

#[test]
fn bodies_convert_only_to_their_own_message() {
    let body = ResponseBody::from(FetchResponse::default());
    assert_eq!(FetchResponse::try_from(body.clone()), Ok(FetchResponse::default()));
    let wrong = ApiVersionsResponse::try_from(body).unwrap_err();
    assert_eq!((wrong.expected, wrong.actual), (ApiKey::ApiVersions, ApiKey::Fetch));
    assert_eq!(<FetchRequest as Request>::KEY, ApiKey::Fetch);
}

#[test]
fn every_api_has_a_body_in_each_of_its_versions() {
    for &key in ApiKey::ALL {
        for version in key.min_version()..=key.max_version_with_unstable() {
            // No version takes an empty body for an unsupported one, and none below or above is taken.
            let decode = |version| RequestBody::decode(key, version, &mut Decoder::new(Bytes::new()));
            let unsupported = |result| matches!(result, Err(DecodeError::UnsupportedVersion { .. }));
            assert!(!unsupported(decode(version)), "{key} version {version}");
            assert!(unsupported(decode(key.min_version() - 1)) && unsupported(decode(i16::MAX)), "{key}");
        }
    }
}
