//! What server.properties and the dynamic configs may say: every key with its type, default, rule and update mode.
