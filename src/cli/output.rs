//! Where tools print to.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// Standard output and error, or a test's stand-in.
///
/// What is written to standard output is buffered: flush before waiting. From the first write that fails on nothing more
/// is written there, and the tool is to end.
pub trait Output {
    /// A line for stdout.
    fn line(&mut self, text: &str) {
        self.write(text.as_bytes());
        self.write(b"\n");
    }

    /// Bytes for stdout.
    fn write(&mut self, bytes: &[u8]);

    /// A line for stderr.
    fn error(&mut self, text: &str) {
        self.write_error(&format!("{text}\n"));
    }

    /// Text for stderr, with its line ends.
    fn write_error(&mut self, text: &str);

    /// Why stdout takes no more, if it doesn't. Who asks tells the user.
    fn take_fault(&mut self) -> Option<String> {
        None
    }

    /// Whether stdout takes no more.
    fn is_broken(&self) -> bool {
        false
    }

    /// How many bytes stdout was given, and how many of them have arrived; a stand-in that never fails doesn't count.
    fn progress(&self) -> (u64, u64) {
        (0, 0)
    }

    /// Hands on what is buffered.
    fn flush(&mut self) {}
}

/// Bytes that are gathered before they are handed on.
const BUFFER_BYTES: usize = 64 << 10;

/// The process's own streams.
#[derive(Debug)]
pub struct Terminal {
    out: File,
    buffer: Vec<u8>,
    given: u64,
    arrived: u64,
    fault: Option<io::Error>,
    is_told: bool,
}

impl Terminal {
    /// The process's streams.
    pub fn new() -> io::Result<Terminal> {
        // Without the line buffer of std's own, which doesn't tell how much of a failed write arrived.
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Terminal {
            out,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            given: 0,
            arrived: 0,
            fault: None,
            is_told: false,
        })
    }

    /// The exit code of a tool that ended with `exit_code`: what it printed has to be there.
    pub fn finish(mut self, exit_code: u8) -> u8 {
        self.flush();
        if let Some(fault) = self.take_fault() {
            self.error(&format!("standard output can't be written: {fault}"));
        }
        match self.fault {
            Some(_) => exit_code.max(1),
            None => exit_code,
        }
    }
}

impl Output for Terminal {
    fn write(&mut self, bytes: &[u8]) {
        self.given += bytes.len() as u64;
        if self.fault.is_none() {
            self.buffer.extend_from_slice(bytes);
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush();
            }
        }
    }

    fn write_error(&mut self, text: &str) {
        self.flush();
        // Without stderr there is nobody to tell.
        let _ = write!(io::stderr(), "{text}");
    }

    fn take_fault(&mut self) -> Option<String> {
        let is_news = !std::mem::replace(&mut self.is_told, self.fault.is_some());
        self.fault.as_ref().filter(|_| is_news).map(ToString::to_string)
    }

    fn is_broken(&self) -> bool {
        self.fault.is_some()
    }

    fn progress(&self) -> (u64, u64) {
        (self.given, self.arrived)
    }

    fn flush(&mut self) {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() && self.fault.is_none() {
            match self.out.write(rest) {
                Ok(0) => self.fault = Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.arrived += count as u64;
                    rest = &rest[count..];
                }
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => wait_for_reader(),
                Err(fault) => self.fault = Some(fault),
            }
        }
        self.buffer.clear();
    }
}

/// Another process may have made the stream one that doesn't block.
#[allow(clippy::disallowed_methods, reason = "a stream that doesn't block is waited for by the clock")]
fn wait_for_reader() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// For what nobody has to see.
#[derive(Debug)]
pub struct Silence;

impl Output for Silence {
    fn write(&mut self, _bytes: &[u8]) {}

    fn write_error(&mut self, _text: &str) {}
}

/// What a tool printed, for tests.
#[cfg(test)]
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Captured {
    /// To standard output.
    pub stdout: String,
    /// To standard error.
    pub stderr: String,
}

#[cfg(test)]
impl Output for Captured {
    fn write(&mut self, bytes: &[u8]) {
        self.stdout += std::str::from_utf8(bytes).expect("output is text");
    }

    fn write_error(&mut self, text: &str) {
        self.stderr += text;
    }
}
