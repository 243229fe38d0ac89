//! The `ringlog` command: a node, and the tools for it. See `cli`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    ExitCode::from(cli::run(arguments))
}
