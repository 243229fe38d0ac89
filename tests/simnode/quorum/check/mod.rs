//! The checkers of the quorum. They see what nodes say on their connections, what their disks hold, and the images that
//! they hand out; they share no code with what they check, and draw no random numbers.
//!
//! One file per subject: `elections` (votes, epochs, leaders, pre-votes), `logs` (what is durable, what is committed),
//! `voters` (sets of them), `changes` (of voters), `state` (images against the `model`), `snapshots`, `answers` (what would
//! make a Kafka node exit), `promises` (what clients were told), `end` (what has to be once nothing is wrong any more).

mod answers;
mod changes;
mod digest;
mod elections;
mod end;
mod logs;
mod model;
mod partitions;
mod promises;
mod snapshots;
mod state;
pub mod voters;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use ringlog_metadata::image::Publication;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_ring::sim::{Context, Control, HostId, MS, Tap};
use ringlog_types::Uuid;

use self::digest::ImageDigest;
use self::logs::Committed;
use self::model::Model;
use self::voters::VoterView;
use super::disk_log::{DiskLog, View};
use super::wire::{Said, Saying, Wire, describe};

/// What is wrong.
pub type Found = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
use ensure;

/// What is known of one node.
pub struct NodeView {
    /// Its id.
    pub id: i32,
    /// Where it runs.
    pub host: HostId,
    address: IpAddr,
    /// Whether it is a controller.
    pub is_controller: bool,
    /// Its present directory.
    pub directory: Uuid,
    /// What its disk holds for certain.
    safe: DiskLog,
    /// The highest epoch in which this directory has said something.
    acted: i32,
    /// Everything below was acknowledged as durable by this directory.
    promised: i64,
    /// It knows that everything below is committed.
    told: i64,
    /// Its log equals what is committed below.
    verified_to: i64,
    /// What former directories had acknowledged.
    lost: BTreeMap<Uuid, i64>,
    /// Its disk was replaced, and it has not fetched again what it had.
    pub is_hurt: bool,
    /// Bits of its files have rotted.
    pub is_damaged: bool,
    /// Making its files safe may have failed. What a process finds later is in the page cache at best.
    pub has_failed_to_sync: bool,
    /// Somebody lets it wait: until then, and a little longer, it can't notice the time.
    pub disturbances: usize,
    /// When it was last started, or the last disturbance ended.
    pub awake_since_ns: u64,
    /// A core of it stands still until then, whatever is healed.
    pub stands_until_ns: u64,
    /// When each node was last heard of by this one, by node and directory.
    heard: BTreeMap<(i32, Uuid), u64>,
    /// The epoch of which it last said that it leads it.
    leads: Option<(i32, u64)>,
    /// The epoch in which it last heard from its leader, and when.
    in_touch: Option<InTouch>,
    /// Everything below is committed, and this directory acknowledged it: whoever lacks it must not vote.
    owed: i64,
    /// A fetch that claims what isn't there. It may be an old one that waited for its connection; then nobody believes it.
    doubtful: Option<(Rc<RequestBody>, String)>,
    /// Epoch, offset and last epoch of a fetch that names another last epoch than its log has, and how often it did.
    wrong_claim: Option<((i32, i64, i32), u32)>,
    /// Its leader's log parts from its own at that offset, in that epoch; and how often it was told so.
    diverged: Option<(i32, i64, u32)>,
    /// The last fetch: answers to older ones are of no interest.
    last_fetch: Option<Rc<RequestBody>>,
    /// It was sent by a follower, by its file.
    fetches_as_follower: bool,
    /// The last epoch in which it fetched as a follower.
    followed: i32,
    /// It asked for votes: its next fetch may have been worked out before, and have waited for its connection.
    was_seeking: bool,
    /// The file that a bit turned in, and how much of it is known to be committed.
    rotten: Option<(String, u64)>,
    /// What it asks for next of a snapshot: its end, and positions where that may be.
    chunk: Option<(i64, [i64; 2])>,
    /// Voters that it named and that its log doesn't, and when it did so first in an epoch.
    unknown_voters: Option<(i32, VoterView, u64)>,
    /// The last offset of the newest image that this process handed out.
    published: i64,
    image: ImageDigest,
    /// Snapshots that were looked at.
    snapshots: BTreeSet<(i64, i32)>,
}

