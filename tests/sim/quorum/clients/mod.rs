//! Who asks the controllers: brokers that come and go, administrators. Each has one request on its way at a time, to the
//! node that it takes for the leader, and looks for another when that doesn't answer or isn't.

mod admins;
mod brokers;
mod requests;
mod voters;

use std::rc::Rc;

use ringlog_protocol::{ApiKey, RequestBody, ResponseBody};
use ringlog_types::ErrorCode;

use super::network::{CallId, Packet, Place, decode_response, encode_request};
use super::shared::{Event, Shared};
use super::time::{MS, SECOND, Us};
use super::world::World;
use brokers::Broker;

/// An answer is waited for so long.
const PATIENCE_US: Us = 3 * SECOND;
/// Who could not reach anybody asks again after this.
const RETRY_US: Us = 50 * MS;

/// All clients: brokers first, then administrators.
pub(crate) struct Clients {
    callers: Vec<Caller>,
    brokers: Vec<Broker>,
    /// Nobody begins anything new.
    pub are_quiet: bool,
    /// Requests that were answered.
    pub answered: u64,
}

/// One client's line to the controllers.
struct Caller {
    place: Place,
    calls: u64,
    waiting: Option<Waiting>,
    /// Its next turn: earlier plans don't count.
    turn: u64,
    /// The node that it takes for the leader.
    believed: usize,
}

struct Waiting {
    number: u64,
    api: ApiKey,
    until: Us,
}

/// What became of a request.
#[derive(Debug)]
enum Answer {
    Response(Box<ResponseBody>),
    /// Nobody knows whether it was done.
    Lost,
    /// It wasn't done: the node that was asked isn't the one.
    Elsewhere,
}

impl Clients {
    pub(crate) fn new(shared: &Rc<Shared>) -> Clients {
        let plan = &shared.plan;
        let caller = |client: usize| Caller {
            place: plan.nodes() + client,
            calls: 0,
            waiting: None,
            turn: 0,
            believed: client % plan.controllers,
        };
        let brokers = (0..plan.brokers).map(|index| Broker::new(index, shared)).collect();
        for client in 0..plan.brokers + plan.admins {
            shared.post(shared.work(SECOND), Event::Client { client, turn: 0 });
        }
        let callers = (0..plan.brokers + plan.admins).map(caller).collect();
        Clients { callers, brokers, are_quiet: false, answered: 0 }
    }
}

impl World {
    /// A client's turn: it gives up waiting, or does the next thing.
    pub(crate) fn on_client(&mut self, client: usize, turn: u64) {
        let now = self.shared.now();
        let caller = &self.clients.callers[client];
        if caller.turn != turn {
            return;
        }
        match &caller.waiting {
            Some(waiting) if waiting.until > now => {
                let after = waiting.until - now;
                return self.plan_turn(client, after);
            }
            Some(_) => return self.finish(client, Answer::Lost),
            None => {}
        }
        let is_broker = client < self.clients.brokers.len();
        let after = if is_broker { self.broker_turn(client) } else { self.admin_turn(client) };
        self.plan_turn(client, after.max(1));
    }

    fn plan_turn(&mut self, client: usize, after: Us) {
        let caller = &mut self.clients.callers[client];
        caller.turn += 1;
        let turn = caller.turn;
        self.shared.post(after, Event::Client { client, turn });
    }

    /// Sends a request; the answer, if there is one, comes by [`World::finish`].
    fn ask(&mut self, client: usize, to: usize, request: &RequestBody) {
        let caller = &mut self.clients.callers[client];
        let api = request.api_key();
        let version = api.max_version();
        let body = encode_request(request, version).unwrap_or_else(|fault| panic!("a {} request: {fault}", api.name()));
        caller.calls += 1;
        let number = caller.calls;
        caller.waiting = Some(Waiting { number, api, until: self.shared.now() + PATIENCE_US });
        let call = CallId { place: caller.place, incarnation: 0, number };
        let from = caller.place;
        crate::trace::note(|| {
            let now = self.shared.now();
            format!("{:4}.{:06} c{client} asks n{to}: {}", now / SECOND, now % SECOND, api.name())
        });
        self.shared.send(from, to, Packet::Request { call, server: None, api, version, body });
    }

