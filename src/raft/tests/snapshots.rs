//! Snapshot files and the bootstrap snapshot, against files that Kafka 4.3.1 wrote.

use ringlog_protocol::records::BatchIter;
use ringlog_raft::snapshot::{self, SnapshotError, SnapshotWriter, bootstrap_snapshot};
use ringlog_raft::{
    ControlHistory, Endpoint, Endpoints, EpochStart, LeaderEpochs, LoadedState, Memory, QuorumState, ReplicaKey,
    SnapshotId, VersionRange, Voter, VoterSet,
};
use ringlog_types::{LeaderEpoch, NodeId, Offset, TimestampMs};

const STANDALONE: &[u8] = include_bytes!("data/standalone-0-0.checkpoint");
const INITIAL: &[u8] = include_bytes!("data/initial-controllers-0-0.checkpoint");
const BOOTSTRAP: &[u8] = include_bytes!("data/bootstrap.checkpoint");
const IMAGE: &[u8] = include_bytes!("data/00000000000000000228-0000000001.checkpoint");
const LOG: &[u8] = include_bytes!("data/dynamic.log");

fn voter(id: i32, directory_id: &str, port: u16) -> Voter {
    Voter {
        key: ReplicaKey { id: NodeId(id), directory_id: Some(directory_id.parse().unwrap()) },
        endpoints: Endpoints::from([("CONTROLLER".to_owned(), Endpoint { host: "127.0.0.1".to_owned(), port })]),
        kraft_version: VersionRange::SUPPORTED,
    }
}

/// Writes a snapshot with the records of `file`, each batch at the time that it has there.
fn rewrite(file: &[u8], id: SnapshotId, voters: Option<&VoterSet>) -> Vec<u8> {
    let times: Vec<TimestampMs> = BatchIter::new(file).map(|batch| batch.unwrap().header.base_timestamp).collect();
    let mut records = Vec::new();
    let summary = snapshot::read(file, |record| records.push(record.to_vec())).unwrap();
    let header_time = summary.last_contained_log_timestamp;
    let mut writer = SnapshotWriter::new(id, header_time, voters.map(|voters| (1, voters)), times[0]);
    for record in &records {
        writer.append(record, times[1]);
    }
    writer.finish(*times.last().unwrap()).concat()
}

#[test]
fn files_of_kafka_are_written_byte_for_byte() {
    let standalone = snapshot::read(STANDALONE, |_| panic!("no data")).unwrap();
    assert_eq!(standalone.kraft_version, Some(1));
    let voters = standalone.voters.unwrap();
    assert_eq!(voters.len(), 1);
    assert_eq!(voters.endpoint(NodeId(3), "CONTROLLER").unwrap().port, 38393);
    assert_eq!(rewrite(STANDALONE, SnapshotId::BOOTSTRAP, Some(&voters)), STANDALONE);

    let voters =
        VoterSet::new([voter(3, "JEXY6aqzQY-32P5TStzaFg", 38393), voter(4, "MvDxzVmcRsaTz33bUuRU6A", 38493)]).unwrap();
    assert_eq!(snapshot::read(INITIAL, |_| {}).unwrap().voters.as_ref(), Some(&voters));
    // Kafka writes voters in no particular order (here 4, 3), so only the length and the content can be equal.
    let rewritten = rewrite(INITIAL, SnapshotId::BOOTSTRAP, Some(&voters));
    assert_eq!(rewritten.len(), INITIAL.len());
    assert_eq!(snapshot::read(&rewritten, |_| {}), snapshot::read(INITIAL, |_| {}));

    assert_eq!(rewrite(BOOTSTRAP, SnapshotId::BOOTSTRAP, None), BOOTSTRAP);
    let id = SnapshotId { end_offset: Offset(228), epoch: LeaderEpoch(1) };
    assert_eq!(rewrite(IMAGE, id, None), IMAGE);
    assert!(snapshot::read(IMAGE, |_| {}).unwrap().record_count > 50);
}

