//! Images: what a node hands out at an offset is what the committed records say, on every node.

use bytes::Bytes;
use ringlog_metadata::image::Publication;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::records::{BatchRef, Scratch};

use super::logs::Entry;
use super::{Checker, Checks, Found, Model, holds};

/// What the model was at each offset.
#[derive(Debug, Default)]
pub(crate) struct States {
    /// Digests by offset: as published there, records of an open transaction left out.
    digests: Vec<u64>,
    /// What there was before the open transaction.
    before_transaction: Option<Box<Model>>,
}

impl Checks {
    /// Digest of the state as of the last of the first `end` offsets.
    pub(super) fn digest_at(&self, end: i64) -> Option<u64> {
        self.state.digests.get(usize::try_from(end - 1).ok()?).copied()
    }

    /// A batch is committed: the model takes it in.
    pub(super) fn replay_committed(&mut self, entry: &Entry) -> Found {
        let fault = |offset: i64, what: &dyn std::fmt::Display| {
            Err((Checker::State, format!("the committed record at {offset}: {what}")))
        };
        let batch = match BatchRef::parse(&entry.bytes) {
            Ok(batch) => batch,
            Err(error) => return fault(entry.base, &error),
        };
        if let Err(error) = batch.verify_crc() {
            return fault(entry.base, &error);
        }
        if !batch.header.is_control() {
            let mut scratch = Scratch::new(1 << 24);
            let records = match batch.records(&mut scratch) {
                Ok(records) => records,
                Err(error) => return fault(entry.base, &error),
            };
            for record in records {
                let value = record.ok().and_then(|record| record.value).map(Bytes::copy_from_slice);
                let offset = self.state.digests.len() as i64;
                let Some(value) = value else { return fault(offset, &"it has no value") };
                match MetadataRecord::decode_framed(value) {
                    Ok((record, _)) => {
                        crate::trace::note(|| format!("              committed at {offset}: {record:?}"));
                        self.replay_record(&record, offset).or_else(|breach| fault(offset, &breach))?;
                    }
                    Err(error) => return fault(offset, &error),
                }
            }
        }
        let digest = self.published_digest();
        self.state.digests.resize(entry.end as usize, digest);
        Ok(())
    }

    fn published_digest(&self) -> u64 {
        self.state.before_transaction.as_ref().map_or(self.model.digest, |before| before.digest)
    }

    fn replay_record(&mut self, record: &MetadataRecord, offset: i64) -> Result<(), String> {
        match record {
            MetadataRecord::BeginTransaction(_) => {
                if self.state.before_transaction.is_some() {
                    return Err("a transaction begins inside of another".to_owned());
                }
                self.state.before_transaction = Some(Box::new(self.model.clone()));
            }
            MetadataRecord::EndTransaction(_) => {
                self.state.before_transaction.take().ok_or("a transaction ends that never began")?;
            }
            MetadataRecord::AbortTransaction(_) => {
                self.model =
                    *self.state.before_transaction.take().ok_or("a transaction is aborted that never began")?;
            }
            record => self.model.apply(record, Some(offset))?,
        }
        let digest = self.published_digest();
        self.state.digests.push(digest);
        Ok(())
    }

    pub(super) fn check_publication(&mut self, node: usize, publication: &Publication) -> Found {
        let image = &publication.image;
        let offset = image.provenance.last_contained_offset.0;
        let committed = self.committed.end();
        holds!(
            Checker::State,
            offset < committed,
            "hands out an image of offset {offset}, only those below {committed} are committed"
        );
        let before = self.nodes[node].published;
        holds!(Checker::State, offset >= before, "hands out an image of offset {offset} after one of {before}");
        self.nodes[node].published = offset;
        let digest = self.nodes[node].image_digest.of(image);
        let expected = self.digest_at(offset + 1);
        holds!(
            Checker::State,
            Some(digest) == expected,
            "its image of offset {offset} isn't what the records say; topics {}, brokers {:?}; the model has now: {}",
            image.topics.len(),
            image.cluster.brokers.keys(),
            self.describe_model()
        );
        Ok(())
    }

    fn describe_model(&self) -> String {
        let model = &self.model;
        format!(
            "{} topics, {} brokers, {} configs, {} quotas, producer ids to {}, {} ACLs, features {:?}",
            model.topics.len(),
            model.brokers.len(),
            model.configs.len(),
            model.quotas.len(),
            model.next_producer_id,
            model.acls.len(),
            model.features
        )
    }
}
