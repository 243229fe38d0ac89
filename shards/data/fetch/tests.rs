use super::*;

#[test]
fn everybody_gets_what_fits_and_equal_shares_else() {
    for (total, wants, shares) in [
        (100, vec![], vec![]),
        (100, vec![100], vec![100]),
        (100, vec![30, 70], vec![30, 70]),
        (100, vec![300, 70], vec![50, 50]),
        (100, vec![300, 10, 90], vec![45, 10, 45]),
        (100, vec![20, 10, 90], vec![20, 10, 70]),
        (0, vec![20, 10], vec![0, 0]),
        (1, vec![20, 10, 5], vec![1, 0, 0]),
        (usize::MAX, vec![usize::MAX, 1], vec![usize::MAX - 1, 1]),
    ] {
        assert_eq!(share_out(total, &wants).to_vec(), shares, "{total} among {wants:?}");
    }
}

#[test]
fn one_batch_may_exceed_and_then_all_is_full() {
    let mut room = Room::new(100, true);
    assert_eq!(room.allow(40), Some(Allowed { max_bytes: 40, at_least_one: true }));
    room.take(0);
    assert_eq!(room.allow(400), Some(Allowed { max_bytes: 100, at_least_one: true }), "nothing so far");
    room.take(250);
    assert_eq!(room.allow(400), None);
    let mut room = Room::new(0, true);
    assert_eq!(room.allow(400), Some(Allowed { max_bytes: 0, at_least_one: true }));
    room.take(1);
    assert_eq!(room.allow(400), None);
    assert_eq!(Room::new(0, false).allow(400), None);
}

#[test]
fn a_batch_that_does_not_fit_ends_the_reading_unless_its_own_partition_is_the_limit() {
    let mut room = Room::new(100, false);
    room.take(60);
    room.was_too_large(30);
    assert_eq!(room.allow(400), Some(Allowed { max_bytes: 40, at_least_one: false }));
    room.was_too_large(400);
    assert_eq!(room.allow(10), None);
}
