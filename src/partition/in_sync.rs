//! The in-sync replicas: as committed by the controller, and as they may become while a change is on its way.
//!
//! Until the controller answers, both the old and the new set may be in force, so the high watermark waits for the
//! larger of them (the *maximal* ISR), and a removed member counts until its removal is committed. What is asked of the
//! ISR's size before something is committed is asked of the committed one: a member that is only proposed may never join.

use ringlog_types::{BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, TopicIdPartition};

use crate::RecoveryState;

/// A change of the ISR that the leader asks the controller for (AlterPartition, KIP-497, KIP-841).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartitionProposal {
    /// The partition.
    pub id: TopicIdPartition,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that the change builds on.
    pub partition_epoch: PartitionEpoch,
    /// The wanted ISR with each member's broker epoch (-1 for the leader: the sender fills in its own).
    pub new_isr: Vec<(NodeId, BrokerEpoch)>,
    /// The recovery state; a recovering leader reports itself as recovered.
    pub recovery_state: RecoveryState,
}

/// What the controller answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlterPartitionOutcome {
    /// Committed (or already so): the partition's state as the controller has it.
    Committed {
        /// The leader epoch.
        leader_epoch: LeaderEpoch,
        /// The new partition epoch.
        partition_epoch: PartitionEpoch,
        /// The ISR.
        isr: Vec<NodeId>,
    },
    /// `INELIGIBLE_REPLICA`, `OPERATION_NOT_ATTEMPTED`: the controller knows that it was not applied, so the committed ISR
    /// is in force again.
    Ineligible,
    /// `FENCED_LEADER_EPOCH`, `INVALID_UPDATE_VERSION`, `UNKNOWN_TOPIC_*`, `INVALID_REQUEST`, `NEW_LEADER_ELECTED`: no
    /// retry, metadata will tell.
    GiveUp,
    /// Any other failure: the same proposal is to be sent again.
    Retry,
}

/// Committed ISR and the change on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InSyncReplicas {
    committed: Vec<NodeId>,
    /// The wanted set while a proposal is out.
    pending: Option<Vec<NodeId>>,
}

impl InSyncReplicas {
    /// The ISR that metadata shows.
    pub fn committed(&self) -> &[NodeId] {
        &self.committed
    }

    /// Whether a proposal is out.
    pub fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether `replica` is in the committed ISR or in the wanted one.
    #[inline]
    pub fn maximal_contains(&self, replica: NodeId) -> bool {
        self.committed.contains(&replica) || self.pending.as_ref().is_some_and(|p| p.contains(&replica))
    }

    /// Size of the larger of both sets. Only for what is committed already: see the module's text.
    #[inline]
    pub fn maximal_len(&self) -> usize {
        self.committed.len().max(self.pending.as_ref().map_or(0, Vec::len))
    }

    /// Metadata or the controller says so; whatever was pending is void.
    pub(crate) fn set_committed(&mut self, isr: &[NodeId]) {
        self.committed.clear();
        self.committed.extend_from_slice(isr);
        self.pending = None;
    }

    pub(crate) fn propose(&mut self, isr: Vec<NodeId>) {
        assert!(self.pending.is_none(), "one ISR change at a time");
        self.pending = Some(isr);
    }

    pub(crate) fn drop_pending(&mut self) {
        self.pending = None;
    }
}
