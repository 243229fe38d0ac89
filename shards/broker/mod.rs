//! This node as a broker of its cluster: registration and heartbeats, and what new metadata means for its partitions.

pub mod in_sync_replicas;
pub mod lifecycle;
pub mod metadata_publisher;
