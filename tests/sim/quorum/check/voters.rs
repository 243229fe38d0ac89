//! The sets of voters: in each log one follows from the one before by one voter more or less.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::Message;
use ringlog_protocol::raft_records::VotersRecord;
use ringlog_protocol::records::{BatchRef, ControlRecordType, Scratch};
use ringlog_types::Uuid;

use super::{Checker, Checks, Found, holds};
use crate::quorum::host::Host;
use crate::quorum::plan::Format;
use crate::quorum::shared::Shared;

/// Who votes, by node id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VoterView(BTreeMap<i32, Seat>);

/// One voter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seat {
    /// Of its directory, if that is known.
    directory: Option<Uuid>,
    /// Where it listens.
    port: u16,
}

impl VoterView {
    pub(crate) fn of(record: &VotersRecord) -> VoterView {
        let voter = |it: &ringlog_protocol::raft_records::voters_record::Voter| {
            let directory = (!it.voter_directory_id.is_zero()).then_some(it.voter_directory_id);
            (it.voter_id, Seat { directory, port: it.endpoints.first().map_or(0, |endpoint| endpoint.port) })
        };
        VoterView(record.voters.iter().map(voter).collect())
    }

    /// Ids and directories.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&i32, &Option<Uuid>)> {
        self.0.iter().map(|(id, seat)| (id, &seat.directory))
    }

    /// Where others look for that voter.
    pub(crate) fn port(&self, id: i32) -> Option<u16> {
        self.0.get(&id).map(|seat| seat.port)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether that node votes whatever its directory.
    pub(crate) fn knows_no_directory(&self, id: i32) -> bool {
        self.0.get(&id).is_some_and(|seat| seat.directory.is_none())
    }

    /// Whether that node votes; a directory that isn't known is any.
    pub(crate) fn holds(&self, id: i32, directory: Uuid) -> bool {
        self.0.get(&id).is_some_and(|seat| seat.directory.is_none_or(|known| known == directory))
    }

    /// How many voters are in one set only.
    fn difference(&self, other: &VoterView) -> usize {
        let lacks = |set: &VoterView, id: i32, directory: Option<Uuid>| match (set.0.get(&id), directory) {
            (None, _) => true,
            (Some(seat), Some(directory)) => seat.directory.is_some_and(|known| known != directory),
            (Some(_), None) => false,
        };
        let gone = self.iter().filter(|(id, directory)| lacks(other, **id, **directory)).count();
        gone + other.iter().filter(|(id, directory)| lacks(self, **id, **directory)).count()
    }
}

/// The voters that a control batch names, if it is one that does.
pub(super) fn voters_of_batch(bytes: &Bytes) -> Option<VoterView> {
    let batch = BatchRef::parse(bytes).ok()?;
    if !batch.header.is_control() {
        return None;
    }
    let mut scratch = Scratch::new(1 << 20);
    let records = batch.records(&mut scratch).ok()?;
    let mut voters = None;
    for record in records {
        let record = record.ok()?;
        if ControlRecordType::parse_key(record.key?) == Some(ControlRecordType::KRaftVoters) {
            let record = VotersRecord::from_bytes(Bytes::copy_from_slice(record.value?), 0).ok()?;
            voters = Some(VoterView::of(&record));
        }
    }
    voters
}

impl Checks {
    /// Who votes before the first record.
    pub(super) fn begin_voters(&mut self, shared: &Rc<Shared>, hosts: &[Host]) {
        let plan = &shared.plan;
        let seat = |host: &Host, directory| (host.id.0, Seat { directory, port: host.port });
        let voters: BTreeMap<i32, Seat> = match plan.format {
            Format::Static => hosts[..plan.controllers].iter().map(|host| seat(host, None)).collect(),
            Format::Dynamic { initial, .. } => {
                hosts[..initial].iter().map(|host| seat(host, Some(host.directory_id))).collect()
            }
        };
        for view in &mut self.nodes {
            view.log.initial_voters = VoterView(voters.clone());
        }
        self.committed.initial_voters = VoterView(voters);
    }

    /// A batch that was appended may change who votes.
    pub(super) fn note_voters(&mut self, shared: &Rc<Shared>, node: usize, batch: &BatchRef<'_>, base: i64) -> Found {
        if !batch.header.is_control() {
            return Ok(());
        }
        let Some(voters) = voters_of_batch(&Bytes::copy_from_slice(batch.bytes)) else { return Ok(()) };
        self.check_change(node, base, batch.header.partition_leader_epoch.0)?;
        let log = &mut self.nodes[node].log;
        let before = log.voters();
        let difference = before.difference(&voters);
        holds!(
            Checker::Voters,
            difference <= 1,
            "the voters at {base} are {voters:?}, after {before:?}: {difference} changes at once"
        );
        log.voters.push((base, voters));
        log.voters_changed_at = shared.now();
        Ok(())
    }

    /// Who voted by the committed records below `end`.
    pub(super) fn voters_at(&self, _shared: &Rc<Shared>, end: i64) -> Option<VoterView> {
        let last = self.committed.voters.iter().rev().find(|(offset, _)| *offset < end);
        Some(last.map_or_else(|| self.committed.initial_voters.clone(), |(_, voters)| voters.clone()))
    }

    /// A node that isn't a voter by what is committed, nor by what it has itself beyond that, doesn't lead for long: only
    /// until the record that took it out is committed.
    pub(super) fn check_leader_votes(&self, shared: &Rc<Shared>, node: usize) -> Found {
        let view = &self.nodes[node];
        let Some((epoch, _)) = view.leads else { return Ok(()) };
        let Some((offset, voters)) = self.committed.voters.last() else { return Ok(()) };
        let since = shared.now().saturating_sub(self.committed.voters_changed_at);
        let votes = [voters, view.log.voters()].into_iter().any(|set| set.holds(view.id, view.directory));
        let is_out = !votes && *offset < view.high_watermark;
        let is_awake = shared.now() - view.awake_since > since;
        holds!(
            Checker::Voters,
            !is_out || since < REMOVED_LEADS_US || !is_awake,
            "leads epoch {epoch}, though the committed record at {offset} took it out of the voters"
        );
        Ok(())
    }
}

/// How long a leader that was removed may take to resign.
const REMOVED_LEADS_US: u64 = 500_000;
