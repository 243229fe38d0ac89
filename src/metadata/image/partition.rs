//! One partition's registration, in few bytes: a cluster has a million of them.

use std::fmt;

use ringlog_types::{LeaderEpoch, NodeId, PartitionEpoch, Uuid};

/// Whether the leader may have lost records that were committed (KIP-704).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i8)]
pub enum LeaderRecoveryState {
    /// The leader was in sync when it was elected, or has recovered since.
    #[default]
    Recovered = 0,
    /// Elected uncleanly and not yet recovered.
    Recovering = 1,
}

impl LeaderRecoveryState {
    /// The state that travels as `value`.
    pub fn from_value(value: i8) -> Option<LeaderRecoveryState> {
        match value {
            0 => Some(LeaderRecoveryState::Recovered),
            1 => Some(LeaderRecoveryState::Recovering),
            _ => None,
        }
    }
}

/// A partition's registration as plain lists, to be built or edited. [`PartitionImage::new`] packs it. Lists of node
/// ids are in the order that the records gave; the order means something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// Assigned brokers; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// The log directory of each replica, as long as `replicas`.
    pub directories: Vec<Uuid>,
    /// The in-sync replicas; may be empty (KIP-966).
    pub in_sync_replicas: Vec<NodeId>,
    /// Replicas out of sync that hold all committed records (KIP-966).
    pub eligible_leader_replicas: Vec<NodeId>,
    /// The last leader, kept when there is no leader (KIP-966).
    pub last_known_elr: Vec<NodeId>,
    /// Replicas that a running reassignment takes away.
    pub removing_replicas: Vec<NodeId>,
    /// Replicas that a running reassignment adds.
    pub adding_replicas: Vec<NodeId>,
    /// The leader; [`NodeId::NONE`] when there is none.
    pub leader: NodeId,
    /// Rises with each leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of this registration.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader recovers from an unclean election.
    pub leader_recovery_state: LeaderRecoveryState,
}

/// A partition's registration, packed. With three replicas that stay where they are, be they up or down, it is all there
/// is: no allocation hangs on it, so that millions are loaded, copied, searched and dropped quickly.
#[derive(Clone, PartialEq, Eq)]
pub struct PartitionImage {
    lists: Lists,
    /// The leader; [`NodeId::NONE`] when there is none.
    pub leader: NodeId,
    /// Rises with each leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of this registration.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader recovers from an unclean election.
    pub leader_recovery_state: LeaderRecoveryState,
}

/// How many replicas are few.
const FEW: usize = 3;

/// Equal lists are always packed in the same way: as [`FewReplicas`] whenever they fit.
#[derive(Clone, PartialEq, Eq)]
enum Lists {
    Few(FewReplicas),
    Many(ManyReplicas),
}

/// At most [`FEW`] replicas, as many in sync and eligible together (no replica is both), and a last known leader that is
/// one of the replicas: all that a broker's going and coming makes of them. Unused places hold -1 and zero.
#[derive(Clone, PartialEq, Eq)]
struct FewReplicas {
    replica_count: u8,
    in_sync_count: u8,
    eligible_count: u8,
    /// The place of the last known leader among the replicas, from 1 on; 0: none is kept.
    last_known_place: u8,
    replicas: [NodeId; FEW],
    /// Those in sync, then those eligible.
    good_replicas: [NodeId; FEW],
    directories: [Uuid; FEW],
}

/// Lists that may be few, read from a registration or a record.
pub(super) struct ShortLists<'a, Id> {
    pub(super) replicas: &'a [Id],
    pub(super) in_sync_replicas: &'a [Id],
    pub(super) eligible_leader_replicas: &'a [Id],
    pub(super) last_known_elr: &'a [Id],
    pub(super) directories: &'a [Uuid],
}

