//! Where Ringlog means to answer otherwise than Kafka, or doesn't serve something yet.

use super::pair::Outcome;
use super::wire::Value;

/// APIs of Kafka that aren't served, all because what they are for isn't here yet.
pub const NOT_SERVED: &[&str] = &[
    "AddPartitionsToTxn",
    "AddOffsetsToTxn",
    "EndTxn",
    "WriteTxnMarkers",
    "TxnOffsetCommit",
    "ConsumerGroupHeartbeat",
    "ConsumerGroupDescribe",
    "ShareGroupHeartbeat",
    "ShareGroupDescribe",
    "ShareFetch",
    "ShareAcknowledge",
    "InitializeShareGroupState",
    "ReadShareGroupState",
    "WriteShareGroupState",
    "DeleteShareGroupState",
    "ReadShareGroupStateSummary",
    "StreamsGroupHeartbeat",
    "StreamsGroupDescribe",
    "DescribeShareGroupOffsets",
    "AlterShareGroupOffsets",
    "DeleteShareGroupOffsets",
];

/// Why these may differ.
pub fn meant(api: &str, version: i16, request: &Value, kafka: &Outcome, ringlog: &Outcome) -> Option<&'static str> {
    let _ = version;
    let (Outcome::Answer(kafka), Outcome::Answer(ringlog)) = (kafka, ringlog) else { return None };
    let text = |value: &Value| format!("{value:?}");
    match api {
        "CreateTopics" | "AlterConfigs" | "IncrementalAlterConfigs"
            if without_texts(kafka) == without_texts(ringlog)
                && (text(kafka).contains(" config name: ") || text(kafka).contains("metrics configuration: ")) =>
        {
            Some("which of several unknown settings is named follows from a hash code")
        }
        "CreateTopics"
            if without_texts(kafka) == without_texts(ringlog) && text(kafka).contains("Null value not supported") =>
        {
            Some("settings without values are named in the order of hash codes")
        }
        "UpdateFeatures" if without_texts(kafka) == without_texts(ringlog) => {
            Some("which of several features at fault is named follows from a hash code")
        }
        "CreateDelegationToken" if request.get("OwnerPrincipalType") == Some(&Value::Null) => {
            Some("an owner of no type is none, where Kafka fails")
        }
        "DescribeTopicPartitions" if names_nothing(request) => {
            Some("a topic without a name is an invalid one, where Kafka fails")
        }
        "Metadata" if kafka.get("Brokers").map(Value::list).is_some_and(|brokers| brokers.is_empty()) => {
            Some("a topic with neither name nor id is passed over, where Kafka fails")
        }
        "Fetch" if are_whole_batches_of(ringlog, kafka) => Some(
            "whole batches are sent, where Kafka fills up with the beginning of another; cores share what is allowed",
        ),
        "Fetch" if has_negative_limit(request) => Some("a negative maximum of bytes is none, where Kafka fails"),
        "Fetch" if kafka.get("ErrorCode").and_then(Value::int) == Some(-1) && names_id_zero(request) => {
            Some("a topic id of zeros is an unknown one, where Kafka fails")
        }
        "AlterClientQuotas"
            if without_texts(kafka) == without_texts(ringlog) && text(kafka).contains("Invalid configuration key ") =>
        {
            Some("which of several unknown keys is named follows from a hash code")
        }
        "AlterClientQuotas" if text(kafka).contains("is not a valid IP or resolvable host") => {
            Some("names of hosts are not resolved")
        }
        "InitProducerId" if request.get("TransactionalId").and_then(Value::text).is_some() => {
            Some("there are no transactions")
        }
        _ => None,
    }
}

/// Whether these answers differ only in where records end. Some must be there.
fn are_whole_batches_of(ringlog: &Value, kafka: &Value) -> bool {
    let split = |answer: &Value| {
        let (mut rest, mut records) = (answer.clone(), Vec::new());
        rest.visit("", &mut |name, value| {
            match name {
                "Records" => records.push(std::mem::replace(value, Value::Null)),
                // Kafka doesn't look for any where it has no bytes left to send.
                "AbortedTransactions" if value.list().is_empty() => *value = Value::Null,
                _ => {}
            }
        });
        (rest, records)
    };
    let ((rest, records), (kafkas_rest, kafkas)) = (split(ringlog), split(kafka));
    let begin_alike = |both: (&Value, &Value)| match both {
        (Value::Bytes(one), Value::Bytes(other)) => one.starts_with(other) || other.starts_with(one),
        (one, other) => one == other,
    };
    let has_some = records.iter().any(|records| matches!(records, Value::Bytes(bytes) if !bytes.is_empty()));
    rest == kafkas_rest && has_some && records.len() == kafkas.len() && records.iter().zip(&kafkas).all(begin_alike)
}

fn has_negative_limit(request: &Value) -> bool {
    let mut is_negative = false;
    request.clone().visit("", &mut |name, value| {
        is_negative |= matches!(name, "MaxBytes" | "PartitionMaxBytes") && value.int().is_some_and(|limit| limit < 0);
    });
    is_negative
}

fn names_nothing(request: &Value) -> bool {
    let mut is_nothing = false;
    request.clone().visit("", &mut |name, value| is_nothing |= name == "Name" && value.text() == Some(""));
    is_nothing
}

fn names_id_zero(request: &Value) -> bool {
    let mut is_named = false;
    request.clone().visit("", &mut |name, value| is_named |= name == "TopicId" && *value == Value::Id([0; 16]));
    is_named
}

/// The answer with nothing in the place of its texts.
fn without_texts(answer: &Value) -> Value {
    let mut answer = answer.clone();
    answer.visit("", &mut |name, value| {
        if name == "ErrorMessage" {
            *value = Value::Null;
        }
    });
    answer
}
