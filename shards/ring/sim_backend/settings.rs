//! How a world is: what takes how long, and how much of everything there is. Drawn by a plan, or left as it is.

/// Nanoseconds.
pub const US: u64 = 1_000;
/// Nanoseconds.
pub const MS: u64 = 1_000_000;
/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// From the least to the most, both possible.
pub type Range = (u64, u64);

/// A world. The default is a quiet rack with fast disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Everything that is a matter of chance follows from it.
    pub seed: u64,
    /// Cores and what runs on them.
    pub cores: CoreSettings,
    /// Links and connections.
    pub network: NetworkSettings,
}

/// How cores run their tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreSettings {
    /// How long a task runs each time, besides what it says by [`crate::spend_ns`].
    pub poll_ns: Range,
    /// Of a thousand times so many take longer, …
    pub long_poll_permille: u64,
    /// … so long.
    pub long_poll_ns: Range,
    /// From the moment that there is something to do until a core that slept does it.
    pub unpark_ns: Range,
    /// Until something that one core did is seen by another: wake-ups, messages.
    pub between_cores_ns: Range,
    /// How late timers are.
    pub timer_late_ns: Range,
    /// Of a thousand turns so many go to any task of the queue instead of the one that waits longest.
    pub out_of_order_permille: u64,
    /// Of a thousand questions whether a task should yield so many are answered with yes, however short it has run.
    pub preempt_permille: u64,
    /// How long work takes that was given to a helper thread, besides what it says.
    pub blocking_ns: Range,
    /// When this many events happen without a moment's progress of time, or of one core without pause, something spins.
    pub spin_limit: u64,
}

/// How the network is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// From one host to another.
    pub delay_ns: Range,
    /// On one host.
    pub loopback_delay_ns: Range,
    /// Of a thousand segments so many take longer, …
    pub late_permille: u64,
    /// … by up to this.
    pub late_ns: u64,
    /// Of a thousand segments so many are lost, and sent again after a time-out.
    pub loss_permille: u64,
    /// Bytes that a link carries in a second.
    pub bytes_per_second: u64,
    /// What a socket takes for sending when its owner doesn't say.
    pub send_buffer_bytes: Range,
    /// What a socket takes in when its owner doesn't say.
    pub receive_buffer_bytes: Range,
    /// Of a thousand reads, writes and segments so many do only a part of what they could.
    pub partial_permille: u64,
    /// Until a segment that wasn't acknowledged is sent again, the first time; then twice as long, and so on.
    pub retransmit_ns: u64,
    /// At most so long.
    pub retransmit_most_ns: u64,
    /// After so long without an acknowledgement the connection is given up.
    pub give_up_ns: u64,
    /// Whether a host that is off is told apart from one that is cut off (EHOSTUNREACH after a while, as in a rack).
    pub unreachable_after_ns: Option<u64>,
}

/// A file system and its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// What fits.
    pub size_bytes: u64,
    /// A read, besides its bytes.
    pub read_ns: Range,
    /// A write to the device, besides its bytes.
    pub write_ns: Range,
    /// A copy from or to the page cache, besides its bytes.
    pub cached_ns: Range,
    /// Making what was written safe.
    pub sync_ns: Range,
    /// A change of names, or a look at them.
    pub name_ns: Range,
    /// Bytes a second, for all that it does.
    pub bytes_per_second: u64,
    /// Of a thousand operations so many take longer, …
    pub slow_permille: u64,
    /// … so long.
    pub slow_ns: Range,
    /// Of a thousand reads and writes so many do only a part of what they were asked for.
    pub partial_permille: u64,
    /// Whether files may be opened for direct I/O (not so on a tmpfs).
    pub direct: bool,
    /// Changes of one file that may be unsafe at a time; older ones reach the device by themselves.
    pub unsafe_changes: usize,
    /// Whether names become safe in the order in which they changed, as with one journal; otherwise only those of one
    /// folder do.
    pub journals_names: bool,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// What it is called; other hosts can look the name up.
    pub name: String,
    /// Its address; the next free one of 10.0.0.0/16 without.
    pub address: Option<std::net::IpAddr>,
    /// CPUs that its processes may use.
    pub cpus: usize,
    /// Descriptors that a process may have open.
    pub descriptors: usize,
    /// Where the monotonic clock is when the world begins.
    pub monotonic_ns: u64,
    /// How far the wall clock is from the world's.
    pub wall_offset_ms: i64,
    /// Parts per million that both clocks run faster than the world's time.
    pub rate_ppm: i64,
    /// The disk that `/` lies on.
    pub disk: DiskSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { seed: 1, cores: CoreSettings::default(), network: NetworkSettings::default() }
    }
}

impl Default for CoreSettings {
    fn default() -> CoreSettings {
        CoreSettings {
            poll_ns: (300, 3 * US),
            long_poll_permille: 2,
            long_poll_ns: (10 * US, 300 * US),
            unpark_ns: (2 * US, 30 * US),
            between_cores_ns: (200, 5 * US),
            timer_late_ns: (0, 60 * US),
            out_of_order_permille: 0,
            preempt_permille: 1,
            blocking_ns: (10 * US, 100 * US),
            spin_limit: 5_000_000,
        }
    }
}

impl Default for NetworkSettings {
    fn default() -> NetworkSettings {
        NetworkSettings {
            delay_ns: (30 * US, 200 * US),
            loopback_delay_ns: (5 * US, 30 * US),
            late_permille: 0,
            late_ns: 0,
            loss_permille: 0,
            bytes_per_second: 1_250_000_000,
            send_buffer_bytes: (64 * 1024, 256 * 1024),
            receive_buffer_bytes: (64 * 1024, 256 * 1024),
            partial_permille: 10,
            retransmit_ns: 200 * MS,
            retransmit_most_ns: 120 * SECOND,
            give_up_ns: 924 * SECOND,
            unreachable_after_ns: None,
        }
    }
}

impl Default for DiskSettings {
    fn default() -> DiskSettings {
        DiskSettings {
            size_bytes: 1 << 40,
            read_ns: (60 * US, 150 * US),
            write_ns: (15 * US, 80 * US),
            cached_ns: (US, 5 * US),
            sync_ns: (20 * US, 2 * MS),
            name_ns: (2 * US, 20 * US),
            bytes_per_second: 2_000_000_000,
            slow_permille: 1,
            slow_ns: (MS, 20 * MS),
            partial_permille: 2,
            direct: true,
            unsafe_changes: 256,
            journals_names: false,
        }
    }
}

impl HostSettings {
    /// A host with two CPUs and a disk, whose clocks are right.
    pub fn named(name: &str) -> HostSettings {
        HostSettings {
            name: name.to_owned(),
            address: None,
            cpus: 2,
            descriptors: 100_000,
            monotonic_ns: 1_000 * SECOND,
            wall_offset_ms: 0,
            rate_ppm: 0,
            disk: DiskSettings::default(),
        }
    }
}
