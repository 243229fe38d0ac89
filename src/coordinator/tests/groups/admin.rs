//! Listing, describing and deleting groups, and requests that concern several partitions.

use ringlog_coordinator::group::{Route, error_response, merge, partition_of_group, split};
use ringlog_protocol::messages::*;
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_types::{ErrorCode, PartitionIndex};

use crate::harness::{Harness, join, text};

fn simple_commit(harness: &mut Harness, group: &str) {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let request = OffsetCommitRequest {
        group_id: text(group),
        topics: vec![OffsetCommitRequestTopic {
            name: "orders".into(),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response: OffsetCommitResponse = harness.call(request, 9);
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut harness = Harness::new();
    harness.stable("busy", 1);
    simple_commit(&mut harness, "simple");
    let mut list = |states: &[&str], types: &[&str]| {
        let all = |filter: &[&str]| filter.iter().map(|entry| text(entry)).collect::<Vec<StrBytes>>();
        let request = ListGroupsRequest { states_filter: all(states), types_filter: all(types) };
        let response: ListGroupsResponse = harness.call(request, 5);
        let mut groups: Vec<String> = response
            .groups
            .iter()
            .map(|group| {
                format!("{} '{}' {} {}", group.group_id, group.protocol_type, group.group_state, group.group_type)
            })
            .collect();
        groups.sort();
        groups
    };
    let busy = "busy 'consumer' Stable classic".to_owned();
    let simple = "simple '' Empty classic".to_owned();
    assert_eq!(list(&[], &[]), [busy.clone(), simple.clone()]);
    assert_eq!(list(&["stable"], &[]), [busy]);
    assert_eq!(list(&["Empty"], &["classic"]), [simple]);
    assert!(list(&[], &["consumer"]).is_empty());
}

#[test]
fn a_missing_group_is_dead_and_from_version_6_on_an_error() {
    let mut harness = Harness::new();
    let request = DescribeGroupsRequest { groups: vec![text("none")], ..Default::default() };
    let old: DescribeGroupsResponse = harness.call(request.clone(), 5);
    assert_eq!((old.groups[0].error_code, old.groups[0].group_state.as_str()), (0, "Dead"));
    let new: DescribeGroupsResponse = harness.call(request, 6);
    assert_eq!(new.groups[0].error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(new.groups[0].error_message, Some(text("Group none not found.")));
}

#[test]
fn a_stable_group_shows_protocol_subscriptions_and_assignments() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    let group = harness.describe("g");
    assert_eq!((group.protocol_type.as_str(), group.protocol_data.as_str()), ("consumer", "range"));
    assert_eq!(group.members[0].client_host, "/10.0.0.1");
    assert_eq!(group.members[0].member_assignment, format!("for {}", members[0]).into_bytes());
    assert!(!group.members[0].member_metadata.is_empty());
}

#[test]
fn only_empty_groups_are_deleted() {
    let mut harness = Harness::new();
    harness.stable("busy", 1);
    simple_commit(&mut harness, "simple");
    let before = harness.log.len();
    let names = ["busy", "simple", "none", "simple"];
    let request = DeleteGroupsRequest { groups_names: names.iter().map(|name| text(name)).collect() };
    let response: DeleteGroupsResponse = harness.call(request, 2);
    let results: Vec<(&str, i16)> =
        response.results.iter().map(|result| (result.group_id.as_str(), result.error_code)).collect();
    let expected =
        [("busy", ErrorCode::NonEmptyGroup.code()), ("simple", 0), ("none", ErrorCode::GroupIdNotFound.code())];
    assert_eq!(results, expected);
    let types: Vec<&[u8]> = harness.log[before..].iter().map(|(record, _)| &record.key[..2]).collect();
    assert_eq!(types, [&[0, 1], &[0, 2]], "the offset's tombstone comes before the group's");
    assert!(harness.log[before..].iter().all(|(record, _)| record.value.is_none()));
    assert_eq!(harness.state("simple"), "Dead");
    harness.fail_over();
    assert_eq!(harness.state("simple"), "Dead");
    assert_eq!(harness.state("busy"), "Stable");
}

#[test]
fn an_id_that_was_given_out_does_not_keep_a_group_from_being_deleted() {
    let mut harness = Harness::new();
    simple_commit(&mut harness, "g");
    let reserved: JoinGroupResponse = harness.call(join("g", ""), 9);
    assert_eq!(reserved.error_code, ErrorCode::MemberIdRequired.code());
    let request = DeleteGroupsRequest { groups_names: vec![text("g")] };
    let response: DeleteGroupsResponse = harness.call(request, 2);
    assert_eq!(response.results[0].error_code, 0);
    assert_eq!(harness.state("g"), "Dead");
    let late: JoinGroupResponse = harness.call(join("g", &reserved.member_id), 9);
    assert_eq!(late.error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_deletion_takes_commits_under_way_along() {
    let mut harness = Harness::new();
    simple_commit(&mut harness, "g");
    harness.writes_at_once = false;
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let request = OffsetCommitRequest {
        group_id: text("g"),
        topics: vec![OffsetCommitRequestTopic {
            name: "clicks".into(),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    harness.send(request, 9);
    harness.send(DeleteGroupsRequest { groups_names: vec![text("g")] }, 2);
    harness.finish_writes();
    assert_eq!(harness.state("g"), "Dead");
}

#[test]
fn requests_for_several_groups_are_cut_and_their_answers_put_together() {
    assert_eq!(partition_of_group("fx-g-simple", 3), PartitionIndex(0));
    assert_eq!(partition_of_group("fx-g-empty", 3), PartitionIndex(1));
    assert_eq!(partition_of_group("fx-g-txn", 3), PartitionIndex(2));
    let groups = vec![text("fx-g-simple"), text("fx-g-empty"), text("fx-g-regex")];
    let request = DescribeGroupsRequest { groups, ..Default::default() };
    let Route::Several(parts) = split(request.into(), 5, 3) else { panic!("not cut") };
    assert_eq!(parts.len(), 2);
    let mut harness = Harness::new();
    let answers: Vec<ResponseBody> = parts
        .into_iter()
        .map(|(_, part)| {
            let RequestBody::DescribeGroups(part) = part else { panic!("another request") };
            harness.call::<DescribeGroupsResponse>(part, 5).into()
        })
        .collect();
    let Some(ResponseBody::DescribeGroups(merged)) = merge(answers) else { panic!("not merged") };
    assert_eq!(merged.groups.len(), 3);
    let single = split(JoinGroupRequest { group_id: text("fx-g-txn"), ..Default::default() }.into(), 9, 3);
    assert!(matches!(single, Route::One(PartitionIndex(2), _)));
    assert!(matches!(split(ListGroupsRequest::default().into(), 5, 3), Route::All(_)));
}

#[test]
fn errors_take_the_form_of_each_version() {
    let error = ErrorCode::NotCoordinator;
    let topics =
        Some(vec![offset_fetch_request::OffsetFetchRequestTopic { name: "orders".into(), partition_indexes: vec![0] }]);
    let request: RequestBody = OffsetFetchRequest { group_id: text("g"), topics, ..Default::default() }.into();
    let answer = |version| OffsetFetchResponse::try_from(error_response(&request, version, error)).unwrap();
    assert_eq!(answer(1).topics[0].partitions[0].error_code, error.code());
    assert_eq!(answer(2).error_code, error.code());
    let group = offset_fetch_request::OffsetFetchRequestGroup { group_id: text("g"), ..Default::default() };
    let request: RequestBody = OffsetFetchRequest { groups: vec![group], ..Default::default() }.into();
    let answer = OffsetFetchResponse::try_from(error_response(&request, 8, error)).unwrap();
    assert_eq!(answer.groups[0].error_code, error.code());
}
