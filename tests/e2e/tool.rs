//! Ringlog's own command line tools, as processes.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::child::{self, Reaper};
use crate::jvm::Outcome;
use crate::{paths, wait_until};

/// How long a tool may take that isn't told to wait.
const TOOL_TIME: Duration = Duration::from_secs(60);

/// Runs `ringlog` with these arguments to its end.
pub fn ours(arguments: &[&str]) -> Result<Outcome> {
    let output = Command::new(paths::ringlog()?).args(arguments).output()?;
    Ok(Outcome {
        status: output.status.code().unwrap_or(-1),
        output: String::from_utf8(output.stdout)?,
        errors: String::from_utf8(output.stderr)?,
    })
}

/// A running tool, whose output goes to files.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    reaper: Option<Reaper>,
    folder: PathBuf,
}

impl Tool {
    /// Starts `ringlog` with these arguments. Its input ends after `input`.
    pub fn start(arguments: &[&str], input: &str) -> Result<Tool> {
        let mut command = Command::new(paths::ringlog()?);
        Tool::start_command(command.args(arguments), input)
    }

    /// As [`Tool::start`], with whatever the command is beyond its arguments. Its output goes to files unless the
    /// caller takes it by [`Tool::start_with_output`].
    pub fn start_command(command: &mut Command, input: &str) -> Result<Tool> {
        let folder = paths::scratch("tool")?;
        let output = File::create(folder.join("stdout"))?;
        Tool::spawn(command.stdout(output), folder, input)
    }

    /// As [`Tool::start`], with standard output going there.
    pub fn start_with_output(arguments: &[&str], output: impl Into<Stdio>) -> Result<Tool> {
        let mut command = Command::new(paths::ringlog()?);
        Tool::spawn(command.args(arguments).stdout(output), paths::scratch("tool")?, "")
    }

    fn spawn(command: &mut Command, folder: PathBuf, input: &str) -> Result<Tool> {
        command.stdin(Stdio::piped()).stderr(File::create(folder.join("stderr"))?);
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let reaper = Some(Reaper::new(child.id(), Some(folder.as_os_str()))?);
        // A tool that reads nothing leaves the pipe behind.
        let _ = child.stdin.take().context("input is piped")?.write_all(input.as_bytes());
        Ok(Tool { child, reaper, folder })
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.folder.join("stderr"))?).into_owned())
    }

    /// What it has written to standard output so far.
    pub fn output(&self) -> Result<String> {
        let output = self.folder.join("stdout");
        Ok(if output.exists() { String::from_utf8_lossy(&fs::read(output)?).into_owned() } else { String::new() })
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it has as many open sockets.
    pub fn wait_for_sockets(&self, count: usize) -> Result<()> {
        let descriptors = format!("/proc/{}/fd", self.child.id());
        wait_until("a tool to connect", TOOL_TIME, || {
            let links = fs::read_dir(&descriptors)?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:")).count();
            Ok((sockets >= count).then_some(()))
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        child::signal(&self.child, signal)
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Outcome> {
        self.finish_within(TOOL_TIME)
    }

    /// As [`Tool::finish`], for so long at most.
    pub fn finish_within(mut self, within: Duration) -> Result<Outcome> {
        let ended = child::wait_for_end(&mut self.child, within);
        let status = ended.with_context(|| self.errors().unwrap_or_default())?;
        let outcome = Outcome { status: status.code().unwrap_or(-1), output: self.output()?, errors: self.errors()? };
        if let Some(reaper) = self.reaper.take() {
            reaper.dismiss();
        }
        fs::remove_dir_all(&self.folder)?;
        Ok(outcome)
    }
}
