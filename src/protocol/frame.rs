//! Whole requests and responses as they go over a connection: a four-byte size, a header and a body.

use crate::codec::{DecodeError, Decoder, EncodeError, Encoder, Message, StrBytes};
use crate::{ApiKey, Request, RequestBody, ResponseBody, messages};
use bytes::Bytes;

/// The size that precedes a request or response, in bytes.
pub const SIZE_LENGTH: usize = 4;

/// An encoded request or response. Its chunks are written in order; `records` in it are the very chunks that the
/// message referenced.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// The bytes, beginning with the size.
    pub chunks: Vec<Bytes>,
    /// The length of all chunks in bytes, the size included.
    pub len: usize,
}

/// The fields of a request's header (versions 1 and 2).
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHeader {
    /// The API as it came.
    pub api_key: i16,
    /// The API that this is.
    pub key: ApiKey,
    /// The version of the body; not checked.
    pub api_version: i16,
    /// What the response will repeat.
    pub correlation_id: i32,
    /// The name that the client gives itself.
    pub client_id: Option<StrBytes>,
}

/// Reads a request's header; `input` begins after the size. An API that isn't known is
/// `DecodeError::Unknown`: nothing more of the request can be read. A version that isn't known is no error here.
pub fn decode_request_header(input: &mut Decoder) -> Result<RequestHeader, DecodeError> {
    let (api_key, version) = input.peek_two_i16()?;
    let key = ApiKey::from_code(api_key).ok_or(DecodeError::Unknown { what: "API key", value: api_key.into() })?;
    let header = messages::RequestHeader::decode(input, key.request_header_version(version))?;
    Ok(RequestHeader {
        api_key,
        key,
        api_version: version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
    })
}

/// Reads a response's header and returns its correlation id; `input` begins after the size.
pub fn decode_response_header(input: &mut Decoder, key: ApiKey, version: i16) -> Result<i32, DecodeError> {
    messages::ResponseHeader::decode(input, key.response_header_version(version)).map(|header| header.correlation_id)
}

/// A request with its size and header.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Frame, EncodeError> {
    request_frame(R::KEY, version, correlation_id, client_id, &|out| request.encode(out, version))
}

/// A request of any API with its size and header.
pub fn encode_request_body(
    request: &RequestBody,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Frame, EncodeError> {
    request_frame(request.api_key(), version, correlation_id, client_id, &|out| request.encode(out, version))
}

/// A response with its size and header.
pub fn encode_response<M: Message>(
    response: &M,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
) -> Result<Frame, EncodeError> {
    response_frame(key, version, correlation_id, &|out| response.encode(out, version))
}

/// A response of any API with its size and header.
pub fn encode_response_body(response: &ResponseBody, version: i16, correlation_id: i32) -> Result<Frame, EncodeError> {
    response_frame(response.api_key(), version, correlation_id, &|out| response.encode(out, version))
}

type WriteBody<'a> = &'a dyn Fn(&mut Encoder) -> Result<(), EncodeError>;

fn request_frame(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    body: WriteBody<'_>,
) -> Result<Frame, EncodeError> {
    let header = messages::RequestHeader {
        request_api_key: key.code(),
        request_api_version: version,
        correlation_id,
        client_id: client_id.map(StrBytes::copy_from),
    };
    assemble(&|out| header.encode(out, key.request_header_version(version)), body)
}

fn response_frame(key: ApiKey, version: i16, correlation_id: i32, body: WriteBody<'_>) -> Result<Frame, EncodeError> {
    let header = messages::ResponseHeader { correlation_id };
    assemble(&|out| header.encode(out, key.response_header_version(version)), body)
}

/// Counts first, so that the buffer is allocated once and the size is known when it is written.
fn assemble(header: WriteBody<'_>, body: WriteBody<'_>) -> Result<Frame, EncodeError> {
    let mut count = Encoder::counting();
    header(&mut count)?;
    body(&mut count)?;
    let length = count.len();
    let size = i32::try_from(length).map_err(|_| EncodeError::TooLong { what: "a frame", length })?;
    let mut out = Encoder::with_capacity(SIZE_LENGTH + count.buffered_len());
    out.i32(size);
    header(&mut out)?;
    body(&mut out)?;
    let len = out.len();
    assert_eq!(len, SIZE_LENGTH + length, "the counted size is the written one");
    Ok(Frame { chunks: out.finish(), len })
}
