//! Programs that tests start: talked to line by line, and gone when the test is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::paths;

/// Kills a process or undoes something else when this one ends in whatever way, unless told before that this is done.
///
/// Statics aren't dropped, and a killed test drops nothing; so a shell waits for the end of its input.
#[derive(Debug)]
pub struct Reaper {
    shell: Child,
}

impl Reaper {
    /// Watches over `pid`; `folder` is removed with it.
    pub fn new(pid: u32, folder: Option<&OsStr>) -> Result<Reaper> {
        let script = r#"kill -9 "$1"; if [ -n "$2" ]; then sleep 0.2; rm -rf "$2"; fi"#;
        Reaper::with(script, &[pid.to_string().as_ref(), folder.unwrap_or_default()])
    }

    /// Runs a shell script with these arguments.
    pub fn with(script: &str, arguments: &[&OsStr]) -> Result<Reaper> {
        let shell = Command::new("sh")
            .args(["-c", &format!("read word || {{ {script}; }}"), "reaper"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Reaper { shell })
    }

    /// There is nothing left to do.
    pub fn dismiss(mut self) {
        if let Some(mut input) = self.shell.stdin.take() {
            let _ = input.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}

/// Sends a signal to a child.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child has a process id")?;
    kill_process(pid, signal).context("signalling a child")
}

/// Waits for a child's end, and kills it if it takes too long.
pub fn wait_for_end(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("a child had not ended after {within:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A running program whose lines of output (and errors, if wanted) are read as they come.
#[derive(Debug)]
pub struct LineProcess {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl LineProcess {
    /// Starts it. With `with_errors`, what it writes to standard error counts as output; else it goes to `clients.log`.
    pub fn start(command: &mut Command, with_errors: bool) -> Result<LineProcess> {
        let name = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(if with_errors { Stdio::piped() } else { error_log()?.into() });
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let (sender, lines) = mpsc::channel();
        let read = |stream: Box<dyn std::io::Read + Send>| {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
            });
        };
        read(Box::new(child.stdout.take().context("output is piped")?));
        if let Some(errors) = child.stderr.take() {
            read(Box::new(errors));
        }
        let input = child.stdin.take();
        Ok(LineProcess { name, child, input, lines, seen: Vec::new() })
    }

    /// Writes a line to its input.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the input is open")?;
        input.write_all(line.as_bytes())?;
        input.write_all(b"\n")?;
        Ok(input.flush()?)
    }

    /// Its next line; none if it has closed its output.
    pub fn next_line(&mut self, within: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(within) {
            Ok(line) => {
                self.seen.push(line.clone());
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                bail!("nothing came for {within:?} from {}\nlast lines: {:#?}", self.name, self.last_lines())
            }
        }
    }

    /// The lines that have come and were not asked for yet.
    pub fn lines_so_far(&mut self) -> Vec<String> {
        let lines: Vec<String> = self.lines.try_iter().collect();
        self.seen.extend_from_slice(&lines);
        lines
    }

    /// The end of what was read.
    pub fn last_lines(&self) -> &[String] {
        &self.seen[self.seen.len().saturating_sub(20)..]
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Asks it to end.
    pub fn terminate(&self) -> Result<()> {
        signal(&self.child, Signal::TERM)
    }

    /// Waits for its end; the lines that were not read. A failure of the program is an error.
    pub fn finish(&mut self, within: Duration) -> Result<Vec<String>> {
        self.close_input();
        let status = wait_for_end(&mut self.child, within).with_context(|| self.name.clone())?;
        let mut rest = Vec::new();
        while let Some(line) = self.next_line(within)? {
            rest.push(line);
        }
        ensure!(status.success(), "{} ended with {status}\nlast lines: {:#?}", self.name, self.last_lines());
        Ok(rest)
    }
}

/// Clients complain a lot about nodes that get killed.
fn error_log() -> Result<File> {
    let folder = paths::work()?.join("logs");
    std::fs::create_dir_all(&folder)?;
    Ok(File::options().create(true).append(true).open(folder.join("clients.log"))?)
}

impl Drop for LineProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
