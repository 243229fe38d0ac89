//! How full the disks of the log directories are, as one shard sees it, and what that means.
//!
//! A full disk isn't a failed one. Appends are refused before it is quite full: what is left is for the metadata log,
//! checkpoints, deletions and the offsets of consumer groups, which go on. Should it be full all the same (others may
//! fill it), writers keep what they have and try again ([`DiskSpace::begin_stuck`]). Reading isn't concerned. When there
//! is room again, everything goes on by itself.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_ring as ring;
use ringlog_ring::fs::Space;
use ringlog_types::MonotonicMs;

/// What clients' records leave free: one part in so many, within these bounds.
const RESERVE_PART: u64 = 100;
const RESERVE_MIN_BYTES: u64 = 4 << 20;
const RESERVE_MAX_BYTES: u64 = 64 << 20;
/// How often to look whether there is room again.
const LOOK_AGAIN_MS: u64 = 100;
/// Preallocation needs so many times its own size beside the reserve.
const PREALLOCATION_FACTOR: u64 = 4;

/// Whose records want to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A client's.
    Client,
    /// The node's own, such as committed offsets: they may use half of the reserve.
    Internal,
}

/// The disks of all log directories.
pub struct DiskSpace {
    directories: Vec<(PathBuf, RefCell<Gauge>)>,
    /// Shards that append to each of them.
    shards: u64,
    gave_up: Cell<bool>,
    /// A disk became full, or has room again.
    pub changed: ring::Notify,
}

/// A writer of a directory can't go on; as long as this lives.
pub struct Stuck {
    space: Rc<DiskSpace>,
    place: usize,
}

impl DiskSpace {
    /// For directories by their places, on one of so many shards.
    pub fn new(directories: impl IntoIterator<Item = PathBuf>, shards: usize) -> DiskSpace {
        DiskSpace {
            directories: directories.into_iter().map(|path| (path, RefCell::default())).collect(),
            shards: (shards as u64).max(1),
            gave_up: Cell::new(false),
            changed: ring::Notify::new(),
        }
    }

    /// Whether a batch of so many bytes may be appended to a log in the directory at `place`.
    pub fn admits(&self, place: usize, bytes: usize, writer: Writer, now: MonotonicMs) -> bool {
        let Some((path, gauge)) = self.directories.get(place) else { return true };
        let mut gauge = gauge.borrow_mut();
        let was_full = gauge.is_full();
        let admitted = gauge.admits(bytes as u64, writer, self.shards, now, || look(path));
        if gauge.is_full() != was_full {
            self.changed.notify_all();
        }
        admitted
    }

    /// Whether the disk of the directory at `place` was full when it was last looked at.
    pub fn is_full(&self, place: usize) -> bool {
        self.directories.get(place).is_some_and(|(_, gauge)| gauge.borrow().is_full())
    }

    /// A writer found the disk full.
    pub fn begin_stuck(self: &Rc<Self>, place: usize) -> Stuck {
        if let Some((_, gauge)) = self.directories.get(place) {
            gauge.borrow_mut().stuck += 1;
            self.changed.notify_all();
        }
        Stuck { space: self.clone(), place }
    }

    /// The node stops: writers that are stuck don't try again.
    pub fn give_up(&self) {
        self.gave_up.set(true);
    }

    /// Whether the node stops.
    pub fn has_given_up(&self) -> bool {
        self.gave_up.get()
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        if let Some((_, gauge)) = self.space.directories.get(self.place) {
            gauge.borrow_mut().stuck -= 1;
            self.space.changed.notify_all();
        }
    }
}

/// Whether a file on the disk that holds `path` may be made `bytes` longer ahead of its writes.
pub fn allows_preallocation(path: &Path, bytes: u64) -> bool {
    look(path).is_some_and(|space| space.available_bytes >= reserve_of(space) + PREALLOCATION_FACTOR * bytes)
}

/// A disk that can't be asked has room: the write will tell.
fn look(path: &Path) -> Option<Space> {
    ring::fs::space_now(path).ok()
}

fn reserve_of(space: Space) -> u64 {
    (space.total_bytes / RESERVE_PART).clamp(RESERVE_MIN_BYTES, RESERVE_MAX_BYTES).min(space.total_bytes / 4)
}

