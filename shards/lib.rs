//! What runs on each core: connections, request handlers, segment files, the controller's and coordinators' drivers.
