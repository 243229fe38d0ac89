use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::{LogBatch, LogConfig};
use ringlog_protocol::records::{BatchBuilder, BatchIter};
use ringlog_ring as ring;
use ringlog_types::TimestampMs;

use super::*;
use crate::storage::segment_store::tests::{context, on_executor};

const NOW: TimestampMs = TimestampMs(5);
const CONTEXT_BYTES: usize = 16 << 20;
/// Bytes of a record.
const LARGE: usize = 3000;
/// Its batch is half as large: where one of the large ones lay, one begins here, too, with twice the offset. Who took it for
/// the one sought would leave out what lies between.
const HALF: usize = 1465;

/// A log and its bytes, as a replica holds them.
struct Kept {
    log: RefCell<Log>,
    store: Rc<SegmentStore>,
}

impl StoredLog for Kept {
    fn with_log<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(&self.log.borrow())
    }

    fn store(&self) -> Rc<SegmentStore> {
        self.store.clone()
    }
}

impl Kept {
    fn new(directory: PathBuf) -> Kept {
        let log = Log::new(Offset(0), NOW, 0);
        let store = SegmentStore::new(context(CONTEXT_BYTES), directory, &log, None);
        Kept { log: RefCell::new(log), store }
    }

    /// Appends so many batches of one record of `len` bytes, all of which are `value`.
    async fn write(&self, batches: usize, value: u8, len: usize) {
        for _ in 0..batches {
            let mut builder = BatchBuilder::new(Default::default());
            builder.append(NOW, None, Some(&vec![value; len]), &[]);
            let batch = builder.build();
            let mut header = BatchHeader::parse(&batch).unwrap();
            header.base_offset = self.log.borrow().log_end_offset();
            let logged = [LogBatch::of_data(header)];
            let placement = self.log.borrow_mut().append(&logged, &LogConfig::default(), NOW).unwrap();
            let position = u64::from(placement.position);
            self.store.append(position, &[&header.encode(), &batch[BATCH_HEADER_LEN..]]);
        }
        self.store.write_out().await.unwrap();
        self.store.release_clean_frames(usize::MAX);
    }

    async fn roll(&self) {
        let end = self.log.borrow().log_end_offset();
        self.store.roll(self.log.borrow_mut().roll(end, NOW).unwrap());
        self.store.write_out().await.unwrap();
        for roll in self.store.take_finished() {
            self.store.finish(&roll).await.unwrap();
        }
    }

    /// The log begins anew at 0, and its files with it; or in the same file, which is emptied.
    fn restart(&self, directory: &Path, keeps_file: bool) {
        self.log.borrow_mut().truncate_fully_and_start_at(Offset(0), NOW);
        self.store.reset(&self.log.borrow(), keeps_file.then_some(0));
        if keeps_file {
            let file = std::fs::File::options().write(true).open(directory.join("00000000000000000000.log"));
            file.unwrap().set_len(0).unwrap();
        } else {
            empty(directory);
        }
    }

    fn range(&self, from: i64) -> ReadRange {
        let location = self.log.borrow().locate(Offset(from)).unwrap();
        let limit = Offset(i64::MAX);
        ReadRange { place: self.place(location), from: Offset(from), limit, max_bytes: 30_000, at_least_one: true }
    }

    /// First offset and value of what is read.
    async fn read(&self, range: &ReadRange) -> Option<(i64, u8)> {
        let bytes = read(self, range, usize::MAX).await.unwrap().slices.concat();
        let mut batches = BatchIter::new(&bytes).map_while(Result::ok);
        let first = batches.next()?;
        let mut end = first.header.next_offset();
        for batch in batches {
            assert_eq!(batch.header.base_offset, end, "batches follow each other");
            end = batch.header.next_offset();
        }
        Some((first.header.base_offset.0, first.payload()[100]))
    }
}

