//! A small file system in a file, to be filled up.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::child::Reaper;
use crate::paths;

/// An ext4 file system, mounted.
#[derive(Debug)]
pub struct SmallDisk {
    scratch: PathBuf,
    folder: PathBuf,
    reaper: Option<Reaper>,
}

impl SmallDisk {
    /// One of so many MB; none if such can't be mounted here. That is an error in CI, where nobody would read about it.
    pub fn new(name: &str, size_mb: u64) -> Result<Option<SmallDisk>> {
        let scratch = paths::scratch(name)?;
        let (image, folder) = (scratch.join("image"), scratch.join("disk"));
        File::create(&image)?.set_len(size_mb << 20)?;
        fs::create_dir(&folder)?;
        let made = run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        let mounted = made.and_then(|()| share(&scratch)).and_then(|()| mount(&image, &folder));
        if let Err(error) = mounted {
            let _ = run(Command::new("umount").arg("-l").arg(&scratch));
            fs::remove_dir_all(&scratch)?;
            ensure!(env::var_os("CI").is_none(), "root, e2fsprogs and loop devices are needed: {error:#}");
            println!("left out: no file system can be mounted without root, e2fsprogs and loop devices: {error:#}");
            return Ok(None);
        }
        let script = r#"sleep 0.5; umount -l "$1"; umount -l "$2"; rm -rf "$2""#;
        let reaper = Some(Reaper::with(script, &[folder.as_os_str(), scratch.as_os_str()])?);
        Ok(Some(SmallDisk { scratch, folder, reaper }))
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves no block free.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        let mut size = 1 << 20;
        while size > 0 {
            match filler.write(&vec![0; size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error).context("filling up the disk"),
            }
        }
        // What was promised to it is its own only now.
        match filler.sync_all() {
            Err(error) if error.kind() != ErrorKind::StorageFull => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes room again, also if the file system fails right after that.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.filler())?;
        run(Command::new("sync").arg("-f").arg(&self.folder))
    }

    /// Makes the file system find an error in itself: nothing can be written to it any more, and what had not got to the
    /// device is lost.
    pub fn fail(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let folder = self.folder.display().to_string();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(folder.as_str()));
        let device = line.and_then(|line| line.split(' ').next()?.strip_prefix("/dev/")).context("it is mounted")?;
        Ok(fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1")?)
    }

    /// Takes it away, has it checked and brings it back. Nobody may have a file of it open.
    pub fn mend(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.folder))?;
        // That it has mended something is no failure.
        Command::new("e2fsck").args(["-fy"]).arg(self.image()).output().context("running e2fsck")?;
        mount(&self.image(), &self.folder)
    }

    fn image(&self) -> PathBuf {
        self.scratch.join("image")
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, should somebody still have a file open.
        let _ = run(Command::new("umount").arg("-l").arg(&self.folder));
        let _ = run(Command::new("umount").arg("-l").arg(&self.scratch));
        if let Some(reaper) = self.reaper.take() {
            reaper.dismiss();
        }
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// What is mounted below is so for everybody, and taken away for everybody: nodes in network namespaces have mounts of
/// their own, which would keep the disk.
fn share(folder: &Path) -> Result<()> {
    run(Command::new("mount").arg("--bind").args([folder, folder]))?;
    run(Command::new("mount").arg("--make-shared").arg(folder))
}

fn mount(image: &Path, folder: &Path) -> Result<()> {
    run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(image).arg(folder))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
