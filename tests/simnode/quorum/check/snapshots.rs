//! Snapshots: a finished file is exactly what it replaces.

use bytes::Bytes;
use ringlog_protocol::Message;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::raft_records::{KRaftVersionRecord, SnapshotHeaderRecord, VotersRecord};
use ringlog_protocol::records::{BatchIter, ControlRecordType, Scratch};

use super::super::disk_log::{FOLDER, View, snapshot_name};
use super::{Checks, Found, Model, VoterView, ensure};

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
    /// Looks at all finished snapshots that there are, whoever wrote them.
    pub fn look_at_snapshots(&mut self) {
        for node in 0..self.nodes.len() {
            if self.world.has_violations() {
                return;
            }
            let names = self.world.list(self.nodes[node].host, FOLDER.as_ref()).unwrap_or_default();
            let found = names.iter().try_for_each(|name| match snapshot_name(name).filter(|id| id.0 > 0) {
                Some(id) if self.nodes[node].snapshots.insert(id) => self.look_at_snapshot(node, id, name),
                _ => Ok(()),
            });
            let found = found.and_then(|()| self.check_log_start(node));
            self.complain(node, found);
        }
    }

    /// Where the complete snapshots end that a node has.
    pub(super) fn snapshots_of(&self, node: usize) -> impl Iterator<Item = i64> {
        let names = self.world.list(self.nodes[node].host, FOLDER.as_ref()).unwrap_or_default();
        names.into_iter().filter_map(|name| snapshot_name(&name)).map(|(end, _)| end)
    }

    /// A log may begin where a snapshot ends, not later. What is written on is left alone: a disk that fails shows nothing.
    fn check_log_start(&self, node: usize) -> Found {
        let names = self.world.list(self.nodes[node].host, FOLDER.as_ref()).unwrap_or_default();
        let start = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<i64>().ok()).min().unwrap_or(0);
        // One that rotted is set aside before the log that began at its end goes.
        let whole = |name: &String| snapshot_name(name.strip_suffix(".damaged").unwrap_or(name)).map(|(end, _)| end);
        let covered = names.iter().filter_map(whole).max().unwrap_or(0);
        ensure!(start <= covered, "its log begins at {start}, its newest snapshot ends at {covered}");
        Ok(())
    }

    fn look_at_snapshot(&mut self, node: usize, id: (i64, i32), name: &str) -> Found {
        let host = self.nodes[node].host;
        let Some(seen) = View::Seen.file(&self.world, host, name) else { return Ok(()) };
        if let Some(safe) = View::Safe.file(&self.world, host, name) {
            ensure!(safe == seen, "snapshot {id:?} has its name, but not all of it is on stable storage");
        }
        self.check_snapshot(id, &seen).map_err(|text| format!("snapshot {id:?}: {text}"))
    }

    fn check_snapshot(&mut self, (end, epoch): (i64, i32), file: &[u8]) -> Found {
        self.stats.snapshots += 1;
        let content = read(file)?;
        self.commit(end, None)?;
        let last = self.committed.ending_at(end);
        ensure!(last.is_some(), "it ends inside of a batch");
        let of_log = last.map_or(0, |entry| entry.epoch);
        ensure!(epoch == of_log, "it ends in epoch {of_log}");
        let Some(model) = content.model else { return Err("it is empty".to_owned()) };
        ensure!(
            Some(model.digest) == self.digest_at(end),
            "it isn't what it replaces: it has {} topics, {} brokers, {} configs",
            model.topics.len(),
            model.brokers.len(),
            model.configs.len()
        );
        let voters = self.committed.voters_at(end);
        let is_same = match voters {
            Some(voters) => content.voters.as_ref() == Some(voters) && content.kraft_version == Some(1),
            None => content.voters.is_none() && content.kraft_version.is_none(),
        };
        ensure!(
            is_same,
            "it has kraft.version {:?} and the voters {:?}, the log {voters:?}",
            content.kraft_version,
            content.voters
        );
        Ok(())
    }
}

fn read(file: &[u8]) -> Result<Content, String> {
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
