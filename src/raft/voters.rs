//! The voter set of the metadata quorum: who votes, under which directory id, where they listen (KIP-853).

use std::collections::BTreeMap;

use ringlog_types::{NodeId, Uuid};

/// Voters at most, in a record or a static configuration; more are refused. Kafka names no limit; real quorums have
/// three to seven.
pub const MAX_VOTERS: usize = 1024;

/// A node together with the metadata directory that it runs on: the identity of a voter where `kraft.version` is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey {
    /// `node.id`.
    pub id: NodeId,
    /// The directory's id; `None` is not known, zero on the wire and in files.
    pub directory_id: Option<Uuid>,
}

impl ReplicaKey {
    /// A key whose directory id came from the wire or a file, where zero means not known.
    pub fn from_wire(id: i32, directory_id: Uuid) -> ReplicaKey {
        ReplicaKey { id: NodeId(id), directory_id: (!directory_id.is_zero()).then_some(directory_id) }
    }

    /// The directory id as the wire and files have it: zero when not known.
    pub fn wire_directory_id(self) -> Uuid {
        self.directory_id.unwrap_or(Uuid::ZERO)
    }
}

impl std::fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.directory_id {
            Some(directory_id) => write!(f, "{}:{directory_id}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

/// A host and port to connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Endpoints by listener name.
pub type Endpoints = BTreeMap<String, Endpoint>;

/// A closed range of `kraft.version` levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// Lowest level.
    pub min: i16,
    /// Highest level.
    pub max: i16,
}

impl VersionRange {
    /// What this implementation speaks.
    pub const SUPPORTED: VersionRange = VersionRange { min: 0, max: 1 };
    /// What is assumed of a voter that only the static configuration names.
    pub const STATIC: VersionRange = VersionRange { min: 0, max: 0 };

    /// Whether `level` lies inside.
    pub fn contains(self, level: i16) -> bool {
        self.min <= level && level <= self.max
    }
}

/// One voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Who.
    pub key: ReplicaKey,
    /// Where its controller listeners are.
    pub endpoints: Endpoints,
    /// Levels of `kraft.version` that it speaks.
    pub kraft_version: VersionRange,
}

/// The voters, one per node id, ordered by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VoterSet {
    voters: BTreeMap<NodeId, Voter>,
}

impl VoterSet {
    /// The set of `voters`; `None` when two have the same id or there are more than [`MAX_VOTERS`].
    pub fn new(voters: impl IntoIterator<Item = Voter>) -> Option<VoterSet> {
        let mut set = VoterSet::default();
        for voter in voters {
            if set.voters.len() == MAX_VOTERS || set.voters.insert(voter.key.id, voter).is_some() {
                return None;
            }
        }
        Some(set)
    }

    /// The set that `controller.quorum.voters` gives: no directory ids, `kraft.version` 0 only. Pairs of id and
    /// endpoint; `listener` is the first of `controller.listener.names`.
    pub fn from_static(listener: &str, voters: impl IntoIterator<Item = (NodeId, Endpoint)>) -> Option<VoterSet> {
        VoterSet::new(voters.into_iter().map(|(id, endpoint)| Voter {
            key: ReplicaKey { id, directory_id: None },
            endpoints: Endpoints::from([(listener.to_owned(), endpoint)]),
            kraft_version: VersionRange::STATIC,
        }))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.voters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// All, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.voters.values()
    }

    /// The voter of that node id, whatever its directory.
    pub fn get(&self, id: NodeId) -> Option<&Voter> {
        self.voters.get(&id)
    }

    /// Whether `key` votes: same id, and same directory unless the set doesn't know the voter's directory.
    pub fn is_voter(&self, key: ReplicaKey) -> bool {
        self.voters
            .get(&key.id)
            .is_some_and(|voter| voter.key.directory_id.is_none() || voter.key.directory_id == key.directory_id)
    }

    /// Whether `key` is the one and only voter.
    pub fn is_only_voter(&self, key: ReplicaKey) -> bool {
        self.voters.len() == 1 && self.is_voter(key)
    }

    /// The smallest number of voters that is a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The endpoint of a voter for `listener`.
    pub fn endpoint(&self, id: NodeId, listener: &str) -> Option<&Endpoint> {
        self.voters.get(&id)?.endpoints.get(listener)
    }

    /// The set with `voter` in it; `None` if its id votes already or the set is full.
    pub fn with(&self, voter: Voter) -> Option<VoterSet> {
        if self.voters.contains_key(&voter.key.id) || self.voters.len() >= MAX_VOTERS {
            return None;
        }
        let mut set = self.clone();
        set.voters.insert(voter.key.id, voter);
        Some(set)
    }

    /// The set without exactly `key`; `None` if that isn't a voter or is the last one.
    pub fn without(&self, key: ReplicaKey) -> Option<VoterSet> {
        let exact = self.voters.get(&key.id).is_some_and(|voter| voter.key == key);
        if !exact || self.voters.len() == 1 {
            return None;
        }
        let mut set = self.clone();
        set.voters.remove(&key.id);
        Some(set)
    }

    /// The set with the endpoints and versions of an existing voter replaced; `None` if it doesn't vote.
    pub fn updated(&self, voter: Voter) -> Option<VoterSet> {
        if !self.is_voter(voter.key) {
            return None;
        }
        let mut set = self.clone();
        set.voters.insert(voter.key.id, voter);
        Some(set)
    }
}
