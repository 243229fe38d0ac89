//! The checkers. They see what nodes do and say, the disks, and nothing of what the code under test believes where they
//! can help it; they draw no random numbers. The first fault ends the run.
//!
//! One file per subject: `elections` (votes, epochs, leaders), `disruption` (pre-votes), `logs` (what is durable, what is
//! committed), `voters` and `changes` of them, `state` (images against the `model`), `snapshots`, `wire` (what would kill
//! a Kafka peer), `promises` (what clients were told), `liveness`.

mod changes;
mod digest;
mod disruption;
mod elections;
mod liveness;
mod logs;
mod model;
mod partitions;
mod promises;
mod snapshots;
mod state;
mod voters;
mod wire;

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_metadata::image::Publication;
use ringlog_protocol::records::BatchRef;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_quorum::{LoadedNode, QuorumNode, Work};
use ringlog_raft::SnapshotId;
use ringlog_types::{Offset, Uuid};

use super::host::{Host, node_id};
use super::metadata_log::MetadataLog;
use super::network::CallId;
use super::plan::Plan;
use super::shared::Shared;
use super::time::Us;
use crate::runner::Stats;

pub(crate) use digest::ImageDigest;
pub(crate) use logs::{Committed, NodeLog};
pub(crate) use model::Model;
pub(crate) use voters::VoterView;

/// Which checker found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checker {
    Elections,
    Durability,
    Committed,
    Voters,
    State,
    Snapshots,
    Wire,
    Promises,
    Liveness,
    Halt,
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub checker: Checker,
    pub text: String,
}

/// What the checkers know of one node.
#[derive(Default)]
pub(crate) struct NodeView {
    pub id: i32,
    pub is_controller: bool,
    pub directory: Uuid,
    pub life: u64,
    pub is_running: bool,
    pub is_loaded: bool,
    /// When the process began, or went on after it was stopped or had waited long for its disk.
    pub awake_since: Us,
    /// Since when it does what the node wants, and looks at nothing else.
    pub busy_since: Option<Us>,
    pub log: NodeLog,
    pub epoch: i32,
    /// The highest epoch that this directory has put into a message.
    pub acted_epoch: i32,
    /// -1: not known to this process.
    pub high_watermark: i64,
    pub to_commit: Option<logs::ToCommit>,
    /// The log equals what is committed below.
    pub verified_to: i64,
    /// Everything below was acknowledged as durable.
    pub promised: i64,
    /// The same of directories whose disk is gone.
    pub lost: BTreeMap<Uuid, i64>,
    pub is_rebuilding: bool,
    /// The same, as its directory was empty.
    pub is_blank: bool,
    /// Bits of its files have rotted, and it hasn't made that good yet.
    pub is_damaged: bool,
    /// It got a new disk, votes by its id alone, and has not fetched again what it had.
    pub is_wiped: bool,
    /// The epoch that it leads, and since when.
    pub leads: Option<(i32, Us)>,
    /// When each node was last heard of by this one, as leader.
    pub heard: BTreeMap<(i32, Uuid), Us>,
    /// The last offset of the newest image that it handed out.
    pub published: i64,
    pub image_digest: ImageDigest,
}

impl NodeView {
    /// Whether it knows all that it ever said, whatever it believes itself.
    fn may_vote(&self) -> bool {
        !self.is_wiped && (!self.is_rebuilding || self.is_blank)
    }
}

/// See the module's text.
pub(crate) struct Checks {
    fault: Option<Fault>,
    pub stats: Stats,
    pub nodes: Vec<NodeView>,
    pub committed: Committed,
    pub model: Model,
    elections: elections::Elections,
    disruption: disruption::Disruption,
    wire: wire::Wire,
    promises: promises::Promises,
    state: state::States,
}

/// The checker's name for a text that says what is wrong.
pub(crate) type Found = Result<(), (Checker, String)>;

/// Ends with a fault of that checker unless the condition holds.
macro_rules! holds {
    ($checker:expr, $condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(($checker, format!($($text)+)));
        }
    };
}
pub(crate) use holds;

