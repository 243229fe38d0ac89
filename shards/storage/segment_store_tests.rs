use crate::storage::disk_space::DiskSpace;
use crate::storage::frames::FrameCache;
use ringlog_log::{Log, LogConfig};
use ringlog_ring::{self as ring, BLOCK_BYTES, ByteSemaphore, Direct, ExecutorContext, ExecutorOptions, Executors};
use ringlog_types::{Random, TimestampMs};

use super::*;
use crate::storage::cache_memory::{CacheMemory, Kind};
use crate::storage::context::INDEX_WRITERS;
use crate::storage::open_files::OpenFiles;
use crate::storage::padding::Padding;
use crate::storage::read_ahead::ReadAhead;
use crate::storage::read_cache::ReadCache;

/// Runs `test` on an executor of its own, with a directory that is removed afterwards.
pub(crate) fn on_executor<Fut: Future<Output = ()> + 'static>(
    name: &'static str,
    test: impl FnOnce(PathBuf) -> Fut + Send + 'static,
) {
    let directory = std::env::current_exe().unwrap().with_file_name("test-data").join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let inside = directory.clone();
    let run = move |context: ExecutorContext| async move {
        context.ready();
        test(inside).await;
    };
    let executors = Executors::start(vec![(ExecutorOptions::default(), run)]).unwrap();
    ring::block_on(executors.join());
    std::fs::remove_dir_all(&directory).unwrap();
}

pub(crate) fn context(frames_bytes: usize) -> Rc<StoreContext> {
    context_with(frames_bytes, 8 << 20)
}

fn context_with(frames_bytes: usize, cache_bytes: usize) -> Rc<StoreContext> {
    let memory = CacheMemory::new(cache_bytes);
    let cache = Rc::new(ReadCache::new(memory.clone(), 4 << 20));
    Rc::new(StoreContext {
        recovery_reads: ring::ByteSemaphore::new(2 * ring::MAX_IO_BYTES),
        frames: FrameCache::new(frames_bytes, memory.clone()),
        memory,
        cache: cache.clone(),
        files: OpenFiles::new(64),
        direct: Direct::Auto,
        faults: crate::storage::disk_faults::DiskFaults::default(),
        space: Rc::new(DiskSpace::new([], 1)),
        index_turns: ByteSemaphore::new(INDEX_WRITERS),
        read_ahead: ReadAhead::new(4 << 20, cache),
        padding: Padding::default(),
    })
}

/// Bytes that tell their position.
fn content(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|position| (position % 251) as u8 ^ (position >> 8) as u8).collect()
}

/// What readers see of `position..position + len`, from memory or from the file.
async fn read(store: &SegmentStore, position: u64, end: u64, len: usize) -> Vec<u8> {
    let segment = store.segment(Offset(0)).unwrap();
    match store.read_memory(segment, position, end, len) {
        Some(slices) => slices.concat(),
        None => store.read_file(segment, position, len).await.unwrap().concat(),
    }
}

#[test]
fn what_was_appended_is_read_whatever_is_in_memory() {
    on_executor("segment-store-random", |directory| async move {
        for seed in 0..12 {
            let mut random = Random::from_seed(seed);
            let directory = directory.join(seed.to_string());
            std::fs::create_dir(&directory).unwrap();
            let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), 0, None);
            let mut end = 0;
            for _ in 0..200 {
                match random.below(10) {
                    0..=4 => {
                        let longest = if random.below(8) == 0 { 400_000 } else { 9_000 };
                        let len = 1 + random.below(longest) as usize;
                        let bytes = content(end, len);
                        let (head, body) = bytes.split_at(random.below(len as u64) as usize);
                        store.append(end, &[head, body]);
                        end += len as u64;
                    }
                    5..=7 => store.write_out().await.unwrap(),
                    8 => {
                        store.release_clean_frames(usize::MAX);
                        if random.below(2) == 0 {
                            store.cut_padding().await.unwrap();
                        }
                    }
                    _ if end > 0 => {
                        let position = random.below(end);
                        let len = 1 + random.below((end - position).min(300_000)) as usize;
                        let found = read(&store, position, end, len).await;
                        assert!(!found.is_empty());
                        assert!(found == content(position, found.len()), "seed {seed}, {position}");
                    }
                    _ => {}
                }
            }
            store.write_out().await.unwrap();
            store.trim().await.unwrap();
            let file = std::fs::read(store.path("00000000000000000000.log")).unwrap();
            assert!(file == content(0, end as usize), "the file after an orderly stop, seed {seed}");
        }
    });
}