impl FewReplicas {
    /// `node_id` makes a node's id of what the lists hold.
    fn new<Id: Copy + PartialEq>(lists: &ShortLists<'_, Id>, node_id: fn(Id) -> NodeId) -> Option<FewReplicas> {
        let ShortLists { replicas, in_sync_replicas, eligible_leader_replicas, last_known_elr, directories } = *lists;
        if replicas.len() > FEW || in_sync_replicas.len() + eligible_leader_replicas.len() > FEW {
            return None;
        }
        let last_known_place = match last_known_elr {
            [] => 0,
            [last] => replicas.iter().position(|id| id == last)? as u8 + 1,
            _ => return None,
        };
        let mut few = FewReplicas {
            replica_count: replicas.len() as u8,
            in_sync_count: in_sync_replicas.len() as u8,
            eligible_count: eligible_leader_replicas.len() as u8,
            last_known_place,
            replicas: [NodeId::NONE; FEW],
            good_replicas: [NodeId::NONE; FEW],
            directories: [Uuid::ZERO; FEW],
        };
        few.replicas.iter_mut().zip(replicas).for_each(|(place, id)| *place = node_id(*id));
        let good = in_sync_replicas.iter().chain(eligible_leader_replicas);
        few.good_replicas.iter_mut().zip(good).for_each(|(place, id)| *place = node_id(*id));
        few.directories.iter_mut().zip(directories).for_each(|(place, id)| *place = *id);
        Some(few)
    }

    fn good_replicas(&self) -> (&[NodeId], &[NodeId]) {
        let (in_sync, others) = self.good_replicas.split_at(usize::from(self.in_sync_count));
        (in_sync, &others[..usize::from(self.eligible_count)])
    }

    fn last_known_elr(&self) -> &[NodeId] {
        match usize::from(self.last_known_place) {
            0 => &[],
            place => &self.replicas[place - 1..place],
        }
    }
}

/// Any lists.
#[derive(Clone, PartialEq, Eq)]
struct ManyReplicas {
    /// The replicas, as many as there are directories, then those in sync.
    node_ids: Box<[NodeId]>,
    directories: Box<[Uuid]>,
    others: Option<Box<OtherLists>>,
}

/// Lists that are mostly empty.
#[derive(Clone, PartialEq, Eq)]
struct OtherLists {
    eligible_leader_replicas: Box<[NodeId]>,
    last_known_elr: Box<[NodeId]>,
    removing_replicas: Box<[NodeId]>,
    adding_replicas: Box<[NodeId]>,
}

impl Lists {
    fn new(registration: &PartitionRegistration) -> Lists {
        let PartitionRegistration { replicas, in_sync_replicas, directories, .. } = registration;
        let PartitionRegistration { eligible_leader_replicas, last_known_elr, .. } = registration;
        let PartitionRegistration { removing_replicas, adding_replicas, .. } = registration;
        let lists = ShortLists { replicas, in_sync_replicas, eligible_leader_replicas, last_known_elr, directories };
        if removing_replicas.is_empty()
            && adding_replicas.is_empty()
            && let Some(few) = FewReplicas::new(&lists, |id| id)
        {
            return Lists::Few(few);
        }
        let others = [eligible_leader_replicas, last_known_elr, removing_replicas, adding_replicas];
        let others = others.iter().any(|list| !list.is_empty()).then(|| OtherLists {
            eligible_leader_replicas: eligible_leader_replicas.as_slice().into(),
            last_known_elr: last_known_elr.as_slice().into(),
            removing_replicas: removing_replicas.as_slice().into(),
            adding_replicas: adding_replicas.as_slice().into(),
        });
        Lists::Many(ManyReplicas {
            node_ids: [replicas.as_slice(), in_sync_replicas].concat().into(),
            directories: directories.as_slice().into(),
            others: others.map(Box::new),
        })
    }
}

impl ManyReplicas {
    fn other(&self, list: fn(&OtherLists) -> &[NodeId]) -> &[NodeId] {
        self.others.as_deref().map_or(&[], list)
    }
}

