//! Packets between places: nodes of the quorum, and brokers and administrators as their clients.
//!
//! Connections are as TCP's: a process that isn't there refuses them while its machine is up, a packet for a process
//! that has gone is answered with a reset, a machine without power is silent. Beyond TCP, requests and responses may be
//! doubled and overtake each other. What goes over a link is really encoded.

use bytes::Bytes;
use ringlog_protocol::{ApiKey, Decoder, EncodeError, Encoder, RequestBody, ResponseBody};
use ringlog_types::Random;

use super::shared::{Event, Shared};
use super::time::Us;

/// A node, by its index, or behind the nodes a client.
pub(crate) type Place = usize;

/// Names a call of a process, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId {
    pub place: Place,
    pub incarnation: u64,
    pub number: u64,
}

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    /// A process opens a connection to a port.
    Connect {
        call: CallId,
        port: u16,
    },
    /// It is open, to that life of the process.
    Accept {
        call: CallId,
        server: u64,
    },
    /// Nobody listens.
    Refused {
        call: CallId,
    },
    /// The connection is no longer there.
    Reset {
        call: CallId,
    },
    /// `server` is the life that the connection leads to; `None` of clients, which open one with each request.
    Request {
        call: CallId,
        server: Option<u64>,
        api: ApiKey,
        version: i16,
        body: Bytes,
    },
    Response {
        call: CallId,
        api: ApiKey,
        version: i16,
        body: Bytes,
    },
}

/// How the network is at the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Every packet takes between these.
    pub delay_us: (Us, Us),
    /// Of a thousand packets so many take longer, up to the time.
    pub late_permille: u64,
    pub late_us: Us,
    pub lost_permille: u64,
    pub doubled_permille: u64,
}

impl Weather {
    /// A rack on a quiet day.
    pub(crate) const CALM: Weather =
        Weather { delay_us: (100, 900), late_permille: 0, late_us: 0, lost_permille: 0, doubled_permille: 0 };
}

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    random: Random,
    places: usize,
    pub weather: Weather,
    /// By sender and receiver: nothing passes.
    cut: Vec<bool>,
    /// By sender and receiver: how much longer a packet takes.
    slow_us: Vec<Us>,
    pub packets: u64,
}

impl Network {
    pub(crate) fn new(random: Random, places: usize, weather: Weather) -> Network {
        let links = places * places;
        Network { random, places, weather, cut: vec![false; links], slow_us: vec![0; links], packets: 0 }
    }

    pub(crate) fn set_cut(&mut self, from: Place, to: Place, is_cut: bool) {
        self.cut[from * self.places + to] = is_cut;
    }

    pub(crate) fn set_slow(&mut self, from: Place, to: Place, us: Us) {
        self.slow_us[from * self.places + to] = us;
    }

    pub(crate) fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cut[from * self.places + to]
    }

    /// Every link is as it should be.
    pub(crate) fn heal(&mut self, weather: Weather) {
        self.weather = weather;
        self.cut.fill(false);
        self.slow_us.fill(0);
    }

    fn delay(&mut self, from: Place, to: Place) -> Us {
        let Weather { delay_us: (least, most), late_permille, late_us, .. } = self.weather;
        let mut delay = least + self.random.below(most - least + 1) + self.slow_us[from * self.places + to];
        if late_permille > 0 && self.random.below(1_000) < late_permille {
            delay += self.random.below(late_us);
        }
        delay.max(1)
    }

    /// When copies of a packet arrive: none, one or two.
    fn arrivals(&mut self, from: Place, to: Place, may_double: bool) -> [Option<Us>; 2] {
        self.packets += 1;
        let Weather { lost_permille, doubled_permille, .. } = self.weather;
        if self.is_cut(from, to) || (lost_permille > 0 && self.random.below(1_000) < lost_permille) {
            return [None, None];
        }
        let first = self.delay(from, to);
        let is_doubled = may_double && doubled_permille > 0 && self.random.below(1_000) < doubled_permille;
        [Some(first), is_doubled.then(|| first + self.delay(from, to))]
    }
}

impl Shared {
    /// Sends a packet on its way.
    pub(crate) fn send(&self, from: Place, to: Place, packet: Packet) {
        let is_of_quorum = matches!(&packet, Packet::Request { server: Some(_), .. } | Packet::Response { .. });
        let arrivals = self.network.borrow_mut().arrivals(from, to, is_of_quorum);
        match arrivals {
            [Some(first), Some(second)] => {
                self.post(first, Event::Deliver { from, to, packet: Box::new(packet.clone()) });
                self.post(second, Event::Deliver { from, to, packet: Box::new(packet) });
            }
            [Some(first), None] => self.post(first, Event::Deliver { from, to, packet: Box::new(packet) }),
            _ => {}
        }
    }
}

pub(crate) fn encode_request(request: &RequestBody, version: i16) -> Result<Bytes, EncodeError> {
    let mut out = Encoder::new();
    request.encode(&mut out, version)?;
    Ok(out.into_contiguous())
}

pub(crate) fn encode_response(response: &ResponseBody, version: i16) -> Result<Bytes, EncodeError> {
    let mut out = Encoder::new();
    response.encode(&mut out, version)?;
    Ok(out.into_contiguous())
}

pub(crate) fn decode_request(api: ApiKey, version: i16, body: Bytes) -> RequestBody {
    let mut input = Decoder::new(body);
    let request = RequestBody::decode(api, version, &mut input);
    request.unwrap_or_else(|fault| panic!("a {} request that doesn't decode: {fault}", api.name()))
}

pub(crate) fn decode_response(api: ApiKey, version: i16, body: Bytes) -> ResponseBody {
    let mut input = Decoder::new(body);
    let response = ResponseBody::decode(api, version, &mut input);
    response.unwrap_or_else(|fault| panic!("a {} response that doesn't decode: {fault}", api.name()))
}
