//! Where nodes listen: an address, and a network namespace if the test has made one.

use std::process;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

use crate::paths;

/// An address for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// An IPv4 address.
    pub address: String,
    /// The network namespace that the node runs in.
    pub namespace: Option<String>,
}

impl Place {
    /// 127.0.0.1, as single nodes have it.
    pub fn loopback() -> Place {
        Place { address: "127.0.0.1".to_owned(), namespace: None }
    }

    /// An address of the loopback interface that nobody else has.
    ///
    /// Who connects to a port of 127.0.0.1 that is closed may be given that very port for its own end, and then holds
    /// it: a node that starts again couldn't listen. Connections to other addresses begin at 127.0.0.1 all the same.
    pub fn own_loopback() -> Result<Place> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        ensure!(number < 255, "one program has had 254 addresses");
        let program = process::id();
        let address = format!("127.{}.{}.{number}", 64 + (program >> 8) % 128, program % 256);
        Ok(Place { address, namespace: None })
    }

    /// Two ports that are free here.
    pub fn ports(&self) -> Result<[u16; 2]> {
        match &self.namespace {
            // Nobody else is there.
            Some(_) => Ok([9092, 9093]),
            None => paths::free_ports(&self.address),
        }
    }

    /// The command, to be run here.
    pub fn command(&self, command: Command) -> Command {
        let Some(namespace) = &self.namespace else { return command };
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
        inside
    }
}
