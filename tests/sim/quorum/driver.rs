//! The task that owns a node of the quorum, with the steps of `shards/controller/driver.rs`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use ringlog_metadata::image::Publication;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_quorum::snapshots::SnapshotPolicy;
use ringlog_quorum::{ControllerRequest, Input, LoadedSnapshot, NodeFault, QuorumNode, Work};
use ringlog_raft::{ReadFailed, ReplyToken, SnapshotId};
use ringlog_types::{BrokerEpoch, MonotonicMs, NodeId, Offset};

use super::metadata_log::{MetadataLog, MetadataLogError, READ_BYTES, SnapshotInfo};
use super::peers::{Calls, Peers};
use super::reply::Reply;
use super::ring::{Channel, End, Ring};
use super::snapshot_files;
use super::time::{MS, Us};

/// How much of each sort of input is taken before the effects are carried out.
const MAX_INPUTS_PER_TURN: usize = 64;
const FINISHED_CAPACITY: usize = 64;
const MAILBOX_CAPACITY: usize = 1024;
/// How long answers wait until all cores have taken the new metadata over.
const APPLY_WAIT_MS: u64 = 500;
/// Ticks at one moment: more is a busy loop.
const MAX_TICKS_AT_ONCE: u32 = 1_000;
/// How long a leader that stops waits for a successor.
const HAND_OVER_MS: u64 = 5_000;

/// What the mailbox takes.
pub(crate) enum Command {
    Request(Box<ControllerRequest>, Reply),
    Stop,
}

/// What ran beside the task and comes back.
pub(crate) enum Finished {
    Input(Box<Input>),
    Flushed(u64, Result<(), MetadataLogError>),
    WrittenOut(Result<(), MetadataLogError>),
    Checked(SnapshotId, Option<(Box<LoadedSnapshot>, SnapshotInfo)>),
    Cleaned(Result<Option<Offset>, MetadataLogError>),
    Fault(MetadataLogError),
}

enum Wake {
    Command(Command),
    RaftRequest(Box<ControllerRequest>, Reply),
    Finished(Finished),
    Deadline,
    /// Of the simulation alone: old snapshots are looked for more often than a node does.
    Clean,
}

