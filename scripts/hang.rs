//! The hang of unpatched glommio: shown on the registry's copy, absent from ours. See `shards/ring/hang`.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{ci, paths, setup};

/// The program's exit status for "asleep with runnable tasks".
const HUNG: i32 = 3;

/// Builds the program and runs it with both. Takes about 10 s after the build: the time after which it gives up.
pub fn run() -> Result<()> {
    setup::run()?;
    let target = ci::target_folder()?.join("hang");
    let folder = paths::root().join("shards").join("ring").join("hang");
    let mut build = ci::beside(paths::cargo());
    build.args(["build", "--locked"]).current_dir(&folder).env("CARGO_TARGET_DIR", &target);
    ci::run_command(&mut build)?;
    let program = target.join("debug").join("hang");
    let status = |which| -> Result<Option<i32>> {
        Ok(Command::new(&program).arg(which).status().context("running the program")?.code())
    };
    let registry = status("registry")?;
    ensure!(registry == Some(HUNG), "the registry's glommio was expected to hang, but ended with {registry:?}");
    let patched = status("patched")?;
    ensure!(patched == Some(0), "the patched glommio ended with {patched:?}");
    println!("test hang ... ok");
    Ok(())
}
