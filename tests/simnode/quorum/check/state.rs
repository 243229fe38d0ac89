//! Images: what a node hands out at an offset is what the committed records say, on every node.

use bytes::Bytes;
use ringlog_metadata::image::Publication;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::records::{BatchRef, Scratch};
use ringlog_types::Uuid;

use super::super::disk_log::Entry;
use super::partitions::Partition;
use super::{Checks, Context, Found, Model, ensure};

/// What the model was at each offset.
#[derive(Debug, Default)]
pub(super) struct States {
    /// Digests by offset: as published there, records of an open transaction left out.
    digests: Vec<u64>,
    /// What there was before the open transaction.
    before_transaction: Option<Box<Model>>,
}

impl Checks {
    /// Brokers that are registered, with their epochs.
    pub fn brokers(&self) -> impl Iterator<Item = (i32, i64)> {
        self.model.brokers.iter().map(|(id, broker)| (*id, broker.epoch))
    }

    /// Partitions that somebody leads.
    pub(crate) fn led_partitions(&self) -> impl Iterator<Item = (Uuid, i32, &Partition)> {
        let partitions = self
            .model
            .topics
            .iter()
            .flat_map(|(id, topic)| topic.partitions.iter().map(|(index, partition)| (*id, *index, partition)));
        partitions.filter(|(.., partition)| partition.leader >= 0)
    }

    /// Digest of the state as of the last of the first `end` offsets.
    pub(super) fn digest_at(&self, end: i64) -> Option<u64> {
        self.state.digests.get(usize::try_from(end - 1).ok()?).copied()
    }

    /// A batch is committed: the model takes it in.
    pub(super) fn replay_committed(&mut self, entry: &Entry) -> Found {
        let fault =
            |offset: i64, what: &dyn std::fmt::Display| Err(format!("the committed record at {offset}: {what}"));
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
                        self.world.note(|| format!("committed at {offset}: {record:?}"));
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

    /// A node hands out an image.
    pub(super) fn on_publication(&mut self, context: &Context, publication: &Publication) {
        let host = &context.host;
        let Some(node) = self.nodes.iter().position(|view| self.world.host_name(view.host) == *host) else { return };
        if !self.world.has_violations() {
            let found = self.check_publication(node, publication);
            self.complain(node, found);
        }
    }

    fn check_publication(&mut self, node: usize, publication: &Publication) -> Found {
        let image = &publication.image;
        let offset = image.provenance.last_contained_offset.0;
        self.stats.images += 1;
        self.commit(offset + 1, None).map_err(|text| format!("hands out an image of offset {offset}: it {text}"))?;
        let before = self.nodes[node].published;
        ensure!(offset >= before, "hands out an image of offset {offset} after one of {before}");
        self.nodes[node].published = offset;
        let digest = self.nodes[node].image.of(image);
        let expected = self.digest_at(offset + 1);
        ensure!(
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
