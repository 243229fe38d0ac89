//! `topics` (`kafka-topics`): creates, deletes, describes and changes topics.

mod args;
mod describe;

use ringlog_client::{Client, ClientError, Target};
use ringlog_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use ringlog_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ringlog_protocol::messages::delete_topics_request::DeleteTopicState;
use ringlog_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DeleteTopicsResponse,
};
use ringlog_protocol::{Request, StrBytes};
use ringlog_types::{ErrorCode, Uuid};

pub use args::TopicsArgs;

use super::admin::{Admin, AdminError};
use super::client_config::ClientProperties;
use super::exception::Exception;
use super::output::Output;
use super::topic_filter::TopicFilter;

/// How long the cluster may take over a request, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;
/// The version of DeleteTopics from which topics go by state rather than name.
const FIRST_DELETE_BY_STATE: i16 = 6;
/// What looking for the topics is called.
const LIST: &str = "listTopics";

/// Runs the tool and returns its exit code. The texts are those that Kafka's tool prints.
pub fn run(args: &TopicsArgs, out: &mut dyn Output) -> u8 {
    let mut admin = match connect(args) {
        Ok(admin) => admin,
        Err(lines) => {
            lines.iter().for_each(|line| out.error(line));
            return 1;
        }
    };
    match execute(args, &mut admin, out) {
        Ok(()) => 0,
        Err(fault) => {
            out.line(&format!("Error while executing topic command : {}", fault.message));
            out.error(&format!("ERROR {fault}\n (org.apache.kafka.tools.TopicCommand)"));
            1
        }
    }
}

/// A client, or what Kafka's tool says when it can't have one: the message, and the exception.
fn connect(args: &TopicsArgs) -> Result<Admin, Vec<String>> {
    let properties = ClientProperties::from_optional_file(args.command_config.as_ref())
        .map_err(|fault| vec![fault.message.clone(), fault.to_string()])?;
    let with_message = |fault: AdminError| {
        let mut lines = vec![fault.to_string()];
        lines.extend(fault.exceptions());
        lines
    };
    Admin::new(args.bootstrap_server.clone(), None, &properties).map_err(with_message)
}

fn execute(args: &TopicsArgs, admin: &mut Admin, out: &mut dyn Output) -> Result<(), Exception> {
    if args.create {
        create(args, admin, out)
    } else if args.list {
        names(admin, args, out)?.iter().for_each(|name| out.line(name));
        Ok(())
    } else if args.describe {
        describe::run(admin, args, out)
    } else if args.alter {
        alter(admin, args, out)
    } else {
        delete(admin, args, out)
    }
}

/// The topics that `--topic` and `--exclude-internal` select, sorted.
fn names(admin: &mut Admin, args: &TopicsArgs, out: &mut dyn Output) -> Result<Vec<String>, Exception> {
    let invalid = |text| Exception::new("java.lang.RuntimeException", text);
    let filter = args.topic.as_deref().map(TopicFilter::new).transpose().map_err(invalid)?;
    let metadata = admin.call(LIST, out, |client| client.refresh_metadata(None, false).cloned())?;
    let is_selected = |topic: &&ringlog_client::Topic| {
        let is_shown = !(args.exclude_internal && topic.is_internal);
        is_shown && filter.as_ref().is_none_or(|filter| filter.is_match(&topic.name))
    };
    Ok(metadata.topics.values().filter(is_selected).map(|topic| topic.name.clone()).collect())
}

/// As [`names`], failing if `--topic` names one and it finds nothing without `--if-exists`.
fn existing_names(admin: &mut Admin, args: &TopicsArgs, out: &mut dyn Output) -> Result<Vec<String>, Exception> {
    let names = names(admin, args, out)?;
    match args.topic.as_deref() {
        Some(topic) if names.is_empty() && !topic.is_empty() && !args.if_exists => {
            Err(Exception::argument(format!("Topic '{topic}' does not exist as expected")))
        }
        _ => Ok(names),
    }
}

fn number<N: std::str::FromStr>(text: Option<&String>, option: &str) -> Result<Option<N>, Exception> {
    let parse = |text: &String| {
        let class = "joptsimple.OptionArgumentConversionException";
        text.parse().map_err(|_| Exception::new(class, format!("Cannot parse argument '{text}' of option {option}")))
    };
    text.map(parse).transpose()
}

