//! How long a client's calls may wait: every wait of this crate, for a socket, an answer or the next try, asks here.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{ClientError, ClientOptions};

/// How soon a wait notices that it is to end.
const STEP: Duration = Duration::from_millis(50);

/// When calls end whatever they wait for: at a time, and when somebody says so. Copies share both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    deadline: Mutex<Option<Instant>>,
    stop: Option<Arc<AtomicBool>>,
    is_closing: AtomicBool,
    grace: Mutex<Grace>,
}

/// How much longer waits go on that a stop finds.
#[derive(Debug, Default, Clone, Copy)]
struct Grace {
    limit: Duration,
    /// When the stop was first seen while there was any.
    since: Option<Instant>,
}

impl Patience {
    /// Calls end when `stop` is set.
    pub(crate) fn new(stop: Option<Arc<AtomicBool>>) -> Patience {
        Patience(Arc::new(Inner { stop, ..Inner::default() }))
    }

    /// Calls end at this time, too.
    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// Moves the deadline to `limit` if that is earlier, and returns what it was.
    pub(crate) fn narrow(&self, limit: Instant) -> Option<Instant> {
        let before = self.deadline();
        self.set_deadline(Some(before.map_or(limit, |before| before.min(limit))));
        before
    }

    fn deadline(&self) -> Option<Instant> {
        *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on only the time counts: what has to be done at the end may be done although somebody stopped the rest.
    pub(crate) fn close_within(&self, limit: Duration) {
        self.0.is_closing.store(true, Ordering::Relaxed);
        self.set_deadline(Some(Instant::now() + limit));
    }

    /// From now on waits that a stop finds go on for `limit`, which is granted once, however often waits begin anew. Returns
    /// the limit of before.
    pub(crate) fn set_grace(&self, limit: Duration) -> Duration {
        std::mem::replace(&mut self.grace().limit, limit)
    }

    fn grace(&self) -> std::sync::MutexGuard<'_, Grace> {
        self.0.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stop, which has come, leaves waits no more time.
    fn is_grace_over(&self) -> bool {
        let mut grace = self.grace();
        match grace.limit {
            Duration::ZERO => true,
            limit => grace.since.get_or_insert_with(Instant::now).elapsed() >= limit,
        }
    }

    /// Whether a wait could have to end before its own time.
    pub(crate) fn is_limited(&self) -> bool {
        self.0.stop.is_some() || self.deadline().is_some()
    }

    /// Fails if calls are to end.
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        let is_closing = self.0.is_closing.load(Ordering::Relaxed);
        let is_stopped = self.0.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
        match self.deadline() {
            _ if is_stopped && !is_closing && self.is_grace_over() => Err(ClientError::Stopped),
            Some(deadline) if Instant::now() >= deadline => Err(ClientError::OutOfTime),
            _ => Ok(()),
        }
    }

    /// The part of `limit` that there is time for.
    pub(crate) fn cut(&self, limit: Duration) -> Duration {
        let left = self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.map_or(limit, |left| left.min(limit))
    }

    /// How long a wait of at most `limit` may go on before it asks again whether it is to end.
    pub(crate) fn step(&self, limit: Duration) -> Duration {
        if self.is_limited() { self.cut(limit.min(STEP)) } else { limit }
    }

    /// Waits, and fails if calls are to end by then.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), ClientError> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(self.step(left));
        }
    }
}

/// Growing pauses between tries (KIP-144): each twice the one before, with a fifth more or less so that clients that
/// lost the same node don't all come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        let options = ClientOptions::default();
        Backoff::new(options.reconnect_backoff, options.reconnect_backoff_max)
    }
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { next: first.min(max), max }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.max);
        // Each of std's hashers begins with another seed.
        let random = RandomState::new().build_hasher().finish() % 401;
        pause.mul_f64(0.8 + random as f64 / 1000.0)
    }
}
