//! Producers' batches are checked on the core that received them, before their homes give them offsets.
//!
//! An ordinary batch takes microseconds and is checked on the spot. One that unpacks to much more goes on in steps between
//! which other tasks run, or on a thread apart, [`LARGE_AT_A_TIME`] of them on each core; the others wait, and their
//! connections with them.

use std::cell::RefCell;

use bytes::Bytes;
use ringlog_log::validator::{BatchCheck, BatchRules, CheckProgress, CheckedBatch, ValidationError};
use ringlog_protocol::records::Unpacker;
use ringlog_ring as ring;
use ringlog_types::TopicPartition;

/// What is unpacked in one go: at most a millisecond's work.
const STEP_BYTES: usize = 256 * 1024;
/// The same of records that aren't compressed, which are only walked over: a batch of the default largest size.
const PLAIN_STEP_BYTES: usize = (1 << 20) + 64;
/// Large batches in work at a time. Each may take up to `socket.request.max.bytes` when it must be written anew.
const LARGE_AT_A_TIME: usize = 2;

/// What one core keeps for its checks.
pub struct BatchChecks {
    quick: RefCell<Unpacker>,
    turns: ring::ByteSemaphore,
    idle: RefCell<Vec<Unpacker>>,
}

impl Default for BatchChecks {
    fn default() -> BatchChecks {
        BatchChecks {
            quick: RefCell::default(),
            turns: ring::ByteSemaphore::new(LARGE_AT_A_TIME),
            idle: RefCell::default(),
        }
    }
}

impl BatchChecks {
    /// Whether this batch may be stored, and how.
    pub async fn check(
        &self,
        records: &Bytes,
        topic_partition: &TopicPartition,
        rules: &BatchRules,
    ) -> Result<CheckedBatch, ValidationError> {
        let step_bytes = if is_compressed(records) { STEP_BYTES } else { PLAIN_STEP_BYTES };
        let begin = || BatchCheck::begin(records.clone(), topic_partition.clone(), *rules);
        let mut check = begin();
        if check.step(&mut self.quick.borrow_mut(), step_bytes) == CheckProgress::Done {
            return check.finish();
        }
        // It begins anew, so that those who wait for their turn hold nothing.
        let _turn = self.turns.acquire(1).await;
        let mut unpacker = self.idle.borrow_mut().pop().unwrap_or_default();
        check = begin();
        loop {
            match check.step(&mut unpacker, step_bytes) {
                CheckProgress::Done => break,
                CheckProgress::More => ring::yield_now().await,
                CheckProgress::Long => {
                    let run = move || {
                        check.run(&mut unpacker);
                        Ok((check, unpacker))
                    };
                    (check, unpacker) = match ring::blocking_apart("check-batch", run).await {
                        Ok(done) => done,
                        // No thread is to be had.
                        Err(_) => run_here(begin()),
                    };
                }
            }
        }
        self.idle.borrow_mut().push(unpacker);
        check.finish()
    }
}

fn run_here(mut check: BatchCheck) -> (BatchCheck, Unpacker) {
    let mut unpacker = Unpacker::new();
    check.run(&mut unpacker);
    (check, unpacker)
}

/// By the attributes at byte 21; damage is found later.
fn is_compressed(records: &[u8]) -> bool {
    records.get(22).is_some_and(|attributes| attributes & 0x07 != 0)
}
