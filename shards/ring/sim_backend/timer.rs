//! Sleeping, and a host's clocks.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringlog_types::{MonotonicMs, TimestampMs};

use super::schedule::Event;
use super::world;

/// Nanoseconds of the host's monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    let local_ns = world::world().local_ns();
    world::try_current().map_or(local_ns, |core| core.process.host.clock.monotonic_ns(local_ns))
}

/// The host's wall clock.
pub(crate) fn wall_clock() -> TimestampMs {
    let local_ns = world::world().local_ns();
    world::current().process.host.clock.wall(local_ns)
}

/// Waits at least `ms` milliseconds.
pub async fn sleep_ms(ms: u64) {
    let span_ns = ms.saturating_mul(1_000_000);
    let world_ns = world::try_current().map_or(span_ns, |core| core.process.host.clock.world_span(span_ns));
    sleep_ns(world_ns.saturating_add(1)).await;
}

/// Waits until the monotonic clock has reached `deadline`.
pub async fn sleep_until(deadline: MonotonicMs) {
    while monotonic_ns() / 1_000_000 < deadline.0 {
        let moment_ns = world::current().process.host.clock.moment_of(deadline);
        Sleep::until(moment_ns).await;
    }
}

/// Waits for a span of the world's time, and for as long as timers are late.
pub(crate) async fn sleep_ns(ns: u64) {
    let at_ns = world::world().local_ns().saturating_add(ns);
    Sleep::until(at_ns).await;
}

/// A time that somebody waits for.
#[derive(Default)]
pub(crate) struct Timer {
    has_come: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Timer {
    pub fn fire(&self) {
        self.has_come.set(true);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Sleep(Rc<Timer>);

impl Sleep {
    fn until(at_ns: u64) -> Sleep {
        let timer = Rc::new(Timer::default());
        let world = world::world();
        let late_ns = world.streams.cores.between(world.settings.cores.timer_late_ns);
        // A time that never comes isn't worth remembering.
        if at_ns < u64::MAX / 4 {
            world.post(at_ns + late_ns, Event::Timer(timer.clone()));
        }
        Sleep(timer)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.has_come.get() {
            return Poll::Ready(());
        }
        let mut waker = self.0.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let waker = self.0.waker.take();
        drop(waker);
    }
}
