//! Administrators of the quorum itself: controllers are registered, join the voters and leave them.

use ringlog_protocol::messages::{
    AddRaftVoterRequest, ControllerRegistrationRequest, RemoveRaftVoterRequest, add_raft_voter_request,
    controller_registration_request,
};
use ringlog_types::Uuid;

use super::super::host::{CLUSTER_ID, Host, LISTENER};
use super::super::world::World;
use super::requests::features;

impl World {
    /// Something about the quorum; `false` if there is nothing to ask.
    pub(super) fn ask_of_voters(&mut self, client: usize) -> bool {
        match self.shared.work(4) {
            0 => self.register_controller(client),
            1 => self.add_voter(client),
            2 => self.remove_voter(client),
            _ => self.register_controller(client),
        }
    }

    /// What each controller tells the active one when it has started.
    fn register_controller(&mut self, client: usize) -> bool {
        let host = &self.hosts[self.shared.work(self.shared.plan.controllers as u64) as usize];
        let mut incarnation = [host.id.0 as u8; 16];
        incarnation[8..].copy_from_slice(&host.lives.to_be_bytes());
        let request = ControllerRegistrationRequest {
            controller_id: host.id.0,
            incarnation_id: Uuid(incarnation),
            zk_migration_ready: false,
            listeners: vec![controller_registration_request::Listener {
                name: LISTENER.into(),
                host: format!("n{}", host.index).into(),
                port: host.port,
                security_protocol: 0,
            }],
            features: features(|name, min_supported_version, max_supported_version| {
                controller_registration_request::Feature { name, min_supported_version, max_supported_version }
            }),
        };
        self.ask_leader(client, &request.into());
        true
    }

    fn add_voter(&mut self, client: usize) -> bool {
        let outside: Vec<usize> = {
            let checks = self.shared.checks.borrow();
            let voters = checks.committed.present_voters();
            let is_outside = |host: &&Host| host.is_controller && !voters.holds(host.id.0, host.directory_id);
            self.hosts.iter().filter(is_outside).map(|host| host.index).collect()
        };
        if outside.is_empty() {
            return false;
        }
        let host = &self.hosts[outside[self.shared.work(outside.len() as u64) as usize]];
        let request = AddRaftVoterRequest {
            cluster_id: Some(CLUSTER_ID.into()),
            timeout_ms: 5_000,
            voter_id: host.id.0,
            voter_directory_id: host.directory_id,
            listeners: vec![add_raft_voter_request::Listener {
                name: LISTENER.into(),
                host: format!("n{}", host.index).into(),
                port: host.port,
            }],
            ack_when_committed: self.shared.work(2) == 0,
        };
        self.ask_leader(client, &request.into());
        true
    }

    /// A voter is to go: one that is lost for good, or any as long as enough good ones are left.
    fn remove_voter(&mut self, client: usize) -> bool {
        let Some((voter_id, voter_directory_id)) = self.choose_removal() else { return false };
        let request = RemoveRaftVoterRequest { cluster_id: None, voter_id, voter_directory_id };
        self.ask_leader(client, &request.into());
        true
    }

    fn choose_removal(&self) -> Option<(i32, Uuid)> {
        let checks = self.shared.checks.borrow();
        let voters: Vec<(i32, Uuid)> = {
            let present = checks.committed.present_voters();
            present.iter().filter_map(|(id, directory)| Some((*id, (*directory)?))).collect()
        };
        let is_good = |(id, directory): &(i32, Uuid)| {
            let view = checks.nodes.iter().find(|view| view.id == *id && view.directory == *directory);
            view.is_some_and(|view| !view.is_damaged && !view.is_rebuilding)
        };
        let lost = voters.iter().find(|voter| !is_good(voter));
        if let Some(lost) = lost {
            return Some(*lost);
        }
        let gone = *voters.get(self.shared.work(voters.len() as u64) as usize)?;
        // Two may be left, but somebody has to be able to go on without another.
        (voters.len() > 2).then_some(gone)
    }
}