/// A fault after which the node must not go on.
#[derive(Debug, thiserror::Error)]
enum DriverFault {
    #[error(transparent)]
    Log(#[from] MetadataLogError),
    #[error(transparent)]
    Node(#[from] NodeFault),
}

/// The mailboxes of a process, and what the world may see of it.
#[derive(Clone)]
pub(crate) struct Inboxes {
    pub controller: Rc<Channel<Command>>,
    pub raft: Rc<Channel<(Box<ControllerRequest>, Reply)>>,
    pub calls: Rc<Calls>,
    /// Heartbeats that came in since the driver looked.
    pub heartbeats: Rc<RefCell<BTreeMap<NodeId, (BrokerEpoch, MonotonicMs)>>>,
    /// Requests that wait for an answer.
    pub open: Rc<RefCell<BTreeSet<super::network::CallId>>>,
    /// Who leads, as far as the node knows.
    pub leader: Rc<Cell<Option<NodeId>>>,
    pub is_loaded: Rc<Cell<bool>>,
}

impl Inboxes {
    pub(crate) fn new(ring: &Rc<Ring>) -> Inboxes {
        Inboxes {
            controller: Channel::new(ring, MAILBOX_CAPACITY),
            raft: Channel::new(ring, MAILBOX_CAPACITY),
            calls: Rc::default(),
            heartbeats: Rc::default(),
            open: Rc::default(),
            leader: Rc::default(),
            is_loaded: Rc::default(),
        }
    }
}

/// See the module's text.
pub(crate) struct Driver {
    ring: Rc<Ring>,
    is_controller: bool,
    controller_inbox: Rc<Channel<Command>>,
    raft_inbox: Rc<Channel<(Box<ControllerRequest>, Reply)>>,
    heartbeats: Rc<RefCell<BTreeMap<NodeId, (BrokerEpoch, MonotonicMs)>>>,
    finished: Rc<Channel<Finished>>,
    leader: Rc<Cell<Option<NodeId>>>,
    node: QuorumNode,
    log: Rc<MetadataLog>,
    peers: Peers,
    policy: SnapshotPolicy,
    replies: BTreeMap<ReplyToken, Reply>,
    next_reply: u64,
    generation: u64,
    is_flushing: bool,
    is_writing_out: bool,
    is_cleaning: bool,
    checked: Option<SnapshotInfo>,
    clean_at: Us,
    /// Ticks at the present moment.
    ticks: (Us, u32),
}

impl Driver {
    pub(crate) fn new(
        ring: &Rc<Ring>,
        is_controller: bool,
        inboxes: &Inboxes,
        node: QuorumNode,
        log: Rc<MetadataLog>,
        policy: SnapshotPolicy,
        request_timeout_ms: u64,
    ) -> Driver {
        let finished = Channel::new(ring, FINISHED_CAPACITY);
        let peers = Peers::new(ring, request_timeout_ms, finished.clone(), inboxes.calls.clone());
        let clean_at = ring.shared.now() + ring.shared.plan.clean_every_us;
        Driver {
            ring: ring.clone(),
            is_controller,
            controller_inbox: inboxes.controller.clone(),
            raft_inbox: inboxes.raft.clone(),
            heartbeats: inboxes.heartbeats.clone(),
            finished,
            leader: inboxes.leader.clone(),
            node,
            log,
            peers,
            policy,
            replies: BTreeMap::new(),
            next_reply: 0,
            generation: 0,
            is_flushing: false,
            is_writing_out: false,
            is_cleaning: false,
            checked: None,
            clean_at,
            ticks: (0, 0),
        }
    }

    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) {
        let outcome = match self.serve().await {
            Ok(()) => self.stop().await,
            Err(fault) => Err(fault),
        };
        self.ring.exit(match outcome {
            Ok(()) => End::Stopped,
            Err(fault) => End::Halted(fault.to_string()),
        });
    }

    async fn serve(&mut self) -> Result<(), DriverFault> {
        self.do_work().await?;
        loop {
            let wake = self.next(self.node.takes_requests()).await;
            if self.take_in(wake)? || self.take_what_is_there()? {
                return Ok(());
            }
            self.tick_if_due().await;
            self.do_work().await?;
            if self.node.is_going_on() {
                self.ring.step().await;
            }
        }
    }

    /// Whether that was the end.
    fn take_in(&mut self, wake: Wake) -> Result<bool, DriverFault> {
        match wake {
            Wake::Command(Command::Stop) => return Ok(true),
            Wake::Command(Command::Request(request, reply)) | Wake::RaftRequest(request, reply) => {
                self.on_request(request, reply);
            }
            Wake::Finished(finished) => self.on_finished(finished)?,
            Wake::Deadline => {}
            Wake::Clean => self.begin_cleaning(),
        }
        Ok(false)
    }

    /// Some of whatever came in meanwhile.
    fn take_what_is_there(&mut self) -> Result<bool, DriverFault> {
        for _ in 0..MAX_INPUTS_PER_TURN {
            let Some(finished) = self.finished.try_recv() else { break };
            self.on_finished(finished)?;
        }
        for _ in 0..MAX_INPUTS_PER_TURN {
            let Some((request, reply)) = self.raft_inbox.try_recv() else { break };
            self.on_request(request, reply);
        }
        for _ in 0..MAX_INPUTS_PER_TURN {
            if !self.node.takes_requests() {
                break;
            }
            match self.controller_inbox.try_recv() {
                Some(Command::Request(request, reply)) => self.on_request(request, reply),
                Some(Command::Stop) => return Ok(true),
                None => break,
            }
        }
        Ok(false)
    }

    async fn tick_if_due(&mut self) {
        if self.ring.is_due(self.node.next_deadline()) {
            let heartbeats = self.heartbeats.take().into_iter();
            self.node.on_heartbeats_received(heartbeats.map(|(id, (epoch, at))| (id, epoch, at)));
            self.tick().await;
        }
    }

    async fn next(&mut self, takes_requests: bool) -> Wake {
        let deadline = self.node.next_deadline();
        poll_fn(|_| {
            if let Some(finished) = self.finished.try_recv() {
                return Poll::Ready(Wake::Finished(finished));
            }
            if let Some((request, reply)) = self.raft_inbox.try_recv() {
                return Poll::Ready(Wake::RaftRequest(request, reply));
            }
            if takes_requests && let Some(command) = self.controller_inbox.try_recv() {
                return Poll::Ready(Wake::Command(command));
            }
            if self.ring.is_due(deadline) {
                return Poll::Ready(Wake::Deadline);
            }
            if self.ring.is_past(self.clean_at) {
                self.clean_at = self.ring.shared.now() + self.ring.shared.plan.clean_every_us;
                return Poll::Ready(Wake::Clean);
            }
            Poll::Pending
        })
        .await
    }

    fn step(&mut self, input: Input) {
        self.node.step(input, self.ring.now());
        let shared = &self.ring.shared;
        shared.checks.borrow_mut().after_step(shared, self.ring.node, &self.node);
    }

    /// A deadline that a tick leaves in the past would keep the core busy for ever.
    async fn tick(&mut self) {
        let now = self.ring.shared.now();
        self.ticks = if self.ticks.0 == now { (now, self.ticks.1 + 1) } else { (now, 0) };
        if self.ticks.1 > MAX_TICKS_AT_ONCE {
            self.ring.shared.checks.borrow_mut().on_spinning(self.ring.node);
            std::future::pending::<()>().await;
        }
        self.step(Input::Tick);
    }

    fn on_request(&mut self, request: Box<ControllerRequest>, reply: Reply) {
        let token = ReplyToken(self.next_reply);
        self.next_reply += 1;
        self.replies.insert(token, reply);
        self.step(Input::Request { token, request });
    }

    fn on_finished(&mut self, finished: Finished) -> Result<(), DriverFault> {
        match finished {
            Finished::Input(input) => self.step(*input),
            Finished::Flushed(generation, outcome) => {
                outcome?;
                if generation == self.generation {
                    self.is_flushing = false;
                    self.step(Input::LogFlushed);
                }
            }
            Finished::WrittenOut(outcome) => {
                outcome?;
                self.is_writing_out = false;
            }
            Finished::Checked(id, checked) => {
                let (result, info) = match checked {
                    Some((loaded, info)) => (Ok(loaded), Some(info)),
                    None => (Err(ReadFailed), None),
                };
                self.checked = info;
                self.step(Input::SnapshotChecked { id, result });
            }
            Finished::Cleaned(outcome) => {
                self.is_cleaning = false;
                if let Some(log_start_offset) = outcome? {
                    let shared = &self.ring.shared;
                    shared.checks.borrow_mut().on_log_start_advanced(shared, self.ring.node, log_start_offset);
                    self.step(Input::LogStartAdvanced { log_start_offset });
                }
            }
            Finished::Fault(fault) => return Err(fault.into()),
        }
        Ok(())
    }

    async fn do_work(&mut self) -> Result<(), DriverFault> {
        self.note_busy(true);
        while let Some(work) = self.node.next_work() {
            let shared = &self.ring.shared;
            shared.checks.borrow_mut().on_work(shared, self.ring.node, &self.node, &work);
            shared.note(self.ring.node, || brief(&work));
            self.carry_out(work).await?;
        }
        self.log.note_peers(self.node.raft().voters().len() > 1).await?;
        self.note_busy(false);
        Ok(())
    }

    fn note_busy(&self, is_busy: bool) {
        let shared = &self.ring.shared;
        shared.checks.borrow_mut().on_busy(shared.now(), self.ring.node, is_busy);
    }

    async fn carry_out(&mut self, work: Work) -> Result<(), DriverFault> {
        match work {
            Work::Persist(state) => {
                self.log.write_quorum_state(&state).await?;
                self.node.on_persisted();
            }
            Work::TruncateLog { to } => self.log.truncate_to(to).await?,
            Work::AppendLog { batches, .. } => {
                self.log.append(&batches)?;
                self.write_out_as_broker();
            }
            Work::FlushLog => self.begin_flush(),
            Work::Send { to, token, request } => self.peers.send(to, token, *request),
            Work::Reply { token, response } => {
                if let Some(reply) = self.replies.remove(&token) {
                    reply.send(*response);
                }
            }
            Work::Refuse { token } => drop(self.replies.remove(&token)),
            Work::ReadLog { token, from, max_bytes } => {
                let log = self.log.clone();
                self.beside(async move {
                    let read = log.read(from, log.end_offset(), max_bytes as usize).await;
                    let result = read.ok().filter(|batches| !batches.is_empty()).map(|batches| vec![batches]);
                    Finished::Input(Box::new(Input::LogRead { token, result: result.ok_or(ReadFailed) }))
                });
            }
            Work::ReadCommitted { from, to } => {
                let log = self.log.clone();
                self.beside(async move {
                    match log.read(from, to, READ_BYTES).await {
                        Ok(batches) => Finished::Input(Box::new(Input::Committed(batches))),
                        Err(fault) => Finished::Fault(fault),
                    }
                });
            }
            Work::Publish { publications, answers } => self.publish(&publications, answers),
            Work::Role(role) => self.leader.set(role.leader_id),
            Work::Renounced { epoch, reason } => {
                let text = format!("the controller of epoch {epoch} gives up its leadership: {reason}");
                self.ring.shared.checks.borrow_mut().on_renounced(self.ring.node, &text);
            }
            Work::Rebuilt => self.log.end_rebuilding().await?,
            Work::Halt(fault) => return Err(fault.into()),
            snapshot => self.carry_out_snapshot(snapshot).await?,
        }
        Ok(())
    }

    async fn carry_out_snapshot(&mut self, work: Work) -> Result<(), DriverFault> {
        let log = self.log.clone();
        match work {
            Work::ReadSnapshot { token, id, position, max_bytes } => self.beside(async move {
                let result = snapshot_files::read_chunk(&log, id, position, max_bytes).await;
                Finished::Input(Box::new(Input::SnapshotRead { token, result }))
            }),
            Work::WriteSnapshot { id, position, bytes } => {
                snapshot_files::write_part(&log, id, position, bytes).await?;
            }
            Work::CheckSnapshot { id } => {
                self.beside(async move { Finished::Checked(id, snapshot_files::check_part(&log, id).await) });
            }
            Work::AdoptSnapshot { id } => {
                let info = self.checked.take().expect("a snapshot is adopted after it was checked");
                log.adopt_snapshot(id, &snapshot_files::part_name(id), info).await?;
                self.generation += 1;
                self.is_flushing = false;
            }
            Work::AbandonSnapshot { id } => snapshot_files::remove_part(&log, id).await,
            Work::CreateSnapshot(job) => self.beside(async move {
                let written = snapshot_files::write(&log, *job).await;
                Finished::Input(Box::new(Input::SnapshotCreated(written.ok())))
            }),
            Work::CleanSnapshots => self.begin_cleaning(),
            _ => {}
        }
        Ok(())
    }

    fn begin_cleaning(&mut self) {
        if self.is_cleaning {
            return;
        }
        self.is_cleaning = true;
        let (log, policy, high_watermark) = (self.log.clone(), self.policy, self.node.raft().high_watermark());
        self.beside(async move {
            let high_watermark = high_watermark.unwrap_or(Offset(0));
            Finished::Cleaned(snapshot_files::clean(&log, &policy, high_watermark).await)
        });
        // Memory is wanted elsewhere now and then.
        self.log.store.release_clean();
    }

    /// Runs something beside this task; its outcome comes back.
    fn beside(&self, work: impl Future<Output = Finished> + 'static) {
        let finished = self.finished.clone();
        self.ring.spawn_detached(async move { finished.send(work.await).await });
    }

    fn begin_flush(&mut self) {
        assert!(!self.is_flushing, "raft has one flush open at a time");
        self.is_flushing = true;
        let (log, generation) = (self.log.clone(), self.generation);
        self.beside(async move { Finished::Flushed(generation, log.flush().await) });
    }

    /// Nobody counts on a broker's copy, so raft asks for no flushes; its bytes still belong in the file.
    fn write_out_as_broker(&mut self) {
        if !self.is_controller && !self.is_writing_out {
            self.is_writing_out = true;
            let log = self.log.clone();
            self.beside(async move { Finished::WrittenOut(log.write_out().await) });
        }
    }

    /// The cores of this node take new images over, then the answers go out.
    fn publish(&mut self, publications: &[Publication], answers: Vec<(ReplyToken, ResponseBody)>) {
        let shared = &self.ring.shared;
        for publication in publications {
            shared.checks.borrow_mut().on_publication(self.ring.node, publication);
        }
        let answers: Vec<(Reply, ResponseBody)> =
            answers.into_iter().filter_map(|(token, body)| Some((self.replies.remove(&token)?, body))).collect();
        if answers.is_empty() {
            return;
        }
        let takes_us = shared.plan.apply_us.min(APPLY_WAIT_MS * MS);
        let ring = self.ring.clone();
        self.ring.spawn_detached(async move {
            ring.sleep_us(ring.shared.schedule(takes_us + 1)).await;
            for (reply, response) in answers {
                reply.send(response);
            }
        });
    }

    /// Hands leadership over, flushes what is appended, and leaves the files in order.
    async fn stop(&mut self) -> Result<(), DriverFault> {
        let ring = self.ring.clone();
        let deadline = ring.now().monotonic.plus_ms(HAND_OVER_MS);
        self.step(Input::ShutDown);
        self.do_work().await?;
        while !self.node.may_shut_down() {
            if ring.now().monotonic >= deadline {
                break;
            }
            if let Some(wake) = ring.timeout_at(deadline, self.next(false)).await {
                self.take_in(wake)?;
            }
            self.tick_if_due().await;
            self.do_work().await?;
        }
        // Nothing may be half done when the executor ends.
        while self.is_flushing || self.is_writing_out || self.is_cleaning || self.node.is_writing_snapshot() {
            let finished = self.finished.clone();
            let next = poll_fn(|_| finished.try_recv().map_or(Poll::Pending, Poll::Ready)).await;
            self.on_finished(next)?;
            self.do_work().await?;
        }
        self.log.flush().await?;
        self.log.close().await?;
        Ok(())
    }
}

/// What is to be done, in a line of the trace.
fn brief(work: &Work) -> String {
    match work {
        Work::Persist(state) => {
            let voted = state.voted.map(|key| key.id.0);
            format!("persists epoch {}, leader {:?}, vote {voted:?}", state.epoch, state.leader_id.map(|id| id.0))
        }
        Work::AppendLog { base_offset, end_offset, .. } => format!("appends {base_offset} to {end_offset}"),
        Work::Send { to, request, .. } => format!("sends {} to {}", describe_request(request), to.endpoint.host),
        Work::Reply { response, .. } => format!("answers {}", describe_response(response)),
        Work::Publish { publications, answers } => {
            let offset = publications.last().map(|it| it.image.provenance.last_contained_offset.0);
            format!("publishes {offset:?} and sends {} answers", answers.len())
        }
        Work::CreateSnapshot(job) => format!("writes snapshot {}", job.id),
        Work::WriteSnapshot { id, position, bytes } => format!("fetched {} bytes at {position} of {id}", bytes.len()),
        Work::Role(role) => format!("is at epoch {}, leader {:?}", role.epoch, role.leader_id.map(|id| id.0)),
        Work::Halt(fault) => format!("is to halt: {fault}"),
        other => format!("{other:?}"),
    }
}

fn describe_request(request: &RequestBody) -> String {
    match request {
        RequestBody::Vote(it) => {
            let it = &it.topics[0].partitions[0];
            let kind = if it.pre_vote { "PreVote" } else { "Vote" };
            format!("{kind} {} with {} of {}", it.replica_epoch, it.last_offset, it.last_offset_epoch)
        }
        RequestBody::Fetch(it) => {
            let it = &it.topics[0].partitions[0];
            format!("Fetch {} at {} behind {}", it.current_leader_epoch, it.fetch_offset, it.last_fetched_epoch)
        }
        other => other.api_key().name().to_owned(),
    }
}

fn describe_response(response: &ResponseBody) -> String {
    match response {
        ResponseBody::Fetch(it) => match it.responses.first().and_then(|topic| topic.partitions.first()) {
            Some(it) => format!(
                "Fetch: error {}, leader {} of {}, high watermark {}, diverging {} at {}, snapshot {}, {} bytes",
                it.error_code,
                it.current_leader.leader_id,
                it.current_leader.leader_epoch,
                it.high_watermark,
                it.diverging_epoch.epoch,
                it.diverging_epoch.end_offset,
                it.snapshot_id.end_offset,
                it.records.as_ref().map_or(0, ringlog_protocol::Records::len)
            ),
            None => format!("Fetch: error {}", it.error_code),
        },
        ResponseBody::Vote(it) => match it.topics.first().and_then(|topic| topic.partitions.first()) {
            Some(it) => format!("Vote: error {}, {} in {}", it.error_code, it.vote_granted, it.leader_epoch),
            None => format!("Vote: error {}", it.error_code),
        },
        other => other.api_key().name().to_owned(),
    }
}
