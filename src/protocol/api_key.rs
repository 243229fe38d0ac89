//! The APIs and what Kafka 4.3.1 says of each: versions, listeners, header versions, forwarding.
//! Generated from `schema/apis.tsv`.

struct Facts {
    name: &'static str,
    min: i16,
    max: i16,
    max_unstable: i16,
    on_broker: bool,
    on_controller: bool,
    cluster_action: bool,
    forwardable: bool,
    delayed_allocation: bool,
    request_flexible_from: Option<i16>,
    response_flexible_from: Option<i16>,
    throttle_time_from: Option<i16>,
    advertised_on_broker: Option<(i16, i16)>,
    advertised_on_controller: Option<(i16, i16)>,
}

include!(concat!(env!("OUT_DIR"), "/api_key.rs"));

impl ApiKey {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name, as in `Fetch`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The first version that is served.
    pub fn min_version(self) -> i16 {
        self.facts().min
    }

    /// The last stable version.
    pub fn max_version(self) -> i16 {
        self.facts().max
    }

    /// The last version, stable or not: what `unstable.api.versions.enable` allows.
    pub fn max_version_with_unstable(self) -> i16 {
        self.facts().max_unstable
    }

    /// Whether a stable version is served under this number.
    pub fn is_stable_version(self, version: i16) -> bool {
        (self.min_version()..=self.max_version()).contains(&version)
    }

    /// The request header's version (1 or 2) for a version of the request, known or not.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.facts().request_flexible_from.is_some_and(|from| version >= from) { 2 } else { 1 }
    }

    /// The response header's version (0 or 1) for a version of the response. It is always 0 for ApiVersions, since a
    /// client reads that response before it knows what the node speaks (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        let flexible = self.facts().response_flexible_from.is_some_and(|from| version >= from);
        i16::from(flexible && self != ApiKey::ApiVersions)
    }

    /// Whether brokers serve it.
    pub fn on_broker(self) -> bool {
        self.facts().on_broker
    }

    /// Whether controllers serve it.
    pub fn on_controller(self) -> bool {
        self.facts().on_controller
    }

    /// The versions that a broker's ApiVersions response names, both ends included. Produce is named from 0 though
    /// served from 3; the telemetry APIs aren't named as there is no telemetry plugin.
    pub fn advertised_on_broker(self) -> Option<(i16, i16)> {
        self.facts().advertised_on_broker
    }

    /// The versions that a controller's ApiVersions response names, both ends included.
    pub fn advertised_on_controller(self) -> Option<(i16, i16)> {
        self.facts().advertised_on_controller
    }

    /// Whether it is for nodes of the cluster only, needing `ClusterAction` on the cluster.
    pub fn is_cluster_action(self) -> bool {
        self.facts().cluster_action
    }

    /// Whether a broker may forward it to the controller in an Envelope (KIP-590).
    pub fn is_forwardable(self) -> bool {
        self.facts().forwardable
    }

    /// Whether the request's values outlive its buffer, or need memory beyond it.
    pub fn requires_delayed_allocation(self) -> bool {
        self.facts().delayed_allocation
    }

    /// The first version whose response has a throttle time.
    pub fn throttle_time_from(self) -> Option<i16> {
        self.facts().throttle_time_from
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::ApiKey;

    #[test]
    fn keys_have_kafkas_numbers_and_ranges() {
        assert_eq!(ApiKey::ALL.len(), 89);
        assert!(ApiKey::ALL.iter().all(|key| ApiKey::from_code(key.code()) == Some(*key)));
        assert_eq!(ApiKey::from_code(5), None);
        assert_eq!(ApiKey::from_code(-1), None);
        assert_eq!(ApiKey::Produce.advertised_on_broker(), Some((0, 13)));
        assert_eq!(ApiKey::Produce.min_version(), 3);
        assert_eq!(ApiKey::PushTelemetry.advertised_on_broker(), None);
        assert_eq!(ApiKey::InitProducerId.max_version(), 5);
        assert_eq!(ApiKey::InitProducerId.max_version_with_unstable(), 6);
        assert_eq!(ApiKey::ALL.iter().filter(|key| key.advertised_on_broker().is_some()).count(), 75);
        assert_eq!(ApiKey::ALL.iter().filter(|key| key.advertised_on_controller().is_some()).count(), 41);
    }

    #[test]
    fn header_versions_follow_the_flexible_versions() {
        assert_eq!(ApiKey::Fetch.request_header_version(11), 1);
        assert_eq!(ApiKey::Fetch.request_header_version(12), 2);
        assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(99), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(4), 0);
    }
}
