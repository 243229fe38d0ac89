//! ApiVersions: what this node serves on the listener that was asked, and the cluster's features (KIP-511, KIP-584).

use std::rc::Rc;

use ringlog_metadata::features::{FEATURES, Feature, KRAFT_VERSION, METADATA_VERSION};
use ringlog_metadata::image::VersionRange;
use ringlog_protocol::ApiKey;
use ringlog_protocol::messages::api_versions_request::ApiVersionsRequest;
use ringlog_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use ringlog_types::ErrorCode;

use crate::controller::{self, Controller};
use crate::metadata::MetadataView;
use crate::net::peer::PeerVersions;
use crate::net::request::RequestContext;

/// From this version on clients can read a feature whose lowest level is 0.
const ZERO_LEVEL_FROM_VERSION: i16 = 4;

/// Whether this node answers an API, on a controller's listener or a broker's.
pub type Serves = fn(ApiKey, bool) -> bool;

/// Answers ApiVersions on a broker's or a controller's listener.
pub async fn handle(
    controller: &Rc<Controller>,
    serves: Serves,
    context: &RequestContext,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    let metadata = controller.metadata();
    let names = [&request.client_software_name, &request.client_software_version];
    if context.api_version >= 3 && !names.into_iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() };
    }
    let on_controller = context.peer.listener.is_controller;
    // Not in the image: raft keeps it.
    let quorum = controller::quorum(controller).await;
    let image = metadata.image();
    let metadata_version = image.features.metadata_version.map(|version| (METADATA_VERSION, version.0));
    let kraft_version = Some((KRAFT_VERSION, quorum.kraft_version)).filter(|(_, level)| *level > 0);
    let others = image.features.levels.iter().map(|(name, level)| (&**name, *level));
    let finalized = metadata_version.into_iter().chain(kraft_version).chain(others);
    // A broker names the newest offset that it knows, a controller the one with which the features changed.
    let features_epoch = if on_controller { quorum.features_offset } else { image.provenance.last_contained_offset };
    let unstable = unstable_features(metadata);
    // A controller keeps levels; serving them is for brokers.
    let range = |feature: &Feature| match on_controller {
        true => feature.supported_range(unstable),
        false => feature.range_of_brokers(image.features.level(feature.name), unstable),
    };
    ApiVersionsResponse {
        api_keys: served(serves, on_controller, quorum.controller_versions.as_ref()),
        supported_features: supported_features(context.api_version, range),
        finalized_features_epoch: features_epoch.0,
        finalized_features: finalized.map(|(name, level)| finalized_feature(name, level)).collect(),
        ..Default::default()
    }
}

/// The answer to a version that this node doesn't know: in version 0, with what the client needs to ask again.
pub fn unsupported_version() -> ApiVersionsResponse {
    let api = ApiKey::ApiVersions;
    let api_keys =
        vec![ApiVersion { api_key: api.code(), min_version: api.min_version(), max_version: api.max_version() }];
    ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), api_keys, ..Default::default() }
}

/// What a listener serves. Of what a broker forwards it is no more than the active controller speaks, too.
fn served(serves: Serves, on_controller: bool, controller_versions: Option<&PeerVersions>) -> Vec<ApiVersion> {
    let range = |api: &ApiKey| {
        if on_controller {
            return api.advertised_on_controller();
        }
        let (min, max) = api.advertised_on_broker()?;
        match controller_versions.filter(|_| api.is_forwardable()) {
            None => Some((min, max)),
            Some(versions) => {
                let (controller_min, controller_max) = versions.range(*api)?;
                let (min, max) = (min.max(controller_min), max.min(controller_max));
                (min <= max).then_some((min, max))
            }
        }
    };
    let served = ApiKey::ALL.iter().filter(|api| serves(**api, on_controller));
    served
        .filter_map(|api| {
            let (min_version, max_version) = range(api)?;
            Some(ApiVersion { api_key: api.code(), min_version, max_version })
        })
        .collect()
}

fn unstable_features(metadata: &MetadataView) -> bool {
    metadata.node().config.properties.get("unstable.feature.versions.enable").is_some_and(|value| value == "true")
}

fn supported_features(api_version: i16, range: impl Fn(&Feature) -> VersionRange) -> Vec<SupportedFeatureKey> {
    let ranges = FEATURES.iter().map(|feature| (feature.name, range(feature)));
    ranges
        .filter(|(_, range)| api_version >= ZERO_LEVEL_FROM_VERSION || range.min > 0)
        .map(|(name, range)| SupportedFeatureKey { name: name.into(), min_version: range.min, max_version: range.max })
        .collect()
}

fn finalized_feature(name: &str, level: i16) -> FinalizedFeatureKey {
    FinalizedFeatureKey {
        name: ringlog_protocol::StrBytes::copy_from(name),
        max_version_level: level,
        min_version_level: level,
    }
}

/// Kafka's rule for software names and versions: letters, digits, dots and dashes, the latter not at either end.
fn is_software_name(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let ends = [name.bytes().next(), name.bytes().last()];
    name.bytes().all(inside) && ends.into_iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_from_level_0_are_hidden_from_older_clients() {
        let names = |version| {
            let features = supported_features(version, |feature| feature.supported_range(false));
            features.iter().map(|feature| (feature.name.to_string(), feature.max_version)).collect::<Vec<_>>()
        };
        assert_eq!(names(3), [("metadata.version".to_owned(), 30)]);
        assert_eq!(names(4).len(), 7);
    }

    #[test]
    fn produce_is_named_from_0_and_what_is_not_served_is_not_named() {
        let apis = served(crate::dispatch::serves, false, None);
        let range =
            |api: ApiKey| apis.iter().find(|it| it.api_key == api.code()).map(|it| (it.min_version, it.max_version));
        assert_eq!(range(ApiKey::Produce), Some((0, 13)));
        assert_eq!(range(ApiKey::ApiVersions), Some((0, 4)));
        assert_eq!(range(ApiKey::ConsumerGroupHeartbeat), None);
        assert_eq!(range(ApiKey::Vote), None);
        assert!(apis.is_sorted_by_key(|api| api.api_key));
    }

    #[test]
    fn software_names_follow_the_rule() {
        for good in ["a", "apache-kafka-java", "4.3.1", "x--y"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "é"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
