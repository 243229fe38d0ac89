//! Where things are, and ports that nobody uses.

use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

/// This crate's folder.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target folder, from the place of the running program: `target/PROFILE/deps/TEST` or `target/PROFILE/BENCH`.
///
/// Not by the `CACHEDIR.TAG` that Cargo puts into a target folder: it doesn't when the folder is there already, as it is
/// when a build of the simulator in `target/ringlog_sim` came first.
pub fn target() -> Result<PathBuf> {
    target_of(&env::current_exe()?)
}

fn target_of(program: &Path) -> Result<PathBuf> {
    let folder = program.parent().context("a program lies in a folder")?;
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    let target = profile.and_then(Path::parent).context("the program lies in a target folder")?;
    Ok(target.to_path_buf())
}

/// What the tests build and write goes here.
pub fn work() -> Result<PathBuf> {
    let folder = target()?.join("e2e");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A new, empty folder for one use.
pub fn scratch(name: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = work()?.join("data").join(format!("{name}-{}-{number}", process::id()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The node's program: `RINGLOG_BIN`, else the newest one in the target folder.
pub fn ringlog() -> Result<PathBuf> {
    if let Some(program) = env::var_os("RINGLOG_BIN") {
        return Ok(program.into());
    }
    let target = target()?;
    let built = ["quick", "release", "debug"].map(|profile| target.join(profile).join("ringlog"));
    let newest =
        built.into_iter().filter_map(|program| Some((program.metadata().ok()?.modified().ok()?, program))).max();
    newest.map(|(_, program)| program).context("no ringlog is built; run the tests by `cargo xtask e2e`")
}

/// The folder with the jars of real Kafka and its logging set-ups.
pub fn kafka() -> Result<PathBuf> {
    let folder = match env::var_os("KAFKA_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache/kafka-4.3.1"),
    };
    ensure!(folder.join(".complete").is_file(), "Kafka's jars are missing; run the tests by `cargo xtask e2e`");
    Ok(folder)
}

/// A Python that has kafka-python: `RINGLOG_PYTHON`, else the environment that `cargo xtask e2e` makes.
pub fn python() -> Result<PathBuf> {
    if let Some(program) = env::var_os("RINGLOG_PYTHON") {
        return Ok(program.into());
    }
    let root = here().ancestors().nth(2).context("this crate lies in tests/e2e")?;
    let program = root.join("target/python/bin/python");
    ensure!(program.is_file(), "no Python with kafka-python; run the tests by `cargo xtask e2e`");
    Ok(program)
}

/// Ports of an address of this host that are free now, and stay so: none that the kernel gives to outgoing connections,
/// which it would do between this answer and the node that is to listen there, and none that this process was told before.
pub fn free_ports<const COUNT: usize>(address: &str) -> Result<[u16; COUNT]> {
    let mut listeners = Vec::with_capacity(COUNT);
    for port in std::iter::repeat_with(next_port).take(usize::from(PORTS)) {
        // Somebody else's port.
        let Ok(listener) = TcpListener::bind((address, port)) else { continue };
        listeners.push((port, listener));
        if listeners.len() == COUNT {
            break;
        }
    }
    let ports: Vec<u16> = listeners.iter().map(|(port, _)| *port).collect();
    ports.try_into().ok().with_context(|| format!("no {COUNT} ports are free on {address}"))
}

/// The ports that are tried. Linux takes those of outgoing connections from 32768 on
/// (`net.ipv4.ip_local_port_range`), and well-known services stand below.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 20_000;

/// A port that was not tried since as many others were: processes begin far apart.
fn next_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = process::id().wrapping_mul(997);
    let tried = begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
    FIRST_PORT + u16::try_from(tried % u32::from(PORTS)).expect("less than the number of ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_know_their_target_folder() {
        for program in ["/a/target/debug/deps/rounds-1", "/a/target/quick/replication"] {
            assert_eq!(target_of(Path::new(program)).unwrap(), Path::new("/a/target"));
        }
    }
}
