//! One rule per test, each as a producer would meet it.

use ringlog_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchOptions, BatchRef, ProducerStamp, RecordHeader, Scratch,
    end_transaction_batch, set_base_offset_and_epoch,
};
use ringlog_types::{PartitionIndex, ProducerEpoch, ProducerId, Random};

use super::*;

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn partition() -> TopicPartition {
    TopicPartition { topic: "t".into(), partition: PartitionIndex(3) }
}

fn rules() -> BatchRules {
    BatchRules { message_bytes_max: 1 << 20, ..BatchRules::new(&LogConfig::default(), AppendOrigin::Client, NOW) }
}

fn destination() -> Destination {
    Destination { base_offset: Offset(500), leader_epoch: LeaderEpoch(7), segment_bytes_max: 1 << 30, now: NOW }
}

fn batch_with(options: BatchOptions, timestamps: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for timestamp in timestamps {
        builder.append(
            TimestampMs(*timestamp),
            Some(b"key"),
            Some(b"value"),
            &[RecordHeader { key: b"h", value: None }],
        );
    }
    builder.build()
}

fn batch(compression: Compression) -> Bytes {
    batch_with(BatchOptions { compression, ..BatchOptions::default() }, &[NOW.0, NOW.0 + 5, NOW.0 - 5])
}

/// The batch with its header changed and its CRC made right.
fn edited(batch: &Bytes, edit: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    edit(&mut header);
    header.seal(&batch[BATCH_HEADER_LEN..]);
    Bytes::from([&header.encode()[..], &batch[BATCH_HEADER_LEN..]].concat())
}

fn run(batch: &Bytes, rules: &BatchRules) -> Result<ValidatedBatch, ValidationError> {
    validate(batch, &partition(), rules, &destination(), &mut Unpacker::new())
}

fn code(batch: &Bytes, rules: &BatchRules) -> ErrorCode {
    run(batch, rules).unwrap_err().code
}

fn offsets_and_times(bytes: &Bytes) -> Vec<(i64, i64)> {
    let batch = BatchRef::parse(bytes).unwrap();
    batch.verify_crc().unwrap();
    let mut scratch = Scratch::new(1 << 20);
    let records = batch.records(&mut scratch).unwrap().map(Result::unwrap);
    records.map(|record| (record.offset.0, record.timestamp.0)).collect()
}

#[test]
fn good_batches_are_placed_without_a_copy_of_their_records() {
    for compression in Compression::ALL {
        let input = batch(compression);
        let validated = run(&input, &rules()).unwrap();
        assert!(!validated.is_rewritten);
        assert_eq!(validated.payload.as_ptr(), input[BATCH_HEADER_LEN..].as_ptr());
        let stored = validated.to_contiguous();
        assert_eq!(offsets_and_times(&stored), [(500, NOW.0), (501, NOW.0 + 5), (502, NOW.0 - 5)]);
        let mut expected = input.to_vec();
        set_base_offset_and_epoch(&mut expected, Offset(500), LeaderEpoch(7));
        assert_eq!(stored, expected);
        assert_eq!(validated.log_append_time(), TimestampMs::NONE);
    }
}

#[test]
fn log_append_time_is_stamped() {
    for compression in Compression::ALL {
        let rules = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let validated = run(&batch(compression), &rules).unwrap();
        assert!(!validated.is_rewritten);
        assert_eq!(offsets_and_times(&validated.to_contiguous()), [(500, NOW.0), (501, NOW.0), (502, NOW.0)]);
        assert_eq!(validated.log_append_time(), NOW);
    }
}

#[test]
fn the_topics_codec_wins() {
    for source in Compression::ALL {
        for compression in Compression::ALL {
            let rules = BatchRules { compression: TopicCompression::Codec { compression, level: None }, ..rules() };
            let validated = run(&batch(source), &rules).unwrap();
            assert_eq!(validated.is_rewritten, source != compression);
            assert_eq!(validated.header.compression(), Ok(compression));
            let records = offsets_and_times(&validated.to_contiguous());
            assert_eq!(records, [(500, NOW.0), (501, NOW.0 + 5), (502, NOW.0 - 5)]);
            assert_eq!(validated.header.partition_leader_epoch, LeaderEpoch(7));
        }
    }
}

