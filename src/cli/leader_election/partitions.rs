//! The file that names partitions: `{"partitions": [{"topic": "foo", "partition": 1}]}`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cli::exception::Exception;
use crate::cli::failure::Failure;
use crate::cli::java_hash;

/// The partitions that the file names.
pub fn from_file(path: &str) -> Result<Vec<(String, i32)>, Failure> {
    let bytes = std::fs::read(path).map_err(|fault| {
        let unreadable = Exception::new("java.io.IOException", format!("Unable to read file {path}"));
        Failure::wrapped("java.lang.RuntimeException", &unreadable).caused_by(&Exception::file(path, &fault))
    })?;
    read(&bytes)
}

fn refuse(text: impl Into<String>) -> Failure {
    Failure::new(&Exception::new("org.apache.kafka.tools.AdminOperationException", text))
}

/// A value is of another kind than it has to be.
fn unfit(text: String) -> Failure {
    let cause = Exception::new("com.fasterxml.jackson.databind.JsonMappingException", text);
    Failure::wrapped("java.lang.RuntimeException", &cause)
}

fn read(bytes: &[u8]) -> Result<Vec<(String, i32)>, Failure> {
    let document: Value = serde_json::from_slice(bytes).map_err(|_| refuse("Replica election data is empty"))?;
    let partitions = object(&document)?.get("partitions");
    let partitions = partitions.ok_or_else(|| refuse("Replica election data is missing \"partitions\" field"))?;
    let Value::Array(partitions) = partitions else {
        return Err(unfit(format!("Expected JSON array, received {partitions}")));
    };
    let partitions = partitions.iter().map(partition).collect::<Result<Vec<_>, _>>()?;
    let (mut once, mut again) = (BTreeSet::new(), BTreeSet::new());
    for partition in &partitions {
        if !once.insert(partition) {
            again.insert(partition);
        }
    }
    if again.is_empty() {
        return Ok(partitions);
    }
    let again = java_hash::iteration_order(again.into_iter().collect(), |(topic, partition)| {
        java_hash::of_partition(topic, *partition)
    });
    let names: Vec<String> = again.iter().map(|(topic, partition)| format!("{topic}-{partition}")).collect();
    Err(refuse(format!("Replica election data contains duplicate partitions: [{}]", names.join(", "))))
}

fn partition(value: &Value) -> Result<(String, i32), Failure> {
    let fields = object(value)?;
    let topic = field(fields, "topic")?;
    let Value::String(topic) = topic else { return Err(unfit(format!("Expected `String` value, received {topic}"))) };
    let partition = field(fields, "partition")?;
    let number = partition.as_i64().and_then(|number| i32::try_from(number).ok());
    let number = number.ok_or_else(|| unfit(format!("Expected `Integer` value, received {partition}")))?;
    Ok((topic.clone(), number))
}

fn object(value: &Value) -> Result<&Map<String, Value>, Failure> {
    value.as_object().ok_or_else(|| unfit(format!("Expected JSON object, received {value}")))
}

fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a Value, Failure> {
    fields.get(name).ok_or_else(|| unfit(format!("No such field exists: `{name}`")))
}