/// A node has heard from its leader.
#[derive(Debug, Clone, Copy)]
struct InTouch {
    epoch: i32,
    /// When that came to its kernel.
    since_ns: u64,
    /// When it asked for more, which shows that it has taken it in.
    known_ns: Option<u64>,
}

/// Whom something is to happen to, at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Whoever gives its vote away next.
    Voter,
    /// Whoever leads an epoch next.
    Leader,
}

/// How much was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Epochs that had a leader.
    pub elections: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Images looked at.
    pub images: u64,
    /// Answers that promise something.
    pub promises: u64,
}

/// See the module's text.
pub struct Checks {
    world: Control,
    wire: Wire,
    /// The nodes, as the plan has them.
    pub nodes: Vec<NodeView>,
    /// What is committed.
    pub committed: Committed,
    /// The state that it describes.
    model: Model,
    /// How much was seen.
    pub stats: Stats,
    /// Who is waited for.
    pub wanted: Option<Wanted>,
    /// Who did so just now.
    pub seen: Option<(Wanted, usize)>,
    is_dynamic: bool,
    /// When somebody was last asked for other voters.
    asked_to_change_ns: Option<u64>,
    /// Clients that are asking for other voters.
    pub(super) changes_asked_for: u32,
    fetch_timeout_ns: u64,
    elections: elections::Elections,
    promises: promises::Promises,
    state: state::States,
}

/// A node as it is set up.
pub struct Seat {
    /// Its id.
    pub id: i32,
    /// Where it runs.
    pub host: HostId,
    /// Whether it is a controller.
    pub is_controller: bool,
    /// Whether it is a voter from the beginning.
    pub is_voter: bool,
    /// Its directory.
    pub directory: Uuid,
}

impl Checks {
    /// Looks on from now on.
    pub fn begin(world: &Control, seats: &[Seat], is_dynamic: bool, fetch_timeout_ms: u64) -> Rc<RefCell<Checks>> {
        let voters =
            seats.iter().filter(|seat| seat.is_voter).map(|seat| (seat.id, is_dynamic.then_some(seat.directory)));
        let nodes = seats.iter().map(|seat| NodeView {
            id: seat.id,
            host: seat.host,
            address: world.address(seat.host),
            is_controller: seat.is_controller,
            directory: seat.directory,
            safe: DiskLog::new(View::Safe),
            acted: 0,
            promised: 0,
            told: 0,
            verified_to: 0,
            lost: BTreeMap::new(),
            is_hurt: false,
            is_damaged: false,
            has_failed_to_sync: false,
            disturbances: 0,
            awake_since_ns: 0,
            stands_until_ns: 0,
            heard: BTreeMap::new(),
            leads: None,
            in_touch: None,
            owed: 0,
            doubtful: None,
            diverged: None,
            wrong_claim: None,
            last_fetch: None,
            fetches_as_follower: false,
            followed: -1,
            was_seeking: false,
            rotten: None,
            chunk: None,
            unknown_voters: None,
            published: -1,
            image: ImageDigest::default(),
            snapshots: BTreeSet::new(),
        });
        let checks = Checks {
            world: world.clone(),
            wire: Wire::default(),
            nodes: nodes.collect(),
            committed: Committed::new(VoterView::initial(voters)),
            model: Model::new(),
            stats: Stats::default(),
            wanted: None,
            seen: None,
            is_dynamic,
            asked_to_change_ns: None,
            changes_asked_for: 0,
            fetch_timeout_ns: fetch_timeout_ms * MS,
            elections: elections::Elections::default(),
            promises: promises::Promises::default(),
            state: state::States::default(),
        };
        let checks = Rc::new(RefCell::new(checks));
        let tapper = checks.clone();
        world.tap(move |tap| tapper.borrow_mut().on_tap(tap));
        let observer = checks.clone();
        world.observe(move |context, value| {
            if let Some(publication) = value.downcast_ref::<Publication>() {
                observer.borrow_mut().on_publication(context, publication);
            }
        });
        checks
    }

    /// Somebody did what somebody is wanted for.
    fn see(&mut self, what: Wanted, node: usize) {
        if self.wanted == Some(what) {
            (self.wanted, self.seen) = (None, Some((what, node)));
        }
    }

    fn complain(&self, node: usize, found: Found) {
        if let Err(text) = found
            && !self.world.has_violations()
        {
            self.world.add_violation(format!("node {}: {text}", self.nodes[node].id));
        }
    }

