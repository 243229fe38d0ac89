//! Directories that get no new replicas (`cordoned.log.dirs`, KIP-1066).

use ringlog_types::Uuid;

use super::room::LogDirs;

impl LogDirs {
    /// Whether the directory at `place` is one of them, by the newest metadata that this core has taken over.
    pub(super) fn is_cordoned(&self, place: usize) -> bool {
        let path = &self.core.node.log_dirs.directories[place].path;
        let names_it = |text: &String| text == "*" || std::path::absolute(text).is_ok_and(|named| named == *path);
        self.replicas.metadata().with_server_config(|config| config.cordoned_log_dirs.iter().any(names_it))
    }

    /// Their ids, for heartbeats: of those that can be used.
    pub fn cordoned_ids(&self) -> Vec<Uuid> {
        let directories = &self.core.node.log_dirs.directories;
        let is_usable = |place: &usize| {
            directories[*place].hosts_partitions && directories[*place].is_usable() && !self.has_failed(*place)
        };
        let places = (0..directories.len()).filter(is_usable).filter(|place| self.is_cordoned(*place));
        places.map(|place| directories[place].id).collect()
    }
}
