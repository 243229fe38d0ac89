//! Client properties as the tools take them: a file, then `KEY=VALUE` options on top.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ringlog_client::ClientOptions;
use ringlog_config::properties;

/// Keys and values of a Java client's configuration. Keys that mean nothing to this client are kept and not used.
#[derive(Debug, Clone, Default)]
pub struct ClientProperties {
    values: BTreeMap<String, String>,
}

impl ClientProperties {
    /// Reads a properties file.
    pub fn from_file(path: &str) -> Result<ClientProperties, String> {
        Ok(ClientProperties { values: read_properties(Path::new(path))? })
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

    /// A key's value as a number or the like.
    pub fn parse<T: FromStr>(&self, key: &str, default: T) -> Result<T, String> {
        match self.get(key) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|_| {
                format!("Invalid value {text} for configuration {key}: it is not of the configuration's type")
            }),
        }
    }

    /// A key's value in milliseconds.
    pub fn millis(&self, key: &str, default_ms: u64) -> Result<Duration, String> {
        self.parse(key, default_ms).map(Duration::from_millis)
    }

    /// What every kind of client has.
    pub fn client_options(&self, default_client_id: &str) -> Result<ClientOptions, String> {
        let protocol = self.get("security.protocol").unwrap_or("PLAINTEXT");
        if !protocol.trim().eq_ignore_ascii_case("PLAINTEXT") {
            return Err(format!(
                "security.protocol={protocol} is not supported by this tool yet: use PLAINTEXT, or Kafka's own tool"
            ));
        }
        let defaults = ClientOptions::default();
        Ok(ClientOptions {
            client_id: self.get("client.id").unwrap_or(default_client_id).to_owned(),
            request_timeout: self.millis("request.timeout.ms", 30_000)?,
            retry_timeout: self.millis("default.api.timeout.ms", 60_000)?,
            retry_backoff: self.millis("retry.backoff.ms", 100)?,
            metadata_max_age: self.millis("metadata.max.age.ms", 300_000)?,
            ..defaults
        })
    }
}

/// Reads a properties file, saying which one can't be read and why.
pub fn read_properties(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let bytes = std::fs::read(path).map_err(|fault| format!("{}: {fault}", path.display()))?;
    properties::parse(&bytes).map_err(|fault| format!("{}: {fault}", path.display()))
}
