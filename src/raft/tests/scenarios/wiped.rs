//! A voter that comes back with an empty disk counts for nothing that it had.

use bytes::Bytes;
use ringlog_raft::{Action, Event, LoadedState, Memory, Raft, SnapshotId};
use ringlog_types::{LeaderEpoch, Offset};

use super::node::{Vote, ask, at, config, elected, empty, fetch_of, start, vote, vote_answer};

/// Five voters; the leader and voters 2 and 3 have everything up to offset 1, and voter 2 alone has offset 1 to 2.
fn second_record_on_leader_and_voter_two() -> Raft {
    let mut raft = elected(&[1, 2, 3, 4, 5]);
    for id in [2, 3] {
        let _ = ask(&mut raft, fetch_of(id, id as u8, 1, 1, 1), at(5_010));
    }
    assert_eq!(raft.high_watermark(), Some(Offset(1)));
    let _ = raft.propose(LeaderEpoch(1), &[Bytes::from_static(b"record")], at(5_020)).unwrap().1;
    let _ = raft.step(Event::LogFlushed, at(5_021));
    let _ = ask(&mut raft, fetch_of(2, 2, 1, 2, 1), at(5_022));
    assert_eq!(raft.high_watermark(), Some(Offset(1)), "two of five have it");
    raft
}

#[test]
fn a_voter_whose_disk_was_replaced_no_longer_counts_for_what_it_had() {
    let mut raft = second_record_on_leader_and_voter_two();
    // Its disk is new and empty; the quorum knows no directories.
    let _ = ask(&mut raft, fetch_of(2, 22, 1, 0, 0), at(5_030));
    let _ = ask(&mut raft, fetch_of(3, 3, 1, 2, 1), at(5_031));
    assert_eq!(raft.high_watermark(), Some(Offset(1)), "only the leader and voter 3 have the second record");
    let _ = ask(&mut raft, fetch_of(2, 22, 1, 2, 1), at(5_040));
    assert_eq!(raft.high_watermark(), Some(Offset(2)), "it has the record again");
}

#[test]
fn nor_does_one_that_is_sent_to_a_snapshot_or_whose_log_parts_from_the_leaders() {
    let mut raft = second_record_on_leader_and_voter_two();
    let id = SnapshotId { end_offset: Offset(1), epoch: LeaderEpoch(1) };
    let _ = raft.step(Event::SnapshotCreated { id }, at(5_025));
    let _ = ask(&mut raft, fetch_of(2, 22, 1, 0, 0), at(5_030));
    let _ = ask(&mut raft, fetch_of(3, 3, 1, 2, 1), at(5_031));
    assert_eq!(raft.high_watermark(), Some(Offset(1)), "voter 2 fetches a snapshot first");

    let mut raft = second_record_on_leader_and_voter_two();
    let _ = ask(&mut raft, fetch_of(2, 2, 1, 7, 0), at(5_030));
    let _ = ask(&mut raft, fetch_of(3, 3, 1, 2, 1), at(5_031));
    assert_eq!(raft.high_watermark(), Some(Offset(1)), "voter 2 has to cut its log first");
}

fn blank() -> Raft {
    start(config(1), LoadedState { memory: Memory::Blank, ..empty(&[1, 2, 3]) }).0
}

/// Its vote could make a leader of a node that lacks what this one had helped to commit.
#[test]
fn a_voter_without_any_memory_votes_for_nobody_who_has_records() {
    for pre_vote in [true, false] {
        let mut raft = blank();
        let asked = ask(&mut raft, vote(&Vote { epoch: 6, id: 2, last: (4, 10), pre_vote }), at(1));
        assert!(!vote_answer(asked).2);
        assert!(raft.is_rebuilding());
    }
    // Nor once it has some of the records, for anybody.
    let mut loaded = LoadedState { memory: Memory::Blank, ..empty(&[1, 2, 3]) };
    loaded.log_end_offset = Offset(3);
    let (mut raft, _) = start(config(1), loaded);
    let asked = ask(&mut raft, vote(&Vote { epoch: 1, id: 2, last: (0, 0), pre_vote: false }), at(1));
    assert!(!vote_answer(asked).2);
}

#[test]
fn voters_of_a_new_quorum_elect_one_of_them_and_know_then_that_it_is_new() {
    let mut raft = blank();
    let asked = ask(&mut raft, vote(&Vote { epoch: 1, id: 2, last: (0, 0), pre_vote: true }), at(1));
    assert!(vote_answer(asked).2 && raft.is_rebuilding(), "a pre-vote decides nothing");
    let granted = ask(&mut raft, vote(&Vote { epoch: 1, id: 2, last: (0, 0), pre_vote: false }), at(2));
    assert!(matches!(&granted.reads[..], [Action::Rebuilt]), "{granted:?}");
    assert!(vote_answer(granted).2 && !raft.is_rebuilding());
    // From then on it votes as everybody does.
    let later = ask(&mut raft, vote(&Vote { epoch: 3, id: 3, last: (1, 5), pre_vote: false }), at(3));
    assert!(vote_answer(later).2);
    // One that is elected itself knows it, too.
    let mut raft = super::node::elected_from(LoadedState { memory: Memory::Blank, ..empty(&[1, 2, 3]) });
    assert!(raft.is_leader() && !raft.is_rebuilding());
    let _ = raft.step(Event::Tick, at(5_003));
}
