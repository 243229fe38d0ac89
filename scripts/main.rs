//! The project's chores, run as `cargo xtask COMMAND`. See `cargo xtask help`.

mod paths;
mod setup;

use anyhow::Result;
use clap::Parser;

/// Chores of the Ringlog project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Prepare what a build needs: the patched glommio. Run once in a fresh clone.
    Setup,
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Setup => setup::run(),
    }
}
