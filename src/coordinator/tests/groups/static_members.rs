//! Members with an instance id (KIP-345, KIP-814).

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::leave_group_request::MemberIdentity;
use ringlog_protocol::messages::*;
use ringlog_types::ErrorCode;

use crate::harness::{Harness, join, join_static, sync, text};

/// A stable group of the static members a and b; the leader is first.
fn stable(harness: &mut Harness) -> Vec<(StrBytes, &'static str)> {
    let tokens = ["a", "b"].map(|instance| (instance, harness.send(join_static("g", "", instance), 9)));
    harness.pass_ms(10_000);
    let mut members = Vec::new();
    for (instance, token) in tokens {
        let answer: JoinGroupResponse = harness.answer(token).unwrap();
        assert!(answer.member_id.starts_with(instance));
        let at = if answer.leader == answer.member_id { 0 } else { members.len() };
        members.insert(at, (answer.member_id, instance));
    }
    let ids: Vec<StrBytes> = members.iter().map(|(id, _)| id.clone()).collect();
    harness.sync_all("g", 1, &ids);
    members
}

#[test]
fn a_restarted_member_takes_its_place_again_without_a_rebalance() {
    let mut harness = Harness::new();
    let members = stable(&mut harness);
    let (old, instance) = members[1].clone();
    harness.writes_at_once = false;
    let token = harness.send(join_static("g", "", instance), 9);
    assert!(!harness.replies.contains_key(&token), "answered before the new id is written");
    harness.finish_writes();
    let answer: JoinGroupResponse = harness.answer(token).unwrap();
    assert_eq!((answer.error_code, answer.generation_id, answer.skip_assignment), (0, 1, false));
    assert_ne!(answer.member_id, old);
    assert_eq!(answer.leader, members[0].0);
    harness.writes_at_once = true;
    let assignment: SyncGroupResponse = harness.call(sync("g", 1, &answer.member_id, &[]), 5);
    assert_eq!(assignment.assignment, format!("for {old}").into_bytes());
    assert_eq!(harness.state("g"), "Stable");

    let heartbeat = |member: &StrBytes| HeartbeatRequest {
        group_id: text("g"),
        generation_id: 1,
        member_id: member.clone(),
        group_instance_id: Some(text(instance)),
    };
    let fenced: HeartbeatResponse = harness.call(heartbeat(&old), 4);
    assert_eq!(fenced.error_code, ErrorCode::FencedInstanceId.code());
    let alive: HeartbeatResponse = harness.call(heartbeat(&answer.member_id), 4);
    assert_eq!(alive.error_code, 0);
    harness.fail_over();
    let alive: HeartbeatResponse = harness.call(heartbeat(&answer.member_id), 4);
    assert_eq!(alive.error_code, 0);
}

#[test]
fn a_restarted_leader_skips_the_assignment_or_believes_that_it_follows() {
    for (version, skips) in [(9, true), (8, false)] {
        let mut harness = Harness::new();
        let members = stable(&mut harness);
        let (old, instance) = members[0].clone();
        let answer: JoinGroupResponse = harness.call(join_static("g", "", instance), version);
        assert_eq!(answer.skip_assignment, skips);
        if skips {
            assert_eq!(answer.leader, answer.member_id);
            assert_eq!(answer.members.len(), 2);
        } else {
            assert_eq!(answer.leader, old);
            assert!(answer.members.is_empty());
        }
        let assignment: SyncGroupResponse = harness.call(sync("g", 1, &answer.member_id, &[]), 5);
        assert_eq!(assignment.assignment, format!("for {old}").into_bytes());
    }
}

#[test]
fn a_replacement_that_is_not_written_is_undone() {
    let mut harness = Harness::new();
    let members = stable(&mut harness);
    let (old, instance) = members[1].clone();
    harness.writes_at_once = false;
    let token = harness.send(join_static("g", "", instance), 9);
    harness.fail_writes(ErrorCode::NotLeaderOrFollower);
    assert_eq!(harness.answer::<JoinGroupResponse>(token).unwrap().error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(harness.heartbeat("g", 1, &old), ErrorCode::None);
}

#[test]
fn a_second_instance_fences_the_one_that_waits() {
    let mut harness = Harness::new();
    let first = harness.send(join_static("g", "", "a"), 9);
    let second = harness.send(join_static("g", "", "a"), 9);
    let fenced: JoinGroupResponse = harness.answer(first).unwrap();
    assert_eq!(fenced.error_code, ErrorCode::FencedInstanceId.code());
    harness.pass_ms(10_000);
    let answer: JoinGroupResponse = harness.answer(second).unwrap();
    assert_eq!((answer.error_code, answer.members.len()), (0, 1));
}

#[test]
fn a_static_member_keeps_its_place_over_a_rebalance_until_its_session_ends() {
    let mut harness = Harness::new();
    let members = stable(&mut harness);
    let third = harness.send(join_static("g", "", "c"), 9);
    let leader = harness.send(join_static("g", &members[0].0, members[0].1), 9);
    assert!(!harness.replies.contains_key(&third));
    harness.pass_ms(10_000);
    // The one that didn't rejoin is gone with its session, so nobody is waited for any longer.
    assert_eq!(harness.answer::<JoinGroupResponse>(leader).unwrap().members.len(), 2);
    assert!(harness.answer::<JoinGroupResponse>(third).is_some());
}

#[test]
fn an_administrator_removes_by_instance_id_and_each_gets_its_own_result() {
    let mut harness = Harness::new();
    let members = stable(&mut harness);
    let identity = |member: &str, instance: Option<&str>| MemberIdentity {
        member_id: text(member),
        group_instance_id: instance.map(text),
        ..Default::default()
    };
    let request = LeaveGroupRequest {
        group_id: text("g"),
        members: vec![
            identity("", Some(members[1].1)),
            identity("", Some("nobody")),
            identity("wrong", Some(members[0].1)),
            identity("", None),
        ],
        ..Default::default()
    };
    let response: LeaveGroupResponse = harness.call(request, 5);
    let codes: Vec<i16> = response.members.iter().map(|member| member.error_code).collect();
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!(codes, [0, unknown, ErrorCode::FencedInstanceId.code(), unknown]);
    assert_eq!(harness.heartbeat("g", 1, &members[0].0), ErrorCode::RebalanceInProgress);
    let dynamic: JoinGroupResponse = harness.call(join("g", &members[1].0), 9);
    assert_eq!(dynamic.error_code, ErrorCode::UnknownMemberId.code());
}
