//! The one task that owns the node of the metadata quorum: it feeds [`QuorumNode`] and carries out its work, on the
//! metadata log, the connections to peers, and the other cores of this node.
//!
//! It takes what comes in by turns: requests, what finished beside, time; some of each, and then does the work that
//! follows. Work is done in its order; only flushes, reads, snapshots and requests to peers run beside, and come back as
//! inputs. Bounds: the mailboxes; requests to the controller are left in theirs while too much waits for the disk, or
//! before the leader has taken over its log. Raft's requests never wait: without them no leader could take over anything.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_metadata::image::Publication;
use ringlog_protocol::ResponseBody;
use ringlog_quorum::snapshots::SnapshotPolicy;
use ringlog_quorum::{ControllerRequest, Input, NodeFault, QuorumNode, Work};
use ringlog_raft::{ReadFailed, ReplyToken, RoleChange};
use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, NodeId, Offset};
use rustc_hash::FxHashMap;
use tracing::{error, info, trace, warn};

use super::handle::{Controller, ControllerHandle, KnownLeader};
use super::mailbox::{Command, Finished, Inboxes, Reply};
use super::metadata_log::{MetadataLog, SnapshotInfo};
use super::metadata_log_error::MetadataLogError;
use super::peers::Peers;
use super::progress::Progress;
use super::recovery::READ_BYTES;
use super::snapshot_files;
use crate::core::Room as _;
use crate::lasting::Lasting;
use crate::mesh::Call;
use crate::metadata::MetadataView;

/// How much of each sort of input is taken before the effects are carried out: requests share a flush, and none of the
/// sorts, nor time, waits for another to run dry.
const MAX_INPUTS_PER_TURN: usize = 64;
/// With more records to replay than these, the log says how far it is.
const LONG_REPLAY_RECORDS: i64 = 100_000;
/// What finished beside and may wait.
const FINISHED_CAPACITY: usize = 64;
/// How long answers wait until all cores have taken the new metadata over.
const APPLY_WAIT_MS: u64 = 500;
/// How long a leader that stops waits for a successor, as Kafka does.
const HAND_OVER_MS: u64 = 5_000;

enum Wake {
    Command(Option<Command>),
    RaftRequest(Option<(Box<ControllerRequest>, Reply)>),
    Finished(Option<Finished>),
    Deadline,
}

/// Whether there will be another.
enum Turn {
    Another,
    Stop(Option<ring::OneshotSender<()>>),
}

