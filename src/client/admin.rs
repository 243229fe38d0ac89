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
        let mut must_look = !self.has_metadata();
        self.persist(|client| {
            if std::mem::replace(&mut must_look, true) {
                client.refresh_metadata(Some(&[]), false)?;
            }
            client.administer_once(target, request, &is_misplaced)
        })
    }

    /// As [`Client::administer`], without trying again: an answer that `is_misplaced` is an error that may mend itself.
    pub fn administer_once<R: Request>(
        &mut self,
        target: Target,
        request: &R,
        is_misplaced: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, ClientError> {
        let response = self.send_to_target(target, request)?;
        if is_misplaced(&response) { Err(ClientError::NoController { api: R::KEY }) } else { Ok(response) }
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