fn creatable_topic(args: &TopicsArgs) -> Result<CreatableTopic, Exception> {
    let name = args.topic.as_deref().unwrap_or_default();
    let partitions: Option<i32> = number(args.partitions.as_ref(), "partitions")?;
    let replication_factor: Option<i32> = number(args.replication_factor.as_ref(), "replication-factor")?;
    if partitions.is_some_and(|partitions| partitions < 1) {
        return Err(Exception::argument("The partitions must be greater than 0"));
    }
    let replication_factor = match replication_factor.map(i16::try_from) {
        None => -1,
        Some(Ok(factor)) if factor > 0 => factor,
        _ => {
            return Err(Exception::argument("The replication factor must be between 1 and 32767 inclusive"));
        }
    };
    let mut configs = Vec::new();
    for config in &args.config {
        let [key, value] = java_split(config, '=')[..] else {
            let text = "requirement failed: Invalid topic config: all configs to be added must be in the format \
                        \"key=val\".";
            return Err(Exception::argument(text));
        };
        let (key, value) = (StrBytes::copy_from(key.trim()), StrBytes::copy_from(value.trim()));
        configs.push(CreatableTopicConfig { name: key, value: Some(value) });
    }
    let assignment = assignment(args)?;
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

/// As Java splits a text: empty parts at its end aren't there.
fn java_split(text: &str, separator: char) -> Vec<&str> {
    let mut parts: Vec<&str> = text.split(separator).collect();
    while parts.len() > 1 && parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    if parts == [""] && !text.is_empty() { Vec::new() } else { parts }
}

/// `0:1,1:2` as the replicas of each partition.
fn assignment(args: &TopicsArgs) -> Result<Option<Vec<Vec<i32>>>, Exception> {
    let Some(text) = args.replica_assignment.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    let mut partitions: Vec<Vec<i32>> = Vec::new();
    for (index, partition) in java_split(text, ',').into_iter().enumerate() {
        let broker = |text: &str| {
            let not_a_number = || format!("For input string: \"{}\"", text.trim());
            text.trim().parse::<i32>().map_err(|_| Exception::new("java.lang.NumberFormatException", not_a_number()))
        };
        let brokers = java_split(partition, ':').into_iter().map(broker).collect::<Result<Vec<i32>, _>>()?;
        let repeated: Vec<String> = brokers
            .iter()
            .enumerate()
            .filter(|(at, broker)| brokers[..*at].iter().filter(|other| other == broker).count() == 1)
            .map(|(_, broker)| broker.to_string())
            .collect();
        if !repeated.is_empty() {
            let text = format!("Partition replica lists may not contain duplicate entries: {}", repeated.join(", "));
            return Err(Exception::new("org.apache.kafka.tools.AdminCommandFailedException", text));
        }
        if partitions.first().is_some_and(|first| first.len() != brokers.len()) {
            let text = format!("Partition {index} has different replication factor: {brokers:?}");
            return Err(Exception::new("org.apache.kafka.tools.AdminOperationException", text));
        }
        partitions.push(brokers);
    }
    Ok(Some(partitions))
}

fn create(args: &TopicsArgs, admin: &mut Admin, out: &mut dyn Output) -> Result<(), Exception> {
    let name = args.topic.as_deref().unwrap_or_default();
    // Numbers that aren't any come first, then this, then numbers that can't be.
    let _: Option<i32> = number(args.partitions.as_ref(), "partitions")?;
    let _: Option<i32> = number(args.replication_factor.as_ref(), "replication-factor")?;
    if name.contains(['.', '_']) {
        out.line(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could \
             collide. To avoid issues it is best to use either, but not both.",
        );
    }
    let topic = creatable_topic(args)?;
    if name.is_empty() {
        let text = "The given topic name '' cannot be represented in a request.";
        return Err(Exception::new("InvalidTopicException", text));
    }
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
    let response = ask_controller(admin, "createTopics", &request, out)?;
    let Some(result) = response.topics.into_iter().next() else {
        return Err(Exception::new("UnknownServerException", "the cluster does not answer for the topic"));
    };
    let exists = result.error_code == ErrorCode::TopicAlreadyExists.code();
    if exists && args.if_not_exists {
        return Ok(());
    }
    Exception::check(result.error_code, result.error_message.as_ref())?;
    out.line(&format!("Created topic {name}."));
    Ok(())
}

/// Brokers pass on themselves what only the active controller can do.
fn ask_controller<R: Request>(
    admin: &mut Admin,
    call: &str,
    request: &R,
    out: &mut dyn Output,
) -> Result<R::Response, Exception> {
    admin.ask(call, Target::Controller, request, |_| false, out)
}

fn alter(admin: &mut Admin, args: &TopicsArgs, out: &mut dyn Output) -> Result<(), Exception> {
    let names = existing_names(admin, args, out)?;
    let count: i32 = number(args.partitions.as_ref(), "partitions")?.unwrap_or(-1);
    let assignment = assignment(args)?;
    let metadata = admin.metadata(LIST, out)?;
    let topics = names.into_iter().map(|name| {
        let existing = metadata.topics.get(name.as_str()).map_or(0, |topic| topic.partitions.len());
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
    let response = ask_controller(admin, "createPartitions", &request, out)?;
    response.results.iter().try_for_each(|result| Exception::check(result.error_code, result.error_message.as_ref()))
}

fn delete(admin: &mut Admin, args: &TopicsArgs, out: &mut dyn Output) -> Result<(), Exception> {
    let names: Vec<StrBytes> = existing_names(admin, args, out)?.into_iter().map(StrBytes::from).collect();
    if names.is_empty() {
        return Ok(());
    }
    let response = admin.call("deleteTopics", out, |client| delete_topics(client, &names))?;
    response.responses.iter().try_for_each(|result| Exception::check(result.error_code, result.error_message.as_ref()))
}

fn delete_topics(client: &mut Client, names: &[StrBytes]) -> Result<DeleteTopicsResponse, ClientError> {
    let controller = client.metadata().controller_id;
    client.on_node(controller, |connection| {
        let version = connection.version_of::<DeleteTopicsRequest>()?;
        let mut request = DeleteTopicsRequest { timeout_ms: TIMEOUT_MS, ..DeleteTopicsRequest::default() };
        if version >= FIRST_DELETE_BY_STATE {
            let state = |name: &StrBytes| DeleteTopicState { name: Some(name.clone()), topic_id: Uuid::ZERO };
            request.topics = names.iter().map(state).collect();
        } else {
            request.topic_names = names.to_vec();
        }
        connection.call_in_version(&request, version, std::time::Duration::ZERO)
    })
}
