//! What the administrative tools have in common: where they find the cluster, and how they wait for it.
//!
//! As in Kafka's admin client, each call has `default.api.timeout.ms`, connecting included: a cluster that isn't there
//! yet is waited for. A signal ends a tool at once, since it has nothing to put in order.

use std::path::Path;

use ringlog_client::{Bootstrap, Client, ClientError, ClientOptions, Metadata, Target};
use ringlog_protocol::Request;

use super::client_config::ClientProperties;
use super::exception::Exception;
use super::output::Output;

/// What Kafka's tools say of a client that can't begin, whatever the reason is.
pub const NO_CLIENT: &str = "Failed to create new KafkaAdminClient";

/// Why there is no client. The texts are those of Kafka's tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// A property can't be used.
    #[error("{0}")]
    Properties(String),
    /// The bootstrap list can't be used. The reason is for who asks.
    #[error("{NO_CLIENT}")]
    Bootstrap(String),
}

impl AdminError {
    /// The exception that Kafka's tools print, and the one that caused it.
    pub fn exceptions(&self) -> Vec<String> {
        match self {
            AdminError::Properties(text) => vec![Exception::config(text).to_string()],
            AdminError::Bootstrap(reason) => vec![
                Exception::new("org.apache.kafka.common.KafkaException", NO_CLIENT).to_string(),
                format!("Caused by: {}", Exception::config(reason)),
            ],
        }
    }
}

/// The client of an administrative tool. It connects when it is first asked.
#[derive(Debug)]
pub struct Admin {
    servers: Option<String>,
    controllers: Option<String>,
    options: ClientOptions,
    client: Option<Client>,
    was_waiting: bool,
}

impl Admin {
    /// A client for one of the two lists: `servers` are brokers.
    pub fn new(
        servers: Option<String>,
        controllers: Option<String>,
        properties: &ClientProperties,
    ) -> Result<Admin, AdminError> {
        let options = properties.client_options("adminclient-1").map_err(AdminError::Properties)?;
        let admin = Admin { servers, controllers, options, client: None, was_waiting: false };
        let list = admin.servers.as_ref().or(admin.controllers.as_ref());
        if list.is_none_or(String::is_empty) {
            return Err(AdminError::Bootstrap("You must set either bootstrap.servers or bootstrap.controllers".into()));
        }
        admin.bootstrap().check().map_err(|fault| AdminError::Bootstrap(fault.to_string()))?;
        Ok(admin)
    }

    fn bootstrap(&self) -> Bootstrap<'_> {
        match (&self.servers, &self.controllers) {
            (None, Some(controllers)) => Bootstrap::Controllers(controllers),
            (servers, _) => Bootstrap::Servers(servers.as_deref().unwrap_or_default()),
        }
    }

    /// Whether controllers are asked rather than brokers.
    pub fn asks_controllers(&self) -> bool {
        self.servers.is_none()
    }

    /// How long an answer may take, in milliseconds.
    pub fn request_timeout_ms(&self) -> i32 {
        i32::try_from(self.options.request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// How long a call may take with all its tries, in milliseconds.
    pub fn api_timeout_ms(&self) -> i32 {
        i32::try_from(self.options.retry_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// Does something with the client, again while nobody can be reached; who waits is told why. `call` is the name that
    /// Kafka's client gives to what is asked.
    pub fn call<T>(
        &mut self,
        call: &str,
        out: &mut dyn Output,
        mut work: impl FnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, Exception> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let client = Client::new(self.bootstrap(), self.options.clone());
                client.map_err(|fault| Exception::of_client(&fault, call))?
            }
        };
        let seconds = self.options.retry_timeout.as_secs_f32();
        let was_waiting = &mut self.was_waiting;
        let outcome = client.persist(|client| {
            let outcome =
                if client.has_metadata() { Ok(()) } else { client.refresh_metadata(Some(&[]), false).map(drop) };
            let outcome = outcome.and_then(|()| work(client));
            if let Err(fault) = &outcome
                && fault.is_retriable()
                && !std::mem::replace(was_waiting, true)
            {
                out.flush();
                out.error(&format!("WARN {fault}. Trying for {seconds} s."));
            }
            outcome
        });
        self.client = Some(client);
        outcome.map_err(|fault| Exception::of_client(&fault, call))
    }

    /// What is known of the cluster; it is asked for if nothing is known yet.
    pub fn metadata(&mut self, call: &str, out: &mut dyn Output) -> Result<Metadata, Exception> {
        self.call(call, out, |client| Ok(client.metadata().clone()))
    }

    /// Asks and waits for an answer that isn't `is_misplaced`, which is one of a node that was asked in vain.
    pub fn ask<R: Request>(
        &mut self,
        call: &str,
        target: Target,
        request: &R,
        is_misplaced: impl Fn(&R::Response) -> bool,
        out: &mut dyn Output,
    ) -> Result<R::Response, Exception> {
        let mut must_look = false;
        self.call(call, out, |client| {
            if std::mem::replace(&mut must_look, true) {
                client.refresh_metadata(Some(&[]), false)?;
            }
            client.administer_once(target, request, &is_misplaced)
        })
    }
}

/// Reads `--command-config`. `missing` is what the tool says of a file that isn't there.
pub fn read_config(path: Option<&str>, missing: impl Fn(&str) -> String) -> Result<ClientProperties, String> {
    match path {
        None => Ok(ClientProperties::default()),
        Some(path) if !Path::new(path).exists() => Err(missing(path)),
        Some(path) => ClientProperties::from_file(path).map_err(|fault| fault.message),
    }
}
