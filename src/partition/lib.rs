//! One replica of a partition: offsets, epochs, in-sync replicas, producers, reads and the requests that wait on them.
