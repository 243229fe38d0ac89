//! Real Kafka 4.3.1, for the tests that compare with it: its jars through Maven, and its tools by name.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::paths;

const VERSION: &str = "4.3.1";
const TOOLS: &str = include_str!("kafka/tools.tsv");
const POM: &str = include_str!("kafka/pom.xml");
const LOGGING: &str = include_str!("kafka/log4j2.xml");
/// Written last.
const COMPLETE: &str = ".complete";

/// Becomes the tool (`kafka-topics`, `topics`, `kafka-topics.sh` mean the same), or a class after `run-class`.
///
/// Heeds `KAFKA_DIR`, `JAVA_HOME`, `KAFKA_HEAP_OPTS`, `KAFKA_JVM_PERFORMANCE_OPTS`, `KAFKA_LOG4J_OPTS`, `KAFKA_OPTS` and
/// `CLASSPATH` as Kafka's own scripts do.
pub fn run(tool: &str, arguments: &[String]) -> Result<()> {
    let (class, arguments) = match tool {
        "run-class" => arguments.split_first().map(|(class, rest)| (class.clone(), rest)).context("which class?")?,
        _ => (class_of(tool)?.to_owned(), arguments),
    };
    let folder = install()?;
    let server = class == "kafka.Kafka" || class.starts_with("org.apache.kafka.connect");
    let logging = folder.join(if server { "log4j2-server.xml" } else { "log4j2-tools.xml" });
    let mut classpath = format!("{}/libs/*", folder.display());
    if let Ok(more) = env::var("CLASSPATH") {
        classpath = format!("{classpath}:{more}");
    }
    let java = env::var_os("JAVA_HOME").map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"));
    let error = Command::new(java)
        .args(options("KAFKA_HEAP_OPTS", if server { "-Xms256m -Xmx1g" } else { "-Xmx256m" }))
        .args(options(
            "KAFKA_JVM_PERFORMANCE_OPTS",
            if server { "-XX:+UseG1GC" } else { "-XX:+UseSerialGC -XX:TieredStopAtLevel=1" },
        ))
        .args(options("KAFKA_LOG4J_OPTS", &format!("-Dlog4j2.configurationFile={}", logging.display())))
        .args(options("KAFKA_OPTS", ""))
        .args(["-cp", &classpath, &class])
        .args(arguments)
        .exec();
    Err(error).context("running java")
}

/// Makes the jars be there; their folder.
pub fn install() -> Result<PathBuf> {
    let folder = match env::var_os("KAFKA_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => paths::home()?.join(".cache").join(format!("kafka-{VERSION}")),
    };
    if folder.join(COMPLETE).is_file() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)?;
    // Others may want the same at the same time: one fetches, the rest wait.
    let lock = fs::File::create(folder.join(".lock"))?;
    lock.lock()?;
    if folder.join(COMPLETE).is_file() {
        return Ok(folder);
    }
    eprintln!("fetching Kafka {VERSION} through Maven into {}", folder.display());
    fs::write(folder.join("pom.xml"), POM)?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-Dstyle.color=never", "dependency:copy-dependencies", "-DoutputDirectory=libs"])
        .current_dir(&folder)
        .output()
        .context("running mvn (Maven and a JDK of version 17 or later are needed)")?;
    if !output.status.success() {
        bail!("mvn failed:\n{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    ensure!(
        folder.join(format!("libs/kafka_2.13-{VERSION}.jar")).is_file(),
        "mvn ended well, but Kafka's jar is not in {}",
        folder.display()
    );
    for (name, level, stream) in [("tools", "WARN", "SYSTEM_ERR"), ("server", "INFO", "SYSTEM_OUT")] {
        let text = LOGGING.replace("LEVEL", level).replace("STREAM", stream);
        fs::write(folder.join(format!("log4j2-{name}.xml")), text)?;
    }
    fs::write(folder.join(COMPLETE), "")?;
    Ok(folder)
}

/// All tools, a line each.
pub fn list() {
    for (name, class) in tools() {
        println!("{name:<28} {class}");
    }
}

fn tools() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOOLS.lines().filter_map(|line| line.split_once('\t'))
}

fn class_of(tool: &str) -> Result<&'static str> {
    let name = tool.strip_suffix(".sh").unwrap_or(tool);
    let name = name.strip_prefix("kafka-").unwrap_or(name);
    let found = tools().find(|(known, _)| *known == name);
    found.map(|(_, class)| class).with_context(|| format!("no tool {tool}; `cargo xtask kafka --list` names them all"))
}

/// The words of an environment variable, or of the default.
fn options(variable: &str, default: &str) -> Vec<String> {
    let value = env::var(variable).unwrap_or_else(|_| default.to_owned());
    value.split_whitespace().map(str::to_owned).collect()
}