impl Checks {
    pub(crate) fn new(plan: &Plan) -> Checks {
        let view = |index: usize| NodeView {
            id: node_id(plan, index).0,
            is_controller: index < plan.controllers,
            high_watermark: -1,
            published: -1,
            ..NodeView::default()
        };
        Checks {
            fault: None,
            stats: Stats::default(),
            nodes: (0..plan.nodes()).map(view).collect(),
            committed: Committed::default(),
            model: Model::new(),
            elections: elections::Elections::default(),
            disruption: disruption::Disruption::default(),
            wire: wire::Wire::default(),
            promises: promises::Promises::default(),
            state: state::States::default(),
        }
    }

    /// What was formatted.
    pub(crate) fn begin(&mut self, shared: &Rc<Shared>, hosts: &[Host]) {
        self.begin_voters(shared, hosts);
    }

    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    pub(crate) fn report(&mut self, node: Option<usize>, found: Found) {
        if let Err((checker, text)) = found
            && self.fault.is_none()
        {
            let text = node.map_or_else(|| text.clone(), |node| format!("n{node}: {text}"));
            self.fault = Some(Fault { checker, text });
        }
    }

    /// The node that leads in the highest epoch.
    pub(crate) fn leader(&self) -> Option<usize> {
        let led = self.nodes.iter().enumerate().filter_map(|(node, view)| Some((view.leads?.0, node)));
        led.max().map(|(_, node)| node)
    }

    // ---- What nodes do ----

    /// A machine got a new disk.
    pub(crate) fn on_wiped(&mut self, node: usize, directory: Uuid) {
        let view = &mut self.nodes[node];
        let mut lost = std::mem::take(&mut view.lost);
        lost.insert(view.directory, view.promised);
        *view = NodeView {
            id: view.id,
            lost,
            is_controller: view.is_controller,
            directory,
            life: view.life,
            high_watermark: -1,
            log: NodeLog::new(view.log.initial_voters.clone()),
            is_wiped: view.log.voters().knows_no_directory(view.id),
            ..NodeView::default()
        };
    }

    pub(crate) fn on_started(&mut self, now: Us, node: usize, life: u64, directory: Uuid) {
        let view = &mut self.nodes[node];
        view.directory = directory;
        view.life = life;
        view.is_running = true;
        view.is_loaded = false;
        view.awake_since = now;
        view.high_watermark = -1;
        view.published = -1;
        view.leads = None;
        view.to_commit = None;
        view.busy_since = None;
        view.heard.clear();
        view.epoch = 0;
    }

    pub(crate) fn on_ended(&mut self, node: usize) {
        let view = &mut self.nodes[node];
        view.is_running = false;
        view.is_loaded = false;
        view.leads = None;
    }

    pub(crate) fn on_resumed(&mut self, now: Us, node: usize) {
        self.nodes[node].awake_since = now;
    }

    /// The node's work begins, or is done. Meanwhile its driver looks at nothing else.
    pub(crate) fn on_busy(&mut self, now: Us, node: usize, is_busy: bool) {
        let view = &mut self.nodes[node];
        let since = view.busy_since.replace(now).filter(|since| now - since > liveness::LONG_WORK_US);
        if !is_busy {
            view.busy_since = None;
            view.awake_since = if since.is_some() { now } else { view.awake_since };
        }
    }

    /// A process ended itself; `is_excused` by an error of its disk.
    pub(crate) fn on_halted(&mut self, node: usize, why: &str, is_excused: bool) {
        if !is_excused && !self.nodes[node].is_damaged {
            self.report(Some(node), Err((Checker::Halt, format!("halts: {why}"))));
        }
    }

    pub(crate) fn on_renounced(&mut self, node: usize, text: &str) {
        self.report(Some(node), Err((Checker::Halt, text.to_owned())));
    }

