//! `topics` (`kafka-topics`): creates, deletes, describes and changes topics.

mod args;
mod describe;

use ringlog_client::{Client, ClientError};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use ringlog_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ringlog_protocol::messages::delete_topics_request::DeleteTopicState;
use ringlog_protocol::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};
use ringlog_types::{ErrorCode, Uuid};

pub use args::TopicsArgs;

use super::client_config::ClientProperties;
use super::output::Output;
use super::topic_filter::TopicFilter;

/// How long the cluster may take over a request, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;
/// The version of DeleteTopics from which topics go by state rather than name.
const FIRST_DELETE_BY_STATE: i16 = 6;

/// Why the command failed. The texts are those that Kafka's tool prints.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The cluster refuses, in its own words.
    #[error("{message}")]
    Cluster {
        /// The name of Kafka's error.
        name: &'static str,
        /// The cluster's words.
        message: String,
    },
    /// A value can't be used.
    #[error("{0}")]
    Invalid(String),
    /// The request didn't get there.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl TopicsError {
    fn check(code: i16, message: Option<&StrBytes>) -> Result<(), TopicsError> {
        if code == 0 {
            return Ok(());
        }
        let name = ErrorCode::from_code(code).map_or("UNKNOWN", ErrorCode::name);
        let message = message.map_or_else(|| name.to_owned(), |message| message.as_str().to_owned());
        Err(TopicsError::Cluster { name, message })
    }

    fn kind(&self) -> &'static str {
        match self {
            TopicsError::Cluster { name, .. } => name,
            TopicsError::Invalid(_) => "INVALID_ARGUMENT",
            TopicsError::Client(fault) => fault.code().map_or("CLIENT", ErrorCode::name),
        }
    }
}

/// Runs the tool and returns its exit code.
pub fn run(args: &TopicsArgs, out: &mut dyn Output) -> u8 {
    match execute(args, out) {
        Ok(()) => 0,
        Err(fault) => {
            out.line(&format!("Error while executing topic command : {fault}"));
            out.error(&format!("ERROR {}: {fault} (topics)", fault.kind()));
            1
        }
    }
}

fn execute(args: &TopicsArgs, out: &mut dyn Output) -> Result<(), TopicsError> {
    let properties = match &args.command_config {
        Some(path) => ClientProperties::from_file(path).map_err(TopicsError::Invalid)?,
        None => ClientProperties::default(),
    };
    let options = properties.client_options("adminclient-1").map_err(TopicsError::Invalid)?;
    let bootstrap = args.bootstrap_server.as_deref().unwrap_or_default();
    if args.create {
        // A name or number that can't be is refused before anything is sent.
        let topic = creatable_topic(args)?;
        return create(args, &mut Client::connect(bootstrap, options)?, topic, out);
    }
    let mut client = Client::connect(bootstrap, options)?;
    if args.list {
        names(&mut client, args)?.iter().for_each(|name| out.line(name));
        Ok(())
    } else if args.describe {
        describe::run(&mut client, args, out)
    } else if args.alter {
        alter(&mut client, args)
    } else {
        delete(&mut client, args)
    }
}

/// The topics that `--topic` and `--exclude-internal` select, sorted.
fn names(client: &mut Client, args: &TopicsArgs) -> Result<Vec<String>, TopicsError> {
    let filter = args.topic.as_deref().map(TopicFilter::new).transpose().map_err(TopicsError::Invalid)?;
    let metadata = client.refresh_metadata(None, false)?;
    let is_selected = |topic: &&ringlog_client::Topic| {
        let is_shown = !(args.exclude_internal && topic.is_internal);
        is_shown && filter.as_ref().is_none_or(|filter| filter.is_match(&topic.name))
    };
    Ok(metadata.topics.values().filter(is_selected).map(|topic| topic.name.clone()).collect())
}

/// As [`names`], failing if `--topic` finds nothing without `--if-exists`.
fn existing_names(client: &mut Client, args: &TopicsArgs) -> Result<Vec<String>, TopicsError> {
    let names = names(client, args)?;
    match &args.topic {
        Some(topic) if names.is_empty() && !args.if_exists => {
            Err(TopicsError::Invalid(format!("Topic '{topic}' does not exist as expected")))
        }
        _ => Ok(names),
    }
}

fn number<N: std::str::FromStr>(text: Option<&String>, option: &str) -> Result<Option<N>, TopicsError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| TopicsError::Invalid(format!("Cannot parse argument '{text}' of option {option}")))
    };
    text.map(parse).transpose()
}