impl PartitionImage {
    /// Packs `registration`.
    ///
    /// # Panics
    /// If there are more or fewer directories than replicas.
    pub fn new(registration: &PartitionRegistration) -> PartitionImage {
        let (replicas, directories) = (registration.replicas.len(), registration.directories.len());
        assert_eq!(replicas, directories, "each replica has a directory");
        PartitionImage {
            lists: Lists::new(registration),
            leader: registration.leader,
            leader_epoch: registration.leader_epoch,
            partition_epoch: registration.partition_epoch,
            leader_recovery_state: registration.leader_recovery_state,
        }
    }

    /// A new partition without a leader, if `lists` are short enough for a shortcut around [`PartitionRegistration`]:
    /// nothing is allocated.
    pub(super) fn with_few_replicas(lists: &ShortLists<'_, i32>) -> Option<PartitionImage> {
        Some(PartitionImage {
            lists: Lists::Few(FewReplicas::new(lists, NodeId)?),
            leader: NodeId::NONE,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            leader_recovery_state: LeaderRecoveryState::Recovered,
        })
    }

    /// The same as plain lists, to be edited.
    pub fn to_registration(&self) -> PartitionRegistration {
        PartitionRegistration {
            replicas: self.replicas().to_vec(),
            directories: self.directories().to_vec(),
            in_sync_replicas: self.in_sync_replicas().to_vec(),
            eligible_leader_replicas: self.eligible_leader_replicas().to_vec(),
            last_known_elr: self.last_known_elr().to_vec(),
            removing_replicas: self.removing_replicas().to_vec(),
            adding_replicas: self.adding_replicas().to_vec(),
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            leader_recovery_state: self.leader_recovery_state,
        }
    }

    /// Assigned brokers; the first is the preferred leader.
    pub fn replicas(&self) -> &[NodeId] {
        match &self.lists {
            Lists::Few(few) => &few.replicas[..usize::from(few.replica_count)],
            Lists::Many(many) => &many.node_ids[..many.directories.len()],
        }
    }

    /// The log directory of each replica, as many as there are replicas.
    pub fn directories(&self) -> &[Uuid] {
        match &self.lists {
            Lists::Few(few) => &few.directories[..usize::from(few.replica_count)],
            Lists::Many(many) => &many.directories,
        }
    }

    /// The in-sync replicas; may be empty (KIP-966).
    pub fn in_sync_replicas(&self) -> &[NodeId] {
        match &self.lists {
            Lists::Few(few) => few.good_replicas().0,
            Lists::Many(many) => &many.node_ids[many.directories.len()..],
        }
    }

    /// Replicas out of sync that hold all committed records (KIP-966).
    pub fn eligible_leader_replicas(&self) -> &[NodeId] {
        match &self.lists {
            Lists::Few(few) => few.good_replicas().1,
            Lists::Many(many) => many.other(|others| &others.eligible_leader_replicas),
        }
    }

    /// The last leader, kept when there is no leader (KIP-966).
    pub fn last_known_elr(&self) -> &[NodeId] {
        match &self.lists {
            Lists::Few(few) => few.last_known_elr(),
            Lists::Many(many) => many.other(|others| &others.last_known_elr),
        }
    }

    /// Replicas that a running reassignment takes away.
    pub fn removing_replicas(&self) -> &[NodeId] {
        match &self.lists {
            Lists::Few(_) => &[],
            Lists::Many(many) => many.other(|others| &others.removing_replicas),
        }
    }

    /// Replicas that a running reassignment adds.
    pub fn adding_replicas(&self) -> &[NodeId] {
        match &self.lists {
            Lists::Few(_) => &[],
            Lists::Many(many) => many.other(|others| &others.adding_replicas),
        }
    }

    /// The first of the assigned replicas.
    pub fn preferred_replica(&self) -> NodeId {
        self.replicas().first().copied().unwrap_or(NodeId::NONE)
    }

    /// Whether there is a leader.
    pub fn has_leader(&self) -> bool {
        !self.leader.is_none()
    }

    /// Whether there is a leader and it is the preferred one.
    pub fn has_preferred_leader(&self) -> bool {
        self.leader == self.preferred_replica()
    }

