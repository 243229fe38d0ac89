//! Load generator and microbenches.
