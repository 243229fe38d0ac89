//! The world: machines, clients, faults, and time that goes on.

use std::rc::Rc;

use ringlog_protocol::{ApiKey, RequestBody};
use ringlog_quorum::ControllerRequest;
use ringlog_types::{BrokerEpoch, NodeId};

use super::check::Fault;
use super::clients::Clients;
use super::device::Device;
use super::driver::Command;
use super::host::{BOOT_US, Host, LISTENER};
use super::nemesis::Nemesis;
use super::network::{CallId, Network, Packet, Place, decode_request, decode_response, encode_response};
use super::peers::Outcome;
use super::plan::{Format, Plan};
use super::reply::{Reply, api_versions};
use super::ring::End;
use super::shared::{Event, Shared};
use super::time::{MS, Us};
use crate::disk::Crash;

/// How often the checkers look at everything.
const WATCH_US: Us = 100 * MS;

/// See the module's text.
pub(crate) struct World {
    pub shared: Rc<Shared>,
    pub hosts: Vec<Host>,
    pub clients: Clients,
    pub nemesis: Nemesis,
}

impl Drop for World {
    /// The tasks of a process hold what they run on, which holds them.
    fn drop(&mut self) {
        for host in &mut self.hosts {
            host.end_process();
        }
    }
}

impl World {
    /// Formatted machines, none of which runs.
    pub(crate) fn new(plan: Plan) -> World {
        let mut disks = plan.stream("disk");
        let device = |random| Rc::new(Device::new(random, plan.pace));
        let devices: Vec<Rc<Device>> =
            (0..plan.nodes()).map(|_| device(ringlog_types::Random::from_seed(disks.next_u64()))).collect();
        let network = Network::new(plan.stream("network"), plan.places(), plan.weather);
        let mut clocks = plan.stream("clocks");
        let hosts: Vec<Host> =
            (0..plan.nodes()).map(|index| Host::new(&plan, index, devices[index].clone(), &mut clocks)).collect();
        if let Format::Dynamic { initial, .. } = plan.format {
            let voters: Vec<_> = hosts[..initial].iter().map(Host::voter).collect();
            hosts[..initial].iter().for_each(|host| host.format(&voters));
        }
        let shared = Shared::new(plan, network, devices);
        shared.checks.borrow_mut().begin(&shared, &hosts);
        let clients = Clients::new(&shared);
        let nemesis = Nemesis::new(&shared.plan);
        shared.post(WATCH_US, Event::Watch);
        World { shared, hosts, clients, nemesis }
    }

    /// Starts all machines, within a moment.
    pub(crate) fn start_all(&mut self) {
        for node in 0..self.hosts.len() {
            let after = 1 + self.shared.schedule(50 * MS);
            self.shared.post(after, Event::Start { node });
        }
    }

    /// Lets time go on for so long, or until a checker finds a fault.
    pub(crate) fn run_for(&mut self, us: Us) -> Result<(), Fault> {
        let until = self.shared.now() + us;
        while self.shared.now() < until {
            if let Some(event) = self.shared.next_event(until) {
                self.on_event(event);
            }
            if let Some(fault) = self.shared.checks.borrow_mut().take_fault() {
                return Err(fault);
            }
        }
        Ok(())
    }