/// One disk.
#[derive(Debug, Default)]
struct Gauge {
    /// Bytes that may be appended before looking at the disk again.
    allowance: u64,
    looked_at: Option<MonotonicMs>,
    is_low: bool,
    /// Writers that found it full.
    stuck: usize,
}

impl Gauge {
    fn is_full(&self) -> bool {
        self.is_low || self.stuck > 0
    }

    fn admits(
        &mut self,
        bytes: u64,
        writer: Writer,
        shards: u64,
        now: MonotonicMs,
        look: impl FnOnce() -> Option<Space>,
    ) -> bool {
        if self.stuck > 0 {
            return false;
        }
        if self.allowance >= bytes {
            self.allowance -= bytes;
            return true;
        }
        let looked_just_now = self.looked_at.is_some_and(|at| now.since_ms(at) < LOOK_AGAIN_MS);
        if writer == Writer::Client && self.is_low && looked_just_now {
            return false;
        }
        let Some(space) = look() else { return true };
        self.looked_at = Some(now);
        // Others append meanwhile, too: half of a fair share, then look again.
        let share = |reserve: u64| space.available_bytes.saturating_sub(reserve) / (2 * shards);
        let reserve = reserve_of(space);
        match share(reserve).checked_sub(bytes) {
            Some(rest) => {
                self.is_low = false;
                self.allowance = rest;
                true
            }
            None => {
                self.is_low = true;
                self.allowance = 0;
                writer == Writer::Internal && share(reserve / 2) >= bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(total_mib: u64, available_mib: u64) -> Option<Space> {
        Some(Space { total_bytes: total_mib * MIB, available_bytes: available_mib * MIB })
    }

    fn admits(gauge: &mut Gauge, at: u64, writer: Writer, space: Option<Space>) -> bool {
        gauge.admits(MIB, writer, 2, MonotonicMs(at), || space)
    }

    #[test]
    fn clients_leave_a_reserve_and_offsets_half_of_it() {
        let mut gauge = Gauge::default();
        // 10 GiB: the reserve is 64 MiB.
        assert!(admits(&mut gauge, 0, Writer::Client, space(10_240, 69)));
        assert!(!gauge.is_full());
        assert!(!admits(&mut gauge, 1, Writer::Client, space(10_240, 67)));
        assert!(gauge.is_full());
        assert!(admits(&mut gauge, 1, Writer::Internal, space(10_240, 67)));
        assert!(!admits(&mut gauge, 1, Writer::Internal, space(10_240, 32)));
    }

    #[test]
    fn a_disk_with_room_is_looked_at_now_and_then() {
        let mut gauge = Gauge::default();
        assert!(admits(&mut gauge, 0, Writer::Client, space(10_240, 1_064)));
        // A quarter of what is above the reserve, of which the first took one.
        for _ in 0..249 {
            assert!(gauge.admits(MIB, Writer::Client, 2, MonotonicMs(0), || panic!("there is room")));
        }
        assert!(!admits(&mut gauge, 0, Writer::Client, space(10_240, 60)));
    }

    #[test]
    fn room_that_comes_back_is_seen_soon_but_not_looked_for_all_the_time() {
        let mut gauge = Gauge::default();
        assert!(!admits(&mut gauge, 1_000, Writer::Client, space(10_240, 60)));
        assert!(!gauge.admits(MIB, Writer::Client, 2, MonotonicMs(1_099), || panic!("too early")));
        assert!(admits(&mut gauge, 1_100, Writer::Client, space(10_240, 600)));
        assert!(!gauge.is_full());
    }

    #[test]
    fn nothing_is_let_in_while_a_writer_is_stuck() {
        let space = Rc::new(DiskSpace::new([PathBuf::from("/")], 1));
        let stuck = space.begin_stuck(0);
        assert!(space.is_full(0));
        assert!(!space.admits(0, 1, Writer::Internal, MonotonicMs(0)));
        drop(stuck);
        assert!(!space.is_full(0));
    }

    #[test]
    fn small_disks_have_a_small_reserve() {
        let of = |total: u64| reserve_of(Space { total_bytes: total * MIB, available_bytes: 0 }) / MIB;
        assert_eq!([8, 64, 1_000, 100_000].map(of), [2, 4, 10, 64]);
    }
}