/// A fault after which the node must not go on.
#[derive(Debug, thiserror::Error)]
enum DriverFault {
    #[error(transparent)]
    Log(#[from] MetadataLogError),
    #[error(transparent)]
    Node(#[from] NodeFault),
}

/// See the module's text.
pub struct Driver {
    controller: Rc<Controller>,
    handle: Rc<ControllerHandle>,
    inboxes: Inboxes,
    finished: ring::LocalReceiver<Finished>,
    finished_sender: ring::LocalSender<Finished>,
    node: QuorumNode,
    log: Rc<MetadataLog>,
    peers: Peers,
    policy: SnapshotPolicy,
    replies: FxHashMap<ReplyToken, Reply>,
    next_reply: u64,
    /// Rises when a snapshot takes the log's place: flushes begun before mean nothing any more.
    generation: u64,
    is_flushing: bool,
    is_writing_out: bool,
    is_cleaning: bool,
    progress: Progress,
    /// Without a leader it may stand again and again.
    standing: Lasting,
    /// The fetched snapshot that was checked last.
    checked: Option<SnapshotInfo>,
}

impl Driver {
    /// The task's state. `request_timeout_ms` is for requests to peers.
    pub fn new(
        controller: Rc<Controller>,
        handle: Rc<ControllerHandle>,
        inboxes: Inboxes,
        node: QuorumNode,
        log: Rc<MetadataLog>,
        policy: SnapshotPolicy,
        request_timeout_ms: u64,
    ) -> Driver {
        let (finished_sender, finished) = ring::local_channel(FINISHED_CAPACITY);
        let peers =
            Peers::new(controller.core.node.id, request_timeout_ms, finished_sender.clone(), handle.contacts.clone());
        Driver {
            controller,
            handle,
            inboxes,
            finished,
            finished_sender,
            node,
            log,
            peers,
            policy,
            replies: FxHashMap::default(),
            next_reply: 0,
            generation: 0,
            is_flushing: false,
            is_writing_out: false,
            is_cleaning: false,
            progress: Progress::begin(),
            standing: Lasting::default(),
            checked: None,
        }
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self) {
        let outcome = match self.serve().await {
            Ok(done) => self.stop().await.map(|()| done),
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(done) => drop(done),
            Err(fault) => {
                // Going on would mean to decide on metadata that isn't kept. Kafka halts as well.
                error!("the metadata log or the controller failed, the process ends: {fault}");
                ring::halt(1);
            }
        }
    }

    async fn serve(&mut self) -> Result<Option<ring::OneshotSender<()>>, DriverFault> {
        self.do_work().await?;
        loop {
            let wake = self.next(self.node.takes_requests()).await;
            if let Turn::Stop(done) = self.take_in(wake)? {
                return Ok(done);
            }
            if let Turn::Stop(done) = self.take_what_is_there()? {
                return Ok(done);
            }
            self.tick_if_due();
            self.do_work().await?;
            // Peers, disk and the partitions of this core are not to wait for the end of a large change.
            ring::yield_if_needed().await;
        }
    }

    fn take_in(&mut self, wake: Wake) -> Result<Turn, DriverFault> {
        match wake {
            Wake::Command(Some(Command::Stop(done))) => return Ok(Turn::Stop(Some(done))),
            Wake::Command(Some(Command::BrokerGone(id, epoch))) => self.on_broker_gone(id, epoch),
            Wake::Command(None) | Wake::RaftRequest(None) | Wake::Finished(None) => return Ok(Turn::Stop(None)),
            Wake::Command(Some(Command::Request(request, reply))) | Wake::RaftRequest(Some((request, reply))) => {
                self.on_request(request, reply);
            }
            Wake::Finished(Some(finished)) => self.on_finished(finished)?,
            Wake::Deadline => {}
        }
        Ok(Turn::Another)
    }

    /// Some of whatever came in meanwhile: of each sort at least one, and no more when others want to run.
    fn take_what_is_there(&mut self) -> Result<Turn, DriverFault> {
        for taken in 0..MAX_INPUTS_PER_TURN {
            if taken > 0 && ring::needs_preempt() {
                break;
            }
            let Some(finished) = self.finished.try_recv() else { break };
            self.on_finished(finished)?;
        }
        for taken in 0..MAX_INPUTS_PER_TURN {
            if taken > 0 && ring::needs_preempt() {
                break;
            }
            let Some((request, reply)) = self.inboxes.raft.try_recv() else { break };
            self.on_request(request, reply);
        }
        for taken in 0..MAX_INPUTS_PER_TURN {
            if !self.node.takes_requests() || (taken > 0 && ring::needs_preempt()) {
                break;
            }
            match self.inboxes.controller.try_recv() {
                Some(Command::Request(request, reply)) => self.on_request(request, reply),
                Some(Command::BrokerGone(id, epoch)) => self.on_broker_gone(id, epoch),
                Some(Command::Stop(done)) => return Ok(Turn::Stop(Some(done))),
                None => break,
            }
        }
        Ok(Turn::Another)
    }

    /// However much comes in, time goes on: brokers that are silent are fenced, and only those.
    fn tick_if_due(&mut self) {
        let now = ring::now();
        if self.node.next_deadline() <= now.monotonic {
            self.node.on_heartbeats_received(self.handle.arrivals.take());
            self.node.step(Input::Tick, now);
        }
    }

    /// A heartbeat that came before its process ended counts no more than that.
    fn on_broker_gone(&mut self, id: NodeId, epoch: BrokerEpoch) {
        let now = ring::now().monotonic;
        self.node.on_heartbeats_received(self.handle.arrivals.take());
        self.node.on_broker_gone(id, epoch, now);
    }

    async fn next(&self, takes_requests: bool) -> Wake {
        let command = async {
            if takes_requests {
                Wake::Command(self.inboxes.controller.recv().await)
            } else {
                std::future::pending().await
            }
        };
        let raft_request = async { Wake::RaftRequest(self.inboxes.raft.recv().await) };
        let finished = async { Wake::Finished(self.finished.recv().await) };
        let deadline = async {
            ring::sleep_until(self.node.next_deadline()).await;
            Wake::Deadline
        };
        let first = futures_lite::future::or(finished, raft_request);
        let second = futures_lite::future::or(command, deadline);
        futures_lite::future::or(first, second).await
    }

    fn on_request(&mut self, request: Box<ControllerRequest>, reply: Reply) {
        trace!(
            api = request.body.api_key().name(),
            principal = request.principal,
            client = ?request.client_id,
            address = ?request.client_address,
            "request to the controller"
        );
        if reply.sender.is_closed() {
            return;
        }
        reply.is_begun.set(true);
        let token = ReplyToken(self.next_reply);
        self.next_reply += 1;
        self.replies.insert(token, reply);
        self.node.step(Input::Request { token, request }, ring::now());
    }

    fn on_finished(&mut self, finished: Finished) -> Result<(), DriverFault> {
        let now = ring::now();
        match finished {
            Finished::Input(input) => self.node.step(*input, now),
            Finished::Flushed(generation, outcome) => {
                outcome?;
                if generation == self.generation {
                    self.is_flushing = false;
                    self.node.step(Input::LogFlushed, now);
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
                self.node.step(Input::SnapshotChecked { id, result }, now);
            }
            Finished::Cleaned(outcome) => {
                self.is_cleaning = false;
                if let Some(log_start_offset) = outcome? {
                    self.node.step(Input::LogStartAdvanced { log_start_offset }, now);
                }
            }
            Finished::Fault(fault) => return Err(fault.into()),
        }
        Ok(())
    }

    async fn do_work(&mut self) -> Result<(), DriverFault> {
        while let Some(work) = self.node.next_work() {
            self.execute(work).await?;
            ring::yield_if_needed().await;
        }
        self.log.note_peers(self.node.raft().voters().len() > 1).await?;
        self.handle.kraft_version.set(self.node.raft().kraft_version());
        Ok(())
    }

    async fn execute(&mut self, work: Work) -> Result<(), DriverFault> {
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
                    let _ = reply.sender.send(*response);
                }
            }
            Work::Refuse { token } => drop(self.replies.remove(&token)),
            Work::ReadLog { token, from, max_bytes } => {
                let log = self.log.clone();
                self.beside(async move {
                    let read = log.read(from, log.end_offset(), max_bytes as usize).await;
                    let result = read.ok().filter(|batches| !batches.is_empty()).ok_or(ReadFailed);
                    Finished::Input(Box::new(Input::LogRead { token, result }))
                });
            }
            Work::ReadCommitted { from, to } => {
                if to.0 - from.0 > LONG_REPLAY_RECORDS && self.progress.is_due() {
                    info!(at = from.0, to = to.0, "still replaying the metadata log");
                }
                let log = self.log.clone();
                self.beside(async move {
                    match log.read(from, to, READ_BYTES).await {
                        Ok(batches) => Finished::Input(Box::new(Input::Committed(contiguous(batches)))),
                        Err(fault) => Finished::Fault(fault),
                    }
                });
            }
            Work::Publish { publications, answers } => self.publish(publications, answers).await,
            Work::Role(role) => self.on_role(role),
            Work::Renounced { epoch, reason } => {
                error!(epoch = epoch.0, "the controller gives up its leadership: {reason}");
            }
            Work::Rebuilt => {
                if self.log.end_rebuilding().await? {
                    info!("the lost records of the metadata log are there again: this node votes");
                }
            }
            Work::Halt(fault) => return Err(fault.into()),
            snapshot => self.execute_snapshot_work(snapshot).await?,
        }
        Ok(())
    }

