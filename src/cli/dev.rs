//! `dev`: a node for development on localhost.

use std::env;
use std::path::{Path, PathBuf};

use clap::Parser;
use ringlog_config::ServerConfig;
use ringlog_types::{Random, Uuid};

use super::logging::{self, Stream};
use super::output::{Output, Silence};
use super::storage::format_directories;
use super::tool::{self, Refusal};
use super::{random_seed, server};

/// Run a node for development on localhost. Its directory is formatted if it isn't yet; its log, on standard error, has
/// only what needs attention unless RINGLOG_LOG says otherwise.
#[derive(Debug, Parser)]
pub struct DevArgs {
    /// Where its data is kept. (default: ringlog/dev in XDG_DATA_HOME, else in ~/.local/share)
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The port that it listens on; its controller uses the next one.
    #[arg(long, default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..65535))]
    port: u16,
}

impl DevArgs {
    /// Reads the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<DevArgs, Refusal> {
        tool::parse(tool, arguments)
    }
}

/// Runs the node until it has stopped and returns the exit code.
pub fn run(args: &DevArgs, out: &mut dyn Output) -> u8 {
    logging::start(Stream::Error, "warn");
    let Some(stop) = server::watch_signals() else { return 1 };
    let folder = |name: &str| env::var_os(name).map(PathBuf::from);
    let data_dir = args.data_dir.clone().or_else(|| data_folder(folder("XDG_DATA_HOME"), folder("HOME")));
    let Some(data_dir) = data_dir else {
        out.error("neither XDG_DATA_HOME nor HOME says where data of yours is kept: give --data-dir");
        return 1;
    };
    let config = ServerConfig::dev(&data_dir.to_string_lossy(), args.port);
    if !data_dir.join("meta.properties").exists() {
        let mut random = Random::from_seed(random_seed());
        let cluster_id = Uuid::random(&mut random).to_string();
        if let Err(fault) = format_directories(&config, &cluster_id, &mut random, &mut Silence) {
            out.error(&fault);
            return 1;
        }
    }
    server::serve(config, &stop, || {
        out.write(how_to_try(&program(), &data_dir, args.port).as_bytes());
        out.flush();
    })
}

/// Where a user's data belongs (XDG base directories); what isn't absolute doesn't count.
fn data_folder(data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let data_home = data_home.filter(|folder| folder.is_absolute());
    let in_home = home.filter(|folder| folder.is_absolute()).map(|folder| folder.join(".local/share"));
    Some(data_home.or(in_home)?.join("ringlog/dev"))
}

/// What the user calls this program by, from where he stands.
fn program() -> String {
    let called = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let here = env::current_dir().unwrap_or_default();
    let name = called.strip_prefix(&here).unwrap_or(&called).display().to_string();
    if name.is_empty() { "ringlog".to_owned() } else { name }
}

/// Where, how to try, how to stop.
fn how_to_try(program: &str, data_dir: &Path, port: u16) -> String {
    let at = format!("--bootstrap-server localhost:{port} --topic greetings");
    format!(
        "Ringlog serves localhost:{port} and keeps its data in {}\n\
         Try it: echo hello | {program} console-producer {at}; {program} console-consumer {at} --from-beginning\n\
         Stop it: Ctrl-C\n",
        data_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_belongs_where_the_users_data_is() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(data_folder(path("/data"), path("/people/u")), path("/data/ringlog/dev"));
        assert_eq!(data_folder(None, path("/people/u")), path("/people/u/.local/share/ringlog/dev"));
        assert_eq!(data_folder(path("relative"), path("/people/u")), path("/people/u/.local/share/ringlog/dev"));
        assert_eq!(data_folder(path(""), None), None);
    }

    #[test]
    fn three_lines_say_where_how_to_try_and_how_to_stop() {
        let text = how_to_try("target/release/ringlog", Path::new("/d"), 9093);
        let lines: Vec<&str> = text.lines().collect();
        let [place, try_it, stop] = lines[..] else { panic!("{text}") };
        assert!(place.contains("localhost:9093") && place.ends_with("/d"));
        assert!(try_it.contains("target/release/ringlog console-producer --bootstrap-server localhost:9093"));
        assert!(stop.ends_with("Ctrl-C"));
    }
}
