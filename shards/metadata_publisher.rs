//! Takes new metadata over on each core: which partitions live here, and in which role.
