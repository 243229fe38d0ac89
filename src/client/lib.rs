//! A small blocking Kafka client for the command line tools, the tests and the load generator.
