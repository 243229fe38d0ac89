//! A core: tasks, and the queues that share its time. Named as the thread that it stands for.
//!
//! One task runs at a time. To run takes virtual time, in which the world goes on; what the task did to the outside
//! happens at its place in that time. Queues are chosen as glommio does: the one that had the least time for its shares,
//! until it has nothing to do or the preempt timer has run off.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::process::Process;
use super::schedule::Event;
use super::trace::Kind;
use super::waker::TaskWaker;
use super::world::{self, World};
use crate::semaphore::ByteSemaphore;
use crate::vocabulary::DiskReads;

pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The shares of the first queue.
const FIRST_SHARES: u64 = 1000;
/// The most that a question whether to yield takes: code asks between pieces of work.
const PIECE_NS: u64 = 2_000;

/// See the module's text.
pub(crate) struct Core {
    pub id: u32,
    /// Its place among the executors; of the main thread and of helper threads that of the one that they belong to.
    pub index: usize,
    pub name: String,
    pub process: Rc<Process>,
    preempt_ns: u64,
    tasks: RefCell<Slab<Slot>>,
    queues: RefCell<Vec<Queue>>,
    /// The queue of the task that runs.
    queue: Cell<usize>,
    turn_began_ns: Cell<u64>,
    /// Time that the running task has taken so far.
    elapsed_ns: Cell<u64>,
    is_running: Cell<bool>,
    is_polling: Cell<bool>,
    busy_until_ns: Cell<u64>,
    /// It stands still until then, whatever there is to do.
    still_until_ns: Cell<u64>,
    is_posted: Cell<bool>,
    has_ended: Cell<bool>,
    serials: Cell<u64>,
    /// The thread that does blocking work for it, once there is one.
    pub helper: RefCell<Option<Rc<Core>>>,
    /// What it does when it is short of descriptors.
    pub relief: RefCell<Option<Rc<dyn Fn()>>>,
    /// What it has read.
    pub disk_reads: Cell<DiskReads>,
    /// Of a thread that does blocking work: one piece after the other, in the order in which they came.
    pub turns: ByteSemaphore,
    is_helper: bool,
}

struct Slot {
    /// Taken out while the task runs.
    body: Option<Body>,
    shared: Arc<TaskWaker>,
    queue: usize,
    is_cancelled: bool,
}

struct Body {
    future: LocalFuture,
    waker: Waker,
}

struct Queue {
    runnable: VecDeque<(usize, u64)>,
    shares: u64,
    vruntime: u64,
}

/// What a core stands for.
pub(crate) struct Thread {
    pub index: usize,
    pub name: String,
    pub preempt_us: u64,
    /// It does one piece of work after the other, and no tasks.
    pub is_helper: bool,
}

/// A task, for whoever wants to cancel it.
#[derive(Clone)]
pub(crate) struct TaskId {
    core: Rc<Core>,
    key: usize,
    serial: u64,
}

impl Core {
    pub fn new(id: u32, thread: Thread, process: Rc<Process>) -> Rc<Core> {
        let Thread { index, name, preempt_us, is_helper } = thread;
        let first = Queue { runnable: VecDeque::new(), shares: FIRST_SHARES, vruntime: 0 };
        Rc::new(Core {
            id,
            index,
            name,
            process,
            preempt_ns: preempt_us * 1_000,
            tasks: RefCell::default(),
            queues: RefCell::new(vec![first]),
            queue: Cell::new(0),
            turn_began_ns: Cell::new(0),
            elapsed_ns: Cell::new(0),
            is_running: Cell::new(false),
            is_polling: Cell::new(false),
            busy_until_ns: Cell::new(0),
            still_until_ns: Cell::new(0),
            is_posted: Cell::new(false),
            has_ended: Cell::new(false),
            serials: Cell::new(0),
            helper: RefCell::default(),
            relief: RefCell::default(),
            disk_reads: Cell::default(),
            turns: ByteSemaphore::new(1),
            is_helper,
        })
    }

    pub fn elapsed_ns(&self) -> u64 {
        self.elapsed_ns.get()
    }

    /// What runs takes so much longer.
    pub fn spend(&self, ns: u64) {
        if self.is_polling.get() {
            self.elapsed_ns.set(self.elapsed_ns.get().saturating_add(ns));
        }
    }

