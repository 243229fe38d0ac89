//! `.kafka_cleanshutdown`: one line of JSON, `{"version":0,"brokerEpoch":13}`, without a newline. An orderly stop leaves it,
//! and the next start deletes it once it is read. The epoch goes into the next registration as the previous one.

use ringlog_types::BrokerEpoch;
use serde::{Deserialize, Serialize};

const VERSION: i32 = 0;

#[derive(Serialize, Deserialize)]
struct Content {
    version: i32,
    #[serde(rename = "brokerEpoch")]
    broker_epoch: i64,
}

/// The broker epoch in a file's content. A file that can't be read, or of another version, still says that the stop was an
/// orderly one, but gives [`BrokerEpoch::NONE`].
pub fn parse_clean_shutdown(bytes: &[u8]) -> BrokerEpoch {
    match serde_json::from_slice::<Content>(bytes) {
        Ok(Content { version: VERSION, broker_epoch }) => BrokerEpoch(broker_epoch),
        _ => BrokerEpoch::NONE,
    }
}

/// The file's content.
pub fn format_clean_shutdown(broker_epoch: BrokerEpoch) -> String {
    serde_json::to_string(&Content { version: VERSION, broker_epoch: broker_epoch.0 }).expect("two numbers make JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_that_of_kafka() {
        let text = r#"{"version":0,"brokerEpoch":13}"#;
        assert_eq!(format_clean_shutdown(BrokerEpoch(13)), text);
        assert_eq!(parse_clean_shutdown(text.as_bytes()), BrokerEpoch(13));
        for other in ["", "0", r#"{"version":1,"brokerEpoch":13}"#] {
            assert_eq!(parse_clean_shutdown(other.as_bytes()), BrokerEpoch::NONE);
        }
    }
}
