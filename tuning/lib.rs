//! A read-only look at the host: what Ringlog wants of it, what it has, and how to mend it.
