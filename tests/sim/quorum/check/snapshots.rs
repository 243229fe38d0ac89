//! Snapshots: a finished file is exactly what it replaces.

use bytes::Bytes;
use ringlog_protocol::Message;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::raft_records::{KRaftVersionRecord, SnapshotHeaderRecord, VotersRecord};
use ringlog_protocol::records::{BatchIter, ControlRecordType, Scratch};
use ringlog_raft::SnapshotId;
use ringlog_types::LeaderEpoch;

use super::{Checker, Checks, Found, Model, VoterView, holds};

/// A snapshot file, read a second time.
#[derive(Debug, Default)]
struct Content {
    header: Option<i64>,
    kraft_version: Option<i16>,
    voters: Option<VoterView>,
    model: Option<Model>,
    has_footer: bool,
}

impl Checks {
    /// `is_own`: written by the node, not fetched.
    pub(super) fn check_snapshot(&mut self, id: SnapshotId, file: &[u8], is_own: bool) -> Found {
        self.stats.snapshots += 1;
        // The epochs of batches lie outside their checksums, and mean nothing in a snapshot: in what was fetched they
        // may have rotted.
        let content = read(file, is_own.then_some(id.epoch))
            .map_err(|what| (Checker::Snapshots, format!("snapshot {id}: {what}")))?;
        let (end, committed) = (id.end_offset.0, self.committed.end());
        holds!(Checker::Snapshots, end <= committed, "snapshot {id} goes beyond {committed}, which is committed");
        let last = self.committed.ending_at(end);
        holds!(Checker::Snapshots, last.is_some(), "snapshot {id} ends inside of a batch");
        let epoch = last.map_or(0, |entry| entry.epoch);
        holds!(Checker::Snapshots, epoch == id.epoch.0, "snapshot {id} ends in epoch {epoch}");
        let Some(model) = content.model else { return Err((Checker::Snapshots, format!("snapshot {id} is empty"))) };
        holds!(
            Checker::Snapshots,
            Some(model.digest) == self.digest_at(end),
            "snapshot {id} isn't what it replaces: it has {} topics, {} brokers, {} configs",
            model.topics.len(),
            model.brokers.len(),
            model.configs.len()
        );
        let voters = self.committed.voters.iter().rev().find(|(offset, _)| *offset < end).map(|(_, voters)| voters);
        let is_same = match voters {
            Some(voters) => content.voters.as_ref() == Some(voters) && content.kraft_version == Some(1),
            None => content.voters.is_none() && content.kraft_version.is_none(),
        };
        holds!(
            Checker::Snapshots,
            is_same,
            "snapshot {id} has kraft.version {:?} and the voters {:?}, the log {voters:?}",
            content.kraft_version,
            content.voters
        );
        Ok(())
    }
}

fn read(file: &[u8], epoch: Option<LeaderEpoch>) -> Result<Content, String> {
    let mut content = Content { model: Some(Model::new()), ..Content::default() };
    let mut next = 0;
    let mut scratch = Scratch::new(1 << 24);
    for batch in BatchIter::new(file) {
        let batch = batch.map_err(|error| error.to_string())?;
        batch.verify_crc().map_err(|error| error.to_string())?;
        let header = batch.header;
        if header.base_offset.0 != next || content.has_footer {
            return Err(format!("a batch of offset {} in the place of {next}", header.base_offset));
        }
        if epoch.is_some_and(|epoch| header.partition_leader_epoch != epoch) {
            return Err(format!("a batch of epoch {}", header.partition_leader_epoch));
        }
        next = header.next_offset().0;
        for record in batch.records(&mut scratch).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let value = Bytes::copy_from_slice(record.value.ok_or("a record without a value")?);
            if header.is_control() {
                let kind = ControlRecordType::parse_key(record.key.unwrap_or_default());
                on_control(&mut content, kind, value)?;
            } else {
                if content.header.is_none() {
                    return Err("data before the header".to_owned());
                }
                let (record, _) = MetadataRecord::decode_framed(value).map_err(|error| error.to_string())?;
                if let Some(model) = &mut content.model {
                    model.apply(&record, None)?;
                }
            }
        }
    }
    if content.header.is_none() || !content.has_footer {
        return Err("it has no header, or no footer".to_owned());
    }
    Ok(content)
}

fn on_control(content: &mut Content, kind: Option<ControlRecordType>, value: Bytes) -> Result<(), String> {
    let damaged = |error: ringlog_protocol::DecodeError| error.to_string();
    match kind {
        Some(ControlRecordType::SnapshotHeader) if content.header.is_none() => {
            let header = SnapshotHeaderRecord::from_bytes(value, 0).map_err(damaged)?;
            content.header = Some(header.last_contained_log_timestamp);
        }
        Some(ControlRecordType::KRaftVersion) if content.header.is_some() => {
            content.kraft_version = Some(KRaftVersionRecord::from_bytes(value, 0).map_err(damaged)?.kraft_version);
        }
        Some(ControlRecordType::KRaftVoters) if content.header.is_some() => {
            content.voters = Some(VoterView::of(&VotersRecord::from_bytes(value, 0).map_err(damaged)?));
        }
        Some(ControlRecordType::SnapshotFooter) if content.header.is_some() => content.has_footer = true,
        other => return Err(format!("a control record {other:?} out of place")),
    }
    Ok(())
}
