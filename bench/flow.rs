//! What moved, in which time, at which cost.

use serde::Serialize;

/// One direction of one measurement.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flow {
    /// Bytes of record batches moved.
    pub bytes: u64,
    /// Records moved.
    pub records: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// The node's CPU seconds meanwhile.
    pub cpu_seconds: f64,
    /// Latency percentiles of requests, in milliseconds: 50, 90, 99, 99.9, maximum.
    pub latency_ms: [f64; 5],
}

impl Flow {
    /// With what the node used.
    pub fn with_cpu(mut self, cpu_seconds: f64) -> Flow {
        self.cpu_seconds = cpu_seconds;
        self
    }

    /// Megabytes of batches a second.
    pub fn mb_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds.max(1e-9)
    }

    /// Records a second.
    pub fn records_s(&self) -> f64 {
        self.records as f64 / self.seconds.max(1e-9)
    }

    /// CPU seconds of the node for a gigabyte of batches.
    pub fn cpu_s_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9).max(1e-9)
    }
}
