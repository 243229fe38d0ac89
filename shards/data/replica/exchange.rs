//! A replica's log goes on in another directory: a copy of it takes its place ([`Replica::exchange`]), while its own files
//! are left alone by everybody else ([`Replica::hold_still`]). Who reads finds that the segments were replaced, and looks
//! them up again; who appends waits, as for memory.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use ringlog_ring::{self as ring, BytePermit};

use super::Replica;

/// Held, nobody appends to the log or writes to its files, and its role stays.
pub struct Still {
    replica: Rc<Replica>,
    has_writers_place: Cell<bool>,
    _pass: ring::GatePass,
    _role: BytePermit,
    _files: BytePermit,
    epochs: Option<BytePermit>,
}

impl Still {
    /// Appends go on, into memory: nothing is written yet.
    pub fn let_appends_go_on(&self) {
        self.replica.holds_appends.set(false);
    }

    /// Writes the leader epochs to where the log is now.
    pub async fn write_leader_epochs(&self) -> io::Result<()> {
        self.replica.write_leader_epochs().await
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.replica.holds_appends.set(false);
        self.epochs.take();
        if self.has_writers_place.get() {
            self.replica.give_writers_place_back();
        }
    }
}

impl Replica {
    /// Waits until everything is in the files, and keeps all from going on. An error when that can't be now, as the disk
    /// takes nothing; `None` when the files were given up.
    pub async fn hold_still(self: &Rc<Self>) -> io::Result<Option<Still>> {
        let Ok(_pass) = self.files.enter() else { return Ok(None) };
        let _role = self.role_turn().await;
        let _files = self.files_turn.acquire(1).await;
        let replica = self.clone();
        let mut still = Still { replica, has_writers_place: Cell::new(false), _pass, _role, _files, epochs: None };
        self.holds_appends.set(true);
        self.take_writers_place().await?;
        still.has_writers_place.set(true);
        still.epochs = Some(self.epochs_turn.acquire(1).await);
        Ok(Some(still))
    }

    /// Takes the log of `copy`, with its files and its directory, which gets this one's. Both are held still by the caller.
    /// `false` when one has what the other hasn't, or is over: nothing is changed then.
    pub fn exchange(&self, copy: &Replica) -> bool {
        if !self.partition.borrow_mut().exchange_log(&mut copy.partition.borrow_mut()) {
            return false;
        }
        self.store.swap(&copy.store);
        self.log_dir.swap(&copy.log_dir);
        self.retired.swap(&copy.retired);
        self.wake_waiters();
        true
    }
}
