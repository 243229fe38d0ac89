//! Where things are: the project's root, cargo, its home.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The project's top folder, from the place of this package's manifest.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(manifest);
    here.parent().map(Path::to_path_buf).unwrap_or(here)
}

/// `path` as seen from the project's top folder.
pub fn relative(path: &Path) -> PathBuf {
    path.strip_prefix(root()).unwrap_or(path).to_path_buf()
}

/// Where the patched glommio goes; the folder's name tells what to run when it is missing.
pub fn patched_glommio() -> PathBuf {
    root().join(".run-cargo-xtask-setup-first").join("glommio-0.9.0")
}

/// The cargo that started this program.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// `CARGO_HOME`, or its default in the user's home.
pub fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(home()?.join(".cargo"))
}

/// The user's home folder.
pub fn home() -> Result<PathBuf> {
    Ok(env::var_os("HOME").context("HOME is not set")?.into())
}
