//! From committed batches and snapshots to images that may be published.
//!
//! Records after a BeginTransaction stay unpublished until EndTransaction; AbortTransaction drops them (KIP-868).

use ringlog_protocol::DecodeError;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_types::{LeaderEpoch, Offset, TimestampMs};

use super::{MetadataChanges, MetadataDelta, MetadataImage, Provenance, ReplayError, SnapshotLoad};

/// An image that publishers may see now, and how it differs from the last one they saw.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The new image.
    pub image: MetadataImage,
    /// What changed since the previous publication.
    pub changes: MetadataChanges,
}

/// The log or a snapshot can't be replayed. Fatal on a controller; a broker would go on with a wrong image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A record is refused.
    #[error("error replaying the metadata record at offset {offset}: {error}")]
    Replay {
        /// Where the record is.
        offset: Offset,
        /// Why it is refused.
        error: ReplayError,
    },
    /// A record of a snapshot can't be read.
    #[error("error reading record {number} of the snapshot: {error}")]
    Decode {
        /// Which of its records, from 0.
        number: u64,
        /// What is wrong.
        error: DecodeError,
    },
    /// A transaction began inside another.
    #[error("the transaction at offset {0} begins inside another one")]
    NestedTransaction(Offset),
    /// A transaction ended that never began.
    #[error("the transaction that ends at offset {0} never began")]
    NoTransaction(Offset),
    /// A snapshot holds a transaction marker.
    #[error("the snapshot holds a {0}")]
    TransactionInSnapshot(&'static str),
}

/// Builds images from the committed metadata log of one node.
#[derive(Debug, Default)]
pub struct MetadataLoader {
    published: MetadataImage,
    delta: Option<MetadataDelta>,
    /// The first offset of the open transaction.
    transaction_start: Option<Offset>,
    /// How far the replayed records go, published or not.
    position: Option<Provenance>,
}

impl MetadataLoader {
    /// A loader at the empty image.
    pub fn new() -> MetadataLoader {
        MetadataLoader::default()
    }

    /// The newest image that may be published.
    pub fn image(&self) -> &MetadataImage {
        &self.published
    }

    /// The last offset that was replayed, published or not; -1 at first.
    pub fn last_offset(&self) -> Offset {
        self.position.map_or(Offset(-1), |position| position.last_contained_offset)
    }

    /// The first offset of the transaction that is open, if there is one. Its records are in no published image.
    pub fn open_transaction(&self) -> Option<Offset> {
        self.transaction_start
    }

    /// Replays one committed batch: `records` lie at `base_offset` and up. A control batch has none, but moves the
    /// offset to `last_offset`. Returns an image that must be published before this batch's transaction, if there is.
    pub fn load_batch(
        &mut self,
        base_offset: Offset,
        last_offset: Offset,
        leader_epoch: LeaderEpoch,
        append_time: TimestampMs,
        records: &[MetadataRecord],
    ) -> Result<Option<Publication>, LoadError> {
        let mut early = None;
        for (index, record) in records.iter().enumerate() {
            let offset = base_offset.plus(index as i64);
            match record {
                MetadataRecord::BeginTransaction(_) => {
                    if self.transaction_start.is_some() {
                        return Err(LoadError::NestedTransaction(offset));
                    }
                    early = self.publish_at(Provenance {
                        is_offset_batch_aligned: index == 0,
                        ..self.position.unwrap_or(Provenance::EMPTY)
                    });
                    self.transaction_start = Some(offset);
                }
                MetadataRecord::EndTransaction(_) => {
                    self.transaction_start.take().ok_or(LoadError::NoTransaction(offset))?;
                }
                MetadataRecord::AbortTransaction(_) => {
                    self.transaction_start.take().ok_or(LoadError::NoTransaction(offset))?;
                    self.delta = None;
                }
                record => {
                    let delta = self.delta.get_or_insert_with(|| MetadataDelta::new(&self.published));
                    delta.replay(record).map_err(|error| LoadError::Replay { offset, error })?;
                }
            }
            self.position = Some(Provenance {
                last_contained_offset: offset,
                last_contained_epoch: leader_epoch,
                last_contained_timestamp: append_time,
                is_offset_batch_aligned: offset == last_offset,
            });
        }
        self.position = Some(Provenance {
            last_contained_offset: last_offset,
            last_contained_epoch: leader_epoch,
            last_contained_timestamp: append_time,
            is_offset_batch_aligned: true,
        });
        Ok(early)
    }

