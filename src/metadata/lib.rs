//! The cluster's metadata: image and delta, and the controller's decisions.
