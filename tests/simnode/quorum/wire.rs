//! What nodes of the quorum say to each other, read off their connections.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringlog_protocol::frame::{self, SIZE_LENGTH};
use ringlog_protocol::{ApiKey, Decoder, RequestBody, ResponseBody};
use ringlog_ring::sim::{Tap, TapKind};

use crate::plan::CONTROLLER_PORT;

/// Something that was said.
pub enum Said {
    /// A request was given to the sender's kernel.
    Asked(Rc<RequestBody>),
    /// A request came to the receiver's kernel.
    Heard(Rc<RequestBody>),
    /// A response was given to the sender's kernel, to that request.
    Answered(Rc<RequestBody>, Rc<ResponseBody>),
    /// A response came to the receiver's kernel, to that request.
    Reached(Rc<RequestBody>, Rc<ResponseBody>),
}

/// Who says what to whom.
pub struct Saying {
    /// The sender.
    pub from: IpAddr,
    /// The receiver.
    pub to: IpAddr,
    /// What.
    pub said: Said,
    /// When the request that this answers came to the sender's kernel; 0 if this is no answer.
    pub heard_ns: u64,
}

/// A request that wasn't answered yet.
struct Open {
    correlation: i32,
    key: ApiKey,
    version: i16,
    body: Rc<RequestBody>,
    /// When it came to the receiver's kernel.
    heard_ns: u64,
}

/// Requests of one connection to a controller, and answers.
#[derive(Default)]
struct Exchange {
    requests: BytesMut,
    responses: BytesMut,
    /// Bytes of requests that were taken out of the buffer.
    taken: u64,
    /// Not answered.
    open: VecDeque<Open>,
    /// Not delivered: by the position behind it.
    on_their_way: VecDeque<(u64, Rc<RequestBody>)>,
    /// The same of responses.
    taken_back: u64,
    on_their_way_back: VecDeque<(u64, Rc<RequestBody>, Rc<ResponseBody>)>,
}

/// All connections to controllers.
#[derive(Default)]
pub struct Wire {
    exchanges: BTreeMap<u64, Exchange>,
}

impl Wire {
    /// Takes in what a connection did; what was said with it. What can't be read is a fault.
    pub fn take(&mut self, tap: &Tap<'_>, mut hear: impl FnMut(Saying)) -> Result<(), String> {
        let is_request = tap.to.port() == CONTROLLER_PORT;
        if !is_request && tap.from.port() != CONTROLLER_PORT {
            return Ok(());
        }
        let (from, to) = (tap.from.ip(), tap.to.ip());
        let mut tell = |said: Said, heard_ns: u64| hear(Saying { from, to, said, heard_ns });
        match tap.kind {
            TapKind::Sent if is_request => {
                let exchange = self.exchanges.entry(tap.connection).or_default();
                exchange.requests.extend_from_slice(tap.bytes);
                while let Some((frame, len)) = next_frame(&mut exchange.requests) {
                    exchange.taken += len;
                    let (correlation, key, version, body) = request(frame)?;
                    let body = Rc::new(body);
                    exchange.open.push_back(Open { correlation, key, version, body: body.clone(), heard_ns: 0 });
                    exchange.on_their_way.push_back((exchange.taken, body.clone()));
                    tell(Said::Asked(body), 0);
                }
            }
            TapKind::Delivered if is_request => {
                let Some(exchange) = self.exchanges.get_mut(&tap.connection) else { return Ok(()) };
                let end = tap.position + tap.bytes.len() as u64;
                while let Some((_, body)) = exchange.on_their_way.pop_front_if(|(at, _)| *at <= end) {
                    let open = exchange.open.iter_mut().find(|open| Rc::ptr_eq(&open.body, &body));
                    open.into_iter().for_each(|open| open.heard_ns = tap.at_ns);
                    tell(Said::Heard(body), 0);
                }
            }
            TapKind::Sent => {
                let Some(exchange) = self.exchanges.get_mut(&tap.connection) else { return Ok(()) };
                exchange.responses.extend_from_slice(tap.bytes);
                while let Some((frame, len)) = next_frame(&mut exchange.responses) {
                    exchange.taken_back += len;
                    let Some(open) = exchange.open.pop_front() else {
                        return Err(format!("{from} answers {to}, who asked nothing"));
                    };
                    let asked = open.body;
                    let answer = Rc::new(response(frame, open.correlation, open.key, open.version)?);
                    exchange.on_their_way_back.push_back((exchange.taken_back, asked.clone(), answer.clone()));
                    tell(Said::Answered(asked, answer), open.heard_ns);
                }
            }
            TapKind::Delivered => {
                let Some(exchange) = self.exchanges.get_mut(&tap.connection) else { return Ok(()) };
                let end = tap.position + tap.bytes.len() as u64;
                while let Some((_, asked, answer)) = exchange.on_their_way_back.pop_front_if(|(at, ..)| *at <= end) {
                    tell(Said::Reached(asked, answer), 0);
                }
            }
            TapKind::Reset => drop(self.exchanges.remove(&tap.connection)),
            TapKind::Connected | TapKind::Ended => {}
        }
        Ok(())
    }
}

