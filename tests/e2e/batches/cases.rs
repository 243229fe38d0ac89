//! The batches that are sent: good ones, and each way to be wrong, for each codec.

use ringlog_protocol::records::{BatchHeader, Compression};
use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::framings::{self, Framed};
use super::records::{PAST_MS, RecordPlan, good_header, good_records, header, sealed, sized, written};

/// Records of an ordinary batch.
const COUNT: i32 = 3;
/// A time that is ahead of every clock.
const FUTURE_MS: i64 = 32_503_680_000_000;
/// 99 days.
const DAYS_MS: i64 = 99 * 86_400_000;

/// A batch to be sent.
#[derive(Debug, Clone)]
pub struct BatchCase {
    /// Says what is special about it.
    pub name: String,
    /// In which version of Produce it is sent.
    pub version: i16,
    /// What is sent as records.
    pub bytes: Vec<u8>,
}

/// The version of Produce that batches are sent in: the last one that names topics.
pub const VERSION: i16 = 12;

/// All of them.
pub fn all() -> Vec<BatchCase> {
    let mut cases = Cases::default();
    cases.framings();
    for compression in Compression::ALL {
        cases.records(compression);
        cases.headers(compression);
    }
    cases.envelopes();
    cases.producers();
    cases.large();
    cases.list
}

/// Packs records as the codec's own writers do.
pub fn packed(compression: Compression, records: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => records.to_vec(),
        Compression::Gzip => framings::gzip(records),
        Compression::Snappy => framings::snappy(records),
        Compression::Lz4 => framings::lz4(records),
        Compression::Zstd => framings::zstd(records),
    }
}

#[derive(Default)]
struct Cases {
    list: Vec<BatchCase>,
}

