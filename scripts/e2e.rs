//! Real clients against a real node: prepares what they need, then runs the tests of `tests/e2e`.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::slice;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::ci::{cargo, run_beside_others, run_command, target_folder};
use crate::{kafka, paths, setup, tidy};

/// Where the tests are.
pub const PACKAGE: &str = "ringlog-e2e-tests";
/// How many programs run at a time in CI.
const LANES: usize = 2;
/// Those that take longest begin first: one with clusters beside one without.
const LONGEST: [&str; 11] = [
    "mixed_quorum",
    "hostile",
    "takeover",
    "directories",
    "quorum",
    "console_tools",
    "reassignment",
    "network",
    "fault_rounds",
    "replication",
    "replica_tools",
];

/// What each client needs, and how to tell that it is there.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("java", "-version", "a JDK of version 17 or later"),
    ("javac", "-version", "a JDK of version 17 or later"),
    ("go", "version", "Go 1.26 or later"),
    ("kcat", "-V", "kcat (apt install kcat)"),
];

/// Builds the node (optimised, but in CI), and runs real clients against it. `arguments` go to the test programs.
///
/// The tests find the node in `RINGLOG_BIN`, the jars of real Kafka in `KAFKA_DIR`, and a Python with kafka-python in
/// `RINGLOG_PYTHON`; what is set already stays so. They compile the Java and Go clients themselves.
pub fn run(arguments: &[String]) -> Result<()> {
    run_with(arguments, &[])
}

/// As [`run`], with more in the test programs' environment.
pub fn run_with(arguments: &[String], settings: &[(&str, String)]) -> Result<()> {
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
    let in_ci = env::var_os("CI").is_some();
    let node = match env::var_os("RINGLOG_BIN") {
        Some(node) => node.into(),
        // As the unit tests have built it: with all assertions, and nothing to wait for.
        None if in_ci => {
            cargo(["build", "-p", "ringlog"])?;
            target_folder()?.join("debug").join("ringlog")
        }
        None => {
            cargo(["build", "--profile", "quick", "-p", "ringlog"])?;
            target_folder()?.join("quick").join("ringlog")
        }
    };
    let with_what_it_needs = |mut command: Command| -> Result<Command> {
        command.current_dir(paths::root()).env("RINGLOG_BIN", &node).env("RINGLOG_PYTHON", &python);
        command.env("RINGLOG_XTASK", env::current_exe()?).env("KAFKA_DIR", &kafka);
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        Ok(command)
    };
    if arguments.is_empty() && in_ci {
        return run_in_lanes(|program| with_what_it_needs(tests(&[program.to_owned()])?));
    }
    // A first word that names one of the test programs picks that one.
    let named = arguments.first().filter(|name| source_of(name).is_file());
    let mut command = match named {
        Some(name) => tests(slice::from_ref(name))?,
        None => tests(&programs()?)?,
    };
    command.arg("--").args(&arguments[usize::from(named.is_some())..]);
    run_command(&mut with_what_it_needs(command)?)
}

/// Builds these test programs and runs them. What they need is built as for the workspace's other tests: alone they would
/// need fewer features of it, and have it built once more. Packages that have programs of such names are left
/// out.
fn tests(programs: &[String]) -> Result<Command> {
    let mut command = Command::new(paths::cargo());
    command.args(["test", "--workspace", "--no-fail-fast"]);
    let all = self::programs()?;
    for (package, names) in test_programs()? {
        if package != PACKAGE && names.iter().any(|name| all.contains(name)) {
            command.args(["--exclude", &package]);
        }
    }
    command.args(programs.iter().flat_map(|name| ["--test", name]));
    Ok(command)
}

/// Runs all programs, some at a time: they wait most of their time.
fn run_in_lanes(command: impl Fn(&str) -> Result<Command> + Sync) -> Result<()> {
    let mut programs = programs()?;
    run_command(tests(&programs)?.arg("--no-run"))?;
    programs.sort_by_key(|name| LONGEST.iter().position(|it| it == name).unwrap_or(LONGEST.len()));
    let queue = Mutex::new(programs.into_iter());
    let failed = Mutex::new(Vec::new());
    let lane = || {
        loop {
            let next = queue.lock().expect("no other lane panics").next();
            let Some(name) = next else { return };
            if let Err(error) = command(&name).and_then(|mut command| run_beside_others(&mut command)) {
                failed.lock().expect("no other lane panics").push(format!("{name}: {error:#}"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(lane);
        }
    });
    let failed = failed.into_inner().expect("no lane panicked");
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// The names of all end-to-end programs.
fn programs() -> Result<Vec<String>> {
    let (_, names) =
        test_programs()?.into_iter().find(|(package, _)| package == PACKAGE).context("they are a package")?;
    Ok(names)
}

/// The names of the workspace's other test programs.
pub fn other_programs() -> Result<Vec<String>> {
    let others = test_programs()?.into_iter().filter(|(package, _)| package != PACKAGE);
    Ok(others.flat_map(|(_, names)| names).collect())
}

/// All packages, and the names of their test programs.
fn test_programs() -> Result<Vec<(String, Vec<String>)>> {
    let metadata = tidy::metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let programs = packages.iter().map(|package| {
        let targets = package["targets"].as_array().context("a package has targets")?.iter();
        let is_test = |target: &&serde_json::Value| {
            target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|it| it == "test"))
        };
        let names = targets.filter(is_test).filter_map(|target| Some(target["name"].as_str()?.to_owned()));
        Ok((package["name"].as_str().context("a package has a name")?.to_owned(), names.collect()))
    });
    programs.collect()
}

fn source_of(name: &str) -> PathBuf {
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