#[test]
fn appends_go_on_while_a_pass_writes() {
    on_executor("segment-store-concurrent", |directory| async move {
        let store = SegmentStore::with_segments(context(64 << 20), directory, [], Offset(0), 0, None);
        let mut end = 0;
        for round in 0..50 {
            store.append(end, &[&content(end, 5_000)]);
            end += 5_000;
            let writer = ring::spawn({
                let store = store.clone();
                async move { store.write_out().await }
            });
            for _ in 0..round % 7 {
                store.append(end, &[&content(end, 3_333)]);
                end += 3_333;
                ring::yield_now().await;
            }
            writer.await.unwrap();
        }
        store.write_out().await.unwrap();
        assert!(!store.is_dirty());
        store.trim().await.unwrap();
        assert!(std::fs::read(store.path("00000000000000000000.log")).unwrap() == content(0, end as usize));
    });
}

#[test]
fn a_store_goes_on_in_the_middle_of_a_block() {
    on_executor("segment-store-reopen", |directory| async move {
        let mut end = 0;
        for round in 0..20 {
            let file_len = (round > 0).then_some(end);
            let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), end, file_len);
            let len = 700 + 977 * round as usize;
            store.append(end, &[&content(end, len)]);
            end += len as u64;
            store.write_out().await.unwrap();
            store.append(end, &[&content(end, 10)]);
            end += 10;
            store.write_out().await.unwrap();
            store.trim().await.unwrap();
        }
        assert!(std::fs::read(directory.join("00000000000000000000.log")).unwrap() == content(0, end as usize));
    });
}

#[test]
fn a_sealed_segment_gets_its_files_and_the_next_one_begins() {
    on_executor("segment-store-roll", |directory| async move {
        let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), 0, None);
        let mut log = Log::new(Offset(0), TimestampMs(0), 0);
        let mut builder = ringlog_protocol::records::BatchBuilder::new(Default::default());
        builder.append(TimestampMs(5), None, Some(&[1; 3000]), &[]);
        let batch = builder.build();
        let header = ringlog_protocol::records::BatchHeader::parse(&batch).unwrap();
        let logged = ringlog_log::LogBatch::of_data(header);
        let placement = log.append(&[logged], &LogConfig::default(), TimestampMs(5)).unwrap();
        store.append(u64::from(placement.position), &[&batch]);
        store.roll(log.roll(Offset(1), TimestampMs(6)).unwrap());
        store.append(0, &[&content(0, 10_000)]);
        assert!(store.take_finished().is_empty(), "not before its bytes are written");
        store.write_out().await.unwrap();
        let finished = store.take_finished();
        assert_eq!(finished.len(), 1);
        assert!(store.take_finished().is_empty(), "handed out once");
        store.finish(&finished[0]).await.unwrap();
        assert_eq!(std::fs::read(directory.join("00000000000000000000.log")).unwrap(), &batch[..]);
        assert!(directory.join("00000000000000000000.index").exists());
        assert_eq!(std::fs::metadata(directory.join("00000000000000000000.timeindex")).unwrap().len(), 12);
        assert_eq!(read(&store, 0, batch.len() as u64, batch.len()).await, &batch[..]);
        store.trim().await.unwrap();
        assert!(std::fs::read(directory.join("00000000000000000001.log")).unwrap() == content(0, 10_000));
    });
}

