use std::net::ToSocketAddrs;

use crate::ClientError;

/// Which kind of node a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Brokers, which pass on what only the controller decides.
    Broker,
    /// Controllers themselves (KIP-919).
    Controller,
}

/// Where a cluster is reached first: `HOST:PORT[,HOST:PORT]…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrap<'a> {
    /// `bootstrap.servers`.
    Servers(&'a str),
    /// `bootstrap.controllers`.
    Controllers(&'a str),
}

impl<'a, T: AsRef<str> + ?Sized> From<&'a T> for Bootstrap<'a> {
    fn from(servers: &'a T) -> Bootstrap<'a> {
        Bootstrap::Servers(servers.as_ref())
    }
}

impl<'a> Bootstrap<'a> {
    /// Whom the list names.
    pub fn role(self) -> Role {
        match self {
            Bootstrap::Servers(_) => Role::Broker,
            Bootstrap::Controllers(_) => Role::Controller,
        }
    }

    /// Whether a client may begin: the list is one, and at least one of its hosts has an address.
    pub fn check(self) -> Result<(), ClientError> {
        let addresses = self.addresses()?;
        let resolves = |address: &String| address.to_socket_addrs().is_ok_and(|mut found| found.next().is_some());
        match addresses.iter().any(resolves) {
            true => Ok(()),
            false => Err(ClientError::UnresolvableBootstrap),
        }
    }

    /// The list's entries, each checked.
    pub(crate) fn addresses(self) -> Result<Vec<String>, ClientError> {
        let (Bootstrap::Servers(text) | Bootstrap::Controllers(text)) = self;
        let servers: Vec<&str> = text.split(',').map(str::trim).filter(|server| !server.is_empty()).collect();
        if servers.is_empty() {
            return Err(ClientError::InvalidBootstrap(text.to_owned()));
        }
        servers.into_iter().map(address).collect()
    }
}

/// `HOST:PORT`; `PLAINTEXT://HOST:PORT` is accepted as Kafka's clients accept it.
fn address(server: &str) -> Result<String, ClientError> {
    let address = server.rsplit_once("://").map_or(server, |(_, address)| address);
    let is_of_host = |letter: char| letter.is_ascii_alphanumeric() || "-%._:[]".contains(letter);
    match address.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty()
                && host.chars().all(is_of_host)
                && !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            match port.parse::<u16>() {
                Ok(_) => Ok(address.to_owned()),
                Err(_) => Err(ClientError::InvalidBootstrapPort(server.to_owned())),
            }
        }
        _ => Err(ClientError::InvalidBootstrap(server.to_owned())),
    }
}
