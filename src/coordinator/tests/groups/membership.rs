//! The classic protocol: joining, syncing, heartbeats, leaving, and what happens when somebody doesn't.

use ringlog_coordinator::group::{GroupConfig, Token};
use ringlog_protocol::Message;
use ringlog_protocol::StrBytes;
use ringlog_protocol::coordinator_records::group::GroupMetadataValue;
use ringlog_protocol::messages::*;
use ringlog_types::ErrorCode;

use crate::harness::{Harness, join, sync, text};

/// The value of the last record, as `GroupMetadata` version 3.
fn last_group_record(harness: &Harness) -> GroupMetadataValue {
    let (record, _) = harness.log.last().unwrap();
    assert_eq!(&record.key[..2], &[0, 2]);
    let value = record.value.clone().unwrap();
    assert_eq!(&value[..2], &[0, 3]);
    GroupMetadataValue::from_bytes(value.slice(2..), 3).unwrap()
}

#[test]
fn a_first_member_waits_for_the_initial_delay_and_its_group_is_written_twice() {
    let mut harness = Harness::new();
    let (member, token) = harness.join_new("g");
    assert_eq!(harness.state("g"), "PreparingRebalance");
    let first = last_group_record(&harness);
    assert_eq!((first.generation, first.protocol_type.as_str(), first.protocol, first.leader), (0, "", None, None));

    harness.pass_ms(2_999);
    assert!(harness.answer::<JoinGroupResponse>(token).is_none());
    harness.pass_ms(1);
    let joined: JoinGroupResponse = harness.answer(token).unwrap();
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.leader, member);
    assert_eq!(joined.protocol_name, Some(text("range")));
    assert_eq!(joined.members.len(), 1);
    assert!(member.starts_with("client-") && member.len() == "client-".len() + 36);

    harness.sync_all("g", 1, std::slice::from_ref(&member));
    assert_eq!(harness.state("g"), "Stable");
    let full = last_group_record(&harness);
    assert_eq!((full.generation, full.protocol_type.as_str(), full.members.len()), (1, "consumer", 1));
    assert_eq!(full.leader, Some(member.clone()));
    assert_eq!(harness.log.len(), 2);
    assert_eq!(harness.heartbeat("g", 1, &member), ErrorCode::None);
}

#[test]
fn the_initial_delay_is_prolonged_while_members_arrive_up_to_the_rebalance_timeout() {
    let mut harness = Harness::new();
    let short = |member: &str| JoinGroupRequest { rebalance_timeout_ms: 7_000, ..join("g", member) };
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let answer: JoinGroupResponse = harness.call(short(""), 9);
        tokens.push(harness.send(short(&answer.member_id), 9));
        harness.pass_ms(2_000);
    }
    // 8 s have gone by: three delays of 3 s would be 9 s, but 7 s are the limit.
    let answered = tokens.iter().filter(|token| harness.replies.contains_key(token)).count();
    assert!(answered >= 3, "{answered} are answered");
}

#[test]
fn a_member_that_comes_later_starts_a_rebalance_that_all_must_join() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    let (second, waiting) = harness.join_new("g");
    assert!(harness.answer::<JoinGroupResponse>(waiting).is_none());
    assert_eq!(harness.heartbeat("g", 1, &members[0]), ErrorCode::RebalanceInProgress);
    let first = harness.send(join("g", &members[0]), 9);
    let first: JoinGroupResponse = harness.answer(first).unwrap();
    let second_answer: JoinGroupResponse = harness.answer(waiting).unwrap();
    assert_eq!((first.generation_id, second_answer.generation_id), (2, 2));
    assert_eq!(first.leader, members[0]);
    assert_eq!((first.members.len(), second_answer.members.len()), (2, 0));
    harness.sync_all("g", 2, &[members[0].clone(), second.clone()]);
    assert_eq!(harness.heartbeat("g", 1, &second), ErrorCode::IllegalGeneration);
    assert_eq!(harness.heartbeat("g", 2, &text("stranger")), ErrorCode::UnknownMemberId);
    assert_eq!(harness.describe("g").members.len(), 2);
}

#[test]
fn who_does_not_rejoin_within_the_rebalance_timeout_is_out() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 2);
    let (_, third) = harness.join_new("g");
    let first = harness.send(join("g", &members[0]), 9);
    // The second keeps its session but doesn't rejoin.
    for _ in 0..11 {
        harness.pass_ms(5_000);
        assert_eq!(harness.heartbeat("g", 1, &members[1]), ErrorCode::RebalanceInProgress);
    }
    assert!(harness.answer::<JoinGroupResponse>(first).is_none());
    harness.pass_ms(5_000);
    let first: JoinGroupResponse = harness.answer(first).unwrap();
    assert_eq!((first.generation_id, first.members.len()), (2, 2));
    assert_eq!(harness.answer::<JoinGroupResponse>(third).unwrap().generation_id, 2);
    assert_eq!(harness.heartbeat("g", 1, &members[1]), ErrorCode::UnknownMemberId);
}

