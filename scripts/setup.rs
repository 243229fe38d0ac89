//! Prepares the patched glommio that the root manifest's `[patch.crates-io]` points at.
//!
//! The project carries no third-party source. The crate comes from the registry through cargo's own client, its
//! checksum is compared, and a few small edits are made to the unpacked copy outside the tracked tree. Every edit
//! names the text it expects to find; when that text isn't there exactly once, nothing is kept and the step fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::paths;

const VERSION: &str = "0.9.0";
/// SHA-256 of `glommio-0.9.0.crate`, the same that the registry's index and `Cargo.lock` name.
const CHECKSUM: &str = "e1f8bc1fce949d18098dc0a4e861314e40351a0144ebf61e59bdb5254a2273b2";
/// Written last; holds the fingerprint of what was prepared.
const STAMP: &str = ".prepared";

/// One replacement of a text that occurs exactly once in a file.
struct Edit {
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

/// The edits, each with its reason.
const EDITS: &[Edit] = &[
    // The run loop takes "preempted before any task ran" for "nothing to run" and parks while tasks are runnable;
    // nothing wakes it again. Let every turn run a queue, and a queue at least a task, before preemption counts: then
    // a turn without anything run means that nothing was runnable, and even the shortest timer can't stop all progress.
    Edit {
        file: "src/executor/mod.rs",
        find: "            self.reactor.sys.install_eventfd();
            if self.need_preempt() {
                break;
            }
",
        replace: "            self.reactor.sys.install_eventfd();
            if ran && self.need_preempt() {
                break;
            }
",
    },
    Edit {
        file: "src/executor/mod.rs",
        find: "                if self.need_preempt() || queue_ref.yielded() {",
        replace: "                if (tasks_executed_this_loop > 0 && self.need_preempt()) || queue_ref.yielded() {",
    },
    // A task with more than 32,767 wakers panics: count them with 32 bits.
    Edit {
        file: "src/task/header.rs",
        find: "    atomic::{AtomicI16, Ordering},",
        replace: "    atomic::{AtomicI32, Ordering},",
    },
    Edit {
        file: "src/task/header.rs",
        find: "    pub(crate) references: AtomicI16,",
        replace: "    pub(crate) references: AtomicI32,",
    },
    Edit {
        file: "src/task/raw.rs",
        find: "use std::sync::atomic::{AtomicI16, Ordering};",
        replace: "use std::sync::atomic::{AtomicI32, Ordering};",
    },
    Edit {
        file: "src/task/raw.rs",
        find: "                references: AtomicI16::new(0),",
        replace: "                references: AtomicI32::new(0),",
    },
    Edit {
        file: "src/task/raw.rs",
        find: "        assert_ne!(refs, i16::MAX, \"Waker invariant broken: {header:?}\");",
        replace: "        assert_ne!(refs, i32::MAX, \"Waker invariant broken: {header:?}\");",
    },
    Edit {
        file: "src/task/raw.rs",
        find: "    fn decrement_references(header: &Header) -> i16 {",
        replace: "    fn decrement_references(header: &Header) -> i32 {",
    },
    Edit {
        file: "src/task/join_handle.rs",
        find: "                    // decrement it.
                    let refs = (*header).references.fetch_add(1, Ordering::Relaxed);
                    assert_ne!(refs, i16::max_value());
",
        replace: "                    // decrement it.
                    let refs = (*header).references.fetch_add(1, Ordering::Relaxed);
                    assert_ne!(refs, i32::MAX);
",
    },
    Edit {
        file: "src/task/join_handle.rs",
        find: "                            assert_ne!(refs, i16::max_value());",
        replace: "                            assert_ne!(refs, i32::MAX);",
    },
    Edit {
        file: "src/task/task_impl.rs",
        find: "            assert_ne!(refs, i16::max_value());",
        replace: "            assert_ne!(refs, i32::MAX);",
    },
    // Whether a device can be polled is found out by reading from the first file opened on it. An empty file answers
    // "yes" on any device, and all later I/O to that device fails: let it answer "unknown, not this file".
    Edit {
        file: "src/reactor.rs",
        find: "                let iopoll = if let Err(err) = source.collect_rw().await {",
        replace: "                let result = source.collect_rw().await;
                if matches!(result, Ok(0)) {
                    return false;
                }
                let iopoll = if let Err(err) = result {",
    },
    // Who waits to send into a full channel whose receiver has gone is woken for ever, but never told.
    Edit {
        file: "src/channels/shared_channel.rs",
        find: "        match self.state.buffer.free_space() > 0 || self.state.buffer.producer_disconnected() {",
        replace: "        match self.state.buffer.free_space() > 0
            || self.state.buffer.producer_disconnected()
            || self.state.buffer.consumer_disconnected()
        {",
    },
    // Which file system a file is on is asked by its name, once it is open: one that was renamed or removed meanwhile panics.
    Edit {
        file: "src/io/dma_file.rs",
        find: "        let buf = statfs(path).unwrap();",
        replace: "        // SAFETY: the file is open for as long as this lasts.
        let opened = unsafe { std::os::fd::BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&file)) };
        let buf = fstatfs(opened).map_err(io::Error::from)?;",
    },
    // A helper thread that is still busy when its executor ends must not end the process by a panic.
    Edit {
        file: "src/sys/blocking.rs",
        find: "                if tx.send(resp).is_err() {
                    panic!(\"failed to send response\");
                }",
        replace: "                if tx.send(resp).is_err() {
                    break;
                }",
    },
    // Frames own their memory: let a write refer to a part of it instead of copying it into one of glommio's buffers.
    Edit {
        file: "src/sys/dma_buffer.rs",
        find: "    pub(crate) fn uring_buffer_id(&self) -> Option<u32> {",
        replace: "    /// Refers to `size` bytes that somebody else keeps valid and unchanged until this is dropped.
    pub unsafe fn borrowed(data: *mut u8, size: usize) -> DmaBuffer {
        DmaBuffer::with_storage(size, BufferStorage::EventFd(data))
    }

    pub(crate) fn uring_buffer_id(&self) -> Option<u32> {",
    },
    // … and a read, too.
    Edit {
        file: "src/sys/uring.rs",
        find: "            UringOpDescriptor::ReadFixed(pos, len) => {
                let mut buf = buffer_allocation(len).expect(\"Buffer allocation failed\");
",
        replace: "            UringOpDescriptor::ReadFixed(pos, len) => {
                let mut given = None;
                source_map.peek_source_mut(from_user_data(op.user_data), |mut src| {
                    if let SourceType::Read(_, slot) = &mut src.source_type {
                        given = slot.take();
                    }
                });
                let mut buf = match given {
                    Some(IoBuffer::DmaSink(buf)) => buf,
                    _ => buffer_allocation(len).expect(\"Buffer allocation failed\"),
                };
",
    },
    Edit {
        file: "src/reactor.rs",
        find: "    pub(crate) fn read_dma(
        &self,",
        replace: "    pub(crate) fn read_dma_into(
        &self,
        raw: RawFd,
        pos: u64,
        buffer: DmaBuffer,
        pollable: PollableStatus,
    ) -> Source {
        let size = buffer.len();
        let slot = Some(crate::sys::IoBuffer::DmaSink(buffer));
        let source = self.new_source(raw, SourceType::Read(pollable, slot), None);
        self.sys.read_dma(&source, pos, size);
        source
    }

    pub(crate) fn read_dma(
        &self,",
    },
    Edit {
        file: "src/io/dma_file.rs",
        find: "    /// Reads from a specific position in the file and returns the buffer.
",
        replace: "    /// Reads into a buffer that is given, which must be aligned; returns how many bytes.
    pub async fn read_into(&self, pos: u64, buffer: DmaBuffer) -> Result<usize> {
        let source =
            self.file.reactor.upgrade().unwrap().read_dma_into(self.as_raw_fd(), pos, buffer, self.pollable);
        enhanced_try!(source.collect_rw().await, \"Reading\", self.file).map_err(Into::into)
    }

    /// Reads from a specific position in the file and returns the buffer.
",
    },
    // Cargo caps the lints of registry crates but not those of path dependencies.
    Edit {
        file: "src/lib.rs",
        find: "#![warn(missing_docs, missing_debug_implementations, rust_2018_idioms)]",
        replace: "#![allow(warnings)]",
    },
];

/// Makes `.run-cargo-xtask-setup-first/glommio-0.9.0` be there, patched. Quick when it already is.
pub fn run() -> Result<()> {
    let target = paths::patched_glommio();
    let wanted = fingerprint();
    if fs::read_to_string(target.join(STAMP)).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let archive = locate_archive()?;
    let bytes = fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
    let found = hex(&Sha256::digest(&bytes));
    ensure!(found == CHECKSUM, "glommio-{VERSION}.crate has SHA-256 {found}, expected {CHECKSUM}; not using it");

    let parent = target.parent().context("the patched copy has a parent folder")?;
    fs::create_dir_all(parent)?;
    let staging = parent.join(format!(".staging-{}", std::process::id()));
    let _ = fs::remove_dir_all(&staging);
    tar::Archive::new(GzDecoder::new(&bytes[..])).unpack(&staging).context("unpacking glommio")?;
    let unpacked = staging.join(format!("glommio-{VERSION}"));
    let result = EDITS.iter().try_for_each(|edit| apply(&unpacked, edit));
    if let Err(error) = result {
        let _ = fs::remove_dir_all(&staging);
        return Err(error);
    }
    fs::write(unpacked.join(STAMP), &wanted)?;
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::rename(&unpacked, &target)?;
    fs::remove_dir_all(&staging)?;
    println!("prepared glommio {VERSION} with {} edits in {}", EDITS.len(), paths::relative(&target).display());
    Ok(())
}

/// Makes the edit, or says what looks different.
fn apply(root: &Path, edit: &Edit) -> Result<()> {
    let path = root.join(edit.file);
    let text = fs::read_to_string(&path).with_context(|| format!("glommio {VERSION} has no {}", edit.file))?;
    match text.matches(edit.find).count() {
        1 => fs::write(&path, text.replacen(edit.find, edit.replace, 1)).map_err(Into::into),
        0 => bail!("glommio {VERSION}, {}: the text to replace is not there:\n{}", edit.file, edit.find),
        n => bail!("glommio {VERSION}, {}: the text to replace is there {n} times:\n{}", edit.file, edit.find),
    }
}

/// A digest of the crate's checksum and of all edits.
fn fingerprint() -> String {
    let mut digest = Sha256::new();
    digest.update(CHECKSUM);
    for edit in EDITS {
        for part in [edit.file, edit.find, edit.replace] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    hex(&digest.finalize())
}

/// The `.crate` file in cargo's cache; fetched by cargo when it isn't there yet.
fn locate_archive() -> Result<PathBuf> {
    if let Some(found) = cached_archive()? {
        return Ok(found);
    }
    let scratch = paths::root().join(".run-cargo-xtask-setup-first").join(format!(".fetch-{}", std::process::id()));
    fs::create_dir_all(scratch.join("src"))?;
    fs::write(scratch.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[workspace]\n[package]\nname = \"fetch-glommio\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [dependencies]\nglommio = \"={VERSION}\"\n"
    );
    fs::write(scratch.join("Cargo.toml"), manifest)?;
    let status = Command::new(paths::cargo()).args(["fetch", "--quiet"]).current_dir(&scratch).status();
    fs::remove_dir_all(&scratch)?;
    ensure!(status.context("running cargo fetch")?.success(), "cargo could not fetch glommio {VERSION}");
    cached_archive()?
        .with_context(|| format!("cargo fetched glommio {VERSION}, but its .crate is not in cargo's cache"))
}

fn cached_archive() -> Result<Option<PathBuf>> {
    let cache = paths::cargo_home()?.join("registry").join("cache");
    let Ok(registries) = fs::read_dir(&cache) else { return Ok(None) };
    for registry in registries {
        let candidate = registry?.path().join(format!("glommio-{VERSION}.crate"));
        if candidate.is_file() {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
