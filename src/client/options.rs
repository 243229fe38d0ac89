use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How a client behaves; `default()` suits tools.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The name that the client gives itself in each request.
    pub client_id: String,
    /// How long to wait for a socket to open.
    pub connect_timeout: Duration,
    /// How long to wait for an answer; fetches that may wait at the broker get that time on top.
    pub request_timeout: Duration,
    /// How long routed calls go on trying while there is no leader, coordinator or topic.
    pub retry_timeout: Duration,
    /// The pause between such tries.
    pub retry_backoff: Duration,
    /// The pause before a node is connected to again that couldn't be; it grows up to `reconnect_backoff_max`.
    pub reconnect_backoff: Duration,
    /// See `reconnect_backoff`.
    pub reconnect_backoff_max: Duration,
    /// The largest answer that is taken, in bytes. A larger one is an error, whatever its first four bytes promise.
    pub max_frame_bytes: usize,
    /// The age from which metadata is asked for again.
    pub metadata_max_age: Duration,
    /// Ends all waits when it is set, with [`crate::ClientError::Stopped`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            client_id: "ringlog-client".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            max_frame_bytes: 256 << 20,
            metadata_max_age: Duration::from_secs(300),
            stop: None,
        }
    }
}
