//! The listener: connections, whose requests are answered one after the other.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringlog_protocol::frame::{self, RequestHeader, SIZE_LENGTH};
use ringlog_protocol::messages::{ApiVersionsResponse, ProduceRequest};
use ringlog_protocol::{ApiKey, Decoder, Frame, RequestBody, ResponseBody};
use ringlog_ring::{self as ring, Connection as Socket, sim, sleep_ms};
use ringlog_types::ErrorCode;

use super::peer::Peer;
use super::{answers, fetch, forwarding, produce};

/// The largest request (`socket.request.max.bytes`).
const REQUEST_BYTES_MAX: usize = 100 << 20;
/// Between two tries to get the port, or to accept.
const AGAIN_MS: u64 = 20;

/// Takes the port, and serves until the process ends.
pub async fn listen(peer: &Rc<Peer>) {
    let listener = loop {
        match sim::bind_exclusively(peer.settings.address) {
            Ok(listener) => break listener,
            Err(_) => sleep_ms(AGAIN_MS).await,
        }
    };
    let peer = peer.clone();
    ring::spawn_detached(async move {
        loop {
            match listener.accept().await {
                Ok(socket) => ring::spawn_detached(serve(peer.clone(), socket)),
                Err(_) => sleep_ms(AGAIN_MS).await,
            }
        }
    });
}

/// One connection, until its end. Whoever doesn't keep to the protocol is let go.
async fn serve(peer: Rc<Peer>, socket: Socket) {
    let mut input = BytesMut::new();
    while let Some(request) = read(&socket, &mut input).await {
        let Some(chunks) = answer(&peer, &socket, request).await else { return };
        if socket.write_chunks(&mut VecDeque::from(chunks)).await.is_err() {
            return;
        }
    }
}

async fn read(socket: &Socket, input: &mut BytesMut) -> Option<Bytes> {
    fill(socket, input, SIZE_LENGTH).await?;
    let size = i32::from_be_bytes(input[..SIZE_LENGTH].try_into().ok()?);
    let size = usize::try_from(size).ok().filter(|size| *size <= REQUEST_BYTES_MAX)?;
    fill(socket, input, SIZE_LENGTH + size).await?;
    Some(input.split_to(SIZE_LENGTH + size).freeze().slice(SIZE_LENGTH..))
}

async fn fill(socket: &Socket, input: &mut BytesMut, wanted: usize) -> Option<()> {
    let mut buffer = vec![0; 16 * 1024];
    while input.len() < wanted {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => input.extend_from_slice(&buffer[..count]),
        }
    }
    Some(())
}

/// The answer's bytes; none of them where none is wanted. Nothing at all where the connection is to end.
async fn answer(peer: &Rc<Peer>, socket: &Socket, request: Bytes) -> Option<Vec<Bytes>> {
    let mut input = Decoder::new(request.clone());
    let header = frame::decode_request_header(&mut input).ok()?;
    let (key, version) = (header.key, header.api_version);
    if !(key.min_version()..=key.max_version()).contains(&version) {
        return refuse_version(&header);
    }
    if !answers::SERVED.contains(&key) {
        return None;
    }
    if forwarding::is_forwarded(key) {
        return forwarding::forward(peer, request, socket.peer_addr().ip()).await;
    }
    let body = RequestBody::decode(key, version, &mut input).ok()?;
    input.expect_end().ok()?;
    let body: ResponseBody = match body {
        RequestBody::ApiVersions(_) => answers::api_versions(peer).into(),
        RequestBody::Metadata(request) => answers::metadata(peer, &request).into(),
        RequestBody::Fetch(request) => fetch::fetch(peer, &request, version).await.into(),
        RequestBody::Produce(request) => return produced(peer, request, &header).await,
        RequestBody::DeleteRecords(request) => produce::delete_records(peer, request).await.into(),
        RequestBody::ListOffsets(request) => answers::list_offsets(peer, &request, version).into(),
        RequestBody::OffsetForLeaderEpoch(request) => answers::offset_for_leader_epoch(peer, &request).into(),
        RequestBody::InitProducerId(request) => forwarding::init_producer_id(peer, &request).await.into(),
        _ => return None,
    };
    encoded(peer, frame::encode_response_body(&body, version, header.correlation_id).ok(), key)
}

async fn produced(peer: &Rc<Peer>, request: ProduceRequest, header: &RequestHeader) -> Option<Vec<Bytes>> {
    let Some(response) = produce::produce(peer, request, header.api_version).await else { return Some(Vec::new()) };
    let body = ResponseBody::from(response);
    encoded(peer, frame::encode_response_body(&body, header.api_version, header.correlation_id).ok(), header.key)
}

fn encoded(peer: &Peer, frame: Option<Frame>, key: ApiKey) -> Option<Vec<Bytes>> {
    if frame.is_none() {
        // The model's own mistake.
        peer.complain(&format!("an answer to {key:?} can't be written"));
    }
    frame.map(|frame| frame.chunks)
}

/// Who asks for versions in one that isn't known is told so in the first one.
fn refuse_version(header: &RequestHeader) -> Option<Vec<Bytes>> {
    if header.key != ApiKey::ApiVersions {
        return None;
    }
    let refusal =
        ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..ApiVersionsResponse::default() };
    let frame = frame::encode_response(&refusal, ApiKey::ApiVersions, 0, header.correlation_id).ok()?;
    Some(frame.chunks)
}