    fn place(&self, address: IpAddr) -> Option<usize> {
        self.nodes.iter().position(|view| view.address == address)
    }

    /// The node that leads in the highest epoch.
    pub fn leader(&self) -> Option<usize> {
        let (_, id) = self.elections.leaders.last_key_value()?;
        self.nodes.iter().position(|view| view.id == *id)
    }

    /// Its id.
    pub fn leader_id(&self) -> Option<i32> {
        self.elections.leaders.last_key_value().map(|(_, id)| *id)
    }

    fn on_tap(&mut self, tap: &Tap<'_>) {
        if self.world.has_violations() {
            return;
        }
        let mut heard = Vec::new();
        let taken = self.wire.take(tap, |saying| heard.push(saying));
        if let Err(text) = taken {
            self.world.add_violation(text);
        }
        for saying in heard {
            self.on_said(saying);
        }
    }

    fn on_said(&mut self, saying: Saying) {
        let (from, to) = (self.place(saying.from), self.place(saying.to));
        match saying.said {
            Said::Asked(body) => {
                let Some(node) = from else { return };
                let (id, address) = (self.nodes[node].id, saying.to);
                self.world.note(|| match describe(&body) {
                    Some(text) => format!("{id} to {address}: {text}"),
                    None => format!("{id} to {address}: {}", body.api_key().name()),
                });
                let found = self.check_request(node, to, &body);
                self.complain(node, found);
            }
            Said::Heard(body) => {
                if matches!(*body, RequestBody::AddRaftVoter(_) | RequestBody::RemoveRaftVoter(_)) {
                    self.asked_to_change_ns = Some(self.world.now_ns());
                }
                if let (Some(from), Some(to)) = (from, to) {
                    self.note_heard(from, to, &body);
                }
            }
            Said::Answered(asked, answer) => {
                let Some(node) = from else { return };
                let found = self.check_told(node, &asked, &answer);
                let found = found.and_then(|()| self.check_answer(node, to, &asked, &answer, saying.heard_ns));
                self.complain(node, found);
            }
            Said::Reached(asked, answer) => {
                if let Some(to) = to {
                    self.note_in_touch(to, &asked, &answer);
                    self.note_chunk(to, &answer);
                }
            }
        }
    }

    fn check_request(&mut self, node: usize, to: Option<usize>, body: &Rc<RequestBody>) -> Found {
        match &**body {
            RequestBody::Vote(vote) => self.check_vote_request(node, vote),
            RequestBody::BeginQuorumEpoch(begin) => {
                let Some(it) = begin.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(()) };
                self.check_durable_epoch(node, it.leader_epoch)?;
                ensure!(
                    it.leader_id == self.nodes[node].id,
                    "says that {} leads epoch {}",
                    it.leader_id,
                    it.leader_epoch
                );
                self.note_leader(node, it.leader_epoch)
            }
            RequestBody::EndQuorumEpoch(end) => {
                let Some(it) = end.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(()) };
                self.check_durable_epoch(node, it.leader_epoch)?;
                if it.leader_id == self.nodes[node].id {
                    self.note_leader(node, it.leader_epoch)?;
                }
                self.nodes[node].leads = None;
                Ok(())
            }
            RequestBody::Fetch(fetch) => self.check_fetch_request(node, to, body, fetch),
            RequestBody::FetchSnapshot(fetch) => {
                let Some(it) = fetch.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(()) };
                self.check_chunk_asked(node, it.snapshot_id.end_offset, it.position)?;
                self.check_durable_epoch(node, it.current_leader_epoch).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn note_heard(&mut self, from: usize, to: usize, body: &RequestBody) {
        let directory = match body {
            RequestBody::Fetch(fetch) => {
                fetch.topics.first().and_then(|topic| topic.partitions.first()).map(|it| it.replica_directory_id)
            }
            RequestBody::FetchSnapshot(fetch) => {
                fetch.topics.first().and_then(|topic| topic.partitions.first()).map(|it| it.replica_directory_id)
            }
            RequestBody::UpdateRaftVoter(update) => Some(update.voter_directory_id),
            _ => None,
        };
        if let Some(directory) = directory {
            let (id, now_ns) = (self.nodes[from].id, self.world.now_ns());
            self.nodes[to].heard.insert((id, directory), now_ns);
        }
    }

