//! Records become text, as Kafka's formatters write them.

use std::collections::BTreeMap;

use ringlog_client::ConsumedRecord;
use ringlog_protocol::records::TimestampType;

use super::state::State;
use crate::cli::exception::Exception;

/// The package of Kafka's formatters.
const PACKAGE: &str = "org.apache.kafka.tools.consumer.";

/// How bytes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deserializer {
    Bytes,
    Short,
    Integer,
    Long,
    Float,
    Double,
    Boolean,
}

impl Deserializer {
    fn from_class(class: &str) -> Result<Deserializer, String> {
        let name = class.strip_prefix("org.apache.kafka.common.serialization.").unwrap_or(class);
        Ok(match name {
            "StringDeserializer" | "ByteArrayDeserializer" | "BytesDeserializer" => Deserializer::Bytes,
            "ShortDeserializer" => Deserializer::Short,
            "IntegerDeserializer" => Deserializer::Integer,
            "LongDeserializer" => Deserializer::Long,
            "FloatDeserializer" => Deserializer::Float,
            "DoubleDeserializer" => Deserializer::Double,
            "BooleanDeserializer" => Deserializer::Boolean,
            _ => return Err(format!("{class} (it is not built in, and Java classes can't be loaded)")),
        })
    }

    fn show(self, bytes: &[u8]) -> Result<Vec<u8>, Exception> {
        let text = match self {
            Deserializer::Bytes => return Ok(bytes.to_vec()),
            Deserializer::Short => i16::from_be_bytes(self.number(bytes)?).to_string(),
            Deserializer::Integer => i32::from_be_bytes(self.number(bytes)?).to_string(),
            Deserializer::Long => i64::from_be_bytes(self.number(bytes)?).to_string(),
            Deserializer::Float => format!("{:?}", f32::from_be_bytes(self.number(bytes)?)),
            Deserializer::Double => format!("{:?}", f64::from_be_bytes(self.number(bytes)?)),
            Deserializer::Boolean => (self.number::<1>(bytes)? != [0]).to_string(),
        };
        Ok(text.into_bytes())
    }

    fn number<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], Exception> {
        let text = || format!("Size of data received by {self:?}Deserializer is not {N}");
        bytes.try_into().map_err(|_| Exception::new("SerializationException", text()))
    }
}

/// How records are printed.
#[derive(Debug, Clone)]
pub enum Formatter {
    /// Not at all.
    NoOp,
    /// A line each.
    Lines(Box<Lines>),
    /// As what a coordinator keeps.
    State(State),
}

/// What is printed of a record.
#[derive(Debug, Clone)]
pub struct Lines {
    timestamp: bool,
    key: bool,
    value: bool,
    partition: bool,
    offset: bool,
    delivery: bool,
    epoch: bool,
    headers: bool,
    key_separator: Vec<u8>,
    line_separator: Vec<u8>,
    headers_separator: Vec<u8>,
    null_literal: Vec<u8>,
    key_deserializer: Deserializer,
    value_deserializer: Deserializer,
    headers_deserializer: Deserializer,
}

impl Formatter {
    /// From `--formatter` and `--formatter-property` keys.
    pub fn new(class: Option<&str>, properties: &BTreeMap<String, String>) -> Result<Formatter, String> {
        let Some(class) = class else { return Lines::new(properties).map(|lines| Formatter::Lines(Box::new(lines))) };
        Ok(match class.strip_prefix(PACKAGE) {
            // What the latter logs, Kafka's tools don't show unless they are told to.
            Some("DefaultMessageFormatter" | "LoggingMessageFormatter") => {
                Formatter::Lines(Box::new(Lines::new(properties)?))
            }
            Some("NoOpMessageFormatter") => Formatter::NoOp,
            Some("OffsetsMessageFormatter") => Formatter::State(State::Offsets),
            Some("GroupMetadataMessageFormatter") => Formatter::State(State::GroupMetadata),
            Some("TransactionLogMessageFormatter") => Formatter::State(State::TransactionLog),
            Some("group.share.ShareGroupStateMessageFormatter") => Formatter::State(State::ShareGroup),
            _ => return Err(format!("{class} (it is not built in, and Java classes can't be loaded)")),
        })
    }

    /// The record's text with what ends it.
    pub fn format(&self, record: &ConsumedRecord) -> Result<Vec<u8>, Exception> {
        match self {
            Formatter::NoOp => Ok(Vec::new()),
            Formatter::Lines(lines) => lines.format(record),
            Formatter::State(state) => {
                let failed = |text| Exception::new("java.lang.RuntimeException", text);
                state.format(record).map(String::into_bytes).map_err(failed)
            }
        }
    }
}

