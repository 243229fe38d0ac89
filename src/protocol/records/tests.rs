//! Round trips and hostile bytes. What Kafka itself wrote is read in the crate's `tests/record_fixtures.rs`.

use bytes::Bytes;
use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Random, TimestampMs};

use super::*;

fn sample(compression: Compression) -> Bytes {
    let producer =
        ProducerStamp { producer_id: ProducerId(7), producer_epoch: ProducerEpoch(1), base_sequence: i32::MAX - 1 };
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: Offset(40),
        partition_leader_epoch: LeaderEpoch(3),
        compression,
        producer,
        ..BatchOptions::default()
    });
    builder.append(TimestampMs(1000), Some(b"k"), Some(b"v"), &[RecordHeader { key: b"h", value: None }]);
    builder.append(TimestampMs(900), None, None, &[]);
    builder.append(TimestampMs(1500), Some(b""), Some(&[b'x'; 100_000]), &[]);
    builder.build()
}

#[test]
fn every_codec_round_trips() {
    let mut scratch = Scratch::new(1 << 20);
    for compression in Compression::ALL {
        let bytes = sample(compression);
        let batch = BatchIter::new(&bytes).next().unwrap().unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.header.compression(), Ok(compression));
        assert_eq!((batch.header.last_offset(), batch.header.next_offset()), (Offset(42), Offset(43)));
        assert_eq!(batch.header.last_sequence(), 0);
        assert_eq!(batch.header.max_timestamp, TimestampMs(1500));
        let records: Vec<_> = batch.records(&mut scratch).unwrap().map(Result::unwrap).collect();
        assert_eq!(records.len(), 3);
        assert_eq!(
            (records[0].offset, records[0].key, records[0].value),
            (Offset(40), Some(&b"k"[..]), Some(&b"v"[..]))
        );
        assert_eq!(records[0].headers.collect::<Vec<_>>(), [RecordHeader { key: b"h", value: None }]);
        assert_eq!((records[1].timestamp, records[1].key, records[1].value), (TimestampMs(900), None, None));
        assert_eq!((records[2].key, records[2].value.unwrap().len()), (Some(&b""[..]), 100_000));
    }
}

#[test]
fn decompression_stops_at_its_limit() {
    for compression in Compression::ALL {
        let packed = compression.compress(&vec![0u8; 1 << 20], None);
        assert_eq!(compression.decompress(&packed, 1 << 20).map(|out| out.len()), Ok(1 << 20), "{compression:?}");
        let limit = (1 << 20) - 1;
        assert_eq!(compression.decompress(&packed, limit), Err(DecompressError::TooLarge { limit }), "{compression:?}");
        assert_eq!(compression.decompress(&compression.compress(b"", None), 0), Ok(Vec::new()), "{compression:?}");
    }
}

#[test]
fn snappy_without_framing_is_read() {
    let raw = snap::raw::Encoder::new().compress_vec(b"hello hello hello").unwrap();
    assert_eq!(Compression::Snappy.decompress(&raw, 100).unwrap(), b"hello hello hello");
}

#[test]
fn patches_keep_the_crc_right() {
    for compression in [Compression::None, Compression::Zstd] {
        let mut bytes = sample(compression).to_vec();
        set_base_offset_and_epoch(&mut bytes, Offset(1 << 40), LeaderEpoch(9));
        let batch = BatchRef::parse(&bytes).unwrap();
        batch.verify_crc().unwrap();
        assert_eq!((batch.header.base_offset, batch.header.partition_leader_epoch), (Offset(1 << 40), LeaderEpoch(9)));

        let mut header = batch.header;
        set_log_append_time(&mut bytes, TimestampMs(77));
        let batch = BatchRef::parse(&bytes).unwrap();
        batch.verify_crc().unwrap();
        let mut scratch = Scratch::new(1 << 20);
        assert!(batch.records(&mut scratch).unwrap().all(|record| record.unwrap().timestamp == TimestampMs(77)));

        header.set_max_timestamp(TimestampType::LogAppendTime, TimestampMs(77));
        assert_eq!(header, batch.header);
        set_max_timestamp(&mut bytes, TimestampType::CreateTime, TimestampMs(78));
        header.set_max_timestamp(TimestampType::CreateTime, TimestampMs(78));
        assert_eq!(header, BatchRef::parse(&bytes).unwrap().header);
    }
}