    /// As [`World::run_for`], but only until `is_reached`. Says whether it was.
    pub(crate) fn run_until(&mut self, us: Us, is_reached: impl Fn(&World) -> bool) -> Result<bool, Fault> {
        let until = self.shared.now() + us;
        while !is_reached(self) {
            if self.shared.now() >= until {
                return Ok(false);
            }
            self.run_for((until - self.shared.now()).min(2 * MS))?;
        }
        Ok(true)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Wake { node, incarnation } => {
                if self.hosts[node].lives == incarnation && !self.defer(node, || Event::Wake { node, incarnation }) {
                    self.run_process(node);
                }
            }
            Event::Deliver { from, to, packet } => self.deliver(from, to, packet),
            Event::Start { node } => self.start(node),
            Event::Resume { node } => self.resume(node),
            Event::Fault => self.on_fault_due(),
            Event::Mend(mend) => self.on_mend(mend),
            Event::Client { client, turn } => self.on_client(client, turn),
            Event::Watch => {
                self.watch();
                self.shared.post(WATCH_US, Event::Watch);
            }
        }
    }

    /// What happens to a stopped process waits until it goes on.
    fn defer(&mut self, node: usize, event: impl FnOnce() -> Event) -> bool {
        let host = &mut self.hosts[node];
        if host.is_paused {
            host.deferred.push(event());
        }
        host.is_paused
    }

    fn run_process(&mut self, node: usize) {
        let Some(process) = &self.hosts[node].process else { return };
        match process.ring.run() {
            None => {}
            Some(End::Stopped) => {
                self.shared.note(node, || "has stopped in order".to_owned());
                self.end_process(node, None);
                self.on_process_ended(node);
            }
            Some(End::Halted(why)) => {
                self.shared.note(node, || format!("halts: {why}"));
                let excused = self.hosts[node].device.has_failed.get();
                self.shared.checks.borrow_mut().on_halted(node, &why, excused);
                self.end_process(node, Some(Crash::Kill));
                self.on_process_ended(node);
            }
            Some(End::CrashStep) => {
                let crash = if self.shared.schedule(3) == 0 { Crash::PowerLoss } else { Crash::Kill };
                self.crash(node, crash);
                self.on_process_ended(node);
            }
        }
    }

    /// The process is gone; `crash` says what that means for its disk.
    fn end_process(&mut self, node: usize, crash: Option<Crash>) {
        let host = &mut self.hosts[node];
        let Some(process) = host.end_process() else { return };
        if let Some(crash) = crash {
            host.device.crash(crash);
        }
        self.shared.checks.borrow_mut().on_ended(node);
        if crash != Some(Crash::PowerLoss) {
            // The system closes its connections.
            for call in process.inboxes.open.take() {
                self.shared.send(node, call.place, Packet::Reset { call });
            }
        }
    }

    /// Kills the process, or takes the machine's power away.
    pub(crate) fn crash(&mut self, node: usize, crash: Crash) {
        self.shared.note(node, || format!("--- {crash:?}"));
        self.shared.checks.borrow_mut().stats.crashes += 1;
        self.end_process(node, Some(crash));
        if crash == Crash::PowerLoss && self.hosts[node].process.is_none() {
            // What the dead process left in caches goes, too.
            self.hosts[node].has_power = false;
        }
    }

    /// A machine without a running process loses its power.
    pub(crate) fn lose_power(&mut self, node: usize) {
        if self.hosts[node].is_running() {
            return self.crash(node, Crash::PowerLoss);
        }
        self.shared.note(node, || "--- PowerLoss while down".to_owned());
        self.hosts[node].device.crash(Crash::PowerLoss);
        self.hosts[node].has_power = false;
    }

    /// Starts the process if it doesn't run and isn't held down.
    pub(crate) fn start(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.is_running() || host.is_held_down {
            return;
        }
        if !host.has_power {
            host.has_power = true;
            return self.shared.post(BOOT_US, Event::Start { node });
        }
        self.shared.note(node, || "starts".to_owned());
        host.start(&self.shared);
    }

    /// Tells the process to stop in order.
    pub(crate) fn stop(&mut self, node: usize) {
        if let Some(process) = &self.hosts[node].process {
            self.shared.note(node, || "is told to stop".to_owned());
            process.inboxes.controller.push(Command::Stop);
            self.shared.post(1, Event::Wake { node, incarnation: self.hosts[node].lives });
        }
    }

    fn resume(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.is_paused {
            self.shared.note(node, || "goes on".to_owned());
            host.is_paused = false;
            self.shared.checks.borrow_mut().on_resumed(self.shared.now(), node);
            for event in std::mem::take(&mut host.deferred) {
                self.shared.post(1, event);
            }
        }
    }

    fn deliver(&mut self, from: Place, to: Place, packet: Box<Packet>) {
        if to >= self.hosts.len() {
            return self.on_client_packet(to, *packet);
        }
        if !self.hosts[to].has_power {
            return;
        }
        if self.hosts[to].is_paused {
            self.hosts[to].deferred.push(Event::Deliver { from, to, packet });
            return;
        }
        match *packet {
            Packet::Connect { call, port } => {
                let host = &self.hosts[to];
                let is_open = host.is_running() && host.is_port(port);
                let answer =
                    if is_open { Packet::Accept { call, server: host.lives } } else { Packet::Refused { call } };
                self.shared.send(to, from, answer);
            }
            Packet::Request { call, server, api, version, body } => {
                let host = &self.hosts[to];
                if !host.is_running() || server.is_some_and(|life| life != host.lives) {
                    return self.shared.send(to, from, Packet::Reset { call });
                }
                self.on_request(to, call, api, version, body);
            }
            Packet::Accept { call, server } => self.finish_call(to, call, Outcome::Accepted(server)),
            Packet::Refused { call } => self.finish_call(to, call, Outcome::Refused),
            Packet::Reset { call } => self.finish_call(to, call, Outcome::Reset),
            Packet::Response { call, api, version, body } => {
                let response = decode_response(api, version, body);
                self.finish_call(to, call, Outcome::Answered(Box::new(response)));
            }
        }
    }

    fn finish_call(&mut self, node: usize, call: CallId, outcome: Outcome) {
        let host = &self.hosts[node];
        if let Some(process) = host.process.as_ref().filter(|_| host.lives == call.incarnation) {
            process.inboxes.calls.finish(call.number, outcome);
            self.run_process(node);
        }
    }

    fn on_request(&mut self, node: usize, call: CallId, api: ApiKey, version: i16, body: bytes::Bytes) {
        let Some(process) = &self.hosts[node].process else { return };
        if api == ApiKey::ApiVersions {
            let body = encode_response(&api_versions(), version).expect("an answer that fits");
            return self.shared.send(node, call.place, Packet::Response { call, api, version, body });
        }
        let request = decode_request(api, version, body);
        self.shared.checks.borrow_mut().on_request_received(&self.shared, node, call, &request);
        let now = self.hosts[node].clock.now(self.shared.now());
        if let RequestBody::BrokerHeartbeat(heartbeat) = &request {
            let noted = (BrokerEpoch(heartbeat.broker_epoch), now.monotonic);
            process.inboxes.heartbeats.borrow_mut().insert(NodeId(heartbeat.broker_id), noted);
        }
        let reply = Reply::new(&process.ring, call, version, &request, &process.inboxes.open);
        let request = ControllerRequest {
            api_version: version,
            listener: LISTENER.to_owned(),
            received_at: Some(now.monotonic),
            ..ControllerRequest::internal(request)
        };
        if request.is_for_raft() {
            process.inboxes.raft.push((Box::new(request), reply));
        } else {
            process.inboxes.controller.push(Command::Request(Box::new(request), reply));
        }
        self.run_process(node);
    }

    /// Who leads in the eyes of the checkers, if that process runs.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leader = self.shared.checks.borrow().leader();
        leader.filter(|node| self.hosts[*node].is_running())
    }

    fn watch(&mut self) {
        self.shared.checks.borrow_mut().watch(&self.shared, &self.hosts);
    }
}