    fn is_waiting(&self, client: usize) -> bool {
        self.clients.callers[client].waiting.is_some()
    }

    fn ask_leader(&mut self, client: usize, request: &RequestBody) {
        let to = self.clients.callers[client].believed;
        self.ask(client, to, request);
    }

    /// Something came back to a client.
    pub(crate) fn on_client_packet(&mut self, place: Place, packet: Packet) {
        let client = place - self.shared.plan.nodes();
        let is_awaited = |world: &World, call: CallId| {
            world.clients.callers[client].waiting.as_ref().is_some_and(|waiting| waiting.number == call.number)
        };
        match packet {
            Packet::Response { call, api, version, body } if is_awaited(self, call) => {
                let response = decode_response(api, version, body);
                let answer =
                    if is_elsewhere(&response) { Answer::Elsewhere } else { Answer::Response(Box::new(response)) };
                self.finish(client, answer);
            }
            // The process may have done it before it died.
            Packet::Reset { call } if is_awaited(self, call) => self.finish(client, Answer::Lost),
            _ => {}
        }
    }

    fn finish(&mut self, client: usize, answer: Answer) {
        let Some(waiting) = self.clients.callers[client].waiting.take() else { return };
        let is_answered = matches!(answer, Answer::Response(_));
        self.clients.answered += u64::from(is_answered);
        if !is_answered {
            self.look_elsewhere(client);
        }
        if client < self.clients.brokers.len() {
            self.on_broker_answer(client, waiting.api, answer);
        }
        if !is_answered {
            self.plan_turn(client, RETRY_US);
        }
    }

    /// Mostly somebody tells who leads; else any controller is tried.
    fn look_elsewhere(&mut self, client: usize) {
        let controllers = self.shared.plan.controllers as u64;
        let leader = self.leader().filter(|_| self.shared.work(4) > 0);
        self.clients.callers[client].believed = leader.unwrap_or_else(|| self.shared.work(controllers) as usize);
    }
}

/// Whether an answer says that the node isn't the active controller.
fn is_elsewhere(response: &ResponseBody) -> bool {
    let is_not = |code: i16| code == ErrorCode::NotController.code() || code == ErrorCode::NotLeaderOrFollower.code();
    match response {
        ResponseBody::BrokerRegistration(it) => is_not(it.error_code),
        ResponseBody::BrokerHeartbeat(it) => is_not(it.error_code),
        ResponseBody::AlterPartition(it) => is_not(it.error_code),
        ResponseBody::AssignReplicasToDirs(it) => is_not(it.error_code),
        ResponseBody::AllocateProducerIds(it) => is_not(it.error_code),
        ResponseBody::ControllerRegistration(it) => is_not(it.error_code),
        ResponseBody::UnregisterBroker(it) => is_not(it.error_code),
        ResponseBody::CreateTopics(it) => it.topics.iter().any(|topic| is_not(topic.error_code)),
        ResponseBody::DeleteTopics(it) => it.responses.iter().any(|topic| is_not(topic.error_code)),
        ResponseBody::CreatePartitions(it) => it.results.iter().any(|topic| is_not(topic.error_code)),
        ResponseBody::IncrementalAlterConfigs(it) => it.responses.iter().any(|it| is_not(it.error_code)),
        ResponseBody::AlterPartitionReassignments(it) => is_not(it.error_code),
        ResponseBody::ElectLeaders(it) => is_not(it.error_code),
        ResponseBody::AlterClientQuotas(it) => it.entries.iter().any(|it| is_not(it.error_code)),
        ResponseBody::CreateAcls(it) => it.results.iter().any(|it| is_not(it.error_code)),
        ResponseBody::UpdateFeatures(it) => is_not(it.error_code),
        ResponseBody::AddRaftVoter(it) => is_not(it.error_code),
        ResponseBody::RemoveRaftVoter(it) => is_not(it.error_code),
        _ => false,
    }
}
