//! A real node and real clients, end to end.