impl Lines {
    fn new(properties: &BTreeMap<String, String>) -> Result<Lines, String> {
        let flag = |key: &str, default: bool| {
            properties.get(key).map_or(default, |value| value.trim().eq_ignore_ascii_case("true"))
        };
        let bytes = |key: &str, default: &str| properties.get(key).map_or(default, String::as_str).as_bytes().to_vec();
        let deserializer =
            |key: &str| properties.get(key).map_or(Ok(Deserializer::Bytes), |class| Deserializer::from_class(class));
        Ok(Lines {
            timestamp: flag("print.timestamp", false),
            key: flag("print.key", false),
            value: flag("print.value", true),
            partition: flag("print.partition", false),
            offset: flag("print.offset", false),
            delivery: flag("print.delivery", false),
            epoch: flag("print.epoch", false),
            headers: flag("print.headers", false),
            key_separator: bytes("key.separator", "\t"),
            line_separator: bytes("line.separator", "\n"),
            headers_separator: bytes("headers.separator", ","),
            null_literal: bytes("null.literal", "null"),
            key_deserializer: deserializer("key.deserializer")?,
            value_deserializer: deserializer("value.deserializer")?,
            headers_deserializer: deserializer("headers.deserializer")?,
        })
    }

    fn format(&self, record: &ConsumedRecord) -> Result<Vec<u8>, Exception> {
        let mut columns: Vec<Vec<u8>> = Vec::new();
        if self.timestamp {
            let column = match (record.timestamp, record.timestamp_type) {
                (..0, _) => "NO_TIMESTAMP".to_owned(),
                (at, TimestampType::CreateTime) => format!("CreateTime:{at}"),
                (at, TimestampType::LogAppendTime) => format!("LogAppendTime:{at}"),
            };
            columns.push(column.into_bytes());
        }
        if self.partition {
            columns.push(format!("Partition:{}", record.partition).into_bytes());
        }
        if self.offset {
            columns.push(format!("Offset:{}", record.offset).into_bytes());
        }
        // Kafka's tool drops both on the way to its formatter.
        if self.delivery {
            columns.push(b"Delivery:NOT_PRESENT".to_vec());
        }
        if self.epoch {
            columns.push(b"Epoch:NOT_PRESENT".to_vec());
        }
        if self.headers {
            columns.push(self.headers(record)?);
        }
        if self.key {
            columns.push(self.field(self.key_deserializer, record.key.as_deref())?);
        }
        if self.value {
            columns.push(self.field(self.value_deserializer, record.value.as_deref())?);
        }
        let mut text = columns.join(&self.key_separator[..]);
        text.extend_from_slice(&self.line_separator);
        Ok(text)
    }

    fn field(&self, deserializer: Deserializer, bytes: Option<&[u8]>) -> Result<Vec<u8>, Exception> {
        bytes.map_or_else(|| Ok(self.null_literal.clone()), |bytes| deserializer.show(bytes))
    }

    fn headers(&self, record: &ConsumedRecord) -> Result<Vec<u8>, Exception> {
        if record.headers.is_empty() {
            return Ok(b"NO_HEADERS".to_vec());
        }
        let mut headers = Vec::new();
        for header in &record.headers {
            let mut text = header.key.clone();
            text.push(b':');
            text.extend(self.field(self.headers_deserializer, header.value.as_deref())?);
            headers.push(text);
        }
        Ok(headers.join(&self.headers_separator[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlog_client::ConsumedHeader;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            topic: "t".into(),
            partition: 1,
            offset: 12,
            leader_epoch: Some(3),
            timestamp: 1_795_323_453_340,
            timestamp_type: TimestampType::CreateTime,
            key: Some(b"kh".to_vec()),
            value: Some(b"vh".to_vec()),
            headers: vec![
                ConsumedHeader { key: b"h1".to_vec(), value: Some(b"a".to_vec()) },
                ConsumedHeader { key: b"h2".to_vec(), value: None },
            ],
        }
    }

    fn formatter(properties: &[(&str, &str)]) -> Formatter {
        let properties = properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Formatter::new(None, &properties).unwrap()
    }

    #[test]
    fn columns_come_in_kafkas_order() {
        let names = ["key", "timestamp", "partition", "offset", "headers", "epoch", "delivery"];
        let properties: Vec<(String, &str)> = names.iter().map(|name| (format!("print.{name}"), "true")).collect();
        let properties: Vec<(&str, &str)> = properties.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let text = formatter(&properties).format(&record()).unwrap();
        let expected = "CreateTime:1795323453340\tPartition:1\tOffset:12\tDelivery:NOT_PRESENT\tEpoch:NOT_PRESENT\t\
                        h1:a,h2:null\tkh\tvh\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn values_are_shown_by_their_deserializer() {
        let record = ConsumedRecord { value: Some(7i64.to_be_bytes().to_vec()), key: None, ..record() };
        let class = "org.apache.kafka.common.serialization.LongDeserializer";
        let formatter = formatter(&[("value.deserializer", class), ("print.key", "true"), ("null.literal", "-")]);
        assert_eq!(formatter.format(&record).unwrap(), b"-\t7\n");
        let wrong = ConsumedRecord { value: Some(b"x".to_vec()), ..record };
        let text = "org.apache.kafka.common.errors.SerializationException: Size of data received by LongDeserializer is \
                    not 8";
        assert_eq!(formatter.format(&wrong).unwrap_err().to_string(), text);
        assert!(Formatter::new(Some("com.example.Mine"), &BTreeMap::new()).is_err());
    }
}