    /// A node hears from its leader.
    fn note_in_touch(&mut self, node: usize, asked: &RequestBody, answer: &ResponseBody) {
        // Who looks for a leader isn't in touch with the one that it finds until it has fetched as its follower.
        let is_follower = self.nodes[node].fetches_as_follower && self.is_awaited(node, asked);
        let (RequestBody::Fetch(asked), ResponseBody::Fetch(answer)) = (asked, answer) else { return };
        let asked = asked.topics.first().and_then(|topic| topic.partitions.first());
        let answer = answer.responses.first().and_then(|topic| topic.partitions.first());
        let (Some(asked), Some(it)) = (asked, answer) else { return };
        if it.error_code == 0 && it.diverging_epoch.epoch >= 0 {
            let (epoch, end) = (asked.current_leader_epoch, it.diverging_epoch.end_offset);
            let before = self.nodes[node].diverged.filter(|(of, at, _)| (*of, *at) == (epoch, end));
            let times = before.map_or(1, |(.., times)| times + 1);
            self.nodes[node].diverged = Some((epoch, end, times));
            let is_stuck = times >= logs::REPEATED && asked.fetch_offset > end;
            let text =
                format!("fetches at {} all the time, its leader's log parts from its own at {end}", asked.fetch_offset);
            self.complain(node, if is_stuck { Err(text) } else { Ok(()) });
        }
        if is_follower && it.error_code == 0 && it.diverging_epoch.epoch < 0 && it.snapshot_id.epoch < 0 {
            let (epoch, since_ns) = (asked.current_leader_epoch, self.world.now_ns());
            self.nodes[node].in_touch = Some(InTouch { epoch, since_ns, known_ns: None });
        }
    }

    fn check_answer(
        &mut self,
        node: usize,
        to: Option<usize>,
        asked: &RequestBody,
        answer: &ResponseBody,
        heard_ns: u64,
    ) -> Found {
        match (asked, answer) {
            (RequestBody::Vote(asked), ResponseBody::Vote(answer)) => {
                self.check_vote_answer(node, asked, answer, heard_ns)
            }
            (RequestBody::Fetch(_), ResponseBody::Fetch(answer)) => {
                self.check_belief(to, asked, answer)?;
                self.check_fetch_answer(node, to, asked, answer)
            }
            (RequestBody::DescribeQuorum(_), ResponseBody::DescribeQuorum(answer)) => {
                let it = answer.topics.first().and_then(|topic| topic.partitions.first());
                match it.filter(|it| answer.error_code == 0 && it.error_code == 0) {
                    Some(it) => {
                        self.check_claim(node, it.leader_id, it.leader_epoch)?;
                        self.check_described(node, it)
                    }
                    None => Ok(()),
                }
            }
            (RequestBody::Envelope(_), _) => match super::wire::unwrap_envelope(asked, answer) {
                Some(answer) => self.check_promise(&answer),
                None => Ok(()),
            },
            _ => self.check_promise(answer),
        }
    }

    /// A process ended, or is told to.
    pub fn on_ended(&mut self, node: usize) {
        self.nodes[node].leads = None;
        // Who is answered now isn't there any more.
        self.nodes[node].last_fetch = None;
    }

    /// A process was started.
    pub fn on_started(&mut self, node: usize) {
        let now_ns = self.world.now_ns();
        let view = &mut self.nodes[node];
        view.is_damaged |= view.has_failed_to_sync;
        view.awake_since_ns = now_ns;
        view.published = -1;
        view.leads = None;
        view.in_touch = None;
        view.heard.clear();
        (view.doubtful, view.last_fetch, view.chunk, view.unknown_voters) = (None, None, None, None);
        (view.wrong_claim, view.diverged) = (None, None);
    }

    /// A node's disk goes; it gets a new one in a moment.
    pub fn on_disk_lost(&mut self, node: usize) {
        self.nodes[node].is_hurt = true;
    }

    /// A node got a new disk.
    pub fn on_replaced(&mut self, node: usize, directory: Uuid) {
        let view = &mut self.nodes[node];
        view.lost.insert(view.directory, view.promised);
        view.directory = directory;
        view.safe = DiskLog::new(View::Safe);
        (view.acted, view.promised, view.told, view.verified_to) = (0, 0, 0, 0);
        if self.is_dynamic {
            // It is another voter than it was.
            view.owed = 0;
        }
        view.is_hurt = true;
        view.snapshots.clear();
    }
}