#[test]
fn a_rewritten_batch_keeps_its_producer() {
    let compression = TopicCompression::Codec { compression: Compression::Lz4, level: Some(9) };
    let rules = BatchRules { compression, ..rules() };
    let producer = ProducerStamp { producer_id: ProducerId(5), producer_epoch: ProducerEpoch(2), base_sequence: 40 };
    let options = BatchOptions { producer, is_transactional: true, ..BatchOptions::default() };
    let header = run(&batch_with(options, &[NOW.0]), &rules).unwrap().header;
    assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(5), ProducerEpoch(2)));
    assert_eq!((header.base_sequence, header.is_transactional()), (40, true));
}

#[test]
fn there_must_be_exactly_one_batch() {
    let (one, rules) = (batch(Compression::None), rules());
    assert_eq!(code(&Bytes::new(), &rules), ErrorCode::InvalidRecord);
    assert_eq!(code(&one.slice(..one.len() - 1), &rules), ErrorCode::InvalidRecord);
    assert_eq!(code(&Bytes::from([&one[..], &one[..]].concat()), &rules), ErrorCode::InvalidRecord);
    let with_torn_tail = Bytes::from([&one[..], &one[..70]].concat());
    assert_eq!(run(&with_torn_tail, &rules).unwrap().size_in_bytes(), one.len());
    let mut old = one.to_vec();
    old[16] = 1;
    assert_eq!(code(&Bytes::from(old.clone()), &rules), ErrorCode::InvalidRecord);
    old[16] = 3;
    assert_eq!(code(&Bytes::from(old), &rules), ErrorCode::CorruptMessage);
}

#[test]
fn corruption_is_found_before_what_the_header_says() {
    for (at, value) in [(17, 1u8), (30, 0xff), (57, 0xff), (23, 0xff), (70, 0xaa)] {
        let mut bytes = batch(Compression::None).to_vec();
        bytes[at] ^= value;
        assert_eq!(code(&Bytes::from(bytes), &rules()), ErrorCode::CorruptMessage, "byte {at}");
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let good = batch(Compression::None);
    type Edit = fn(&mut BatchHeader);
    let edits: [Edit; 9] = [
        |header| header.base_offset = Offset(1),
        |header| header.record_count = 0,
        |header| header.record_count = -1,
        |header| header.record_count = 4,
        |header| header.last_offset_delta = 5,
        |header| header.last_offset_delta = -1,
        |header| header.attributes |= 1 << 5,
        |header| header.producer_id = ProducerId(1),
        |header| (header.record_count, header.last_offset_delta) = (2, 1),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let error = run(&edited(&good, edit), &rules()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRecord, "edit {index}: {error}");
        assert_eq!(error.response_message(), None);
    }
}

#[test]
fn sizes_are_limited() {
    let input = batch(Compression::None);
    let exact = BatchRules { message_bytes_max: input.len(), ..rules() };
    let checked = check(&input, &partition(), &exact, &mut Unpacker::new()).unwrap();
    let place =
        |segment_bytes_max| checked.clone().place(&partition(), &Destination { segment_bytes_max, ..destination() });
    assert!(place(input.len()).is_ok());
    assert_eq!(place(input.len() - 1).unwrap_err().code, ErrorCode::RecordListTooLarge);
    let message = BatchRules { message_bytes_max: input.len() - 1, ..exact };
    assert_eq!(code(&input, &message), ErrorCode::MessageTooLarge);

    // Small when packed, too large once the topic's codec is applied.
    let mut builder = BatchBuilder::new(BatchOptions { compression: Compression::Gzip, ..BatchOptions::default() });
    builder.append(NOW, None, Some(&[0; 100_000]), &[]);
    let unpacked = TopicCompression::Codec { compression: Compression::None, level: None };
    let grown = BatchRules { compression: unpacked, message_bytes_max: 5000, ..rules() };
    let packed = builder.build();
    assert_eq!(code(&packed, &grown), ErrorCode::MessageTooLarge);
    for compression in [TopicCompression::Producer, unpacked] {
        let bomb = BatchRules { compression, unpacked_bytes_max: 1000, ..rules() };
        assert_eq!(code(&packed, &bomb), ErrorCode::MessageTooLarge);
    }
}

#[test]
fn codecs_must_be_known_and_allowed() {
    let unknown = edited(&batch(Compression::None), |header| header.attributes |= 6);
    assert_eq!(code(&unknown, &rules()), ErrorCode::UnknownServerError);
    let old = BatchRules { is_zstd_allowed: false, ..rules() };
    assert_eq!(code(&batch(Compression::Zstd), &old), ErrorCode::UnsupportedCompressionType);
    assert!(run(&batch(Compression::Lz4), &old).is_ok());
}

#[test]
fn compacted_topics_need_keys_and_name_the_records_without() {
    let rules = BatchRules { is_compacted: true, ..rules() };
    for compression in Compression::ALL {
        assert!(run(&batch(compression), &rules).is_ok());
        let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
        builder.append(NOW, Some(b"k"), None, &[]).append(NOW, None, Some(b"v"), &[]);
        let error = run(&builder.build(), &rules).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRecord);
        let message = "Compacted topic cannot accept message without key in topic partition t-3";
        assert_eq!(error.record_errors, [RecordFault { batch_index: 1, message: message.to_owned() }]);
        let expected = format!(
            "One or more records have been rejected due to 1 record errors in total, and only showing the first three \
             errors at most: [RecordError(batchIndex=1, message='{message}')]"
        );
        assert_eq!(error.response_message(), Some(expected.as_str()));
    }
}

