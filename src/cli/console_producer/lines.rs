//! Lines of standard input, as Java's readers part them: they end with a line feed, a carriage return, or both.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::sync::mpsc::{Receiver, sync_channel};

/// Lines that are read ahead.
const MAX_LINES_AHEAD: usize = 1024;
/// Bytes of a line at most: far more than any broker takes.
const MAX_LINE_BYTES: usize = 256 << 20;

/// Reads in a thread of its own, as a blocked read can't be given a time limit. The thread ends with the input or the
/// process.
#[allow(clippy::disallowed_methods, reason = "standard input can only be waited for with a time limit by a thread")]
pub fn read() -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(MAX_LINES_AHEAD);
    let is_interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    std::thread::spawn(move || {
        let mut lines = Lines { input: BufReader::with_capacity(64 << 10, std::io::stdin()), after_return: false };
        loop {
            if is_interactive {
                // A prompt that nobody sees is missed by nobody.
                let mut out = std::io::stdout();
                let _ = out.write_all(b">").and_then(|()| out.flush());
            }
            let line = lines.next();
            let is_end = !matches!(line, Ok(Some(_)));
            if line.transpose().is_some_and(|line| sender.send(line).is_err()) || is_end {
                return;
            }
        }
    });
    receiver
}

struct Lines<R> {
    input: R,
    /// The line before ended with a carriage return, to which a line feed may belong.
    after_return: bool,
}

impl<R: BufRead> Lines<R> {
    /// A line without its end, or none at the input's end.
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let input = match self.input.fill_buf() {
                Err(fault) if fault.kind() == std::io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            if input.is_empty() {
                return Ok(Some(line).filter(|line| !line.is_empty()));
            }
            let skipped = usize::from(std::mem::take(&mut self.after_return) && input[0] == b'\n');
            let rest = &input[skipped..];
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            self.after_return = end.is_some_and(|end| rest[end] == b'\r');
            let used = skipped + end.map_or(rest.len(), |end| end + 1);
            self.input.consume(used);
            if line.len() > MAX_LINE_BYTES {
                return Err(std::io::Error::other(format!("a line has more than {MAX_LINE_BYTES} bytes")));
            }
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &str, at_once: usize) -> Vec<String> {
        let mut lines = Lines { input: BufReader::with_capacity(at_once, input.as_bytes()), after_return: false };
        std::iter::from_fn(|| lines.next().expect("it can be read"))
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_end_as_in_java() {
        for at_once in [1, 2, 3, 100] {
            assert_eq!(lines("a\rb\n", at_once), ["a", "b"]);
            assert_eq!(lines("a\r\nb\r\n", at_once), ["a", "b"]);
            assert_eq!(lines("a\r\rb", at_once), ["a", "", "b"]);
            assert_eq!(lines("\n\n\r\na", at_once), ["", "", "", "a"]);
            assert_eq!(lines("\r", at_once), [""]);
            assert_eq!(lines("", at_once), Vec::<String>::new());
        }
    }
}