    /// Whether a reassignment is running.
    pub fn is_reassigning(&self) -> bool {
        !self.removing_replicas().is_empty() || !self.adding_replicas().is_empty()
    }

    /// The directory of `replica`'s copy; `None` if it is no replica.
    pub fn directory(&self, replica: NodeId) -> Option<Uuid> {
        let position = self.replicas().iter().position(|id| *id == replica)?;
        self.directories().get(position).copied()
    }
}

impl fmt::Debug for PartitionImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_registration().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use ringlog_types::Random;

    use super::*;

    /// The test of a million partitions in `partition_table.rs` builds on this.
    #[test]
    fn a_partition_with_three_replicas_is_small_and_has_no_allocation() {
        assert!(size_of::<PartitionImage>() <= 96, "{}", size_of::<PartitionImage>());
        let is_few = |it: &PartitionRegistration| matches!(PartitionImage::new(it).lists, Lists::Few(_));
        let three = registration(3, 3);
        assert!(is_few(&three));
        // All brokers went, one after the other.
        let (eligible_leader_replicas, last_known_elr) = (three.replicas.clone(), vec![NodeId(2)]);
        assert!(is_few(&PartitionRegistration { eligible_leader_replicas, last_known_elr, ..registration(3, 0) }));
    }

    fn registration(replicas: i32, in_sync: i32) -> PartitionRegistration {
        let node_ids = |count| (0..count).map(NodeId).collect::<Vec<_>>();
        PartitionRegistration {
            replicas: node_ids(replicas),
            directories: (0..replicas).map(|id| Uuid([id as u8; 16])).collect(),
            in_sync_replicas: node_ids(in_sync),
            eligible_leader_replicas: Vec::new(),
            last_known_elr: Vec::new(),
            removing_replicas: Vec::new(),
            adding_replicas: Vec::new(),
            leader: NodeId(1),
            leader_epoch: LeaderEpoch(2),
            partition_epoch: PartitionEpoch(3),
            leader_recovery_state: LeaderRecoveryState::Recovered,
        }
    }

    #[test]
    fn packing_keeps_every_list_and_equality() {
        let mut random = Random::from_seed(1);
        let mut before: Option<PartitionRegistration> = None;
        for _ in 0..2_000 {
            let mut list = |below: u64| -> Vec<NodeId> {
                (0..random.below(below)).map(|_| NodeId(random.below(4) as i32 - 1)).collect()
            };
            let (replicas, in_sync_replicas) = (list(6), list(6));
            let mut other = || if list(3).is_empty() { list(3) } else { Vec::new() };
            let lists = [other(), other(), other(), other()];
            let [eligible_leader_replicas, last_known_elr, removing_replicas, adding_replicas] = lists;
            let registration = PartitionRegistration {
                directories: replicas.iter().map(|id| Uuid([id.0 as u8; 16])).collect(),
                replicas,
                in_sync_replicas,
                eligible_leader_replicas,
                last_known_elr,
                removing_replicas,
                adding_replicas,
                ..registration(0, 0)
            };
            let registration = before.clone().filter(|_| random.below(4) == 0).unwrap_or(registration);
            let image = PartitionImage::new(&registration);
            assert_eq!(image.to_registration(), registration);
            assert_eq!(PartitionImage::new(&image.to_registration()), image);
            if let Some(before) = &before {
                assert_eq!(PartitionImage::new(before) == image, *before == registration);
            }
            before = Some(registration);
        }
    }

    #[test]
    fn a_longer_list_of_replicas_is_another_one() {
        let one = PartitionRegistration { replicas: vec![NodeId(-1)], ..registration(1, 0) };
        let one = PartitionRegistration { directories: vec![Uuid::ZERO], ..one };
        assert_ne!(PartitionImage::new(&one), PartitionImage::new(&registration(0, 0)));
    }

    #[test]
    #[should_panic(expected = "each replica has a directory")]
    fn a_replica_without_directory_is_refused() {
        PartitionImage::new(&PartitionRegistration { directories: Vec::new(), ..registration(3, 3) });
    }
}
