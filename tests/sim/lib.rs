//! The cores under a simulated network, disk and clock.
