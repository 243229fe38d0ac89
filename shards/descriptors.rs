//! How the process's file descriptors are divided: what the node itself needs comes first, then segment files get a third
//! of the rest and connections the other two. Neither can take the other's, so that a node with all the connections it
//! can have still opens files.

/// What one core needs for its rings.
const PER_CORE: usize = 4;
/// What one core has open for a moment: small files that are written and folders that are synced.
const PASSING_PER_CORE: usize = 12;
/// Standard streams, the metadata log, locks.
const PER_NODE: usize = 8;
/// Snapshots, checkpoints, names of logs, lookups, connections to other nodes.
const PASSING_PER_NODE: usize = 32;
/// With fewer segment files on a core, or connections, a node can't work.
const LEAST_FILES_PER_CORE: usize = 4;
const LEAST_CONNECTIONS: usize = 8;
/// One part in so many of the connections is for the controller listener.
const CONTROLLER_PART: usize = 8;
/// And one in so many of all that is left for both is for segment files: those that are used least are closed when others
/// are needed, a client that is refused can't work.
const FILES_PART: usize = 3;

/// What the node is made of, as far as it counts.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Executors.
    pub cores: usize,
    /// Listeners that clients and brokers use, of which each core has its own socket.
    pub broker_listeners: usize,
    /// Listeners of the controller.
    pub controller_listeners: usize,
    /// Log directories, each with a lock.
    pub directories: usize,
    /// Other nodes that it may be connected to because of the configuration.
    pub voters: usize,
}

/// The parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Segment files that one core may hold open.
    pub files_per_core: usize,
    /// Connections of all broker listeners.
    pub broker_connections: usize,
    /// Connections of the controller listeners.
    pub controller_connections: usize,
}

/// The limit is too small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit on open files is {limit}, and this node needs {least} at least: raise it, best to 100000 or more (ulimit -n, \
     LimitNOFILE in a systemd unit, --ulimit nofile for Docker)"
)]
pub struct TooFew {
    limit: usize,
    least: usize,
}

/// Divides `limit` descriptors.
pub fn divide(limit: usize, needs: Needs) -> Result<Descriptors, TooFew> {
    let Needs { cores, broker_listeners, controller_listeners, directories, voters } = needs;
    let own = cores * (PER_CORE + PASSING_PER_CORE + broker_listeners)
        + controller_listeners
        + directories
        + 2 * voters
        + PER_NODE
        + PASSING_PER_NODE;
    let least = own + cores * LEAST_FILES_PER_CORE + LEAST_CONNECTIONS;
    if limit < least {
        return Err(TooFew { limit, least });
    }
    let files_per_core = ((limit - own) / FILES_PART / cores).max(LEAST_FILES_PER_CORE);
    let connections = limit - own - files_per_core * cores;
    let controller_connections = if controller_listeners > 0 { connections / CONTROLLER_PART } else { 0 };
    let broker_connections = if broker_listeners > 0 { connections - controller_connections } else { 0 };
    let controller_connections = if broker_listeners > 0 { controller_connections } else { connections };
    Ok(Descriptors { files_per_core, broker_connections, controller_connections })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Needs = Needs { cores: 2, broker_listeners: 1, controller_listeners: 1, directories: 1, voters: 1 };

    #[test]
    fn all_parts_together_fit() {
        for limit in [100, 150, 151, 1024, 4096, 1_048_576] {
            for cores in [1, 2, 5, 16] {
                let needs = Needs { cores, ..NODE };
                let Ok(parts) = divide(limit, needs) else { continue };
                let own = cores * 17 + 1 + 1 + 2 + 40;
                let sum = own + cores * parts.files_per_core + parts.broker_connections + parts.controller_connections;
                assert!(sum <= limit, "{limit}: {parts:?}");
                assert!(sum + cores >= limit, "{limit}: {parts:?} leave some unused");
            }
        }
    }

    #[test]
    fn a_usual_limit_leaves_room_for_both() {
        let parts = divide(1_048_576, NODE).expect("enough");
        assert!(parts.files_per_core > 150_000 && parts.broker_connections > 350_000, "{parts:?}");
        let parts = divide(150, NODE).expect("enough");
        assert!(parts.files_per_core >= 12 && parts.broker_connections >= 20, "{parts:?}");
    }

    #[test]
    fn too_few_are_said_with_the_number_that_is_needed() {
        let error = divide(90, NODE).expect_err("too few");
        assert!(error.to_string().contains("is 90, and this node needs 94 at least"), "{error}");
        assert!(divide(94, NODE).is_ok());
    }

    #[test]
    fn a_node_of_one_role_gives_all_connections_to_it() {
        let controller = divide(1024, Needs { broker_listeners: 0, cores: 1, ..NODE }).expect("enough");
        assert_eq!(controller.broker_connections, 0);
        assert!(controller.controller_connections > 400);
        let broker = divide(1024, Needs { controller_listeners: 0, ..NODE }).expect("enough");
        assert_eq!(broker.controller_connections, 0);
    }
}