/// The next whole frame without its size, and its length with it.
fn next_frame(bytes: &mut BytesMut) -> Option<(Bytes, u64)> {
    let size = i32::from_be_bytes(bytes.get(..SIZE_LENGTH)?.try_into().ok()?) as usize;
    if bytes.len() < SIZE_LENGTH + size {
        return None;
    }
    let whole = bytes.split_to(SIZE_LENGTH + size).freeze();
    Some((whole.slice(SIZE_LENGTH..), whole.len() as u64))
}

fn request(frame: Bytes) -> Result<(i32, ApiKey, i16, RequestBody), String> {
    let mut input = Decoder::new(frame);
    let header = frame::decode_request_header(&mut input).map_err(|fault| format!("a request: {fault}"))?;
    let body = RequestBody::decode(header.key, header.api_version, &mut input);
    let body = body.map_err(|fault| format!("a request {:?}: {fault}", header.key))?;
    Ok((header.correlation_id, header.key, header.api_version, body))
}

fn response(frame: Bytes, correlation: i32, key: ApiKey, version: i16) -> Result<ResponseBody, String> {
    let mut input = Decoder::new(frame);
    let fault = |text: String| format!("the answer to {key:?}: {text}");
    let found = frame::decode_response_header(&mut input, key, version).map_err(|error| fault(error.to_string()))?;
    if found != correlation {
        return Err(fault(format!("it is one to request {found}, not {correlation}")));
    }
    ResponseBody::decode(key, version, &mut input).map_err(|error| fault(error.to_string()))
}

/// What a broker passes on for a client, with the answer.
pub fn unwrap_envelope(asked: &RequestBody, answer: &ResponseBody) -> Option<ResponseBody> {
    let (RequestBody::Envelope(asked), ResponseBody::Envelope(answer)) = (asked, answer) else { return None };
    let data = answer.response_data.clone().filter(|_| answer.error_code == 0)?;
    let mut input = Decoder::new(asked.request_data.clone());
    let header = frame::decode_request_header(&mut input).ok()?;
    let mut input = Decoder::new(data);
    frame::decode_response_header(&mut input, header.key, header.api_version).ok()?;
    ResponseBody::decode(header.key, header.api_version, &mut input).ok()
}

/// A line for the story, for what a quorum says to itself.
pub fn describe(body: &RequestBody) -> Option<String> {
    Some(match body {
        RequestBody::Vote(it) => {
            let it = it.topics.first()?.partitions.first()?;
            let what = if it.pre_vote { "would vote" } else { "votes" };
            format!(
                "asks who {what} in epoch {} with a log up to {}/{}",
                it.replica_epoch, it.last_offset, it.last_offset_epoch
            )
        }
        RequestBody::BeginQuorumEpoch(it) => {
            format!("leads epoch {}", it.topics.first()?.partitions.first()?.leader_epoch)
        }
        RequestBody::EndQuorumEpoch(it) => {
            format!("leaves epoch {}", it.topics.first()?.partitions.first()?.leader_epoch)
        }
        RequestBody::Fetch(it) => {
            let it = it.topics.first()?.partitions.first()?;
            format!("fetches in epoch {} at {}/{}", it.current_leader_epoch, it.fetch_offset, it.last_fetched_epoch)
        }
        RequestBody::FetchSnapshot(it) => {
            let it = it.topics.first()?.partitions.first()?;
            format!("fetches {:?} in epoch {} at {}", it.snapshot_id, it.current_leader_epoch, it.position)
        }
        _ => return None,
    })
}