fn empty(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[test]
fn a_place_in_a_log_that_began_anew_is_looked_up_again() {
    on_executor("log-read-restarted", |directory| async move {
        for rolls in [false, true] {
            let kept = Kept::new(directory.clone());
            kept.write(20, 1, LARGE).await;
            if rolls {
                kept.roll().await;
                kept.write(1, 1, LARGE).await;
            }
            let range = kept.range(10);
            assert_eq!(kept.read(&range).await, Some((10, 1)));
            let position_of = |offset| kept.log.borrow().locate(Offset(offset)).unwrap();
            let before = position_of(10);
            kept.restart(&directory, false);
            kept.write(40, 2, HALF).await;
            if rolls {
                kept.roll().await;
            } else {
                assert_eq!(position_of(20), before, "a batch begins where one began");
            }
            assert_eq!(kept.read(&range).await, Some((10, 2)), "sealed: {rolls}");
            empty(&directory);
        }
    });
}

#[test]
fn a_place_behind_the_end_of_a_log_that_was_cut_shows_nothing() {
    on_executor("log-read-cut", |directory| async move {
        let kept = Kept::new(directory.clone());
        kept.write(20, 1, LARGE).await;
        let range = kept.range(10);
        kept.restart(&directory, true);
        kept.write(5, 2, 9000).await;
        assert_eq!(kept.read(&range).await, None);
    });
}

#[test]
fn a_read_that_waits_while_the_log_begins_anew_sees_one_log_or_the_other() {
    on_executor("log-read-restarted-meanwhile", |directory| async move {
        let mut seen = [false; 2];
        for yields in 0..60 {
            let kept = Rc::new(Kept::new(directory.clone()));
            kept.write(20, 1, LARGE).await;
            let range = kept.range(10);
            let reading = ring::spawn({
                let kept = kept.clone();
                async move { kept.read(&range).await }
            });
            for _ in 0..yields {
                ring::yield_now().await;
            }
            kept.restart(&directory, yields % 2 == 0);
            kept.write(40, 2, HALF).await;
            // At the moment in which the log had no such offset, nothing.
            match reading.await {
                None => {}
                Some((offset, value)) => {
                    assert_eq!(offset, 10);
                    seen[usize::from(value) - 1] = true;
                }
            }
            empty(&directory);
        }
        assert!(seen[0] || seen[1], "some read must have come through");
    });
}

#[test]
fn a_log_that_was_deleted_does_not_show_the_files_of_the_one_that_got_its_names() {
    on_executor("log-read-made-anew", |directory| async move {
        let deleted = Kept::new(directory.clone());
        deleted.write(20, 1, LARGE).await;
        let range = deleted.range(10);
        deleted.store.abandon();
        empty(&directory);
        let new = Kept::new(directory.clone());
        new.write(20, 2, LARGE).await;
        assert_eq!(deleted.read(&range).await, None);
        assert_eq!(new.read(&new.range(10)).await, Some((10, 2)));
    });
}

#[test]
fn a_segment_that_retention_takes_while_it_is_read_is_no_fault() {
    on_executor("log-read-retired", |directory| async move {
        for yields in 0..20 {
            let kept = Rc::new(Kept::new(directory.clone()));
            kept.write(20, 1, LARGE).await;
            kept.roll().await;
            kept.write(5, 1, LARGE).await;
            let range = kept.range(10);
            let reading = ring::spawn({
                let kept = kept.clone();
                async move { kept.read(&range).await }
            });
            for _ in 0..yields {
                ring::yield_now().await;
            }
            {
                let mut log = kept.log.borrow_mut();
                log.advance_log_start_offset(Offset(20));
                let config = LogConfig::default();
                assert_eq!(log.delete_old_segments(&config, Offset(25), NOW).deleted.len(), 1);
            }
            kept.store.forget(Offset(0));
            std::fs::remove_file(directory.join("00000000000000000000.log")).unwrap();
            assert!(matches!(reading.await, None | Some((10, 1))));
            assert_eq!(kept.read(&kept.range(20)).await, Some((20, 1)));
            empty(&directory);
        }
    });
}

#[test]
fn parts_of_slices_join_without_gaps() {
    let slices = [Bytes::from_static(b"abc"), Bytes::from_static(b""), Bytes::from_static(b"defg")];
    for start in 0..=7 {
        for end in start..=9 {
            let whole: Vec<u8> = sub_slices(&slices, start, end).concat();
            assert_eq!(whole, &b"abcdefg"[start.min(7)..end.min(7)]);
        }
    }
}