impl Cases {
    fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.list.push(BatchCase { name, version: VERSION, bytes });
    }

    /// Good records in every framing.
    fn framings(&mut self) {
        let records = written(&good_records(COUNT));
        let large_value: Vec<u8> = (0..9_000_u32).map(|at| (at % 251) as u8).collect();
        let mut large = good_records(COUNT);
        large[0].value = sized(&large_value);
        let large = written(&large);
        let noise: Vec<u8> = large_value.iter().copied().cycle().take(80_000).collect();
        let framings: [(Compression, Vec<Framed>); 4] = [
            (Compression::Gzip, framings::gzip_framings(&records, &large)),
            (Compression::Snappy, framings::snappy_framings(&records)),
            (Compression::Lz4, framings::lz4_framings(&records, &noise)),
            (Compression::Zstd, framings::zstd_framings(&records)),
        ];
        for (compression, framings) in framings {
            for (name, payload) in framings {
                let bytes = sealed(good_header(compression, COUNT), &payload);
                self.add(format!("{} framing: {name}", compression.name()), bytes);
            }
            // What reads it sees records only after more bytes than its buffer holds.
            let payload = packed(compression, &large);
            self.add(
                format!("{}: more than a buffer", compression.name()),
                sealed(good_header(compression, COUNT), &payload),
            );
        }
    }

    /// Records in the codec's usual framing, one of which is wrong.
    fn records(&mut self, compression: Compression) {
        for (name, records, tail) in record_faults() {
            let bytes = [written(&records), tail].concat();
            let batch = sealed(good_header(compression, COUNT), &packed(compression, &bytes));
            self.add(format!("{} record: {name}", compression.name()), batch);
        }
        let whole = written(&good_records(COUNT));
        for left in [0, 1, 2, 5, 20, whole.len() / 2, whole.len() - 1] {
            let batch = sealed(good_header(compression, COUNT), &packed(compression, &whole[..left]));
            self.add(format!("{} record: cut after {left} bytes", compression.name()), batch);
        }
    }

    /// Good records whose header says something else.
    fn headers(&mut self, compression: Compression) {
        let payload = packed(compression, &written(&good_records(COUNT)));
        for (name, edit) in HEADER_FAULTS {
            let mut header = good_header(compression, COUNT);
            edit(&mut header);
            self.add(format!("{} header: {name}", compression.name()), sealed(header, &payload));
        }
    }

    /// What is wrong around the batch.
    fn envelopes(&mut self) {
        let batch = |compression| {
            let payload = packed(compression, &written(&good_records(COUNT)));
            sealed(good_header(compression, COUNT), &payload)
        };
        let good = batch(Compression::None);
        let with_length = |length: i32| [&good[..8], &length.to_be_bytes(), &good[12..]].concat();
        let length = good.len() as i32 - 12;
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (name, bytes) in [
            ("nothing", Vec::new()),
            ("one byte", vec![0]),
            ("zeros", vec![0; 100]),
            ("only a header", good[..61].to_vec()),
            ("half a header", good[..30].to_vec()),
            ("the last byte is missing", good[..good.len() - 1].to_vec()),
            ("wrong checksum", with(17, !good[17])),
            ("a flipped bit in the records", with(80, good[80] ^ 1)),
            ("a length too small by one", with_length(length - 1)),
            ("a length too great by one", with_length(length + 1)),
            ("a length of 48", with_length(48)),
            ("a length of 0", with_length(0)),
            ("a negative length", with_length(-1)),
            ("the greatest length", with_length(i32::MAX)),
            ("magic 0", with(16, 0)),
            ("magic 1", with(16, 1)),
            ("magic 3", with(16, 3)),
            ("magic -1", with(16, 0xff)),
            ("two batches", [&good[..], &good].concat()),
            ("a compressed batch after another", [&good[..], &batch(Compression::Gzip)].concat()),
            ("half a batch after one", [&good[..], &good[..good.len() - 9]].concat()),
            ("five bytes after a batch", [&good[..], &[1, 2, 3, 4, 5]].concat()),
            ("zeros after a batch", [&good[..], &[0; 80]].concat()),
            ("noise after a batch", [&good[..], &[0x5a; 80]].concat()),
        ] {
            self.add(format!("envelope: {name}"), bytes);
        }
        for compression in Compression::ALL {
            for version in [3, 6, 7, 9] {
                let name = format!("version {version}: {}", compression.name());
                self.list.push(BatchCase { name, version, bytes: batch(compression) });
            }
        }
        let batch = sealed(good_header(Compression::Gzip, COUNT), b"this is certainly not gzip");
        self.list.push(BatchCase { name: "version 7: not gzip".to_owned(), version: 7, bytes: batch });
    }

    /// Producers, each of its own.
    fn producers(&mut self) {
        let payload = written(&good_records(COUNT));
        for (number, (name, edit)) in (1_000_i64..).zip(PRODUCER_FIELDS) {
            let mut header = good_header(Compression::None, COUNT);
            header.producer_id = ProducerId(number);
            header.producer_epoch = ProducerEpoch(0);
            header.base_sequence = 0;
            edit(&mut header);
            self.add(format!("producer: {name}"), sealed(header, &payload));
        }
    }

    /// What unpacks to much more than what is sent.
    fn large(&mut self) {
        for compression in Compression::ALL {
            let mut records = good_records(1);
            // Near the limit of a batch when it isn't compressed; with the others beyond it when unpacked.
            let length = if compression == Compression::None { 1_048_000 } else { 3 << 20 };
            records[0].value = sized(&vec![b'x'; length]);
            let payload = packed(compression, &written(&records));
            self.add(format!("{}: a large record", compression.name()), sealed(good_header(compression, 1), &payload));
        }
        let many = written(&good_records(2_000));
        for compression in Compression::ALL {
            let batch = sealed(good_header(compression, 2_000), &packed(compression, &many));
            self.add(format!("{}: many records", compression.name()), batch);
            let mut wrong = good_records(2_000);
            for record in &mut wrong[100..1_900] {
                record.timestamp_delta = FUTURE_MS;
                record.key = (-1, Vec::new());
            }
            let batch = sealed(good_header(compression, 2_000), &packed(compression, &written(&wrong)));
            self.add(format!("{}: many wrong records", compression.name()), batch);
        }
    }
}

