//! `dev`: a node for development on localhost.

use std::path::Path;

use clap::Parser;
use ringlog_config::ServerConfig;
use ringlog_types::{Random, Uuid};

use super::logging::{self, Stream};
use super::output::Output;
use super::storage::format_directories;
use super::tool::{self, Refusal, Style};
use super::{random_seed, server};

/// Run a node for development on localhost. Its directory is formatted if it isn't yet.
#[derive(Debug, Parser)]
pub struct DevArgs {
    /// Where its data is kept.
    #[arg(long, default_value = "./ringlog-data")]
    data_dir: String,
    /// The port that it listens on; its controller uses the next one.
    #[arg(long, default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

impl DevArgs {
    /// Reads the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<DevArgs, Refusal> {
        tool::parse(tool, Style::Argparse, arguments)
    }
}

/// Runs the node until it has stopped and returns the exit code.
pub fn run(args: &DevArgs, out: &mut dyn Output) -> u8 {
    logging::start(Stream::Error, "warn");
    let config = ServerConfig::dev(&args.data_dir, args.port);
    if !Path::new(&args.data_dir).join("meta.properties").exists() {
        let mut random = Random::from_seed(random_seed());
        let cluster_id = Uuid::random(&mut random).to_string();
        if let Err(fault) = format_directories(&config, &cluster_id, &mut random, out) {
            out.error(&fault);
            return 1;
        }
    }
    out.flush();
    server::serve(config, || println!("{}", how_to_try(args)))
}

fn how_to_try(args: &DevArgs) -> String {
    let DevArgs { data_dir, port } = args;
    format!(
        "\nRinglog serves localhost:{port}, keeping its data in {data_dir}. Ctrl-C stops it.\n\n\
         Write:  ringlog console-producer --bootstrap-server localhost:{port} --topic first\n\
         Read:   ringlog console-consumer --bootstrap-server localhost:{port} --topic first --from-beginning\n\n\
         Kafka's own kafka-console-producer.sh and kafka-console-consumer.sh take the same options, and every Kafka \
         client works.\n"
    )
}
