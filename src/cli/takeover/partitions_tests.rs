use super::super::findings::Level;
use super::*;

fn partition(replicas: &[i32], in_sync: &[i32]) -> PartitionState {
    let leader = in_sync.first().copied().unwrap_or(-1);
    PartitionState { index: 0, leader, replicas: replicas.to_vec(), in_sync: in_sync.to_vec() }
}

const ANY: Replaced = Replaced { id: None, is_stopped: false };
const FIRST: Replaced = Replaced { id: Some(1), is_stopped: false };
const FIRST_STOPPED: Replaced = Replaced { id: Some(1), is_stopped: true };

#[test]
fn partitions_that_stay_there_are_no_trouble() {
    assert_eq!(partition(&[1, 2, 3], &[1, 2, 3]).trouble(2, ANY), None);
    assert_eq!(partition(&[2], &[2]).trouble(1, FIRST), None, "it isn't on the node");
    assert_eq!(partition(&[2, 3], &[2, 3]).trouble(2, FIRST), None);
    assert_eq!(partition(&[1, 2, 3], &[2, 3]).trouble(2, FIRST_STOPPED), None, "it comes back");
}

#[test]
fn partitions_are_judged_by_who_is_left() {
    assert_eq!(partition(&[1, 2], &[]).trouble(1, ANY), Some(Trouble::Offline));
    assert_eq!(partition(&[1, 2, 3], &[2]).trouble(2, FIRST), Some(Trouble::UnderMinimum));
    assert_eq!(partition(&[1, 2, 3], &[1]).trouble(1, FIRST), Some(Trouble::LastInSync));
    assert_eq!(partition(&[1, 2, 3], &[1]).trouble(1, ANY), Some(Trouble::LastInSync));
    assert_eq!(partition(&[1, 2, 3], &[2]).trouble(1, FIRST), Some(Trouble::UnderReplicated), "it has none to lose");
    assert_eq!(partition(&[1, 2, 3], &[1, 2]).trouble(2, FIRST), Some(Trouble::TooFewLeft));
    assert_eq!(partition(&[1, 2, 3], &[1, 2]).trouble(1, FIRST), Some(Trouble::UnderReplicated));
    assert_eq!(partition(&[2, 3], &[2]).trouble(1, FIRST), Some(Trouble::UnderReplicated));
    assert_eq!(partition(&[1], &[1]).trouble(1, ANY), Some(Trouble::Single));
    assert_eq!(partition(&[1], &[1]).trouble(2, ANY), Some(Trouble::Single), "no more can be asked for than there are");
    assert_eq!(partition(&[1], &[]).trouble(1, FIRST_STOPPED), Some(Trouble::Single), "it comes back");
    assert_eq!(partition(&[1, 2], &[1, 2]).trouble(2, FIRST), Some(Trouble::AllNeeded));
    assert_eq!(partition(&[1, 2], &[2]).trouble(2, FIRST_STOPPED), Some(Trouble::AllNeeded));
}

#[test]
fn each_kind_of_trouble_has_a_line() {
    let topic = TopicState {
        name: "t".to_owned(),
        min_in_sync: 1,
        partitions: vec![partition(&[1], &[1]), partition(&[2, 1], &[2]), partition(&[3, 1], &[])],
        ..TopicState::default()
    };
    let findings = judge_partitions(&[topic], FIRST);
    let levels: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
    assert_eq!(levels, [Level::Stop, Level::Warn, Level::Warn]);
    assert!(findings[0].text.ends_with(": t-0"), "{findings:?}");
    assert_eq!(judge_partitions(&[], ANY)[0].level, Level::Ok);
}

#[test]
fn topics_are_judged_by_what_they_need() {
    let topic = |name: &str| TopicState { name: name.to_owned(), ..TopicState::default() };
    let levels = |topics: &[TopicState]| judge_topics(topics).iter().map(|it| it.level).collect::<Vec<_>>();
    assert_eq!(levels(&[topic("plain")]), [Level::Ok]);
    let compacted = TopicState { is_compacted: true, ..topic("c") };
    let internal = TopicState { is_internal: true, ..compacted.clone() };
    let remote = TopicState { is_remote: true, ..topic("r") };
    assert_eq!(levels(&[compacted, internal, remote]), [Level::Stop, Level::Warn, Level::Warn]);
    assert_eq!(judge_reassignments(&[]).level, Level::Ok);
    assert_eq!(judge_reassignments(&["t-0".to_owned()]).level, Level::Warn);
}
