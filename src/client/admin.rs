use std::time::Instant;

use ringlog_protocol::Request;

use crate::{Client, ClientError, Role};

/// Who is to answer an administrative request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any node.
    Any,
    /// This node.
    Node(i32),
    /// The active controller; by way of brokers any of them, which passes the request on.
    Controller,
}

impl Client {
    /// Sends a request that may meet a cluster between two leaders: it is sent again, after another look at who is
    /// there, while no node can be reached or the answer `is_misplaced`. That ends with the retry timeout.
    pub fn administer<R: Request>(
        &mut self,
        target: Target,
        request: &R,
        is_misplaced: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, ClientError> {
        let deadline = Instant::now() + self.options().retry_timeout;
        loop {
            let fault = match self.send_to_target(target, request) {
                Ok(response) if !is_misplaced(&response) => return Ok(response),
                Ok(_) => ClientError::NoController { api: R::KEY },
                Err(fault) if !fault.is_retriable() => return Err(fault),
                Err(fault) => fault,
            };
            let backoff = self.options().retry_backoff;
            if Instant::now() + backoff >= deadline {
                return Err(fault);
            }
            std::thread::sleep(backoff);
            match self.refresh_metadata(Some(&[]), false) {
                Err(fault) if !fault.is_retriable() => return Err(fault),
                _ => {}
            }
        }
    }

    fn send_to_target<R: Request>(&mut self, target: Target, request: &R) -> Result<R::Response, ClientError> {
        match target {
            Target::Node(node) => self.send_to(node, request),
            Target::Controller if self.role() == Role::Controller => {
                self.send_to(self.metadata().controller_id, request)
            }
            Target::Any | Target::Controller => self.send(request),
        }
    }
}
