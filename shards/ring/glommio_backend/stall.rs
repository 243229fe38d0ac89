//! The watchdog: a thread that looks whether every executor still answers, and nudges one that doesn't.
//!
//! Each executor has a pulse task whose waker lies in a shared cell. The watchdog asks for a beat by waking that waker
//! by reference (never by value: a consumed waker was seen to get lost with the executor it should have woken). An
//! executor that burnt CPU since the last look is asked every 5 ms, an idle one every 100 ms; one that hasn't answered
//! is woken again at every look. The time to the answer is the stall.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::backend::timer::monotonic_ns;
use crate::vocabulary::StallStats;

const LOOK_EVERY: Duration = Duration::from_millis(5);
const IDLE_LOOKS: u64 = 20;
/// An answer slower than this counts as a stall.
const STALL_NS: u64 = 5_000_000;
/// CPU time between two looks above which an executor counts as busy.
const BUSY_NS: u64 = 200_000;

static STALLS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);
static LONGEST_STALL_NS: AtomicU64 = AtomicU64::new(0);
static LONGEST_BUSY_NS: AtomicU64 = AtomicU64::new(0);

/// Stalls since the process started.
pub fn stall_stats() -> StallStats {
    let longest_ms = |longest: &AtomicU64| longest.load(Ordering::Relaxed) / 1_000_000;
    StallStats {
        stalls: STALLS.load(Ordering::Relaxed),
        held: HELD.load(Ordering::Relaxed),
        longest_stall_ms: longest_ms(&LONGEST_STALL_NS),
        longest_busy_ms: longest_ms(&LONGEST_BUSY_NS),
    }
}

/// What an executor and the threads outside of it share: whether it answers, and whether it shall stop.
pub(crate) struct Pulse {
    /// Replaced by the executor only.
    waker: Mutex<Option<Waker>>,
    /// Known to the executor only.
    has_waker: AtomicBool,
    asked: AtomicU64,
    answered: AtomicU64,
    answered_at_ns: AtomicU64,
    /// CPU time of the executor's thread at that moment.
    answered_cpu_ns: AtomicU64,
    stop: AtomicBool,
    ended: AtomicBool,
    cpu_clock: OnceLock<libc::clockid_t>,
}

impl Pulse {
    pub(crate) fn new() -> Arc<Pulse> {
        Arc::new(Pulse {
            waker: Mutex::new(None),
            has_waker: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            answered_at_ns: AtomicU64::new(0),
            answered_cpu_ns: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            cpu_clock: OnceLock::new(),
        })
    }

    /// To be called on the executor's thread.
    pub(crate) fn attach(&self) {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: the thread is the calling one, so it is alive, and `clock` is a valid place.
        let result = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        if result == 0 {
            let _ = self.cpu_clock.set(clock);
        }
    }

    /// The executor is about to end: nobody may wake it any more.
    pub(crate) fn detach(&self) {
        self.ended.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(waker);
    }

    /// The pulse task: answers; resolves when asked to stop.
    pub(crate) async fn beat(&self) {
        poll_fn(|context| {
            self.answer(context.waker());
            if self.stop.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Goes on answering after a stop.
    pub(crate) async fn beat_forever(&self) -> ! {
        poll_fn(|context| -> Poll<()> {
            self.answer(context.waker());
            Poll::Pending
        })
        .await;
        unreachable!("the pulse has no end")
    }

    fn answer(&self, own: &Waker) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        self.remember(own);
        let asked = self.asked.load(Ordering::Acquire);
        if self.answered.load(Ordering::Relaxed) != asked {
            self.answered_at_ns.store(monotonic_ns(), Ordering::Relaxed);
            self.answered_cpu_ns.store(cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0), Ordering::Relaxed);
            self.answered.store(asked, Ordering::Release);
        }
    }

    /// Doesn't wait for the watchdog, which holds the lock while it wakes this very executor, and may be without a CPU
    /// since: it has a waker then, and a task's wakers are all the same.
    fn remember(&self, own: &Waker) {
        let mut waker = match self.waker.try_lock() {
            Ok(waker) => waker,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if self.has_waker.load(Ordering::Relaxed) => return,
            Err(TryLockError::WouldBlock) => self.waker.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(own)) {
            *waker = Some(own.clone());
            self.has_waker.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// CPU time of the executor's thread so far, in nanoseconds. How long others had its CPU, or the host's hypervisor,
    /// can't be told apart from waiting otherwise.
    fn cpu_ns(&self) -> Option<u64> {
        cpu_ns(*self.cpu_clock.get()?)
    }
}

fn cpu_ns(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place; a clock of an ended thread yields an error, no harm.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    (result == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Starts the watchdog for these executors; it ends when all of them have.
pub(crate) fn watch(pulses: Vec<Arc<Pulse>>) -> std::io::Result<()> {
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || run(pulses)).map(drop)
}

struct Watched {
    pulse: Arc<Pulse>,
    cpu_ns: u64,
    /// When the question was asked that isn't known to be answered.
    asked_at_ns: Option<u64>,
    looks: u64,
}

fn run(pulses: Vec<Arc<Pulse>>) {
    let watch = |pulse| Watched { pulse, cpu_ns: 0, asked_at_ns: None, looks: 0 };
    let mut watched: Vec<Watched> = pulses.into_iter().map(watch).collect();
    while !watched.is_empty() {
        std::thread::sleep(LOOK_EVERY);
        watched.retain(|watched| !watched.pulse.ended.load(Ordering::Acquire));
        for executor in &mut watched {
            executor.look();
        }
    }
}

impl Watched {
    fn look(&mut self) {
        self.looks += 1;
        if let Some(asked_at_ns) = self.asked_at_ns {
            if self.pulse.answered.load(Ordering::Acquire) != self.pulse.asked.load(Ordering::Relaxed) {
                let waited_ns = monotonic_ns().saturating_sub(asked_at_ns);
                LONGEST_STALL_NS.fetch_max(waited_ns, Ordering::Relaxed);
                self.pulse.wake();
                return;
            }
            self.asked_at_ns = None;
            let waited_ns = self.pulse.answered_at_ns.load(Ordering::Relaxed).saturating_sub(asked_at_ns);
            LONGEST_STALL_NS.fetch_max(waited_ns, Ordering::Relaxed);
            let busy_ns = self.pulse.answered_cpu_ns.load(Ordering::Relaxed).saturating_sub(self.cpu_ns);
            let busy_ns = busy_ns.min(waited_ns);
            LONGEST_BUSY_NS.fetch_max(busy_ns, Ordering::Relaxed);
            HELD.fetch_add(u64::from(busy_ns > STALL_NS), Ordering::Relaxed);
            if waited_ns > STALL_NS {
                STALLS.fetch_add(1, Ordering::Relaxed);
            }
        }
        let cpu_ns = self.pulse.cpu_ns().unwrap_or(self.cpu_ns);
        let busy = cpu_ns.saturating_sub(self.cpu_ns) > BUSY_NS;
        self.cpu_ns = cpu_ns;
        if busy || self.looks.is_multiple_of(IDLE_LOOKS) {
            self.asked_at_ns = Some(monotonic_ns());
            self.pulse.asked.fetch_add(1, Ordering::AcqRel);
            self.pulse.wake();
        }
    }
}