    async fn execute_snapshot_work(&mut self, work: Work) -> Result<(), DriverFault> {
        let log = self.log.clone();
        match work {
            Work::ReadSnapshot { token, id, position, max_bytes } => self.beside(async move {
                let result = snapshot_files::read_chunk(&log, id, position, max_bytes).await;
                Finished::Input(Box::new(Input::SnapshotRead { token, result }))
            }),
            Work::WriteSnapshot { id, position, bytes } => {
                if position == 0 {
                    info!(snapshot = %id, "fetching a snapshot of the metadata from the leader");
                }
                snapshot_files::write_part(&log, id, position, bytes).await?;
            }
            Work::CheckSnapshot { id } => {
                self.beside(async move { Finished::Checked(id, snapshot_files::check_part(&log, id).await) });
            }
            Work::AdoptSnapshot { id } => {
                let info = self.checked.take().expect("a snapshot is adopted after it was checked");
                log.adopt_snapshot(id, &snapshot_files::part_path(&log, id), info).await?;
                self.generation += 1;
                self.is_flushing = false;
            }
            Work::AbandonSnapshot { id } => snapshot_files::remove_part(&log, id).await,
            Work::CreateSnapshot(job) => self.beside(async move {
                let written = snapshot_files::write(&log, *job).await;
                let written = written.inspect_err(|error| error!("no snapshot of the metadata written: {error}"));
                Finished::Input(Box::new(Input::SnapshotCreated(written.ok())))
            }),
            Work::CleanSnapshots if !self.is_cleaning => {
                self.is_cleaning = true;
                let (policy, high_watermark) = (self.policy, self.node.raft().high_watermark());
                self.beside(async move {
                    let high_watermark = high_watermark.unwrap_or(Offset(0));
                    Finished::Cleaned(snapshot_files::clean(&log, &policy, high_watermark, ring::now()).await)
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Runs something beside this task; its outcome comes back.
    fn beside(&self, work: impl Future<Output = Finished> + 'static) {
        let finished = self.finished_sender.clone();
        self.controller.core.spawn_until_stop(async move {
            let _ = finished.send(work.await).await;
        });
    }

    fn begin_flush(&mut self) {
        assert!(!self.is_flushing, "raft has one flush open at a time");
        self.is_flushing = true;
        let (log, generation) = (self.log.clone(), self.generation);
        self.beside(async move { Finished::Flushed(generation, log.flush().await) });
    }

    /// Nobody counts on a broker's copy, so raft asks for no flushes; its bytes still belong in the file.
    fn write_out_as_broker(&mut self) {
        if !self.controller.core.node.config.roles.controller && !self.is_writing_out {
            self.is_writing_out = true;
            let log = self.log.clone();
            self.beside(async move { Finished::WrittenOut(log.write_out().await) });
        }
    }

    fn on_role(&mut self, role: RoleChange) {
        let own = self.controller.core.node.id;
        let before = self.handle.leader();
        if role.is_leader {
            info!(epoch = role.epoch.0, "leads the metadata quorum");
        } else if before.is_here {
            info!(epoch = role.epoch.0, "no longer leads the metadata quorum");
        }
        let now = ring::now().monotonic;
        if role.leader_id.is_some() {
            self.standing.over(now);
        } else if role.is_standing && self.standing.holds(now).is_some() {
            info!(epoch = role.epoch.0, "stands for election as leader of the metadata quorum");
        }
        if let Some(leader) =
            role.leader_id.filter(|id| *id != own && (Some(*id), role.epoch) != (before.id, before.epoch))
        {
            info!(epoch = role.epoch.0, leader = leader.0, "follows the leader of the metadata quorum");
        }
        let endpoint = self.node.raft().leader_endpoint().cloned();
        let is_other = role.leader_id.filter(|id| *id != own);
        self.handle.set_leader(KnownLeader {
            id: role.leader_id,
            epoch: role.epoch,
            endpoint: endpoint.filter(|_| is_other.is_some()),
            is_here: role.is_leader,
        });
    }

    /// Sends new images to every core, then the answers that they belong to.
    async fn publish(&mut self, publications: Vec<Publication>, answers: Vec<(ReplyToken, ResponseBody)>) {
        let mut pending: Vec<Call<()>> = Vec::new();
        let mut offset = None;
        for publication in publications {
            ring::observe(&publication);
            let Publication { image, changes } = publication;
            offset = Some(image.provenance.last_contained_offset);
            self.handle.on_published(&image, &changes);
            let (image, changes) = (Arc::new(image), Arc::new(changes));
            for core in 0..self.controller.core.mesh.peers() {
                let (image, changes) = (image.clone(), changes.clone());
                let work = move |metadata: &Rc<MetadataView>| metadata.publish(image, changes);
                pending.push(self.controller.metadata.begin_on(core, work).await);
            }
        }
        let answers: Vec<(Reply, ResponseBody)> =
            answers.into_iter().filter_map(|(token, body)| Some((self.replies.remove(&token)?, body))).collect();
        if offset.is_none() && answers.is_empty() {
            return;
        }
        let handle = self.handle.clone();
        self.controller.core.spawn_until_stop(async move {
            let mut all = Box::pin(async move {
                for core in pending {
                    core.answer().await;
                }
                if let Some(offset) = offset {
                    handle.on_applied(offset);
                }
            });
            let in_time = answers.is_empty() || ring::timeout_ms(APPLY_WAIT_MS, &mut all).await.is_ok();
            let is_through = in_time && !answers.is_empty();
            for (reply, response) in answers {
                let _ = reply.sender.send(response);
            }
            if !is_through {
                all.await;
            }
        });
    }

    /// Hands leadership over, flushes what is appended, and leaves the files in order.
    async fn stop(&mut self) -> Result<(), DriverFault> {
        let deadline = ring::now().monotonic.plus_ms(HAND_OVER_MS);
        self.node.step(Input::ShutDown, ring::now());
        self.do_work().await?;
        while !self.node.may_shut_down() {
            if ring::now().monotonic >= deadline {
                warn!("no other controller has taken over within {HAND_OVER_MS} ms: stopping without a successor");
                break;
            }
            let left_ms = deadline.since_ms(ring::now().monotonic);
            if let Ok(wake) = ring::timeout_ms(left_ms, self.next(false)).await {
                self.take_in(wake)?;
            }
            self.tick_if_due();
            self.do_work().await?;
        }
        // Nothing may be half done when the executor ends.
        while self.is_flushing || self.is_writing_out || self.is_cleaning || self.node.is_writing_snapshot() {
            match self.finished.recv().await {
                Some(finished) => self.on_finished(finished)?,
                None => break,
            }
            self.do_work().await?;
        }
        self.log.flush().await?;
        self.log.close().await?;
        Ok(())
    }
}

fn contiguous(chunks: Vec<Bytes>) -> Bytes {
    match chunks.as_slice() {
        [one] => one.clone(),
        chunks => chunks.concat().into(),
    }
}