#[test]
fn clean_frames_give_way_to_new_appends() {
    on_executor("segment-store-memory", |directory| async move {
        let context = context_with(4 << 20, 0);
        let mut stores = Vec::new();
        for number in 0..40 {
            let directory = directory.join(number.to_string());
            std::fs::create_dir(&directory).unwrap();
            let store = SegmentStore::with_segments(context.clone(), directory, [], Offset(0), 0, None);
            assert!(store.has_room_for(500_000), "everything written so far is clean");
            store.append(0, &[&content(0, 500_000)]);
            store.write_out().await.unwrap();
            stores.push(store);
        }
        assert!(context.frames.in_use_bytes() <= 4 << 20);
        for store in &stores {
            assert_eq!(read(store, 1234, 500_000, 4000).await, content(1234, 4000));
        }
        let dirty = SegmentStore::with_segments(context.clone(), directory.join("0"), [], Offset(9), 0, None);
        dirty.append(0, &[&content(0, 8 << 20)]);
        assert!(!context.frames.has_room(1), "nothing clean is left to give");
    });
}

/// So many bytes are written, and the memory for them asked for as appends do.
async fn write(store: &Rc<SegmentStore>, context: &Rc<StoreContext>, from: u64, len: usize) {
    // Memory comes at its pace.
    while !context.memory.may_take(Kind::Written) {
        ring::yield_now().await;
    }
    assert!(store.has_room_for(len));
    store.append(from, &[&content(from, len)]);
    store.write_out().await.unwrap();
}

#[test]
fn what_was_written_last_stays_in_memory_in_turn_as_long_as_there_is_some() {
    const FRAMES: usize = 4 << 20;
    const CACHE: usize = 8 << 20;
    const STEP: usize = 512 * 1024;
    on_executor("segment-store-kept", |directory| async move {
        let context = context_with(FRAMES, CACHE);
        let mut stores = Vec::new();
        for number in 0..2 {
            let directory = directory.join(number.to_string());
            std::fs::create_dir(&directory).unwrap();
            stores.push(SegmentStore::with_segments(context.clone(), directory, [], Offset(0), 0, None));
        }
        let is_there = |store: &Rc<SegmentStore>, position: u64, end: u64| {
            store.read_memory(store.segment(Offset(0)).unwrap(), position, end, 1000).is_some()
        };
        let mut end = 0;
        while end < 24 << 20 {
            for store in &stores {
                write(store, &context, end, STEP).await;
            }
            end += STEP as u64;
            assert!(context.frames.in_use_bytes() <= FRAMES + CACHE);
            assert!(context.memory.all_in_use_bytes() <= CACHE);
        }
        for store in &stores {
            assert!(!is_there(store, end - (8 << 20), end), "both share what there is");
            assert!(is_there(store, end - (4 << 20), end), "the youngest stay");
            for position in (0..end).step_by(700_000) {
                let len = (end - position).min(4000) as usize;
                assert_eq!(read(store, position, end, len).await, content(position, len), "at {position}");
            }
        }
        // What others need goes, the oldest first; the rest is what it was.
        context.memory.set_limit(CACHE / 2);
        context.give_way();
        assert!(context.memory.all_in_use_bytes() <= CACHE / 2);
        assert!(
            stores.iter().all(|store| is_there(store, end - (2 << 20), end) && !is_there(store, end - (4 << 20), end))
        );
        write(&stores[0], &context, end, 1000).await;
        assert_eq!(read(&stores[0], end - 1000, end + 1000, 2000).await.len(), 2000);
        // A log that goes leaves nothing.
        stores.iter().for_each(|store| store.abandon());
        assert_eq!((context.memory.all_in_use_bytes(), context.frames.in_use_bytes()), (0, 0));
    });
}