#[test]
fn a_session_without_heartbeats_ends_and_the_others_rebalance() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 3);
    for _ in 0..3 {
        harness.pass_ms(4_000);
        let expected = harness.heartbeat("g", 1, &members[0]);
        harness.heartbeat("g", 1, &members[1]);
        assert!(matches!(expected, ErrorCode::None | ErrorCode::RebalanceInProgress));
    }
    assert_eq!(harness.heartbeat("g", 1, &members[0]), ErrorCode::RebalanceInProgress);
    assert_eq!(harness.heartbeat("g", 1, &members[2]), ErrorCode::UnknownMemberId);
    let first = harness.send(join("g", &members[0]), 9);
    let second = harness.send(join("g", &members[1]), 9);
    assert_eq!(harness.answer::<JoinGroupResponse>(first).unwrap().members.len(), 2);
    assert_eq!(harness.answer::<JoinGroupResponse>(second).unwrap().generation_id, 2);
}

#[test]
fn the_last_member_leaves_an_empty_group_of_a_higher_generation() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    harness.writes_at_once = false;
    let request = LeaveGroupRequest {
        group_id: text("g"),
        members: vec![leave_group_request::MemberIdentity { member_id: members[0].clone(), ..Default::default() }],
        ..Default::default()
    };
    let token = harness.send(request, 5);
    assert!(!harness.replies.contains_key(&token), "confirmed before it is written");
    harness.finish_writes();
    assert_eq!(harness.answer::<LeaveGroupResponse>(token).unwrap().members[0].error_code, 0);
    let record = last_group_record(&harness);
    assert_eq!((record.generation, record.protocol, record.leader, record.members.len()), (2, None, None, 0));
    assert_eq!(record.protocol_type.as_str(), "consumer");
    assert_eq!(harness.state("g"), "Empty");
    assert_eq!(harness.leave("g", &members[0]), ErrorCode::UnknownMemberId.code());
}

#[test]
fn who_leaves_with_an_id_that_was_only_given_out_makes_the_others_join_again() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    let reserved: JoinGroupResponse = harness.call(join("g", ""), 9);
    assert_eq!(reserved.error_code, ErrorCode::MemberIdRequired.code());
    assert_eq!(harness.leave("g", &text("stranger")), ErrorCode::UnknownMemberId.code());
    assert_eq!(harness.state("g"), "Stable");
    assert_eq!(harness.leave("g", &reserved.member_id), 0);
    assert_eq!(harness.state("g"), "PreparingRebalance");
    assert_eq!(harness.heartbeat("g", 1, &members[0]), ErrorCode::RebalanceInProgress);
}

#[test]
fn members_that_do_not_sync_are_expelled() {
    let mut harness = Harness::new();
    let (leader, first) = harness.join_new("g");
    let (other, second) = harness.join_new("g");
    harness.pass_ms(6_000);
    let answer: JoinGroupResponse = harness.answer(first).unwrap();
    harness.answer::<JoinGroupResponse>(second).unwrap();
    let (leader, other) = if answer.leader == leader { (leader, other) } else { (other, leader) };
    let waiting = harness.send(sync("g", 1, &other, &[]), 5);
    for _ in 0..12 {
        harness.pass_ms(5_000);
        harness.heartbeat("g", 1, &leader);
    }
    let answer: SyncGroupResponse = harness.answer(waiting).unwrap();
    assert_eq!(answer.error_code, ErrorCode::RebalanceInProgress.code());
    assert_eq!(harness.heartbeat("g", 1, &leader), ErrorCode::UnknownMemberId);
    let again = harness.send(join("g", &other), 9);
    assert_eq!(harness.answer::<JoinGroupResponse>(again).unwrap().leader, other);
}