#[test]
fn timestamps_must_be_in_range_and_name_the_records_that_are_not() {
    let both = BatchRules { timestamp_before_max_ms: 1000, timestamp_after_max_ms: 2000, ..rules() };
    for compression in Compression::ALL {
        let with = |timestamps: &[i64]| batch_with(BatchOptions { compression, ..BatchOptions::default() }, timestamps);
        assert!(run(&with(&[NOW.0 - 1000, NOW.0 + 2000, -1]), &both).is_ok());
        let error = run(&with(&[NOW.0, NOW.0 - 1001, NOW.0 + 2001]), &both).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidTimestamp);
        assert_eq!(error.record_errors.iter().map(|fault| fault.batch_index).collect::<Vec<_>>(), [1, 2]);
        let expected = format!(
            "Timestamp {} of message with offset 1 is out of range. The timestamp should be within [{}, {}]",
            NOW.0 - 1001,
            NOW.0 - 1000,
            NOW.0 + 2000
        );
        assert_eq!(error.record_errors[0].message, expected);
        // With the default settings only the future is limited.
        assert!(run(&with(&[0, NOW.0]), &rules()).is_ok());
        assert_eq!(code(&with(&[NOW.0, NOW.0 + 3_600_001]), &rules()), ErrorCode::InvalidTimestamp);
        // The topic's own clock makes them meaningless.
        let append_time = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..both };
        assert!(run(&with(&[0, i64::MAX / 2]), &append_time).is_ok());
        let options = BatchOptions { compression, log_append_time: Some(NOW), ..BatchOptions::default() };
        assert_eq!(code(&batch_with(options, &[NOW.0]), &append_time), ErrorCode::InvalidTimestamp);
    }
}

#[test]
fn a_wrong_max_timestamp_is_corrected_where_records_are_seen() {
    let input = edited(&batch(Compression::None), |header| header.max_timestamp = NOW);
    let validated = run(&input, &rules()).unwrap();
    assert_eq!(validated.header.max_timestamp, TimestampMs(NOW.0 + 5));
    BatchRef::parse(&validated.to_contiguous()).unwrap().verify_crc().unwrap();
    let input = edited(&batch(Compression::Zstd), |header| header.max_timestamp = NOW);
    assert_eq!(run(&input, &rules()).unwrap().header.max_timestamp, TimestampMs(NOW.0 + 5));
    // Who trusts his producers believes the header.
    let trusting = BatchRules { looks_inside: false, ..rules() };
    assert_eq!(run(&input, &trusting).unwrap().header.max_timestamp, NOW);
}