#[test]
fn a_reader_in_order_sees_what_was_written_while_it_reads_ahead() {
    on_executor("segment-store-read-ahead", |directory| async move {
        let store = SegmentStore::with_segments(context(64 << 20), directory, [], Offset(0), 0, None);
        let mut end = 0;
        for _ in 0..6 {
            store.append(end, &[&content(end, 700_000)]);
            end += 700_000;
        }
        store.write_out().await.unwrap();
        let mut position = 0;
        while position < end {
            // What comes last is overwritten block by block while the reader is on its way.
            if end < 6_000_000 {
                store.append(end, &[&content(end, 1_001)]);
                end += 1_001;
                store.write_out().await.unwrap();
            }
            store.release_clean_frames(usize::MAX);
            let len = (end - position).min(100_000) as usize;
            let mut found = Vec::new();
            while found.len() < len {
                let here = position + found.len() as u64;
                let part =
                    store.read_file(store.segment(Offset(0)).unwrap(), here, len - found.len()).await.unwrap().concat();
                assert!(!part.is_empty(), "at {here}");
                found.extend(part);
            }
            assert!(found == content(position, len), "at {position}");
            position += len as u64 - len as u64 / 10;
            if len < 10 {
                break;
            }
        }
    });
}

/// A log of one batch, and the batch.
fn log_with_a_batch() -> (Log, bytes::Bytes) {
    let mut log = Log::new(Offset(0), TimestampMs(0), 0);
    let mut builder = ringlog_protocol::records::BatchBuilder::new(Default::default());
    builder.append(TimestampMs(5), None, Some(&[1; 3000]), &[]);
    let batch = builder.build();
    let header = ringlog_protocol::records::BatchHeader::parse(&batch).unwrap();
    log.append(&[ringlog_log::LogBatch::of_data(header)], &LogConfig::default(), TimestampMs(5)).unwrap();
    (log, batch)
}

#[test]
fn a_sealed_segment_that_needs_no_write_is_finished_too() {
    on_executor("segment-store-roll-trimmed", |directory| async move {
        let (mut log, batch) = log_with_a_batch();
        std::fs::write(directory.join("00000000000000000000.log"), &batch).unwrap();
        let size = batch.len() as u64;
        let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), size, Some(size));
        assert!(!store.is_dirty());
        store.roll(log.roll(Offset(1), TimestampMs(6)).unwrap());
        assert!(store.is_dirty(), "else no pass would hand it out");
        store.write_out().await.unwrap();
        assert_eq!(store.take_finished().len(), 1);
        assert!(!store.is_dirty());
    });
}

#[test]
fn an_idle_file_ends_with_its_bytes_and_grows_on() {
    on_executor("segment-store-padding", |directory| async move {
        let (mut log, batch) = log_with_a_batch();
        let len = batch.len() as u64;
        let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), 0, None);
        let file_len = |name: &str| std::fs::metadata(directory.join(name)).unwrap().len();
        store.append(0, &[&batch]);
        assert!(!store.has_padding(), "what isn't written isn't cut");
        store.cut_padding().await.unwrap();
        store.write_out().await.unwrap();
        assert!(store.has_padding() && file_len("00000000000000000000.log") > len);
        store.cut_padding().await.unwrap();
        assert!(!store.has_padding());
        assert_eq!(file_len("00000000000000000000.log"), len);
        // What comes while it is cut again is neither lost nor cut off, and a new segment keeps its own length.
        store.append(len, &[&content(0, 10)]);
        store.write_out().await.unwrap();
        let cutting = ring::spawn({
            let store = store.clone();
            async move { store.cut_padding().await }
        });
        ring::yield_now().await;
        store.append(len + 10, &[&content(0, 5000)]);
        store.roll(log.roll(Offset(1), TimestampMs(6)).unwrap());
        store.append(0, &[&content(0, 100)]);
        cutting.await.unwrap();
        store.write_out().await.unwrap();
        assert!(!store.is_dirty() || !store.take_finished().is_empty());
        let sealed = std::fs::read(directory.join("00000000000000000000.log")).unwrap();
        assert!(sealed == [&batch[..], &content(0, 10), &content(0, 5000)].concat());
        assert_eq!(file_len("00000000000000000001.log"), BLOCK_BYTES as u64);
        store.cut_padding().await.unwrap();
        assert_eq!(file_len("00000000000000000001.log"), 100);
    });
}

