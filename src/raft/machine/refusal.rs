//! Why a change of the voter set is refused: code and, word for word, Kafka's text, which tools print.

use ringlog_types::{ErrorCode, Offset, Uuid};

use crate::voters::{Endpoints, ReplicaKey, VersionRange, VoterSet};

/// What a node answers that is asked for what only the leader knows or does.
pub(super) const NOT_LEADER: &str = "For requests intended only for the leader, this error indicates that the broker is \
                                     not the current leader. For requests intended for any replica, this error indicates \
                                     that the broker is not a replica of the topic partition.";

/// What the asker is told. Without a text of its own the answer's text is empty, as Kafka's is, and who prints it says what
/// the code means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: ErrorCode,
    pub text: String,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        let text = if code == ErrorCode::RequestTimedOut { "The request timed out." } else { "" };
        Refusal { code, text: text.to_owned() }
    }
}

/// The change, as Kafka's sentences call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Add,
    Remove,
    Update,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Kind::Add => "Add",
            Kind::Remove => "Remove",
            Kind::Update => "Update",
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Kind::Add => "adding",
            Kind::Remove => "removing",
            Kind::Update => "updating",
        }
    }
}

fn refusal(code: ErrorCode, text: String) -> Refusal {
    Refusal { code, text }
}

/// A replica as Java prints it.
fn named(key: ReplicaKey) -> String {
    let directory_id = key.directory_id.map_or_else(|| "<undefined>".to_owned(), |id: Uuid| id.to_string());
    format!("ReplicaKey(id={}, directoryId={directory_id})", key.id)
}

fn all_named(voters: &VoterSet) -> String {
    let names: Vec<String> = voters.iter().map(|voter| named(voter.key)).collect();
    format!("[{}]", names.join(", "))
}

pub(super) fn foreign_cluster(asked: &str, own: &str) -> Refusal {
    let text = format!("The given id \"{asked}\" doesn't match the cluster id \"{own}\"");
    refusal(ErrorCode::InconsistentClusterId, text)
}

pub(super) fn invalid_voter(kind: Kind) -> Refusal {
    refusal(ErrorCode::InvalidRequest, format!("{} voter request didn't include a valid voter", kind.title()))
}

pub(super) fn missing_endpoint(endpoints: &Endpoints, default_listener: &str) -> Refusal {
    let named = endpoints.iter().map(|(name, at)| format!("ListenerName({name})={}/<unresolved>:{}", at.host, at.port));
    let named: Vec<String> = named.collect();
    let text = format!(
        "Add voter request didn't include the endpoint (Endpoints(endpoints={{{}}})) for the default listener \
         ListenerName({default_listener})",
        named.join(", ")
    );
    refusal(ErrorCode::InvalidRequest, text)
}

pub(super) fn change_under_way() -> Refusal {
    let text = "Request timed out waiting for leader to handle previous voter change request";
    refusal(ErrorCode::RequestTimedOut, text.to_owned())
}

pub(super) fn unknown_high_watermark() -> Refusal {
    let text = "Request timed out waiting for leader to establish HWM and fence previous voter changes";
    refusal(ErrorCode::RequestTimedOut, text.to_owned())
}

pub(super) fn static_quorum(kind: Kind) -> Refusal {
    let text = format!("Cluster doesn't support {} voter because the kraft.version feature is 0", kind.participle());
    refusal(ErrorCode::UnsupportedVersion, text)
}

pub(super) fn uncommitted_voters(at: Offset, high_watermark: Offset) -> Refusal {
    let text = format!(
        "Request timed out waiting for voters to commit the latest voter change at {at} with HWM {high_watermark}"
    );
    refusal(ErrorCode::RequestTimedOut, text)
}

pub(super) fn duplicate_voter(key: ReplicaKey, voters: &VoterSet) -> Refusal {
    let text = format!("The voter id for {} is already part of the set of voters {}.", named(key), all_named(voters));
    refusal(ErrorCode::DuplicateVoter, text)
}

pub(super) fn unknown_voter(key: ReplicaKey, voters: &VoterSet) -> Refusal {
    let text = format!("Cannot remove voter {} from the set of voters {}", named(key), all_named(voters));
    refusal(ErrorCode::VoterNotFound, text)
}

pub(super) fn unreachable(key: ReplicaKey) -> Refusal {
    refusal(ErrorCode::RequestTimedOut, format!("New voter {} is not ready to receive requests", named(key)))
}

pub(super) fn unknown_versions(error: ErrorCode) -> Refusal {
    let error = error.name();
    let text = format!("Aborted add voter operation for since API_VERSIONS returned an error {error}");
    refusal(ErrorCode::RequestTimedOut, text)
}

pub(super) fn unsuitable_version(key: ReplicaKey, range: Option<VersionRange>, finalized: i16) -> Refusal {
    let key = named(key);
    let text = match range {
        Some(range) => format!(
            "Aborted add voter operation for {key} because kraft.version range [{}, {}] doesn't support the \
             finalized version {finalized}",
            range.min, range.max
        ),
        None => format!("Aborted add voter operation for {key} because it doesn't support kraft.version"),
    };
    refusal(ErrorCode::InvalidRequest, text)
}

pub(super) fn lagging(key: ReplicaKey) -> Refusal {
    let text = format!("Aborted add voter operation for {} since it is lagging behind", named(key));
    refusal(ErrorCode::RequestTimedOut, text)
}