#[test]
fn records_numbered_wrong_are_numbered_anew() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for offset in [1, 4] {
        builder.append_at(Offset(offset), NOW, Some(b"k"), None, [].into_iter());
    }
    let input = edited(&builder.build(), |header| header.last_offset_delta = 1);
    let validated = run(&input, &rules()).unwrap();
    assert!(validated.is_rewritten);
    assert_eq!(offsets_and_times(&validated.to_contiguous()), [(500, NOW.0), (501, NOW.0)]);
}

#[test]
fn control_records_come_from_coordinators_only() {
    let marker = ringlog_protocol::records::EndTransactionMarker { is_commit: true, coordinator_epoch: 1 };
    let input = end_transaction_batch(Offset(0), LeaderEpoch(7), NOW, ProducerId(1), ProducerEpoch(0), marker);
    assert_eq!(code(&input, &rules()), ErrorCode::InvalidRecord);
    let compression = TopicCompression::Codec { compression: Compression::Gzip, level: None };
    let coordinator = BatchRules { origin: AppendOrigin::Coordinator, compression, ..rules() };
    assert!(!run(&input, &coordinator).unwrap().is_rewritten);
    let raft = BatchRules { origin: AppendOrigin::RaftLeader, message_bytes_max: 1, ..rules() };
    assert!(run(&input, &raft).is_ok());
    let checked = check(&input, &partition(), &raft, &mut Unpacker::new()).unwrap();
    let elsewhere = Destination { leader_epoch: LeaderEpoch(8), ..destination() };
    assert_eq!(checked.place(&partition(), &elsewhere).unwrap_err().code, ErrorCode::InvalidRecord);
}

#[test]
fn followers_take_what_is_whole_in_order_and_of_a_known_epoch() {
    let stored = |base: i64, epoch: i32| {
        let mut bytes = batch(Compression::Snappy).to_vec();
        set_base_offset_and_epoch(&mut bytes, Offset(base), LeaderEpoch(epoch));
        bytes
    };
    let bytes = [stored(10, 1), stored(20, 2), stored(23, 3)].concat();
    let (one, all) = (bytes.len() / 3, bytes.len());
    let check = |bytes: &[u8], end, epoch| {
        check_replicated(bytes, Offset(end), LeaderEpoch(epoch)).map(|found| (found.headers.len(), found.valid_bytes))
    };
    assert_eq!(check(&bytes, 10, 3), Ok((3, all)));
    assert_eq!(check(&bytes, 10, 2), Ok((2, 2 * one)));
    assert_eq!(check(&bytes[..all - 1], 0, 3), Ok((2, 2 * one)));
    assert_eq!(check(&bytes[..5], 0, 3), Ok((0, 0)));
    assert_eq!(check(&bytes, 11, 3), Err(ReplicationError::OutOfOrder { found: Offset(10), expected: Offset(11) }));
    assert!(check(&[stored(10, 1), stored(12, 1)].concat(), 10, 1).is_err());
    let mut torn = bytes;
    torn[one + 80] ^= 1;
    let error = check(&torn, 10, 3).unwrap_err();
    assert!(matches!(error, ReplicationError::Corrupt { position, .. } if position == one));
    assert_eq!(error.code(), ErrorCode::CorruptMessage);
}

/// Whatever a producer sends behind a right CRC: no panic, and what is taken can be read.
#[test]
fn hostile_batches_are_survived() {
    let mut random = Random::from_seed(5);
    for round in 0..3000u64 {
        let compression = Compression::ALL[(round % 5) as usize];
        let mut bytes = batch(compression).to_vec();
        for _ in 0..1 + random.below(3) {
            let at = 12 + random.below(bytes.len() as u64 - 12) as usize;
            bytes[at] = random.next_u64() as u8;
        }
        bytes[16] = 2;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let rules = BatchRules { is_compacted: true, ..rules() };
        if let Ok(validated) = run(&Bytes::from(bytes), &rules) {
            let stored = validated.to_contiguous();
            let expected: Vec<i64> = (500..=validated.header.last_offset().0).collect();
            let offsets: Vec<i64> = offsets_and_times(&stored).iter().map(|record| record.0).collect();
            assert_eq!(offsets, expected);
        }
    }
}