fn creatable_topic(args: &TopicsArgs) -> Result<CreatableTopic, TopicsError> {
    let name = args.topic.as_deref().unwrap_or_default();
    let partitions: Option<i32> = number(args.partitions.as_ref(), "partitions")?;
    let replication_factor: Option<i32> = number(args.replication_factor.as_ref(), "replication-factor")?;
    if partitions.is_some_and(|partitions| partitions < 1) {
        return Err(TopicsError::Invalid("The partitions must be greater than 0".to_owned()));
    }
    let replication_factor = match replication_factor.map(i16::try_from) {
        None => -1,
        Some(Ok(factor)) if factor > 0 => factor,
        _ => {
            let text = "The replication factor must be between 1 and 32767 inclusive";
            return Err(TopicsError::Invalid(text.to_owned()));
        }
    };
    let mut configs = Vec::new();
    for config in &args.config {
        let Some((key, value)) = config.split_once('=') else {
            let text = "requirement failed: Invalid topic config: all configs to be added must be in the format \
                        \"key=val\".";
            return Err(TopicsError::Invalid(text.to_owned()));
        };
        let (key, value) = (StrBytes::copy_from(key.trim()), StrBytes::copy_from(value.trim()));
        configs.push(CreatableTopicConfig { name: key, value: Some(value) });
    }
    let assignment = args.replica_assignment.as_deref().map(parse_assignment).transpose()?;
    let assignments = assignment.unwrap_or_default().into_iter().zip(0..);
    Ok(CreatableTopic {
        name: StrBytes::copy_from(name),
        num_partitions: partitions.unwrap_or(-1),
        replication_factor,
        assignments: assignments
            .map(|(broker_ids, partition_index)| CreatableReplicaAssignment { partition_index, broker_ids })
            .collect(),
        configs,
    })
}

/// `0:1,1:2` as the replicas of each partition.
fn parse_assignment(text: &str) -> Result<Vec<Vec<i32>>, TopicsError> {
    let mut partitions: Vec<Vec<i32>> = Vec::new();
    for (index, partition) in text.split(',').enumerate() {
        let brokers: Result<Vec<i32>, _> = partition.split(':').map(|broker| broker.trim().parse::<i32>()).collect();
        let brokers = brokers.map_err(|_| TopicsError::Invalid(format!("For input string: \"{partition}\"")))?;
        let mut sorted = brokers.clone();
        sorted.sort_unstable();
        if let Some(duplicate) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let text = format!("Partition replica lists may not contain duplicate entries: {}", duplicate[0]);
            return Err(TopicsError::Invalid(text));
        }
        if partitions.first().is_some_and(|first| first.len() != brokers.len()) {
            let text = format!("Partition {index} has different replication factor: {partition}");
            return Err(TopicsError::Invalid(text));
        }
        partitions.push(brokers);
    }
    Ok(partitions)
}

fn create(
    args: &TopicsArgs,
    client: &mut Client,
    topic: CreatableTopic,
    out: &mut dyn Output,
) -> Result<(), TopicsError> {
    let name = topic.name.clone();
    if name.contains(['.', '_']) {
        out.line(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could \
             collide. To avoid issues it is best to use either, but not both.",
        );
    }
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
    let response = client.send_to_controller(&request)?;
    let Some(result) = response.topics.into_iter().next() else {
        return Err(TopicsError::Invalid("the cluster does not answer for the topic".to_owned()));
    };
    let exists = result.error_code == ErrorCode::TopicAlreadyExists.code();
    if exists && args.if_not_exists {
        return Ok(());
    }
    TopicsError::check(result.error_code, result.error_message.as_ref())?;
    out.line(&format!("Created topic {name}."));
    Ok(())
}

fn alter(client: &mut Client, args: &TopicsArgs) -> Result<(), TopicsError> {
    let names = existing_names(client, args)?;
    let count: i32 = number(args.partitions.as_ref(), "partitions")?.unwrap_or(-1);
    let assignment = args.replica_assignment.as_deref().map(parse_assignment).transpose()?;
    let topics = names.into_iter().map(|name| {
        let existing = client.metadata().topics.get(name.as_str()).map_or(0, |topic| topic.partitions.len());
        let assignments = assignment.as_ref().map(|partitions| {
            let new = partitions.iter().skip(existing);
            new.map(|brokers| CreatePartitionsAssignment { broker_ids: brokers.clone() }).collect()
        });
        CreatePartitionsTopic { name: StrBytes::from(name), count, assignments }
    });
    let topics: Vec<CreatePartitionsTopic> = topics.collect();
    if topics.is_empty() {
        return Ok(());
    }
    let request = CreatePartitionsRequest { topics, timeout_ms: TIMEOUT_MS, validate_only: false };
    let response = client.send_to_controller(&request)?;
    response.results.iter().try_for_each(|result| TopicsError::check(result.error_code, result.error_message.as_ref()))
}

fn delete(client: &mut Client, args: &TopicsArgs) -> Result<(), TopicsError> {
    let names: Vec<StrBytes> = existing_names(client, args)?.into_iter().map(StrBytes::from).collect();
    if names.is_empty() {
        return Ok(());
    }
    let controller = client.metadata().controller_id;
    let response = client.on_node(controller, |connection| {
        let version = connection.version_of::<DeleteTopicsRequest>()?;
        let mut request = DeleteTopicsRequest { timeout_ms: TIMEOUT_MS, ..DeleteTopicsRequest::default() };
        if version >= FIRST_DELETE_BY_STATE {
            let state = |name: StrBytes| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO };
            request.topics = names.into_iter().map(state).collect();
        } else {
            request.topic_names = names;
        }
        connection.call_in_version(&request, version, std::time::Duration::ZERO)
    })?;
    response
        .responses
        .iter()
        .try_for_each(|result| TopicsError::check(result.error_code, result.error_message.as_ref()))
}
