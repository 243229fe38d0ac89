//! Client properties as the tools take them: a file, then `KEY=VALUE` options on top.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ringlog_client::ClientOptions;
use ringlog_config::properties;

use super::exception::Exception;

/// Keys and values of a Java client's configuration. Keys that mean nothing to this client are kept and not used.
#[derive(Debug, Clone, Default)]
pub struct ClientProperties {
    values: BTreeMap<String, String>,
}

/// The security protocols of Kafka's clients, in the order in which they name them.
const SECURITY_PROTOCOLS: [&str; 4] = ["SASL_SSL", "PLAINTEXT", "SSL", "SASL_PLAINTEXT"];

impl ClientProperties {
    /// Reads a properties file.
    pub fn from_file(path: &str) -> Result<ClientProperties, Exception> {
        let bytes = std::fs::read(path).map_err(|fault| Exception::file(path, &fault))?;
        let values = properties::parse(&bytes).map_err(|fault| Exception::argument(format!("{path}: {fault}")))?;
        Ok(ClientProperties { values })
    }

    /// Reads a file if there is one to be read.
    pub fn from_optional_file(path: Option<&String>) -> Result<ClientProperties, Exception> {
        path.map_or_else(|| Ok(ClientProperties::default()), |path| ClientProperties::from_file(path))
    }

    /// Sets a key, replacing what it was.
    pub fn set(&mut self, key: &str, value: &str) {
        self.values.insert(key.to_owned(), value.to_owned());
    }

    /// Sets a key that has no value yet.
    pub fn set_default(&mut self, key: &str, value: &str) {
        self.values.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// A key's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// All keys and values.
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.values
    }

    /// A number of 32 bits, `min` at least.
    pub fn int(&self, key: &str, default: i32, min: i32) -> Result<i32, String> {
        self.number(key, "INT", default, min)
    }

    /// A number of 64 bits, `min` at least.
    pub fn long(&self, key: &str, default: i64, min: i64) -> Result<i64, String> {
        self.number(key, "LONG", default, min)
    }

    fn number<N: std::str::FromStr + PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        kind: &str,
        default: N,
        min: N,
    ) -> Result<N, String> {
        let Some(text) = self.get(key) else { return Ok(default) };
        let invalid = |what: &str| format!("Invalid value {} for configuration {key}: {what}", text.trim());
        match text.trim().parse::<N>() {
            Err(_) => Err(invalid(&format!("Not a number of type {kind}"))),
            Ok(number) if number < min => Err(invalid(&format!("Value must be at least {min}"))),
            Ok(number) => Ok(number),
        }
    }

    /// `true` or `false`, in any case.
    pub fn boolean(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key).map(str::trim) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => {
                Err(format!("Invalid value {text} for configuration {key}: Expected value to be either true or false"))
            }
        }
    }

    /// Milliseconds in a number of 32 bits.
    pub fn int_millis(&self, key: &str, default_ms: i32) -> Result<Duration, String> {
        self.int(key, default_ms, 0).map(|ms| Duration::from_millis(u64::from(ms.unsigned_abs())))
    }

    /// Milliseconds in a number of 64 bits.
    pub fn long_millis(&self, key: &str, default_ms: i64) -> Result<Duration, String> {
        self.long(key, default_ms, 0).map(|ms| Duration::from_millis(ms.unsigned_abs()))
    }

    /// What every kind of client has.
    pub fn client_options(&self, default_client_id: &str) -> Result<ClientOptions, String> {
        let protocol = self.get("security.protocol").unwrap_or("PLAINTEXT").trim();
        if !SECURITY_PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
            return Err(format!(
                "Invalid value {protocol} for configuration security.protocol: String must be one of (case \
                 insensitive): {}",
                SECURITY_PROTOCOLS.join(", ")
            ));
        }
        if !protocol.eq_ignore_ascii_case("PLAINTEXT") {
            return Err(format!(
                "security.protocol={protocol} is not supported by this tool yet: use PLAINTEXT, or Kafka's own tool"
            ));
        }
        let defaults = ClientOptions::default();
        Ok(ClientOptions {
            client_id: self.get("client.id").unwrap_or(default_client_id).to_owned(),
            request_timeout: self.int_millis("request.timeout.ms", 30_000)?,
            retry_timeout: self.int_millis("default.api.timeout.ms", 60_000)?,
            retry_backoff: self.long_millis("retry.backoff.ms", 100)?,
            reconnect_backoff: self.long_millis("reconnect.backoff.ms", 50)?,
            reconnect_backoff_max: self.long_millis("reconnect.backoff.max.ms", 1000)?,
            connect_timeout: self.long_millis("socket.connection.setup.timeout.ms", 10_000)?,
            metadata_max_age: self.long_millis("metadata.max.age.ms", 300_000)?,
            ..defaults
        })
    }
}

/// Reads a properties file, saying which one can't be read and why.
pub fn read_properties(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let bytes = std::fs::read(path).map_err(|fault| format!("{}: {fault}", path.display()))?;
    properties::parse(&bytes).map_err(|fault| format!("{}: {fault}", path.display()))
}