#[test]
fn index_files_of_an_orderly_stop_go_before_the_segment_grows() {
    on_executor("segment-store-old-indexes", |directory| async move {
        let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), 0, None);
        for name in ["00000000000000000000.index", "00000000000000000000.timeindex"] {
            std::fs::write(directory.join(name), [0; 24]).unwrap();
        }
        store.has_old_indexes();
        store.append(0, &[&content(0, 100)]);
        store.write_out().await.unwrap();
        assert!(!directory.join("00000000000000000000.index").exists());
        assert!(!directory.join("00000000000000000000.timeindex").exists());
        store.sync().await.unwrap();
    });
}

#[test]
fn a_segment_that_went_while_others_were_synced_is_no_fault() {
    on_executor("segment-store-sync-retired", |directory| async move {
        let (mut log, batch) = log_with_a_batch();
        let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), 0, None);
        store.append(0, &[&batch]);
        store.roll(log.roll(Offset(1), TimestampMs(6)).unwrap());
        store.append(0, &[&content(0, 100)]);
        store.write_out().await.unwrap();
        let path = store.path("00000000000000000000.log");
        // The names are synced first, which lets others run.
        let syncing = ring::spawn({
            let store = store.clone();
            async move { store.sync().await }
        });
        ring::yield_now().await;
        store.forget(Offset(0));
        std::fs::remove_file(&path).unwrap();
        syncing.await.unwrap();
        // One that is held and missing is.
        let held = store.segment(Offset(1)).unwrap();
        store.context.files.remove(store.files.key(held));
        std::fs::remove_file(store.path("00000000000000000001.log")).unwrap();
        assert_eq!(store.sync().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_finished_segment_is_not_synced_again_while_it_is_in_memory() {
    on_executor("segment-store-sync-once", |directory| async move {
        let (mut log, batch) = log_with_a_batch();
        let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), 0, None);
        store.append(0, &[&batch]);
        let frame = content(0, 20_000);
        store.append(batch.len() as u64, &[&frame]);
        store.roll(log.roll(Offset(1), TimestampMs(6)).unwrap());
        store.append(0, &[&content(0, 100)]);
        store.write_out().await.unwrap();
        for roll in store.take_finished() {
            store.finish(&roll).await.unwrap();
        }
        let segment = store.segment(Offset(0)).unwrap();
        assert!(store.read_memory(segment, 0, 100, 100).is_some(), "it is in memory");
        store.context.files.remove(store.files.key(segment));
        std::fs::remove_file(store.path("00000000000000000000.log")).unwrap();
        // Whoever synced it would miss it.
        store.sync().await.unwrap();
    });
}

#[test]
fn a_segment_that_went_before_it_was_finished_is_nobodys_work() {
    on_executor("segment-store-forget", |directory| async move {
        let (mut log, batch) = log_with_a_batch();
        let store = SegmentStore::with_segments(context(64 << 20), directory.clone(), [], Offset(0), 0, None);
        store.append(0, &[&batch]);
        store.roll(log.roll(Offset(1), TimestampMs(6)).unwrap());
        store.write_out().await.unwrap();
        let segment = store.segment(Offset(0)).unwrap();
        let index = store.offset_index(segment).await.unwrap();
        store.forget(Offset(0));
        std::fs::remove_file(store.path("00000000000000000000.log")).unwrap();
        assert!(store.take_finished().is_empty());
        assert_eq!(store.unfinished_from(), None);
        assert!(store.offset_index(segment).await.is_err(), "{index:?} is of a segment that went");
        store.sync().await.unwrap();
    });
}