#[test]
fn an_assignment_that_is_not_written_reaches_nobody() {
    let mut harness = Harness::new();
    let (member, token) = harness.join_new("g");
    harness.pass_ms(6_000);
    harness.answer::<JoinGroupResponse>(token).unwrap();
    harness.writes_at_once = false;
    let waiting = harness.send(sync("g", 1, &member, std::slice::from_ref(&member)), 5);
    assert!(!harness.replies.contains_key(&waiting));
    harness.fail_writes(ErrorCode::NotEnoughReplicas);
    let answer: SyncGroupResponse = harness.answer(waiting).unwrap();
    assert_eq!(answer.error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(harness.state("g"), "PreparingRebalance");
    let again = harness.send(join("g", &member), 9);
    assert_eq!(harness.answer::<JoinGroupResponse>(again).unwrap().generation_id, 2);
}

#[test]
fn an_assignment_of_a_generation_that_is_over_is_dropped_when_its_write_is_done() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    let rejoin = harness.send(join("g", &members[0]), 9);
    assert_eq!(harness.answer::<JoinGroupResponse>(rejoin).unwrap().generation_id, 2);
    harness.writes_at_once = false;
    let waiting = harness.send(sync("g", 2, &members[0], &members), 5);
    let (_, second) = harness.join_new("g");
    assert_eq!(harness.answer::<SyncGroupResponse>(waiting).unwrap().error_code, ErrorCode::RebalanceInProgress.code());
    harness.finish_writes();
    assert_eq!(harness.state("g"), "PreparingRebalance");
    let first = harness.send(join("g", &members[0]), 9);
    assert_eq!(harness.answer::<JoinGroupResponse>(first).unwrap().generation_id, 3);
    assert_eq!(harness.answer::<JoinGroupResponse>(second).unwrap().generation_id, 3);
}

#[test]
fn joins_that_make_no_sense_are_refused() {
    let mut harness = Harness::new();
    let refused = |harness: &mut Harness, request: JoinGroupRequest| -> ErrorCode {
        let answer: JoinGroupResponse = harness.call(request, 9);
        ErrorCode::from_code(answer.error_code).unwrap()
    };
    assert_eq!(refused(&mut harness, join("", "")), ErrorCode::InvalidGroupId);
    let short = JoinGroupRequest { session_timeout_ms: 5_999, ..join("g", "") };
    assert_eq!(refused(&mut harness, short), ErrorCode::InvalidSessionTimeout);
    let long = JoinGroupRequest { session_timeout_ms: 1_800_001, ..join("g", "") };
    assert_eq!(refused(&mut harness, long), ErrorCode::InvalidSessionTimeout);
    assert_eq!(refused(&mut harness, join("nowhere", "someone")), ErrorCode::UnknownMemberId);
    let empty = JoinGroupRequest { protocols: Vec::new(), ..join("g", "") };
    assert_eq!(refused(&mut harness, empty), ErrorCode::InconsistentGroupProtocol);
    harness.stable("g", 1);
    let connect = JoinGroupRequest { protocol_type: "connect".into(), ..join("g", "") };
    assert_eq!(refused(&mut harness, connect), ErrorCode::InconsistentGroupProtocol);
    let mut unknown = join("g", "");
    unknown.protocols.truncate(1);
    unknown.protocols[0].name = "other".into();
    assert_eq!(refused(&mut harness, unknown), ErrorCode::InconsistentGroupProtocol);
    let huge = JoinGroupRequest { group_instance_id: Some(text(&"x".repeat(40_000))), ..join("g", "") };
    assert_eq!(refused(&mut harness, huge), ErrorCode::InvalidRequest);
    let member = members(&mut harness).remove(0);
    let other = SyncGroupRequest { protocol_type: Some("connect".into()), ..sync("g", 1, &member, &[]) };
    let answer: SyncGroupResponse = harness.call(other, 5);
    assert_eq!(answer.error_code, ErrorCode::InconsistentGroupProtocol.code());
}

fn members(harness: &mut Harness) -> Vec<StrBytes> {
    harness.describe("g").members.into_iter().map(|member| member.member_id).collect()
}

#[test]
fn the_protocol_that_most_members_want_and_all_support_wins() {
    let mut harness = Harness::new();
    let wish = |names: &[&str], member: &str| {
        let mut request = join("g", member);
        let metadata = request.protocols[0].metadata.clone();
        request.protocols = names
            .iter()
            .map(|name| join_group_request::JoinGroupRequestProtocol { name: text(name), metadata: metadata.clone() })
            .collect();
        request
    };
    let mut tokens = Vec::new();
    for names in [&["only", "a", "b"][..], &["b", "a"], &["b", "a"]] {
        let answer: JoinGroupResponse = harness.call(wish(names, ""), 9);
        tokens.push(harness.send(wish(names, &answer.member_id), 9));
    }
    harness.pass_ms(9_000);
    for token in tokens {
        assert_eq!(harness.answer::<JoinGroupResponse>(token).unwrap().protocol_name, Some(text("b")));
    }
}