    /// Ends a commit callback: the image of all that was replayed, unless a transaction is open or nothing came.
    pub fn publish(&mut self) -> Option<Publication> {
        if self.transaction_start.is_some() {
            return None;
        }
        self.publish_at(self.position?)
    }

    fn publish_at(&mut self, provenance: Provenance) -> Option<Publication> {
        if self.delta.is_none() && provenance.last_contained_offset == self.published.provenance.last_contained_offset {
            return None;
        }
        let delta = self.delta.take().unwrap_or_else(|| MetadataDelta::new(&self.published));
        let (image, changes) = delta.apply(provenance);
        self.published = image.clone();
        Some(Publication { image, changes })
    }

    /// Replaces everything by a snapshot that covers offsets up to `provenance`; what the snapshot doesn't hold is gone.
    /// Nothing happens when one of its records was at fault. To be called only when the snapshot is known to be whole.
    pub fn finish_snapshot(&mut self, load: SnapshotLoad, provenance: Provenance) -> Result<Publication, LoadError> {
        Ok(self.adopt(load.finish(provenance)?))
    }

    /// As [`MetadataLoader::finish_snapshot`], from records.
    pub fn load_snapshot<'a>(
        &mut self,
        provenance: Provenance,
        records: impl IntoIterator<Item = &'a MetadataRecord>,
    ) -> Result<Publication, LoadError> {
        let mut load = SnapshotLoad::new();
        records.into_iter().for_each(|record| load.replay(record));
        self.finish_snapshot(load, provenance)
    }

    /// Replaces everything by the image of a snapshot; what the snapshot doesn't hold is gone.
    pub fn adopt(&mut self, image: MetadataImage) -> Publication {
        let changes = MetadataChanges::between(&self.published, &image);
        self.delta = None;
        self.transaction_start = None;
        self.position = Some(image.provenance);
        self.published = image.clone();
        Publication { image, changes }
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::metadata_records::{
        AbortTransactionRecord, BeginTransactionRecord, EndTransactionRecord, PartitionRecord, TopicRecord,
    };
    use ringlog_types::Uuid;

    use super::*;

    fn topic(number: u8) -> MetadataRecord {
        TopicRecord { name: format!("t{number}").into(), topic_id: Uuid([number; 16]) }.into()
    }

    fn load(loader: &mut MetadataLoader, records: &[MetadataRecord]) -> Result<Option<Publication>, LoadError> {
        let base = loader.last_offset().plus(1);
        loader.load_batch(base, base.plus(records.len() as i64 - 1), LeaderEpoch(1), TimestampMs(1), records)
    }

    #[test]
    fn a_transaction_is_published_when_it_ends_and_dropped_when_aborted() {
        let mut loader = MetadataLoader::new();
        let begin = MetadataRecord::from(BeginTransactionRecord::default());
        let early = load(&mut loader, &[topic(1), begin.clone(), topic(2)]).unwrap().unwrap();
        assert_eq!(early.image.topics.len(), 1);
        assert_eq!(early.image.provenance.last_contained_offset, Offset(0));
        assert!(!early.image.provenance.is_offset_batch_aligned);
        assert!(loader.publish().is_none());
        assert_eq!(loader.open_transaction(), Some(Offset(1)));
        load(&mut loader, &[topic(3), EndTransactionRecord::default().into()]).unwrap();
        let ended = loader.publish().unwrap();
        assert_eq!((ended.image.topics.len(), ended.changes.topics.len()), (3, 2));
        load(&mut loader, &[begin.clone(), topic(4), AbortTransactionRecord::default().into()]).unwrap();
        let aborted = loader.publish().unwrap();
        assert_eq!((aborted.image.topics.len(), aborted.changes.is_empty()), (3, true));
        assert_eq!(aborted.image.provenance.last_contained_offset, Offset(7));
        let nested = load(&mut loader, &[begin.clone(), begin]);
        assert_eq!(nested.unwrap_err(), LoadError::NestedTransaction(Offset(9)));
    }

    #[test]
    fn a_snapshot_replaces_everything() {
        let mut loader = MetadataLoader::new();
        load(&mut loader, &[topic(1), topic(2)]).unwrap();
        loader.publish();
        let provenance = Provenance { last_contained_offset: Offset(9), ..Provenance::EMPTY };
        let loaded = loader.load_snapshot(provenance, &[topic(2), topic(3)]).unwrap();
        assert_eq!(loaded.changes.deleted_topics.keys().collect::<Vec<_>>(), [&Uuid([1; 16])]);
        assert_eq!(loaded.changes.topics.keys().collect::<Vec<_>>(), [&Uuid([3; 16])]);
        assert_eq!(loader.last_offset(), Offset(9));
    }

    fn load_framed(loader: &mut MetadataLoader, values: &[&[u8]]) -> Result<Publication, LoadError> {
        let mut load = SnapshotLoad::new();
        values.iter().for_each(|value| load.record(value));
        loader.finish_snapshot(load, Provenance { last_contained_offset: Offset(9), ..Provenance::EMPTY })
    }

    #[test]
    fn a_snapshot_at_fault_changes_nothing() {
        let mut loader = MetadataLoader::new();
        load(&mut loader, &[topic(1)]).unwrap();
        loader.publish();
        let good = topic(2).encode_framed(0).unwrap();
        let marker = MetadataRecord::from(EndTransactionRecord::default()).encode_framed(0).unwrap();
        let stray: MetadataRecord =
            PartitionRecord { partition_id: 0, topic_id: Uuid([7; 16]), ..Default::default() }.into();
        let stray = stray.encode_framed(0).unwrap();
        let marked = load_framed(&mut loader, &[&good, &marker, &stray]);
        assert_eq!(marked.unwrap_err(), LoadError::TransactionInSnapshot("EndTransactionRecord"));
        let unknown = load_framed(&mut loader, &[&good, &stray, &marker]);
        assert!(matches!(unknown, Err(LoadError::Replay { offset: Offset(1), .. })), "{unknown:?}");
        let undecodable = load_framed(&mut loader, &[&good, &good[..good.len() - 1], &marker]);
        assert!(matches!(undecodable, Err(LoadError::Decode { number: 1, .. })), "{undecodable:?}");
        assert_eq!((loader.image().topics.len(), loader.last_offset()), (1, Offset(0)));
        assert!(loader.image().topics.by_name("t1").is_some());
        let loaded = load_framed(&mut loader, &[&good]).unwrap();
        assert_eq!((loaded.image.topics.len(), loader.last_offset()), (1, Offset(9)));
    }

    /// Records may come in any order within a topic, and a damaged log may hold any number.
    #[test]
    fn partitions_after_a_gap_are_there_and_numbers_below_zero_are_refused() {
        let partition = |partition_id: i32| -> MetadataRecord {
            PartitionRecord { partition_id, topic_id: Uuid([1; 16]), leader: partition_id, ..Default::default() }.into()
        };
        let mut loader = MetadataLoader::new();
        let records = [topic(1), partition(i32::MAX), partition(1), partition(0), partition(1)];
        load(&mut loader, &records).unwrap();
        let loaded = loader.publish().unwrap();
        let topic = loaded.image.topics.by_name("t1").unwrap();
        assert_eq!(topic.partitions.keys().map(|index| index.0).collect::<Vec<_>>(), [0, 1, i32::MAX]);
        assert_eq!(loaded.changes.topics[&topic.id].partitions.len(), 3);
        assert_eq!(loaded.image.topics.partition_count(), 3);
        let again = MetadataLoader::new().load_snapshot(Provenance::EMPTY, &records).unwrap();
        assert_eq!((&again.image, &again.changes), (&loaded.image, &loaded.changes));
        let refused = load(&mut loader, &[partition(-1)]);
        assert!(matches!(refused, Err(LoadError::Replay { error: ReplayError::InvalidField { value: -1, .. }, .. })));
    }
}