#[test]
fn bootstrap_snapshots_are_read_back() {
    let now = TimestampMs(1_795_324_438_455);
    let first = voter(7, "JEXY6aqzQY-32P5TStzaFg", 9093);
    let file = bootstrap_snapshot([first.clone()], now).unwrap();
    assert_eq!(file.len(), STANDALONE.len());
    let summary = snapshot::read(&file, |_| {}).unwrap();
    assert_eq!(summary.voters, VoterSet::new([first]));
    assert_eq!(bootstrap_snapshot([], now), None);
}

#[test]
fn every_damage_is_found() {
    for length in 0..IMAGE.len() {
        assert!(snapshot::read(&IMAGE[..length], |_| {}).is_err(), "cut at {length}");
    }
    let mut damaged = IMAGE.to_vec();
    for position in (0..IMAGE.len()).step_by(7) {
        damaged[position] ^= 0x10;
        let changed = snapshot::read(&damaged, |_| {});
        // The leader epoch of a batch lies outside of its checksum and means nothing here.
        if changed.is_ok() {
            assert!(is_in_leader_epoch(position), "flipped at {position}");
        }
        damaged[position] ^= 0x10;
    }
    let doubled = [STANDALONE, STANDALONE].concat();
    assert_eq!(snapshot::read(&doubled, |_| {}), Err(SnapshotError::OutOfOrder { position: STANDALONE.len() }));
}

/// As it is read from a file: what begins a batch stays for the next turn.
fn read_in_pieces(file: &[u8], piece_len: usize) -> Result<(snapshot::SnapshotSummary, Vec<Vec<u8>>), SnapshotError> {
    let (mut reader, mut records, mut held) = (snapshot::SnapshotReader::default(), Vec::new(), Vec::new());
    for piece in file.chunks(piece_len).chain([&[][..]]) {
        held.extend_from_slice(piece);
        let read = reader.read(&held, piece.is_empty(), |record| records.push(record.to_vec()))?;
        held.drain(..read);
    }
    Ok((reader.finish()?, records))
}

#[test]
fn pieces_of_any_size_make_the_same_snapshot() {
    let whole = read_in_pieces(IMAGE, IMAGE.len()).unwrap();
    for piece_len in [1, 7, 61, 1000, IMAGE.len() - 1] {
        assert_eq!(read_in_pieces(IMAGE, piece_len).unwrap(), whole, "pieces of {piece_len}");
    }
    for length in (0..IMAGE.len()).step_by(11) {
        assert!(read_in_pieces(&IMAGE[..length], 64).is_err(), "cut at {length}");
    }
    let doubled = [STANDALONE, STANDALONE].concat();
    let out_of_order = SnapshotError::OutOfOrder { position: STANDALONE.len() };
    assert_eq!(read_in_pieces(&doubled, 10), Err(out_of_order));
}