#[test]
fn a_full_group_takes_no_more_members() {
    let mut harness = Harness::with(GroupConfig { max_group_size: 2, ..GroupConfig::default() });
    let known = harness.stable("g", 2);
    let answer: JoinGroupResponse = harness.call(join("g", ""), 9);
    assert_eq!(answer.error_code, ErrorCode::GroupMaxSizeReached.code());
    assert_eq!(harness.heartbeat("g", 1, &known[1]), ErrorCode::None);
}

#[test]
fn old_clients_join_without_asking_for_an_id_and_leave_alone() {
    let mut harness = Harness::new();
    let token = harness.send(join("g", ""), 0);
    harness.pass_ms(10_000);
    let answer: JoinGroupResponse = harness.answer(token).unwrap();
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    let request = LeaveGroupRequest { group_id: text("g"), member_id: answer.member_id, ..Default::default() };
    assert_eq!(harness.call::<LeaveGroupResponse>(request.clone(), 2).error_code, 0);
    let again: LeaveGroupResponse = harness.call(request, 2);
    assert_eq!(again.error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_reserved_member_id_lapses_with_the_session_time() {
    let mut harness = Harness::new();
    let answer: JoinGroupResponse = harness.call(join("g", ""), 9);
    harness.pass_ms(10_000);
    let late: JoinGroupResponse = harness.call(join("g", &answer.member_id), 9);
    assert_eq!(late.error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_reserved_member_id_outlasts_a_rebalance_that_did_not_wait_for_it() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    let long = |member: &str| JoinGroupRequest { session_timeout_ms: 300_000, ..join("g", member) };
    let reserved: JoinGroupResponse = harness.call(long(""), 9);
    let other: JoinGroupResponse = harness.call(long(""), 9);
    let waiting = harness.send(long(&other.member_id), 9);
    let first = harness.send(join("g", &members[0]), 9);
    harness.pass_ms(60_000);
    assert_eq!(harness.answer::<JoinGroupResponse>(waiting).unwrap().generation_id, 2);
    assert_eq!(harness.answer::<JoinGroupResponse>(first).unwrap().members.len(), 2);
    let late = harness.send(long(&reserved.member_id), 9);
    assert!(!harness.replies.contains_key(&late), "it is taken in with the next generation");
    assert_eq!(harness.state("g"), "PreparingRebalance");
}

#[test]
fn a_repeated_join_or_sync_gets_the_same_answer_again() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 2);
    let again: JoinGroupResponse = harness.call(join("g", &members[1]), 9);
    assert_eq!((again.generation_id, again.error_code, again.members.len()), (1, 0, 0));
    let answer: SyncGroupResponse = harness.call(sync("g", 1, &members[1], &[]), 5);
    assert_eq!(answer.assignment, format!("for {}", members[1]).into_bytes());
    // The leader asks for a new assignment by joining.
    let leader = harness.send(join("g", &members[0]), 9);
    assert!(harness.answer::<JoinGroupResponse>(leader).is_none());
    assert_eq!(harness.state("g"), "PreparingRebalance");
}

#[test]
fn a_stable_group_survives_a_move_and_its_members_get_new_sessions() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 2);
    let before = harness.describe("g");
    harness.fail_over();
    assert_eq!(harness.describe("g"), before);
    assert_eq!(harness.heartbeat("g", 1, &members[0]), ErrorCode::None);
    harness.pass_ms(9_000);
    assert_eq!(harness.heartbeat("g", 1, &members[0]), ErrorCode::None);
    harness.pass_ms(2_000);
    assert_eq!(harness.heartbeat("g", 1, &members[1]), ErrorCode::UnknownMemberId);
    assert_eq!(harness.heartbeat("g", 1, &members[0]), ErrorCode::RebalanceInProgress);
}

#[test]
fn whoever_waits_when_leadership_is_lost_is_told() {
    let mut harness = Harness::new();
    harness.stable("h", 1);
    let (_, joining) = harness.join_new("g");
    let coordinator = std::mem::replace(
        &mut harness.coordinator,
        ringlog_coordinator::group::GroupCoordinator::new(GroupConfig::default(), 9),
    );
    let effects = coordinator.resign();
    let joins: Vec<(Token, i16)> = effects
        .replies
        .into_iter()
        .map(|(token, body)| (token, JoinGroupResponse::try_from(body).unwrap().error_code))
        .collect();
    assert_eq!(joins, [(joining, ErrorCode::NotCoordinator.code())]);
}

#[test]
fn a_caller_that_went_away_is_not_answered() {
    let mut harness = Harness::new();
    let (_, token) = harness.join_new("g");
    harness.coordinator.forget(token);
    harness.pass_ms(30_000);
    assert!(!harness.replies.contains_key(&token));
}
