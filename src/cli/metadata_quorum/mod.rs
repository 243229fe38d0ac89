//! `metadata-quorum` (`kafka-metadata-quorum`): shows the controllers' quorum and changes who is in it (KIP-836,
//! KIP-853).

mod args;
mod describe;
mod joining;

#[cfg(test)]
mod tests;

use ringlog_client::Target;
use ringlog_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};
use ringlog_types::ErrorCode;

pub use args::MetadataQuorumArgs;

use self::args::Action;
use self::joining::Joining;
use super::admin::{self, Admin, AdminError};
use super::client_config::ClientProperties;
use super::exception::Exception;
use super::java_uuid;
use super::output::Output;

/// Why the command failed. The texts are those that Kafka's tool prints.
#[derive(Debug, thiserror::Error)]
enum QuorumError {
    /// What the user asks for can't be.
    #[error("{0}")]
    Invalid(String),
    /// There is no client.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The cluster refuses, or can't be asked.
    #[error(transparent)]
    Cluster(#[from] Exception),
}

/// Runs the tool and returns its exit code.
pub fn run(args: &MetadataQuorumArgs, out: &mut dyn Output) -> u8 {
    let Err(fault) = execute(args, out) else { return 0 };
    out.error(&fault.to_string());
    if let QuorumError::Admin(AdminError::Bootstrap(reason)) = fault {
        // Kafka's tool prints a stack trace, and this of it says what is wrong.
        out.error(&format!("Caused by: org.apache.kafka.common.config.ConfigException: {reason}"));
    }
    1
}

fn execute(args: &MetadataQuorumArgs, out: &mut dyn Output) -> Result<(), QuorumError> {
    let missing = |path: &str| format!("Properties file {path} does not exists!");
    let config = admin::read_config(args.command_config.as_deref(), missing).map_err(QuorumError::Invalid)?;
    let mut admin = Admin::new(args.servers.clone(), args.controllers.clone(), &config)?;
    match &args.action {
        Action::Describe { status: true, replication: true, .. } => {
            let text = "Only one of --status or --replication should be specified with describe sub-command";
            Err(QuorumError::Invalid(text.to_owned()))
        }
        Action::Describe { replication: true, human_readable, .. } => {
            describe::replication(&mut admin, *human_readable, out)
        }
        Action::Describe { status: true, human_readable: false, .. } => describe::status(&mut admin, out),
        Action::Describe { status: true, .. } => {
            let text = "The option --human-readable is only supported along with --replication";
            Err(QuorumError::Invalid(text.to_owned()))
        }
        Action::Describe { .. } => {
            let text = "One of --status or --replication must be specified with describe sub-command";
            Err(QuorumError::Invalid(text.to_owned()))
        }
        Action::AddController { .. } if args.command_config.is_none() => {
            let text = "You must supply the configuration file of the controller you are adding when using \
                        add-controller.";
            Err(QuorumError::Invalid(text.to_owned()))
        }
        Action::AddController { dry_run } => add(&mut admin, &config, *dry_run, out),
        Action::RemoveController { id, directory_id, dry_run } => remove(&mut admin, *id, directory_id, *dry_run, out),
    }
}

fn is_other_controller(code: i16) -> bool {
    code == ErrorCode::NotController.code()
}

fn add(admin: &mut Admin, config: &ClientProperties, dry_run: bool, out: &mut dyn Output) -> Result<(), QuorumError> {
    let joining = Joining::from_config(config).map_err(QuorumError::Invalid)?;
    let done = if dry_run { "DRY RUN of adding" } else { "Added" };
    if !dry_run {
        let request = AddRaftVoterRequest {
            timeout_ms: admin.request_timeout_ms(),
            voter_id: joining.id,
            voter_directory_id: joining.directory_id,
            listeners: joining.listeners(),
            // Any cluster, as Kafka's tool has it.
            cluster_id: None,
            ..AddRaftVoterRequest::default()
        };
        let is_other = |response: &AddRaftVoterResponse| is_other_controller(response.error_code);
        let response = admin.ask("addRaftVoter", Target::Controller, &request, is_other, out)?;
        Exception::check(response.error_code, response.error_message.as_ref())?;
    }
    let Joining { id, directory_id, .. } = &joining;
    out.line(&format!(
        "{done} controller {id} with directory id {directory_id} and endpoints: {}",
        joining.endpoints_text()
    ));
    Ok(())
}

fn remove(
    admin: &mut Admin,
    id: i32,
    directory_id: &str,
    dry_run: bool,
    out: &mut dyn Output,
) -> Result<(), QuorumError> {
    if id < 0 {
        return Err(QuorumError::Invalid(format!("Invalid negative --controller-id: {id}")));
    }
    let directory_id = java_uuid::parse(directory_id)
        .map_err(|fault| QuorumError::Invalid(format!("Failed to parse --controller-directory-id: {fault}")))?;
    let done = if dry_run { "DRY RUN of removing" } else { "Removed" };
    if !dry_run {
        let request = RemoveRaftVoterRequest { cluster_id: None, voter_id: id, voter_directory_id: directory_id };
        let is_other = |response: &RemoveRaftVoterResponse| is_other_controller(response.error_code);
        let response = admin.ask("removeRaftVoter", Target::Controller, &request, is_other, out)?;
        Exception::check(response.error_code, response.error_message.as_ref())?;
    }
    // Two blanks, as in Kafka's.
    out.line(&format!("{done}  KRaft controller {id} with directory id {directory_id}"));
    Ok(())
}