#[test]
fn nobody_waits_for_what_a_damaged_header_claims() {
    let mut damaged = STANDALONE.to_vec();
    damaged[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    let outcome = snapshot::SnapshotReader::default().read(&damaged, false, |_| {});
    assert!(matches!(outcome, Err(SnapshotError::Batch { position: 0, .. })), "{outcome:?}");
}

fn is_in_leader_epoch(position: usize) -> bool {
    let mut batches = BatchIter::new(IMAGE);
    let mut start = 0;
    while batches.next().is_some() {
        if (start + 12..start + 16).contains(&position) {
            return true;
        }
        start = batches.position();
    }
    false
}

#[test]
fn large_snapshots_are_cut_into_batches() {
    let id = SnapshotId { end_offset: Offset(5000), epoch: LeaderEpoch(3) };
    let now = TimestampMs(5);
    let mut writer = SnapshotWriter::new(id, now, None, now);
    for index in 0..2500_u32 {
        writer.append(&index.to_be_bytes(), now);
    }
    let mut file = writer.take_ready().concat();
    file.extend(writer.finish(now).concat());
    let counts: Vec<i32> = BatchIter::new(&file).map(|batch| batch.unwrap().header.record_count).collect();
    assert_eq!(counts, [1, 1024, 1024, 452, 1]);
    let mut next = 0_u32;
    snapshot::read(&file, |record| {
        assert_eq!(record, next.to_be_bytes());
        next += 1;
    })
    .unwrap();
    assert_eq!(next, 2500);
}

#[test]
fn the_log_of_a_dynamic_quorum_names_its_voters() {
    let mut history = ControlHistory::new(VoterSet::default());
    history.apply_batches(LOG).unwrap();
    assert_eq!(history.kraft_version(), 1);
    assert_eq!(history.voters().len(), 1);
    assert_eq!(history.voters_offset(), Some(Offset(2)));
    assert_eq!(history.membership_at(Offset(3)).map(|(level, _)| level), Some(1));
    assert_eq!(history.membership_at(Offset(1)), None);
    history.truncate_to(Offset(2));
    assert!(history.voters().is_empty());
}

#[test]
fn quorum_state_files_of_kafka_come_back() {
    for file in [&include_bytes!("data/quorum-state-0")[..], include_bytes!("data/quorum-state-1")] {
        assert_eq!(QuorumState::from_json(file).unwrap().to_json().as_bytes(), file);
    }
}

fn loaded(log: (i64, i64), epochs: &[(i32, i64)], snapshots: &[(i64, i32)]) -> LoadedState {
    let epochs =
        epochs.iter().map(|&(epoch, start)| EpochStart { epoch: LeaderEpoch(epoch), start_offset: Offset(start) });
    LoadedState {
        quorum_state: None,
        log_start_offset: Offset(log.0),
        log_end_offset: Offset(log.1),
        epochs: LeaderEpochs::new(epochs),
        snapshots: snapshots.iter().map(|&(end, epoch)| snapshot_id(end, epoch)).collect(),
        history: ControlHistory::default(),
        memory: Memory::Whole,
    }
}

fn snapshot_id(end_offset: i64, epoch: i32) -> SnapshotId {
    SnapshotId { end_offset: Offset(end_offset), epoch: LeaderEpoch(epoch) }
}

#[test]
fn a_log_that_parts_from_its_snapshot_begins_anew_behind_it() {
    for (log, epochs, snapshots, restart) in [
        // As an orderly stop leaves it, with and without the beginning.
        ((0, 60), &[(1, 0), (4, 30)][..], &[(0, 0), (40, 4)][..], None),
        ((40, 60), &[(4, 40)], &[(40, 3), (50, 4)], None),
        ((40, 60), &[(5, 40)], &[(40, 4)], None),
        ((20, 60), &[(5, 40)], &[(40, 4)], None),
        ((40, 40), &[], &[(40, 4)], None),
        ((0, 0), &[], &[(0, 0)], None),
        // A snapshot was fetched, and the node stopped before it took the log's place: of a log that was behind, or of
        // one to whose epoch's leader nobody listened, shorter or longer than the snapshot.
        ((0, 60), &[(1, 0), (4, 30)], &[(100, 4)], Some((100, 4))),
        ((0, 60), &[(1, 0), (4, 30)], &[(100, 6)], Some((100, 6))),
        ((0, 60), &[(1, 0), (5, 50)], &[(100, 4)], Some((100, 4))),
        ((0, 120), &[(1, 0), (5, 50)], &[(100, 4)], Some((100, 4))),
        ((0, 120), &[(1, 0), (3, 50)], &[(100, 4)], Some((100, 4))),
        // The log is empty already, but its epochs are those of before.
        ((100, 100), &[(1, 0), (5, 50)], &[(100, 4)], Some((100, 4))),
    ] {
        let found = loaded(log, epochs, snapshots).log_must_restart_at();
        assert_eq!(found, restart.map(|(end, epoch)| snapshot_id(end, epoch)), "{log:?} {epochs:?} {snapshots:?}");
    }
}
