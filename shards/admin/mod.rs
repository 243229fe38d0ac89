//! Handlers of the APIs beside Produce and Fetch, one file each.
