//! Real clients against a real node: prepares what they need, then runs the tests of `tests/e2e`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::ci::{cargo, run_command, target_folder};
use crate::{kafka, paths, setup};

/// What each client needs, and how to tell that it is there.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("java", "-version", "a JDK of version 17 or later"),
    ("javac", "-version", "a JDK of version 17 or later"),
    ("go", "version", "Go 1.26 or later"),
    ("kcat", "-V", "kcat (apt install kcat)"),
];

/// Builds the node optimised, and runs real clients against it. `arguments` go to the test programs.
///
/// The tests find the node in `RINGLOG_BIN`, the jars of real Kafka in `KAFKA_DIR`, and a Python with kafka-python in
/// `RINGLOG_PYTHON`; what is set already stays so. They compile the Java and Go clients themselves.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::run()?;
    for (program, argument, wanted) in PROGRAMS {
        let found = Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
        ensure!(found, "{program} doesn't run: {wanted} is needed");
    }
    let kafka = kafka::install()?;
    let python = match env::var_os("RINGLOG_PYTHON") {
        Some(python) => python.into(),
        None => python()?,
    };
    let node = match env::var_os("RINGLOG_BIN") {
        Some(node) => node.into(),
        None => {
            cargo(["build", "--profile", "quick", "-p", "ringlog"])?;
            target_folder()?.join("quick").join("ringlog")
        }
    };
    let mut command = Command::new(paths::cargo());
    command.args(["test", "-p", "ringlog-e2e-tests", "--no-fail-fast"]);
    // A first word that names one of the test programs picks that one.
    let named = arguments.first().filter(|name| test_program(name).is_file());
    if let Some(name) = named {
        command.args(["--test", name]);
    }
    command.arg("--").args(&arguments[usize::from(named.is_some())..]).current_dir(paths::root());
    command.env("RINGLOG_BIN", node).env("RINGLOG_PYTHON", python);
    command.env("RINGLOG_XTASK", env::current_exe()?).env("KAFKA_DIR", kafka);
    run_command(&mut command)
}

fn test_program(name: &str) -> PathBuf {
    paths::root().join("tests/e2e").join(name).with_extension("rs")
}

/// A Python environment with the pinned kafka-python, made when it is missing; its program.
fn python() -> Result<PathBuf> {
    let folder = paths::root().join("target").join("python");
    let program = folder.join("bin").join("python");
    let requirements = paths::root().join("tests/e2e/clients/python/requirements.txt");
    let installed = folder.join("requirements.txt");
    let wanted = std::fs::read(&requirements)?;
    if std::fs::read(&installed).is_ok_and(|there| there == wanted) {
        return Ok(program);
    }
    run_command(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context("Python 3 with venv is needed")?;
    let mut install = Command::new(&program);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
    run_command(&mut install)?;
    std::fs::write(installed, wanted)?;
    Ok(program)
}
