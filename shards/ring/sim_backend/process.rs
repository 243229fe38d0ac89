//! A process: a main thread, executors, what the kernel keeps for it, and its end.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;

use super::core::{Core, Thread};
use super::disk::Handle;
use super::faults;
use super::host::Host;
use super::schedule::Event;
use super::trace::Kind;
use super::world::{self, World};

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its main function returned.
    Returned,
    /// By [`crate::halt`].
    Halted(u8),
    /// SIGKILL.
    Killed,
    /// With its host.
    PowerLost,
    /// A panic: a fault of the program, which the world notes as a violation.
    Panicked(String),
}

/// What unwinds a task that ends its process.
struct Unwound(Exit);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// Nothing runs any more, but some core was in the middle of something that has begun.
    Ending,
    Ended,
}

/// Descriptors that a process has from the start: its streams.
const STANDARD_DESCRIPTORS: usize = 3;
/// An executor's rings and what wakes it.
pub(crate) const EXECUTOR_DESCRIPTORS: usize = 4;

/// See the module's text.
pub(crate) struct Process {
    pub id: u32,
    pub name: String,
    pub host: Rc<Host>,
    /// The main thread first.
    pub cores: RefCell<Vec<Rc<Core>>>,
    /// Files that are open.
    pub files: RefCell<Slab<Handle>>,
    state: Cell<State>,
    is_stopped: Cell<bool>,
    descriptors: Cell<usize>,
    signals: Cell<u32>,
    signal_waiters: RefCell<Vec<Waker>>,
}

impl Process {
    /// Starts a process whose main thread runs `main`.
    pub fn start<Fut>(
        world: &Rc<World>,
        host: &Rc<Host>,
        name: &str,
        main: impl FnOnce() -> Fut + 'static,
    ) -> Rc<Process>
    where
        Fut: Future<Output = ()> + 'static,
    {
        let process = {
            let mut processes = world.processes.borrow_mut();
            let process = Rc::new(Process {
                id: processes.len() as u32,
                name: name.to_owned(),
                host: host.clone(),
                cores: RefCell::default(),
                files: RefCell::default(),
                state: Cell::new(State::Running),
                is_stopped: Cell::new(false),
                descriptors: Cell::new(STANDARD_DESCRIPTORS),
                signals: Cell::new(0),
                signal_waiters: RefCell::default(),
            });
            processes.push(Some(process.clone()));
            process
        };
        world.trace.hash(Kind::Start, world.now_ns(), u64::from(process.id), 0);
        world.trace.tell(|| format!("{name} starts on {}", host.name()));
        let thread = Thread { index: 0, name: "main".to_owned(), preempt_us: 1_000, is_helper: false };
        let core = process.add_core(world, thread);
        let ending = process.clone();
        let task = async move {
            main().await;
            ending.request_end(Exit::Returned);
        };
        core.spawn_into(world, 0, Box::pin(task));
        process
    }

    pub fn add_core(self: &Rc<Self>, world: &World, thread: Thread) -> Rc<Core> {
        let core = world.add_core(|id| Core::new(id, thread, self.clone()));
        self.cores.borrow_mut().push(core.clone());
        core
    }

    /// A thread ends.
    pub fn remove_core(&self, core: &Rc<Core>) {
        core.end();
        self.cores.borrow_mut().retain(|other| !Rc::ptr_eq(other, core));
    }

    pub fn may_run(&self) -> bool {
        self.state.get() == State::Running && !self.is_stopped.get()
    }

    pub fn has_ended(&self) -> bool {
        self.state.get() == State::Ended
    }

    /// SIGSTOP.
    pub fn stop(&self) {
        self.is_stopped.set(true);
    }

    /// SIGCONT.
    pub fn resume(&self, world: &World) {
        self.is_stopped.set(false);
        let cores = self.cores.borrow().clone();
        for core in cores {
            core.resume(world);
        }
    }

    /// SIGTERM.
    pub fn signal(&self) {
        self.signals.set(self.signals.get() + 1);
        let waiters = self.signal_waiters.take();
        waiters.into_iter().for_each(Waker::wake);
    }

    pub fn signals(&self) -> u32 {
        self.signals.get()
    }

    pub fn wait_for_signal(&self, waker: &Waker) {
        let mut waiters = self.signal_waiters.borrow_mut();
        if !waiters.iter().any(|waiter| waiter.will_wake(waker)) {
            waiters.push(waker.clone());
        }
    }

    /// Ends the process from within: what runs is unwound.
    pub fn end_from_within(exit: Exit) -> ! {
        resume_unwind(Box::new(Unwound(exit)))
    }

    /// Whether a panic's payload is the end of the process and no panic.
    pub fn is_end(payload: &(dyn Any + Send)) -> bool {
        payload.is::<Unwound>()
    }

    /// A task was unwound.
    pub fn on_unwound(self: &Rc<Self>, payload: Box<dyn Any + Send>) {
        let exit = match payload.downcast::<Unwound>() {
            Ok(unwound) => unwound.0,
            Err(payload) => Exit::Panicked(faults::describe_panic(&*payload)),
        };
        self.request_end(exit);
    }

    /// Ends the process as soon as its cores have done what they are in the middle of: nothing new begins.
    pub fn request_end(self: &Rc<Self>, exit: Exit) {
        if self.state.get() != State::Running {
            return;
        }
        let world = world::world();
        self.state.set(State::Ending);
        let busy_until_ns = self.cores.borrow().iter().map(|core| core.busy_until_ns()).max().unwrap_or(0);
        // A core that is being polled right now has yet to say how long that takes.
        if busy_until_ns <= world.now_ns() && world::try_current().is_none_or(|core| !Rc::ptr_eq(&core.process, self)) {
            return self.end(exit);
        }
        let process = self.clone();
        let at_ns = busy_until_ns.max(world.local_ns());
        world.post(at_ns, Event::Call(Box::new(move || process.end(exit))));
    }

    /// Ends the process: the kernel takes back what it gave, memory goes.
    pub fn end(self: &Rc<Self>, exit: Exit) {
        if self.state.replace(State::Ended) == State::Ended {
            return;
        }
        let Some(world) = world::try_world() else { return };
        world.trace.hash(Kind::End, world.now_ns(), u64::from(self.id), 0);
        world.trace.tell(|| format!("{} on {} ends: {exit:?}", self.name, self.host.name()));
        if let Exit::Panicked(message) = &exit {
            faults::note_violation(&world, format!("{} on {} panicked: {message}", self.name, self.host.name()));
        }
        let has_power = exit != Exit::PowerLost;
        world.exits.borrow_mut().insert(self.id, exit);
        world::as_nobody(|| {
            super::disk::on_process_ended(self, has_power);
            super::tcp::network::on_process_ended(&world, self, has_power);
        });
        let cores = self.cores.borrow().clone();
        cores.iter().for_each(Core::end);
        // Cores know their process, too.
        drop(self.cores.take());
        self.signal_waiters.take();
        world.processes.borrow_mut()[self.id as usize] = None;
        world.ended.borrow_mut().push(Rc::downgrade(self));
    }

    /// Takes descriptors, or fails with EMFILE.
    pub fn take_descriptors(&self, count: usize) -> std::io::Result<()> {
        if self.descriptors.get() + count > self.host.descriptors() {
            return Err(std::io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.descriptors.set(self.descriptors.get() + count);
        Ok(())
    }

    pub fn return_descriptors(&self, count: usize) {
        self.descriptors.set(self.descriptors.get().saturating_sub(count));
    }

    pub fn descriptors(&self) -> usize {
        self.descriptors.get()
    }
}