type RecordFault = (&'static str, Vec<RecordPlan>, Vec<u8>);

/// Good records with one thing changed.
fn edited(name: &'static str, edit: impl Fn(&mut Vec<RecordPlan>)) -> RecordFault {
    let mut records = good_records(COUNT);
    edit(&mut records);
    (name, records, Vec::new())
}

fn record_faults() -> Vec<RecordFault> {
    let mut faults = vec![("good", good_records(COUNT), Vec::new())];
    faults.extend(numbering_faults());
    faults.extend(timestamp_faults());
    faults.extend(count_and_length_faults());
    faults.extend(field_faults());
    faults.extend(header_faults());
    faults.extend(tail_faults());
    faults
}

fn numbering_faults() -> Vec<RecordFault> {
    let deltas = |deltas: [i32; 3]| {
        move |records: &mut Vec<RecordPlan>| {
            records.iter_mut().zip(deltas).for_each(|(record, delta)| record.offset_delta = delta);
        }
    };
    vec![
        edited("offsets out of order", deltas([1, 0, 2])),
        edited("offsets with a gap", deltas([0, 2, 4])),
        edited("offsets with a gap within the range", deltas([0, 2, 2])),
        edited("offsets all the same", deltas([0, 0, 0])),
        edited("offsets from 1 on", deltas([1, 2, 3])),
        edited("offsets below zero", deltas([-1, 0, 1])),
        edited("offsets of the ends", deltas([i32::MIN, 1, i32::MAX])),
    ]
}

fn timestamp_faults() -> Vec<RecordFault> {
    let times = |deltas: [i64; 3]| {
        move |records: &mut Vec<RecordPlan>| {
            records.iter_mut().zip(deltas).for_each(|(record, delta)| record.timestamp_delta = delta);
        }
    };
    vec![
        edited("timestamps out of order", times([2, 1, 0])),
        edited("a timestamp 99 days ahead", times([0, DAYS_MS, 0])),
        edited("a timestamp in the future", times([0, FUTURE_MS - PAST_MS, 0])),
        edited("timestamps in the future", times([FUTURE_MS - PAST_MS, 1, FUTURE_MS - PAST_MS])),
        edited("timestamps -1", times([-1 - PAST_MS, -1 - PAST_MS, -1 - PAST_MS])),
        edited("a timestamp -1", times([0, -1 - PAST_MS, 0])),
        edited("a timestamp -2", times([0, -2 - PAST_MS, 0])),
        edited("the least timestamp", times([0, i64::MIN.wrapping_sub(PAST_MS), 0])),
        edited("the least timestamp but one", times([0, i64::MIN.wrapping_sub(PAST_MS) + 1, 0])),
        edited("the least delta of time", times([0, i64::MIN, 0])),
        edited("the greatest delta of time", times([0, i64::MAX, 0])),
    ]
}

fn count_and_length_faults() -> Vec<RecordFault> {
    vec![
        edited("two records instead of three", |records| drop(records.pop())),
        edited("one record instead of three", |records| records.truncate(1)),
        edited("five records instead of three", |records| *records = good_records(5)),
        edited("no records", |records| records.clear()),
        edited("a length too great by one", |records| records[1].length_lie = 1),
        edited("a length too small by one", |records| records[1].length_lie = -1),
        edited("the last length too great by one", |records| records[2].length_lie = 1),
        edited("the last length too small by one", |records| records[2].length_lie = -1),
        edited("a length far too great", |records| records[1].length_lie = 1_000_000),
        edited("the greatest length", |records| records[1].length_lie = i32::MAX - 200),
        edited("a negative length", |records| records[1].length_lie = -200),
    ]
}

fn field_faults() -> Vec<RecordFault> {
    vec![
        edited("attributes", |records| records[1].attributes = 0xff),
        edited("no key", |records| records[1].key = (-1, Vec::new())),
        edited("no keys", |records| records.iter_mut().for_each(|record| record.key = (-1, Vec::new()))),
        edited("no value", |records| records[1].value = (-1, Vec::new())),
        edited("empty key and value", |records| {
            records[1].key = (0, Vec::new());
            records[1].value = (0, Vec::new());
        }),
        edited("a key of length -2", |records| records[1].key = (-2, Vec::new())),
        edited("a value of length -2", |records| records[1].value = (-2, Vec::new())),
        edited("a key longer than the record", |records| records[1].key.0 = 5_000),
        edited("a value longer than the record", |records| records[1].value.0 = 5_000),
        edited("the last value longer than the record", |records| records[2].value.0 = 5_000),
        edited("a value a little longer than the record", |records| records[1].value.0 += 4),
        edited("the greatest length of a key", |records| records[1].key.0 = i32::MAX),
    ]
}

fn header_faults() -> Vec<RecordFault> {
    vec![
        edited("no headers", |records| {
            records[1].header_count = 0;
            records[1].headers.clear();
        }),
        edited("a header without a value", |records| records[1].headers = header(1, b"h", -1, b"")),
        edited("a header without a key", |records| records[1].headers = header(-1, b"", 1, b"v")),
        edited("a header with an empty key", |records| records[1].headers = header(0, b"", 1, b"v")),
        edited("a header whose key is no text", |records| records[1].headers = header(2, b"\xff\xfe", 1, b"v")),
        edited("a header key longer than the record", |records| records[1].headers = header(500, b"h", 1, b"v")),
        edited("a header value longer than the record", |records| records[1].headers = header(1, b"h", 500, b"v")),
        edited("one header more than there is", |records| records[1].header_count = 2),
        edited("one header more than there is, last", |records| records[2].header_count = 2),
        edited("one header less than there is", |records| records[1].header_count = 0),
        edited("a negative number of headers", |records| records[1].header_count = -1),
        edited("a great number of headers", |records| records[1].header_count = 1_000_000),
        edited("the greatest number of headers", |records| records[2].header_count = i32::MAX),
    ]
}

fn tail_faults() -> Vec<RecordFault> {
    let tails: [(&str, &[u8]); 4] = [
        ("a byte after the records", &[1]),
        ("a zero after the records", &[0]),
        ("zeros after the records", &[0; 40]),
        ("text after the records", b"some text after the records"),
    ];
    let mut faults: Vec<RecordFault> = tails.map(|(name, tail)| (name, good_records(COUNT), tail.to_vec())).into();
    // Five groups of seven bits, and one more; ten of them are enough for 64 bits.
    let long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    faults.push(("a varint that is too long", good_records(COUNT - 1), long.to_vec()));
    // Length 7 in six groups; then no key, value or headers.
    let padded = [0x8e, 0x80, 0x80, 0x80, 0, 0, 4, 4, 1, 1, 0, 0];
    faults.push(("a varint that is longer than it need be", good_records(COUNT - 1), padded.to_vec()));
    faults
}

type HeaderEdit = fn(&mut BatchHeader);

const HEADER_FAULTS: &[(&str, HeaderEdit)] = &[
    ("one record more", |header| {
        header.record_count += 1;
        header.last_offset_delta += 1;
    }),
    ("five instead of three", |header| {
        header.record_count = 5;
        header.last_offset_delta = 4;
    }),
    ("one record less", |header| {
        header.record_count -= 1;
        header.last_offset_delta -= 1;
    }),
    ("a count that isn't the offsets'", |header| header.record_count += 1),
    ("a greater last offset", |header| header.last_offset_delta += 1),
    ("a smaller last offset", |header| header.last_offset_delta -= 1),
    ("last offset 0", |header| header.last_offset_delta = 0),
    ("a negative last offset", |header| header.last_offset_delta = -1),
    ("the least last offset", |header| header.last_offset_delta = i32::MIN),
    ("the greatest last offset", |header| header.last_offset_delta = i32::MAX),
    ("no records", |header| {
        header.record_count = 0;
        header.last_offset_delta = -1;
    }),
    ("no records, last offset 0", |header| {
        header.record_count = 0;
        header.last_offset_delta = 0;
    }),
    ("a negative count", |header| header.record_count = -1),
    ("the least count", |header| header.record_count = i32::MIN),
    ("the greatest count", |header| {
        header.record_count = i32::MAX;
        header.last_offset_delta = i32::MAX - 1;
    }),
    ("base offset 1", |header| header.base_offset = Offset(1)),
    ("base offset -1", |header| header.base_offset = Offset(-1)),
    ("the greatest base offset", |header| header.base_offset = Offset(i64::MAX)),
    ("a leader epoch", |header| header.partition_leader_epoch = LeaderEpoch(77)),
    ("a base timestamp of -1", |header| header.base_timestamp = TimestampMs(-1)),
    ("a base timestamp of -2", |header| header.base_timestamp = TimestampMs(-2)),
    ("the least base timestamp", |header| header.base_timestamp = TimestampMs(i64::MIN)),
    ("the least base timestamp but one", |header| header.base_timestamp = TimestampMs(i64::MIN + 1)),
    ("the greatest base timestamp", |header| header.base_timestamp = TimestampMs(i64::MAX)),
    ("a base timestamp in the future", |header| header.base_timestamp = TimestampMs(FUTURE_MS)),
    ("a greatest timestamp too early", |header| header.max_timestamp = TimestampMs(PAST_MS)),
    ("a greatest timestamp too late", |header| header.max_timestamp = TimestampMs(PAST_MS + DAYS_MS)),
    ("a greatest timestamp in the future", |header| header.max_timestamp = TimestampMs(FUTURE_MS)),
    ("a greatest timestamp of -1", |header| header.max_timestamp = TimestampMs(-1)),
    ("the least greatest timestamp", |header| header.max_timestamp = TimestampMs(i64::MIN)),
    ("the least greatest timestamp but one", |header| header.max_timestamp = TimestampMs(i64::MIN + 1)),
    ("the append's time", |header| header.attributes |= 1 << 3),
    ("the append's time and none", |header| {
        header.attributes |= 1 << 3;
        header.max_timestamp = TimestampMs(-1);
    }),
    ("control records", |header| header.attributes |= 1 << 5),
    ("a delete horizon", |header| header.attributes |= 1 << 6),
    ("an unknown attribute", |header| header.attributes |= 1 << 7),
    ("all unknown attributes", |header| header.attributes |= !0x7f),
    ("codec 5", |header| header.attributes = (header.attributes & !7) | 5),
    ("codec 6", |header| header.attributes = (header.attributes & !7) | 6),
    ("codec 7", |header| header.attributes = (header.attributes & !7) | 7),
    ("the next codec", |header| header.attributes = (header.attributes & !7) | (((header.attributes & 7) + 1) % 5)),
];

const PRODUCER_FIELDS: &[(&str, HeaderEdit)] = &[
    ("the first batch", |_| ()),
    ("a later sequence", |header| header.base_sequence = 17),
    ("the last sequence", |header| header.base_sequence = i32::MAX),
    ("sequence -1", |header| header.base_sequence = -1),
    ("sequence -2", |header| header.base_sequence = -2),
    ("epoch -1", |header| header.producer_epoch = ProducerEpoch(-1)),
    ("epoch -2", |header| header.producer_epoch = ProducerEpoch(-2)),
    ("the greatest epoch", |header| header.producer_epoch = ProducerEpoch(i16::MAX)),
    ("id -1 with the rest", |header| header.producer_id = ProducerId(-1)),
    ("id -2", |header| header.producer_id = ProducerId(-2)),
    ("the greatest id", |header| header.producer_id = ProducerId(i64::MAX)),
    ("id -1 with a sequence", |header| {
        header.producer_id = ProducerId(-1);
        header.producer_epoch = ProducerEpoch(-1);
    }),
    ("a transaction", |header| header.attributes |= 1 << 4),
    ("a transaction of nobody", |header| {
        header.attributes |= 1 << 4;
        header.producer_id = ProducerId(-1);
        header.producer_epoch = ProducerEpoch(-1);
        header.base_sequence = -1;
    }),
    ("a transaction of epoch -1", |header| {
        header.attributes |= 1 << 4;
        header.producer_epoch = ProducerEpoch(-1);
    }),
    ("a marker", |header| header.attributes |= 1 << 4 | 1 << 5),
];
