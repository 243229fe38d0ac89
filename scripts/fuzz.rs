//! Fuzzing of the decoders by libFuzzer. What it looks at has no `unsafe`, so a panic is all that there is to be found:
//! counters where branches go are enough, which the stable compiler puts in, too.

use std::fs;

use anyhow::Result;

use crate::{ci, paths};

/// What libFuzzer wants to know of the code: which branches were taken how often, and what was compared with what.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16";
/// With a target named, build scripts and macros are built without those flags.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Fuzzes the decoders for that long. What was found interesting before is where it begins; an input that fails is kept
/// in the target folder, and named.
pub fn run(time_s: u64) -> Result<()> {
    let target = ci::target_folder()?.join("fuzz");
    let mut build = ci::beside(paths::cargo());
    build.args(["build", "--release", "--target", TARGET]).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", FLAGS);
    build.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    ci::run_command(build.current_dir(paths::root().join("src/protocol/fuzz")))?;
    let corpus = target.join("corpus");
    fs::create_dir_all(&corpus)?;
    let mut fuzz = ci::beside(target.join(TARGET).join("release/messages"));
    fuzz.arg(format!("-max_total_time={time_s}")).arg(format!("-artifact_prefix={}/", target.display())).arg(&corpus);
    ci::run_command(fuzz.current_dir(&target))
}
