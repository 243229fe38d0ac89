//! A history without fault is let pass, and each fault in it is found.

use super::{Kind, check};

/// Two producers, a reader, a group and the final reader of one partition, all well.
const WELL: &str = "\
1 a is ok idempotent
1 n is ok plain
1 r is ok reader
1 m1 is ok member g
1 m2 is ok member g
2 a send invoke t-0 a:0
2 a send invoke t-0 a:1
3 a send ok t-0 a:0 0
3 a send ok t-0 a:1 1
4 n send invoke t-0 n:0
5 n send again t-0 n:0
6 n send ok t-0 n:0 3
6 n send invoke t-0 n:1
7 n send fail t-0 n:1 MessageTooLarge
7 n send invoke t-0 n:2
8 n send info t-0 n:2 Timeout
9 a send invoke t-0 a:2
9 a send ok t-0 a:2 -
10 r seek ok t-0 0
11 r poll ok t-0 0=a:0 1=a:1
12 r poll ok t-0 2=n:0
13 r seek ok t-0 0
14 r poll ok t-0 0=a:0 1=a:1 2=n:0 3=n:0 4=n:2 5=a:2
15 m1 assign ok t-0 0
16 m1 poll ok t-0 0=a:0 1=a:1
17 m1 commit ok t-0 2
18 m2 assign ok t-0 2
19 m2 poll ok t-0 2=n:0 3=n:0 4=n:2 5=a:2
20 f is ok final
21 f seek ok t-0 0
22 f poll ok t-0 0=a:0 1=a:1 2=n:0 3=n:0 4=n:2 5=a:2
23 f end ok t-0 6
";

#[test]
fn what_is_well_is_let_pass() {
    let verdict = check(WELL);
    assert_eq!(verdict.anomalies, vec![]);
    assert_eq!((verdict.acknowledged, verdict.read, verdict.doubled_by_sending_again), (4, 21, 1));
    assert_eq!((verdict.refused, verdict.unknown), (1, 1));
}

/// In place of some lines there are others; the fault is found.
fn finds(kind: Kind, changes: &[(&str, &str)]) {
    let mut history = WELL.to_owned();
    for (from, to) in changes {
        assert!(history.contains(from), "{from}");
        history = history.replace(from, to);
    }
    let verdict = check(&history);
    assert!(verdict.has(kind), "{kind:?}: {verdict:#?}\n{history}");
}

#[test]
fn lost_records_are_found() {
    finds(
        Kind::Lost,
        &[("22 f poll ok t-0 0=a:0 1=a:1 2=n:0 3=n:0 4=n:2 5=a:2", "22 f poll ok t-0 0=a:0 1=a:1 2=n:0")],
    );
    // Acknowledged without an offset.
    finds(Kind::Lost, &[(" 5=a:2", ""), ("end ok t-0 6", "end ok t-0 5")]);
    // Never read by anybody, and above the end.
    finds(Kind::Lost, &[("a:2 -", "a:2 7")]);
}

#[test]
fn other_records_in_their_places_are_found() {
    let last = "22 f poll ok t-0 0=a:0 1=a:1";
    finds(Kind::Changed, &[(last, "22 f poll ok t-0 0=a:0 1=a:9")]);
    finds(Kind::Inconsistent, &[("11 r poll ok t-0 0=a:0 1=a:1", "11 r poll ok t-0 0=a:1 1=a:0")]);
    finds(Kind::Unheard, &[(last, "22 f poll ok t-0 0=a:0 1=a:9")]);
}

#[test]
fn records_that_are_there_twice_are_found() {
    finds(Kind::Duplicate, &[("3=n:0", "3=a:1")]);
    // Nobody sent it again.
    finds(Kind::Duplicate, &[("5 n send again t-0 n:0\n", "")]);
}

/// Kafka's producer gives a batch up after a while, and gives those that are on their way new sequence numbers.
#[test]
fn records_under_way_may_be_there_twice_once_another_is_given_up() {
    let history = "\
1 a is ok idempotent
2 a send invoke t-0 a:0
2 a send invoke t-0 a:1
2 a send invoke t-0 a:2
3 a send ok t-0 a:2 2
4 a send info t-0 a:0 Timeout
5 a send ok t-0 a:1 3
20 f is ok final
21 f seek ok t-0 0
22 f poll ok t-0 0=a:0 1=a:1 2=a:2 3=a:1
23 f end ok t-0 4
";
    let verdict = check(history);
    assert_eq!((verdict.anomalies.clone(), verdict.doubled_by_sending_again), (vec![], 1));
    let verdict = check(&history.replace("4 a send info t-0 a:0 Timeout\n", ""));
    assert!(verdict.has(Kind::Duplicate) && verdict.has(Kind::Reordered), "{verdict:#?}");
}

#[test]
fn another_order_is_found() {
    finds(Kind::Reordered, &[("0=a:0 1=a:1", "0=a:1 1=a:0"), ("a:0 0", "a:0 1"), ("a:1 1\n", "a:1 0\n")]);
}

#[test]
fn readers_that_leap_are_found() {
    finds(Kind::WentBack, &[("12 r poll ok t-0 2=n:0", "12 r poll ok t-0 1=a:1")]);
    finds(Kind::WentBack, &[("11 r poll ok t-0 0=a:0 1=a:1", "11 r poll ok t-0 0=a:0 1=a:1 0=a:0")]);
    finds(Kind::Skipped, &[("12 r poll ok t-0 2=n:0", "12 r poll ok t-0 3=n:0")]);
    finds(Kind::Skipped, &[("11 r poll ok t-0 0=a:0 1=a:1", "11 r poll ok t-0 1=a:1")]);
    finds(Kind::Skipped, &[("18 m2 assign ok t-0 2", "18 m2 assign ok t-0 3")]);
    finds(Kind::WentBack, &[("13 r seek ok t-0 0\n", "")]);
}

#[test]
fn a_refused_record_that_is_there_is_found() {
    finds(Kind::RefusedAndThere, &[("8 n send info t-0 n:2 Timeout", "8 n send fail t-0 n:2 NotEnoughReplicas")]);
}

#[test]
fn readers_that_stay_behind_are_found() {
    finds(Kind::Unseen, &[("3=n:0 4=n:2 5=a:2\n15", "3=n:0\n15")]);
    finds(Kind::Unseen, &[("19 m2 poll ok t-0 2=n:0 3=n:0 4=n:2 5=a:2", "19 m2 poll ok t-0 2=n:0")]);
}

#[test]
fn lost_commits_are_found() {
    finds(Kind::CommitLost, &[("18 m2 assign ok t-0 2", "18 m2 assign ok t-0 1")]);
}

#[test]
fn what_clients_say_themselves_is_heard() {
    finds(Kind::Sequence, &[("9 a send invoke", "9 a sequence fail t-0 OutOfOrderSequenceNumber\n9 a send invoke")]);
    finds(Kind::Unreadable, &[("12 r poll", "12 r poll fail t-0 corrupt\n12 r poll")]);
    finds(Kind::Malformed, &[("12 r poll ok", "12 r poll well")]);
}
