//! What the administrative tools have in common: where they find the cluster, and how they wait for it.

use std::path::Path;

use ringlog_client::{Bootstrap, Client, ClientError, ClientOptions, Target};
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

/// The client of an administrative tool. It connects when it is first asked.
#[derive(Debug)]
pub struct Admin {
    servers: Option<String>,
    controllers: Option<String>,
    options: ClientOptions,
    client: Option<Client>,
}

impl Admin {
    /// A client for one of the two lists: `servers` are brokers.
    pub fn new(
        servers: Option<String>,
        controllers: Option<String>,
        properties: &ClientProperties,
    ) -> Result<Admin, AdminError> {
        let options = properties.client_options("adminclient-1").map_err(AdminError::Properties)?;
        let admin = Admin { servers, controllers, options, client: None };
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

    /// How long an answer may take, in milliseconds.
    pub fn request_timeout_ms(&self) -> i32 {
        i32::try_from(self.options.request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// The connected client. `call` is the name that Kafka's client gives to what is to be asked.
    pub fn client(&mut self, call: &str, out: &mut dyn Output) -> Result<&mut Client, Exception> {
        if self.client.is_none() {
            let client = self.connect(out).map_err(|fault| Exception::of_client(&fault, call))?;
            self.client = Some(client);
        }
        Ok(self.client.as_mut().expect("it was connected"))
    }

    /// Kafka's tools wait for a cluster that isn't there yet; who waits is told why.
    fn connect(&self, out: &mut dyn Output) -> Result<Client, ClientError> {
        match Client::connect(self.bootstrap(), self.options.clone()) {
            Err(fault) if fault.is_retriable() => {
                out.flush();
                let seconds = self.options.retry_timeout.as_secs();
                out.error(&format!("WARN {fault}. Trying for {seconds} s."));
                Client::connect_within(self.bootstrap(), &self.options, self.options.retry_timeout)
            }
            outcome => outcome,
        }
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
        let client = self.client(call, out)?;
        client.administer(target, request, is_misplaced).map_err(|fault| Exception::of_client(&fault, call))
    }
}

/// Reads `--command-config`. `missing` is what the tool says of a file that isn't there.
pub fn read_config(path: Option<&str>, missing: impl Fn(&str) -> String) -> Result<ClientProperties, String> {
    match path {
        None => Ok(ClientProperties::default()),
        Some(path) if !Path::new(path).exists() => Err(missing(path)),
        Some(path) if Path::new(path).is_dir() => Err("Is a directory".to_owned()),
        Some(path) => ClientProperties::from_file(path),
    }
}