    pub(crate) fn on_spinning(&mut self, node: usize) {
        self.report(Some(node), Err((Checker::Halt, "spins: its deadline stays in the past".to_owned())));
    }

    pub(crate) fn on_loaded(&mut self, shared: &Rc<Shared>, node: usize, loaded: &LoadedNode, log: &MetadataLog) {
        self.nodes[node].is_loaded = true;
        let found = self.check_loaded(shared, node, loaded, log);
        self.report(Some(node), found);
    }

    /// The node took something in; its work is still to be done.
    pub(crate) fn after_step(&mut self, shared: &Rc<Shared>, node: usize, machine: &QuorumNode) {
        let known = self.nodes[node].high_watermark;
        let found =
            self.check_epoch(shared, node, machine).and_then(|()| self.check_high_watermark(shared, node, machine));
        // A snapshot may come from the leader of an earlier epoch, and be complete only in this one.
        let knows_leader = machine.raft().leader_id().is_some();
        if self.nodes[node].high_watermark > known && knows_leader {
            self.note_in_touch(shared, node);
        }
        self.report(Some(node), found);
    }

    /// The node wants this to be done; it will be done next.
    pub(crate) fn on_work(&mut self, shared: &Rc<Shared>, node: usize, machine: &QuorumNode, work: &Work) {
        let found = self.commit_if_appended(shared, node).and_then(|()| match work {
            Work::TruncateLog { to } => self.check_truncation(node, to.0),
            Work::AdoptSnapshot { id } => self.on_adopted(shared, node, *id),
            // It may go out later, but nothing that it says may hang on what comes after it.
            Work::Send { to, request, .. } => match shared.place_of_host(&to.endpoint.host) {
                // A bootstrap server may be this very node, by another name.
                Some(place) if place == node && to.node_id.is_none() => Ok(()),
                Some(place) => self.check_request_sent(shared, node, place, request),
                None => Err((Checker::Wire, format!("sends to {}", to.endpoint))),
            },
            Work::Rebuilt => {
                self.nodes[node].is_rebuilding = machine.raft().is_rebuilding();
                (self.nodes[node].is_blank, self.nodes[node].is_wiped) = (false, false);
                Ok(())
            }
            _ => Ok(()),
        });
        self.report(Some(node), found);
    }

    pub(crate) fn on_appended(&mut self, shared: &Rc<Shared>, node: usize, batch: &BatchRef<'_>, place: (Offset, u32)) {
        let found = self.append(shared, node, batch, place);
        let found =
            found.and_then(|()| self.commit_if_appended(shared, node)).and_then(|()| self.verify_committed(node));
        self.report(Some(node), found);
    }

    /// Old snapshots are gone, and the log below.
    pub(crate) fn on_log_start_advanced(&mut self, shared: &Rc<Shared>, node: usize, start: Offset) {
        let found = self.check_start(shared, node, start.0);
        self.report(Some(node), found);
    }

    pub(crate) fn on_publication(&mut self, node: usize, publication: &Publication) {
        let found = self.check_publication(node, publication);
        self.report(Some(node), found);
    }

    /// A snapshot is complete: written by this node, or fetched and found good.
    pub(crate) fn on_snapshot(&mut self, node: usize, id: SnapshotId, content: &[u8], is_own: bool) {
        let found = self.check_snapshot(id, content, is_own);
        self.report(Some(node), found);
    }

    // ---- What nodes say ----

    pub(crate) fn on_request_received(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        call: CallId,
        request: &RequestBody,
    ) {
        self.note_request(shared, node, call, request);
    }

    pub(crate) fn on_response_sent(&mut self, shared: &Rc<Shared>, node: usize, call: CallId, response: &ResponseBody) {
        let found = self.check_response_sent(shared, node, call, response);
        self.report(Some(node), found);
    }

    /// The cluster as a whole, now and then.
    pub(crate) fn watch(&mut self, shared: &Rc<Shared>, hosts: &[Host]) {
        let found = self.check_quorum_contact(shared, hosts);
        self.report(None, found);
    }
}
