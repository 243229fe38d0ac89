//! Where tools print to.

use std::io::Write;

/// Standard output and error, or a test's stand-in.
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

    /// Whether stdout is no longer read by anyone.
    fn is_closed(&self) -> bool {
        false
    }

    /// Hands on what is buffered.
    fn flush(&mut self) {}
}

/// The process's own streams. Stdout is buffered: flush before waiting.
#[derive(Debug)]
pub struct Terminal {
    out: std::io::BufWriter<std::io::Stdout>,
    is_closed: bool,
}

impl Terminal {
    /// The process's streams.
    pub fn new() -> Terminal {
        Terminal { out: std::io::BufWriter::with_capacity(64 << 10, std::io::stdout()), is_closed: false }
    }
}

impl Output for Terminal {
    fn write(&mut self, bytes: &[u8]) {
        self.is_closed |= self.out.write_all(bytes).is_err();
    }

    fn write_error(&mut self, text: &str) {
        self.flush();
        // Without stderr there is nobody to tell.
        let _ = write!(std::io::stderr(), "{text}");
    }

    fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn flush(&mut self) {
        self.is_closed |= self.out.flush().is_err();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.flush();
    }
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
