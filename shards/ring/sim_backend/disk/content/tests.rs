//! What a power failure may leave of a file, and what it may not.

use std::collections::BTreeSet;

use super::Content;
use crate::backend::streams::Stream;

const KEEP: usize = 1000;

fn written(pieces: &[(u64, &[u8])]) -> Content {
    let mut content = Content::default();
    for (position, bytes) in pieces {
        content.write(*position, bytes, KEEP);
    }
    content
}

fn all(content: &Content) -> Vec<u8> {
    content.read(0, content.len())
}

/// What many power failures leave of the same file.
fn outcomes(make: impl Fn() -> Content) -> BTreeSet<Vec<u8>> {
    let stream = Stream::new(5, "test");
    let left = |_| {
        let mut content = make();
        content.lose(&mut || stream.below(2) == 0);
        all(&content)
    };
    (0..2000).map(left).collect()
}

#[test]
fn bytes_are_read_as_they_were_written() {
    let content = written(&[(0, &[1; 5000]), (4090, &[2; 10]), (20_000, &[3; 3])]);
    let mut expected = vec![1; 5000];
    expected[4090..4100].fill(2);
    expected.resize(20_000, 0);
    expected.extend([3; 3]);
    assert_eq!(all(&content), expected);
    assert_eq!(content.read(4089, 12), [&[1u8][..], &[2; 10], &[1]].concat());
    assert_eq!(content.read(20_002, 100), [3]);
    assert!(content.read(30_000, 1).is_empty());
    assert_eq!(content.allocated(), 3, "holes take no room");
}

#[test]
fn what_was_synced_survives_and_what_came_later_may_not() {
    let make = || {
        let mut content = written(&[(0, &[1; 1024])]);
        let covered = content.begin_sync();
        content.write(512, &[2; 1024], KEEP);
        content.finish_sync(covered);
        content
    };
    let outcomes = outcomes(make);
    assert!(outcomes.iter().all(|bytes| bytes[..512] == [1; 512] && bytes.len() >= 1024));
    // Each of the two later sectors is kept or lost, and with the last the length.
    assert_eq!(outcomes.len(), 4);
    assert!(outcomes.contains(&vec![1; 1024]));
    assert!(outcomes.contains(&[vec![1; 1024], vec![2; 512]].concat()), "torn: only the second sector got there");
}

#[test]
fn a_rewritten_sector_is_any_of_its_versions() {
    let outcomes = outcomes(|| written(&[(0, &[1; 512]), (0, &[2; 512]), (0, &[3; 512])]));
    let versions: BTreeSet<u8> = outcomes.iter().filter(|bytes| !bytes.is_empty()).map(|bytes| bytes[0]).collect();
    assert_eq!(versions, BTreeSet::from([1, 2, 3]));
    assert!(outcomes.contains(&vec![]));
}

#[test]
fn what_lay_beyond_a_cut_does_not_come_back_among_what_was_written_after_it() {
    let make = || {
        let mut content = written(&[(0, &[1; 2048])]);
        content.finish_sync(content.begin_sync());
        content.set_len(512, KEEP);
        content.write(512, &[2; 512], KEEP);
        content
    };
    let (all, old) = (outcomes(make), vec![1; 2048]);
    assert!(all.contains(&old), "the cut was lost, and all after it");
    assert!(all.contains(&vec![1; 512]));
    assert!(all.contains(&[vec![1; 512], vec![2; 512]].concat()));
    assert_eq!(all.len(), 3);
}

#[test]
fn lengths_become_safe_in_their_order() {
    let make = || {
        let mut content = Content::default();
        content.set_len(1000, KEEP);
        content.set_len(2000, KEEP);
        content
    };
    let lengths: BTreeSet<usize> = outcomes(make).into_iter().map(|bytes| bytes.len()).collect();
    assert_eq!(lengths, BTreeSet::from([0, 1000, 2000]));
    let mut cut = written(&[(0, &[1; 6000])]);
    cut.set_len(5000, KEEP);
    cut.set_len(5500, KEEP);
    assert_eq!(all(&cut), [vec![1; 5000], vec![0; 500]].concat(), "what was cut off reads as zeros");
    assert_eq!(cut.allocated(), 2);
}

#[test]
fn a_failed_sync_loses_for_good_what_it_covered() {
    // Whether it went through the page cache, and whether that still has it.
    for (is_buffered, is_cached) in [(false, true), (true, false), (true, true)] {
        let mut content = written(&[(0, &[1; 512])]);
        if is_buffered {
            content.mark_buffered();
        }
        let covered = content.begin_sync();
        content.write(512, &[2; 512], KEEP);
        content.fail_sync(covered, is_cached, &mut || false);
        let seen = if is_buffered && is_cached { 1 } else { 0 };
        assert_eq!(all(&content), [vec![seen; 512], vec![2; 512]].concat());
        // The next one succeeds, and knows nothing of what was lost.
        content.finish_sync(content.begin_sync());
        assert_eq!(content.safe(), [vec![0; 512], vec![2; 512]].concat());
    }
}

#[test]
fn old_changes_reach_the_device_by_themselves() {
    let mut content = Content::default();
    for number in 0..10u8 {
        content.write(u64::from(number) * 512, &[number; 512], 3);
    }
    assert_eq!(content.safe().len(), 7 * 512);
    content.lose(&mut || false);
    assert_eq!(content.len(), 7 * 512);
}

#[test]
fn room_is_made_without_bytes_and_bits_rot() {
    let mut content = written(&[(0, &[1; 10])]);
    assert_eq!(content.wanted(0, 8192), 1);
    content.allocate(8192, KEEP);
    assert_eq!((content.len(), content.allocated(), content.wanted(0, 8192)), (8192, 2, 0));
    content.finish_sync(content.begin_sync());
    content.rot(3, 0x80);
    assert_eq!((content.read(3, 1), content.safe()[3]), (vec![0x81], 0x81));
}