#[test]
fn markers_round_trip() {
    let marker = EndTransactionMarker { is_commit: true, coordinator_epoch: 5 };
    let (producer_id, producer_epoch) = (ProducerId(6), ProducerEpoch(1));
    let (offset, epoch, time) = (Offset(4), LeaderEpoch(0), TimestampMs(10));
    let bytes = end_transaction_batch(offset, epoch, time, producer_id, producer_epoch, marker);
    let batch = BatchRef::parse(&bytes).unwrap();
    assert!(batch.header.is_control() && batch.header.is_transactional());
    assert_eq!(batch.header.last_sequence(), -1);
    let mut scratch = Scratch::new(0);
    let record = batch.records(&mut scratch).unwrap().next().unwrap().unwrap();
    assert_eq!(EndTransactionMarker::parse(record.key.unwrap(), record.value.unwrap()), Some(marker));
    assert_eq!(EndTransactionMarker::parse(b"\0\0\0\x02", &marker.value()), None);
    assert_eq!(EndTransactionMarker::parse(b"\0\0", b""), None);

    let bytes = control_batch(offset, epoch, time, &[(ControlRecordType::SnapshotFooter, b"\0\0\0")]);
    let batch = BatchRef::parse(&bytes).unwrap();
    assert!(batch.header.is_control() && !batch.header.is_transactional());
}

#[test]
fn compaction_keeps_gaps_the_range_and_the_horizon() {
    let options = BatchOptions { delete_horizon: Some(TimestampMs(5000)), ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    builder.append_at(Offset(3), TimestampMs(10), Some(b"k"), None, [].into_iter());
    builder.retain_last_offset(Offset(9));
    let bytes = builder.build();
    let batch = BatchRef::parse(&bytes).unwrap();
    assert_eq!(batch.header.delete_horizon(), Some(TimestampMs(5000)));
    assert_eq!(batch.header.last_offset(), Offset(9));
    let mut scratch = Scratch::new(0);
    let record = batch.records(&mut scratch).unwrap().next().unwrap().unwrap();
    assert_eq!((record.offset, record.timestamp), (Offset(3), TimestampMs(10)));
}

#[test]
fn sequences_wrap() {
    assert_eq!(sequence_plus(i32::MAX, 1), 0);
    assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
    assert_eq!(sequence_plus(5, 2), 7);
}

#[test]
fn header_faults_are_named() {
    let good = sample(Compression::None);
    let patched = |at: usize, bytes: &[u8]| {
        let mut batch = good.to_vec();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        BatchHeader::parse(&batch)
    };
    assert_eq!(patched(16, &[1]), Err(BatchError::UnsupportedMagic(1)));
    assert_eq!(patched(8, &48i32.to_be_bytes()), Err(BatchError::InvalidLength(48)));
    assert_eq!(patched(57, &(-1i32).to_be_bytes()), Err(BatchError::InvalidRecordCount(-1)));
    assert!(matches!(patched(23, &(-1i32).to_be_bytes()), Err(BatchError::InvalidOffsets { .. })));
    assert!(matches!(patched(0, &i64::MAX.to_be_bytes()), Err(BatchError::InvalidOffsets { .. })));
    assert_eq!(patched(22, &[6]).unwrap().compression(), Err(BatchError::UnknownCompression(6)));
    let mut iter = BatchIter::new(&good[..100]);
    assert_eq!(iter.next().unwrap().unwrap_err(), BatchError::Incomplete { needed: good.len(), available: 100 });
    assert!(iter.next().is_none());
}

/// Whatever the bytes are, reading them ends, takes bounded memory and doesn't panic.
#[test]
fn hostile_bytes_are_survived() {
    let mut random = Random::from_seed(11);
    let mut scratch = Scratch::new(1 << 20);
    for compression in Compression::ALL {
        let good = sample(compression);
        for _ in 0..400 {
            let mut bytes = good.to_vec();
            for _ in 0..1 + random.next_u64() % 4 {
                // Mostly near the start, where the structure is.
                let range = if random.next_u64().is_multiple_of(2) { 120 } else { bytes.len() as u64 };
                let at = (random.next_u64() % range.min(bytes.len() as u64)) as usize;
                bytes[at] = random.next_u64() as u8;
            }
            bytes.truncate((random.next_u64() % (bytes.len() as u64 * 4)) as usize);
            for batch in BatchIter::new(&bytes).flatten() {
                let _ = batch.verify_crc();
                let Ok(records) = batch.records(&mut scratch) else { continue };
                for record in records.flatten() {
                    assert!(record.headers.count() <= bytes.len().max(1 << 20));
                }
            }
        }
    }
}

#[test]
fn the_length_of_a_record_is_known_before_it_is_written() {
    for lens in [&[0][..], &[1, 62, 63, 64, 8_190, 8_191, 8_192], &[5; 200], &[1_048_576, 3]] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let mut expected = BATCH_HEADER_LEN;
        for (index, len) in lens.iter().enumerate() {
            builder.append(TimestampMs(77), None, Some(&vec![7; *len]), &[]);
            expected += value_record_len(index as i32, *len);
        }
        assert_eq!(builder.build().len(), expected, "{lens:?}");
    }
}