    /// Until when the core is in the middle of something.
    pub fn busy_until_ns(&self) -> u64 {
        self.busy_until_ns.get()
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Nothing runs here before `until_ns`.
    pub fn stand_still(&self, until_ns: u64) {
        self.still_until_ns.set(self.still_until_ns.get().max(until_ns));
    }

    /// Adds a queue.
    pub fn add_queue(&self, shares: usize) -> usize {
        let mut queues = self.queues.borrow_mut();
        let vruntime = queues.iter().map(|queue| queue.vruntime).max().unwrap_or(0);
        queues.push(Queue { runnable: VecDeque::new(), shares: shares.max(1) as u64, vruntime });
        queues.len() - 1
    }

    /// Starts a task in the queue of the running one, and runs it to its first wait.
    pub fn spawn(self: &Rc<Self>, world: &World, future: LocalFuture) -> TaskId {
        let task = self.add_task(world, self.queue.get(), future);
        if self.is_polling.get() {
            self.elapsed_ns.set(self.elapsed_ns.get() + self.draw_poll_ns(world));
            // Unwinds through the task that spawned it: the process ends.
            self.poll(task.key, task.serial);
        } else {
            self.enqueue(world, task.key, task.serial, world.local_ns());
        }
        task
    }

    /// Starts a task in a queue. It runs when its turn comes.
    pub fn spawn_into(self: &Rc<Self>, world: &World, queue: usize, future: LocalFuture) -> TaskId {
        let task = self.add_task(world, queue, future);
        self.enqueue(world, task.key, task.serial, world.local_ns());
        task
    }

    fn add_task(self: &Rc<Self>, world: &World, queue: usize, future: LocalFuture) -> TaskId {
        let serial = self.serials.get();
        self.serials.set(serial + 1);
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let key = entry.key();
        let is_woken = AtomicBool::new(false);
        let shared = Arc::new(TaskWaker { world: world.number, core: self.id, key, serial, is_woken });
        let waker = Waker::from(shared.clone());
        entry.insert(Slot { body: Some(Body { future, waker }), shared, queue, is_cancelled: false });
        TaskId { core: self.clone(), key, serial }
    }

    /// Something is to be run. Events of a task that has ended meanwhile are ignored.
    pub fn enqueue(self: &Rc<Self>, world: &World, key: usize, serial: u64, at_ns: u64) {
        let queue = match self.tasks.borrow().get(key).filter(|slot| slot.shared.serial == serial) {
            Some(slot) => slot.queue,
            None => return,
        };
        {
            let mut queues = self.queues.borrow_mut();
            let is_in_turn = self.is_running.get() && queue == self.queue.get();
            if queues[queue].runnable.is_empty() && !is_in_turn {
                // A queue that had nothing to do hasn't saved up time.
                let least = queues.iter().filter(|queue| !queue.runnable.is_empty()).map(|queue| queue.vruntime).min();
                queues[queue].vruntime = queues[queue].vruntime.max(least.unwrap_or(0));
            }
            queues[queue].runnable.push_back((key, serial));
        }
        if !self.is_running.get() {
            self.post(world, at_ns);
        }
    }

    /// Has itself run: now if it is awake, else when it is.
    fn post(self: &Rc<Self>, world: &World, at_ns: u64) {
        if self.is_posted.replace(true) {
            return;
        }
        let busy_until_ns = self.busy_until_ns.get();
        let at_ns = match busy_until_ns > at_ns {
            true => busy_until_ns,
            false => at_ns + world.streams.cores.between(world.settings.cores.unpark_ns),
        };
        world.post(at_ns, Event::Run(self.clone()));
    }

    /// Has itself run if there is something to run: after the process was stopped.
    pub fn resume(self: &Rc<Self>, world: &World) {
        if self.has_runnable() {
            self.post(world, world.now_ns());
        }
    }

    fn has_runnable(&self) -> bool {
        self.queues.borrow().iter().any(|queue| !queue.runnable.is_empty())
    }

    /// Runs tasks, until none is runnable or something else happens in the world.
    pub fn run(self: &Rc<Self>, world: &World) {
        self.is_posted.set(false);
        let free_at_ns = self.busy_until_ns.get().max(self.still_until_ns.get());
        if free_at_ns > world.now_ns() {
            self.is_posted.set(true);
            return world.post(free_at_ns, Event::Run(self.clone()));
        }
        self.is_running.set(true);
        while self.may_run() {
            let Some((key, serial)) = self.next_task(world) else { break };
            self.run_task(world, key, serial);
            world.settle();
            let busy_until_ns = self.busy_until_ns.get();
            if !world.is_quiet_until(busy_until_ns) {
                break;
            }
            world.advance(busy_until_ns);
        }
        self.is_running.set(false);
        if self.may_run() && self.has_runnable() {
            self.post(world, world.now_ns());
        }
    }

    fn may_run(&self) -> bool {
        !self.has_ended.get() && self.process.may_run()
    }

    fn next_task(&self, world: &World) -> Option<(usize, u64)> {
        let mut queues = self.queues.borrow_mut();
        let now_ns = world.now_ns();
        let mut chosen = self.queue.get();
        let is_over = now_ns.saturating_sub(self.turn_began_ns.get()) >= self.preempt_ns;
        if queues[chosen].runnable.is_empty() || is_over {
            let runnable = queues.iter().enumerate().filter(|(_, queue)| !queue.runnable.is_empty());
            chosen = runnable.min_by_key(|(index, queue)| (queue.vruntime, *index)).map(|(index, _)| index)?;
            self.queue.set(chosen);
            self.turn_began_ns.set(now_ns);
        }
        let runnable = &mut queues[chosen].runnable;
        if runnable.len() > 1
            && !self.is_helper
            && world.streams.cores.permille(world.settings.cores.out_of_order_permille)
        {
            return runnable.remove(world.streams.cores.below(runnable.len() as u64) as usize);
        }
        runnable.pop_front()
    }

    fn draw_poll_ns(&self, world: &World) -> u64 {
        let (settings, stream) = (&world.settings.cores, &world.streams.cores);
        let is_long = stream.permille(settings.long_poll_permille);
        stream.between(if is_long { settings.long_poll_ns } else { settings.poll_ns })
    }

    fn run_task(self: &Rc<Self>, world: &World, key: usize, serial: u64) {
        self.elapsed_ns.set(self.draw_poll_ns(world).max(1));
        self.is_polling.set(true);
        let outcome = world::as_code_of(self, || catch_unwind(AssertUnwindSafe(|| self.poll(key, serial))));
        self.is_polling.set(false);
        let elapsed_ns = self.elapsed_ns.replace(0);
        self.busy_until_ns.set(world.now_ns() + elapsed_ns);
        let queue = &mut self.queues.borrow_mut()[self.queue.get()];
        queue.vruntime += elapsed_ns * FIRST_SHARES / queue.shares;
        world.trace.hash(Kind::Poll, world.now_ns(), u64::from(self.id) << 32 | key as u64, elapsed_ns);
        if let Err(payload) = outcome {
            self.process.on_unwound(payload);
        }
    }

    /// Polls a task, or drops it if it was cancelled.
    fn poll(self: &Rc<Self>, key: usize, serial: u64) {
        let (mut body, is_cancelled) = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(slot) = tasks.get_mut(key).filter(|slot| slot.shared.serial == serial) else { return };
            // None: it runs already, further down the stack.
            let Some(body) = slot.body.take() else { return };
            slot.shared.is_woken.store(false, Ordering::Relaxed);
            (body, slot.is_cancelled)
        };
        let is_done = is_cancelled || {
            let mut context = Context::from_waker(&body.waker);
            matches!(body.future.as_mut().poll(&mut context), Poll::Ready(()))
        };
        if is_done {
            drop(body);
            self.tasks.borrow_mut().try_remove(key);
            return;
        }
        // Its core may have ended meanwhile, by its own doing.
        let left = match self.tasks.borrow_mut().get_mut(key) {
            Some(slot) => slot.body.replace(body),
            None => Some(body),
        };
        drop(left);
    }

