//! The typed view of a node's configuration, in groups of keys that one part of the node needs.

use crate::server::Values;

macro_rules! sections {
    ($(
        $(#[$section_meta:meta])*
        $section:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal,)+
        }
    )+) => {
        $(
            $(#[$section_meta])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $section {
                $(
                    $(#[$field_meta])*
                    #[doc = concat!("\n\nKey: `", $key, "`.")]
                    pub $field: $type,
                )+
            }

            impl $section {
                pub(crate) fn from_values(values: &Values) -> Self {
                    $section { $($field: values.get($key),)+ }
                }

                /// The keys that this group is made of, each with the field that has its value.
                const FIELDS: &'static [(&'static str, &'static str)] = &[$(($key, stringify!($field))),+];
            }
        )+

        /// The keys of all groups with the names of their fields.
        pub fn fields() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
            [$($section::FIELDS),+].into_iter().flatten()
        }
    };
}

sections! {
    /// Connections and requests.
    NetworkConfig {
        /// Largest request accepted, bytes.
        request_max_bytes: i32 = "socket.request.max.bytes",
        /// Receive buffer of a client's socket, bytes; -1 leaves the system's default.
        receive_buffer_bytes: i32 = "socket.receive.buffer.bytes",
        /// Send buffer of a client's socket, bytes; -1 leaves the system's default.
        send_buffer_bytes: i32 = "socket.send.buffer.bytes",
        /// Connections waiting to be accepted.
        listen_backlog_size: i32 = "socket.listen.backlog.size",
        /// A connection idle for so long is closed, ms; negative: never.
        connections_max_idle_ms: i64 = "connections.max.idle.ms",
        /// Connections of the node.
        max_connections: i32 = "max.connections",
        /// Connections from one address.
        max_connections_per_ip: i32 = "max.connections.per.ip",
        /// `HOST:COUNT` entries that override the former.
        max_connections_per_ip_overrides: String = "max.connections.per.ip.overrides",
        /// New connections per second.
        max_connection_creation_rate: i32 = "max.connection.creation.rate",
        /// Requests that wait or run before sockets are no longer read.
        queued_max_requests: i32 = "queued.max.requests",
        /// Bytes of requests that wait or run before sockets are no longer read; -1: no bound but the memory's.
        queued_max_request_bytes: i64 = "queued.max.request.bytes",
        /// Partitions in one DescribeTopicPartitions answer.
        max_request_partition_size_limit: i32 = "max.request.partition.size.limit",
        /// How long the node waits for an answer to its own requests, ms.
        request_timeout_ms: i32 = "request.timeout.ms",
        /// Largest answer to a consumer's fetch, bytes.
        fetch_max_bytes: i32 = "fetch.max.bytes",
        /// Fetch sessions kept.
        max_incremental_fetch_session_cache_slots: i32 = "max.incremental.fetch.session.cache.slots",
        /// First wait for a connection to be set up, ms.
        connection_setup_timeout_ms: i64 = "socket.connection.setup.timeout.ms",
        /// Longest wait for a connection to be set up, ms.
        connection_setup_timeout_max_ms: i64 = "socket.connection.setup.timeout.max.ms",
    }

    /// What topics get that nobody gave numbers for.
    TopicDefaults {
        /// Partitions of a new topic.
        num_partitions: i32 = "num.partitions",
        /// Replicas of a new topic's partitions.
        default_replication_factor: i32 = "default.replication.factor",
        /// Whether a client's Metadata request makes a missing topic.
        auto_create_topics_enable: bool = "auto.create.topics.enable",
        /// Whether topics can be deleted.
        delete_topic_enable: bool = "delete.topic.enable",
    }

    /// The node's own handling of logs. What applies per topic is in [`crate::TopicConfig`].
    LogConfig {
        /// How often logs are checked for what retention lets go, ms.
        retention_check_interval_ms: i64 = "log.retention.check.interval.ms",
        /// Wait before the background work on logs begins, ms.
        initial_task_delay_ms: i64 = "log.initial.task.delay.ms",
        /// How often recovery points are written, ms.
        flush_offset_checkpoint_interval_ms: i32 = "log.flush.offset.checkpoint.interval.ms",
        /// How often log start offsets are written, ms.
        flush_start_offset_checkpoint_interval_ms: i32 = "log.flush.start.offset.checkpoint.interval.ms",
        /// How often logs are checked for a flush that is due, ms.
        flush_scheduler_interval_ms: i64 = "log.flush.scheduler.interval.ms",
        /// Recoveries run at once per directory.
        num_recovery_threads_per_data_dir: i32 = "num.recovery.threads.per.data.dir",
        /// How long after losing touch with the controller about a failed directory the node stops, ms.
        dir_failure_timeout_ms: i64 = "log.dir.failure.timeout.ms",
        /// How long a producer's state outlives its last batch, ms.
        producer_id_expiration_ms: i32 = "producer.id.expiration.ms",
        /// How often producers' states are checked for expiry, ms.
        producer_id_expiration_check_interval_ms: i32 = "producer.id.expiration.check.interval.ms",
        /// Whether compaction runs.
        cleaner_enable: bool = "log.cleaner.enable",
        /// Compactions at once.
        cleaner_threads: i32 = "log.cleaner.threads",
        /// Memory for compaction's key maps, bytes.
        cleaner_dedupe_buffer_size: i64 = "log.cleaner.dedupe.buffer.size",
        /// Memory for compaction's reads and writes, bytes.
        cleaner_io_buffer_size: i32 = "log.cleaner.io.buffer.size",
        /// How full a key map may get, as a share.
        cleaner_io_buffer_load_factor: f64 = "log.cleaner.io.buffer.load.factor",
        /// Compaction's reads and writes, bytes per second.
        cleaner_io_max_bytes_per_second: f64 = "log.cleaner.io.max.bytes.per.second",
        /// Compaction's wait when there is nothing to do, ms.
        cleaner_backoff_ms: i64 = "log.cleaner.backoff.ms",
    }

    /// Replication between brokers.
    ReplicaConfig {
        /// A follower that hasn't caught up for so long leaves the ISR, ms.
        lag_time_max_ms: i64 = "replica.lag.time.max.ms",
        /// Longest wait of a follower's fetch, ms.
        fetch_wait_max_ms: i32 = "replica.fetch.wait.max.ms",
        /// What a follower's fetch waits for, bytes.
        fetch_min_bytes: i32 = "replica.fetch.min.bytes",
        /// A follower's fetch per partition, bytes.
        fetch_max_bytes: i32 = "replica.fetch.max.bytes",
        /// A follower's whole fetch, bytes.
        fetch_response_max_bytes: i32 = "replica.fetch.response.max.bytes",
        /// Wait after a failed fetch, ms.
        fetch_backoff_ms: i32 = "replica.fetch.backoff.ms",
        /// How long a follower waits for an answer, ms.
        socket_timeout_ms: i32 = "replica.socket.timeout.ms",
        /// Receive buffer of a follower's socket, bytes.
        socket_receive_buffer_bytes: i32 = "replica.socket.receive.buffer.bytes",
        /// How often high watermarks are written, ms.
        high_watermark_checkpoint_interval_ms: i64 = "replica.high.watermark.checkpoint.interval.ms",
        /// Fetchers per source broker.
        num_fetchers: i32 = "num.replica.fetchers",
        /// The class that picks the replica a consumer reads from.
        selector_class: Option<String> = "replica.selector.class",
        /// Replicas that are copied to other directories at a time; none: as many as there are directories.
        num_alter_log_dirs_threads: Option<i32> = "num.replica.alter.log.dirs.threads",
    }

    /// Groups of the classic protocol and committed offsets.
    GroupCoordinatorConfig {
        /// Protocols that groups may use: `classic`, `consumer`, `streams`, `share`.
        rebalance_protocols: Vec<String> = "group.coordinator.rebalance.protocols",
        /// Wait before an append to collect more, ms; -1 adapts to the load.
        append_linger_ms: i32 = "group.coordinator.append.linger.ms",
        /// Largest buffer kept for appends, bytes.
        cached_buffer_max_bytes: i32 = "group.coordinator.cached.buffer.max.bytes",
        /// Shortest session timeout a member may ask for, ms.
        min_session_timeout_ms: i32 = "group.min.session.timeout.ms",
        /// Longest session timeout a member may ask for, ms.
        max_session_timeout_ms: i32 = "group.max.session.timeout.ms",
        /// Wait of an empty group's first rebalance, ms.
        initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms",
        /// Members of a group.
        max_size: i32 = "group.max.size",
        /// Largest metadata of a committed offset, bytes.
        offset_metadata_max_bytes: i32 = "offset.metadata.max.bytes",
        /// How long a commit waits for its replicas, ms.
        offsets_commit_timeout_ms: i32 = "offsets.commit.timeout.ms",
        /// Reads while a partition of group state is loaded, bytes.
        offsets_load_buffer_size: i32 = "offsets.load.buffer.size",
        /// How long offsets outlive their group's last member, minutes.
        offsets_retention_minutes: i32 = "offsets.retention.minutes",
        /// How often offsets are checked for expiry, ms.
        offsets_retention_check_interval_ms: i64 = "offsets.retention.check.interval.ms",
        /// Partitions of `__consumer_offsets`.
        offsets_topic_num_partitions: i32 = "offsets.topic.num.partitions",
        /// Replicas of `__consumer_offsets`.
        offsets_topic_replication_factor: i16 = "offsets.topic.replication.factor",
        /// Segment size of `__consumer_offsets`, bytes.
        offsets_topic_segment_bytes: i32 = "offsets.topic.segment.bytes",
        /// Compression of `__consumer_offsets`, as a record batch's code.
        offsets_topic_compression_codec: i32 = "offsets.topic.compression.codec",
    }

    /// Groups of the consumer protocol (KIP-848).
    ConsumerGroupConfig {
        /// Assignors by name or class, the default first.
        assignors: Vec<String> = "group.consumer.assignors",
        /// Session timeout, ms.
        session_timeout_ms: i32 = "group.consumer.session.timeout.ms",
        /// Smallest session timeout of a group, ms.
        min_session_timeout_ms: i32 = "group.consumer.min.session.timeout.ms",
        /// Largest session timeout of a group, ms.
        max_session_timeout_ms: i32 = "group.consumer.max.session.timeout.ms",
        /// Heartbeat interval, ms.
        heartbeat_interval_ms: i32 = "group.consumer.heartbeat.interval.ms",
        /// Smallest heartbeat interval of a group, ms.
        min_heartbeat_interval_ms: i32 = "group.consumer.min.heartbeat.interval.ms",
        /// Largest heartbeat interval of a group, ms.
        max_heartbeat_interval_ms: i32 = "group.consumer.max.heartbeat.interval.ms",
        /// Time between assignments, ms.
        assignment_interval_ms: i32 = "group.consumer.assignment.interval.ms",
        /// Members of a group.
        max_size: i32 = "group.consumer.max.size",
        /// Which groups change their protocol: `disabled`, `downgrade`, `upgrade`, `bidirectional`.
        migration_policy: String = "group.consumer.migration.policy",
        /// How often a subscription's regular expression is matched again, ms.
        regex_refresh_interval_ms: i32 = "group.consumer.regex.refresh.interval.ms",
    }

    /// Share groups (KIP-932).
    ShareGroupConfig {
        /// Assignors by name or class.
        assignors: Vec<String> = "group.share.assignors",
        /// Session timeout, ms.
        session_timeout_ms: i32 = "group.share.session.timeout.ms",
        /// Heartbeat interval, ms.
        heartbeat_interval_ms: i32 = "group.share.heartbeat.interval.ms",
        /// Members of a group.
        max_size: i32 = "group.share.max.size",
        /// How often a record is delivered at most.
        delivery_count_limit: i32 = "group.share.delivery.count.limit",
        /// How long a record is held for a member, ms.
        record_lock_duration_ms: i32 = "group.share.record.lock.duration.ms",
        /// Records held per partition.
        partition_max_record_locks: i32 = "group.share.partition.max.record.locks",
        /// Share sessions of the node.
        max_share_sessions: i32 = "group.share.max.share.sessions",
        /// Partitions of `__share_group_state`.
        state_topic_num_partitions: i32 = "share.coordinator.state.topic.num.partitions",
        /// Replicas of `__share_group_state`.
        state_topic_replication_factor: i16 = "share.coordinator.state.topic.replication.factor",
        /// Smallest ISR of `__share_group_state`.
        state_topic_min_isr: i16 = "share.coordinator.state.topic.min.isr",
        /// Segment size of `__share_group_state`, bytes.
        state_topic_segment_bytes: i32 = "share.coordinator.state.topic.segment.bytes",
    }

    /// Streams groups (KIP-1071).
    StreamsGroupConfig {
        /// Session timeout, ms.
        session_timeout_ms: i32 = "group.streams.session.timeout.ms",
        /// Heartbeat interval, ms.
        heartbeat_interval_ms: i32 = "group.streams.heartbeat.interval.ms",
        /// Members of a group.
        max_size: i32 = "group.streams.max.size",
        /// Standby replicas of a task.
        num_standby_replicas: i32 = "group.streams.num.standby.replicas",
        /// Wait of an empty group's first rebalance, ms.
        initial_rebalance_delay_ms: i32 = "group.streams.initial.rebalance.delay.ms",
    }

    /// Transactions.
    TransactionConfig {
        /// Longest transaction a producer may ask for, ms.
        max_timeout_ms: i32 = "transaction.max.timeout.ms",
        /// How long a transactional id outlives its last use, ms.
        transactional_id_expiration_ms: i32 = "transactional.id.expiration.ms",
        /// How often overdue transactions are looked for, ms.
        abort_timed_out_interval_ms: i32 = "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        /// How often expired transactional ids are looked for, ms.
        remove_expired_interval_ms: i32 = "transaction.remove.expired.transaction.cleanup.interval.ms",
        /// Whether a partition asks the coordinator before it takes part in a transaction.
        partition_verification_enable: bool = "transaction.partition.verification.enable",
        /// Partitions of `__transaction_state`.
        state_log_num_partitions: i32 = "transaction.state.log.num.partitions",
        /// Replicas of `__transaction_state`.
        state_log_replication_factor: i16 = "transaction.state.log.replication.factor",
        /// Smallest ISR of `__transaction_state`.
        state_log_min_isr: i32 = "transaction.state.log.min.isr",
        /// Segment size of `__transaction_state`, bytes.
        state_log_segment_bytes: i32 = "transaction.state.log.segment.bytes",
        /// Reads while a partition of transaction state is loaded, bytes.
        state_log_load_buffer_size: i32 = "transaction.state.log.load.buffer.size",
    }

    /// The controller, and the broker's dealings with it.
    ControllerConfig {
        /// How often a broker sends a heartbeat, ms.
        broker_heartbeat_interval_ms: i32 = "broker.heartbeat.interval.ms",
        /// A broker silent for so long is fenced, ms.
        broker_session_timeout_ms: i32 = "broker.session.timeout.ms",
        /// How long a starting broker tries to register, ms.
        initial_broker_registration_timeout_ms: i32 = "initial.broker.registration.timeout.ms",
        /// Whether a stopping broker hands its leaderships over.
        controlled_shutdown_enable: bool = "controlled.shutdown.enable",
        /// Whether leaderships move back to preferred replicas by themselves.
        auto_leader_rebalance_enable: bool = "auto.leader.rebalance.enable",
        /// How often that is checked, seconds.
        leader_imbalance_check_interval_seconds: i64 = "leader.imbalance.check.interval.seconds",
        /// How often partitions without a leader are checked for an unclean election, ms.
        unclean_leader_election_interval_ms: i64 = "unclean.leader.election.interval.ms",
        /// A record is written when none was for so long, ms; 0: never.
        metadata_max_idle_interval_ms: i32 = "metadata.max.idle.interval.ms",
        /// How long a broker waits for the controller's answer, ms.
        socket_timeout_ms: i32 = "controller.socket.timeout.ms",
        /// How long the start may take, ms.
        server_max_startup_time_ms: i64 = "server.max.startup.time.ms",
        /// Whether feature levels that aren't released may be used.
        unstable_feature_versions_enable: bool = "unstable.feature.versions.enable",
        /// Whether API versions that aren't released are served.
        unstable_api_versions_enable: bool = "unstable.api.versions.enable",
    }

    /// The metadata quorum.
    QuorumConfig {
        /// How long a voter waits for the leader before it stands for election, ms.
        election_timeout_ms: i32 = "controller.quorum.election.timeout.ms",
        /// Longest random wait between elections, ms.
        election_backoff_max_ms: i32 = "controller.quorum.election.backoff.max.ms",
        /// A leader that hears of no majority for so long resigns; a follower without an answer for so long stands for
        /// election, ms.
        fetch_timeout_ms: i32 = "controller.quorum.fetch.timeout.ms",
        /// How long a request to another voter waits for its answer, ms.
        request_timeout_ms: i32 = "controller.quorum.request.timeout.ms",
        /// Wait before a failed request is sent again, ms.
        retry_backoff_ms: i32 = "controller.quorum.retry.backoff.ms",
        /// Wait before an append to collect more, ms.
        append_linger_ms: i32 = "controller.quorum.append.linger.ms",
        /// A fetch of the metadata log, bytes.
        fetch_max_bytes: i32 = "controller.quorum.fetch.max.bytes",
        /// A fetch of a snapshot, bytes.
        fetch_snapshot_max_bytes: i32 = "controller.quorum.fetch.snapshot.max.bytes",
        /// Whether a controller adds itself to the voters.
        auto_join_enable: bool = "controller.quorum.auto.join.enable",
    }

    /// The metadata log on disk.
    MetadataLogConfig {
        /// Size of a segment, bytes.
        segment_bytes: i32 = "metadata.log.segment.bytes",
        /// Size of a segment in tests, bytes; overrides the former.
        internal_segment_bytes: Option<i32> = "internal.metadata.log.segment.bytes",
        /// Age at which a segment is rolled, ms.
        segment_ms: i64 = "metadata.log.segment.ms",
        /// Size at which old segments and snapshots go, bytes.
        max_retention_bytes: i64 = "metadata.max.retention.bytes",
        /// Age at which old segments and snapshots go, ms.
        max_retention_ms: i64 = "metadata.max.retention.ms",
        /// Bytes of records after which a snapshot is made.
        max_record_bytes_between_snapshots: i64 = "metadata.log.max.record.bytes.between.snapshots",
        /// Time after which a snapshot is made, ms; 0: never.
        max_snapshot_interval_ms: i64 = "metadata.log.max.snapshot.interval.ms",
        /// Largest batch, bytes.
        max_batch_size_bytes: i32 = "internal.metadata.max.batch.size.in.bytes",
        /// How long a deleted file stays, ms.
        delete_delay_ms: i64 = "internal.metadata.delete.delay.millis",
    }

    /// Windows over which quotas are measured.
    QuotaConfig {
        /// Windows kept for client quotas.
        window_num: i32 = "quota.window.num",
        /// Their length, seconds.
        window_size_seconds: i32 = "quota.window.size.seconds",
        /// Windows kept for replication quotas.
        replication_window_num: i32 = "replication.quota.window.num",
        /// Their length, seconds.
        replication_window_size_seconds: i32 = "replication.quota.window.size.seconds",
        /// Windows kept for the controller mutation quota.
        controller_window_num: i32 = "controller.quota.window.num",
        /// Their length, seconds.
        controller_window_size_seconds: i32 = "controller.quota.window.size.seconds",
        /// Windows kept for the quota of moves between directories.
        alter_log_dirs_window_num: i32 = "alter.log.dirs.replication.quota.window.num",
        /// Their length, seconds.
        alter_log_dirs_window_size_seconds: i32 = "alter.log.dirs.replication.quota.window.size.seconds",
    }

    /// Ringlog's own keys.
    RinglogConfig {
        /// Shards, each on a core of its own; 0 makes one per core that the process may use. Default 0.
        shards: i32 = "ringlog.shards",
        /// Memory of a shard for its sockets and reads, bytes. Default 16 MiB.
        io_memory_bytes: i64 = "ringlog.io.memory.bytes",
        /// Memory of a shard for the tails of its partitions' segments, bytes. Default 128 MiB.
        frames_memory_bytes: i64 = "ringlog.frames.memory.bytes",
        /// Memory of a shard for what was read from files, bytes. Default: its part of a quarter of all.
        cache_memory_bytes: Option<i64> = "ringlog.cache.memory.bytes",
        /// Memory of each core for answers that their clients haven't taken yet, bytes.
        response_memory_bytes: i64 = "ringlog.response.memory.bytes",
        /// `auto` uses direct I/O where the file system has it; `off` never does. Default `auto`.
        direct_io: String = "ringlog.direct.io",
        /// Whether compressed batches are unpacked before they are stored, so that none is that consumers can't read.
        /// Default true.
        check_compressed_batches: bool = "ringlog.check.compressed.batches",
    }
}
