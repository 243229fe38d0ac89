//! The sets of voters: in each log one follows from the one before by one voter more or less.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::Message;
use ringlog_protocol::raft_records::VotersRecord;
use ringlog_protocol::records::{BatchRef, ControlRecordType, Scratch};
use ringlog_types::Uuid;

/// Who votes, by node id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VoterView(BTreeMap<i32, Seat>);

/// One voter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seat {
    /// Of its directory, if that is known.
    directory: Option<Uuid>,
    /// Where it listens.
    port: u16,
}

impl VoterView {
    /// Those that a quorum begins with.
    pub fn initial(voters: impl Iterator<Item = (i32, Option<Uuid>)>) -> VoterView {
        VoterView(voters.map(|(id, directory)| (id, Seat { directory, port: 0 })).collect())
    }

    /// The voters of a record.
    pub fn of(record: &VotersRecord) -> VoterView {
        let voter = |it: &ringlog_protocol::raft_records::voters_record::Voter| {
            let directory = (!it.voter_directory_id.is_zero()).then_some(it.voter_directory_id);
            (it.voter_id, Seat { directory, port: it.endpoints.first().map_or(0, |endpoint| endpoint.port) })
        };
        VoterView(record.voters.iter().map(voter).collect())
    }

    /// Ids and directories.
    pub fn iter(&self) -> impl Iterator<Item = (&i32, &Option<Uuid>)> {
        self.0.iter().map(|(id, seat)| (id, &seat.directory))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether that node votes; a directory that isn't known is any.
    pub fn holds(&self, id: i32, directory: Uuid) -> bool {
        self.0.get(&id).is_some_and(|seat| seat.directory.is_none_or(|known| known == directory))
    }

    /// How many voters are in one set only.
    pub fn difference(&self, other: &VoterView) -> usize {
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
pub fn voters_of_batch(bytes: &Bytes) -> Option<VoterView> {
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