    /// Whether the running task has had its time.
    pub fn needs_preempt(&self, world: &World) -> bool {
        self.spend(1 + world.streams.cores.below(PIECE_NS));
        let ran_ns = (world.now_ns() + self.elapsed_ns.get()).saturating_sub(self.turn_began_ns.get());
        ran_ns >= self.preempt_ns || world.streams.cores.permille(world.settings.cores.preempt_permille)
    }

    /// Drops all tasks. Nothing runs here any more.
    pub fn end(self: &Rc<Self>) {
        self.has_ended.set(true);
        let helper = self.helper.take();
        if let Some(helper) = helper {
            helper.end();
        }
        world::as_code_of(self, || {
            let relief = self.relief.take();
            drop(relief);
            loop {
                let tasks = self.tasks.take();
                if tasks.is_empty() {
                    break;
                }
                for (_, slot) in tasks {
                    // A destructor that fails fails in a process that is no more.
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(slot)));
                }
            }
        });
        self.queues.borrow_mut().iter_mut().for_each(|queue| queue.runnable.clear());
        if let Some(world) = world::try_world() {
            let ended = world.cores.borrow_mut()[self.id as usize].take();
            drop(ended);
        }
    }

    /// Tasks that haven't ended.
    pub fn tasks(&self) -> usize {
        self.tasks.borrow().len()
    }
}

impl TaskId {
    /// Has the task dropped when its turn comes.
    pub fn cancel(&self) {
        let waker = {
            let mut tasks = self.core.tasks.borrow_mut();
            let Some(slot) = tasks.get_mut(self.key).filter(|slot| slot.shared.serial == self.serial) else { return };
            slot.is_cancelled = true;
            slot.shared.clone()
        };
        Waker::from(waker).wake();
    }
}
