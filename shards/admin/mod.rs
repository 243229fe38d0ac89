//! What brokers answer beside Produce, Fetch and the group APIs: one file per API.
//!
//! A handler runs on the core of the connection and answers from the metadata image that reached it. What needs a
//! partition goes to the partition's home core ([`crate::data::by_home`]); what only the controller can decide goes there
//! ([`forward`]).

pub mod acls;
pub mod alter_configs;
pub mod alter_replica_log_dirs;
pub mod api_versions;
pub mod controller_apis;
pub mod delegation_tokens;
pub mod delete_records;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_scram;
pub mod describe_topic_partitions;
pub mod find_coordinator;
pub mod forward;
pub mod init_producer_id;
pub mod list_config_resources;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod sasl;
mod shown;
#[cfg(test)]
pub mod test_images;
pub mod topic_creation;
pub mod transactions;
