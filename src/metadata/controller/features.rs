//! UpdateFeatures (KIP-584, KIP-1022).

use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::update_features_request::FeatureUpdateKey;
use ringlog_protocol::messages::update_features_response::UpdatableFeatureResult;
use ringlog_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use ringlog_protocol::metadata_records::{FeatureLevelRecord, RecordAndVersion};
use ringlog_types::{ErrorCode, sort_as_hash_map};

use super::context::{Operation, RequestContext, Resource, record};
use super::error::ApiError;
use super::outcome::Outcome;
use super::state::ActiveController;
use crate::features::{
    ELIGIBLE_LEADER_REPLICAS_VERSION, KRAFT_VERSION, METADATA_VERSION, MetadataVersion, feature, validate_level,
};
use crate::image::VersionRange;

/// What the request allows the level to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpgradeType {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

struct Update<'a> {
    feature: &'a str,
    level: i16,
    upgrade_type: Option<UpgradeType>,
}

impl ActiveController {
    pub(crate) fn update_features(&self, request: &UpdateFeaturesRequest, context: &RequestContext<'_>) -> Outcome {
        if !context.authorizer.allows(Operation::Alter, Resource::Cluster) {
            let error_code = ErrorCode::ClusterAuthorizationFailed.code();
            return Outcome::answer(UpdateFeaturesResponse { error_code, error_message: None, ..Default::default() });
        }
        let mut updates: Vec<Update<'_>> = request
            .feature_updates
            .iter()
            .map(|update| Update {
                feature: &update.feature,
                level: update.max_version_level,
                upgrade_type: match (context.api_version, update.upgrade_type) {
                    // Version 0 may say that downgrades are allowed. Kafka's controller doesn't look at that.
                    (0, _) | (_, 1) => Some(UpgradeType::Upgrade),
                    (_, 2) => Some(UpgradeType::SafeDowngrade),
                    (_, 3) => Some(UpgradeType::UnsafeDowngrade),
                    _ => None,
                },
            })
            .collect();
        // Of a feature that is named more than once the last mention counts.
        let mut last = BTreeMap::new();
        for (index, update) in updates.iter().enumerate() {
            last.insert(update.feature, index);
        }
        let mut index = 0..updates.len();
        updates.retain(|update| index.next().is_some_and(|index| last.get(update.feature) == Some(&index)));
        // Of several errors the first one found is told, and Kafka looks in this order.
        sort_as_hash_map(&mut updates, |update| update.feature);
        let mut records = Vec::new();
        let mut kraft_version = None;
        for update in &updates {
            if let Err(error) = self.update_feature(update, &updates, context, &mut records, &mut kraft_version) {
                let text = format!(
                    "The update failed for all features since the following feature had an error: {}",
                    error.message.unwrap_or_default()
                );
                let response = UpdateFeaturesResponse {
                    error_code: error.code.code(),
                    error_message: Some(text.into()),
                    ..Default::default()
                };
                return Outcome::answer(response);
            }
        }
        let results = if context.api_version <= 1 {
            let result = |update: &FeatureUpdateKey| UpdatableFeatureResult {
                feature: update.feature.clone(),
                error_code: 0,
                // The name of Kafka's code for no error.
                error_message: Some("NONE".into()),
            };
            request.feature_updates.iter().map(result).collect()
        } else {
            Vec::new()
        };
        if request.validate_only {
            records.clear();
            kraft_version = None;
        }
        let response = UpdateFeaturesResponse { results, error_message: None, ..Default::default() };
        Outcome { kraft_version, ..Outcome::atomic(records, response) }
    }

    fn current_level(&self, name: &str, context: &RequestContext<'_>) -> i16 {
        if name == KRAFT_VERSION { context.kraft_version } else { self.image.features.level(name) }
    }

    fn update_feature(
        &self,
        update: &Update<'_>,
        all: &[Update<'_>],
        context: &RequestContext<'_>,
        records: &mut Vec<RecordAndVersion>,
        kraft_version: &mut Option<i16>,
    ) -> Result<(), ApiError> {
        let Update { feature: name, level, upgrade_type } = *update;
        let refuse = |why: &str| {
            let text = format!("Invalid update version {level} for feature {name}. {why}");
            Err(ApiError::new(ErrorCode::InvalidUpdateVersion, text))
        };
        let Some(upgrade_type) = upgrade_type else {
            return refuse("The controller does not support the given upgrade type.");
        };
        if level < 0 {
            return refuse("A feature version cannot be less than 0.");
        }
        if let Some(why) = self.reason_not_supported(name, level, context) {
            return refuse(&why);
        }
        let current = self.current_level(name, context);
        if level < current && upgrade_type == UpgradeType::Upgrade {
            return refuse(
                "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
                 downgrade.",
            );
        }
        if level > current && upgrade_type != UpgradeType::Upgrade {
            return refuse("Can't downgrade to a newer version.");
        }
        match name {
            METADATA_VERSION => check_metadata_version(current, level, upgrade_type)?,
            KRAFT_VERSION => {
                if level < current {
                    return refuse("Can't downgrade the version of this feature.");
                }
                if level > current {
                    let allowed = (context.may_raise_kraft_version)(level);
                    allowed.map_err(|why| ApiError::new(ErrorCode::InvalidUpdateVersion, why))?;
                    *kraft_version = Some(level);
                }
                return Ok(());
            }
            name => {
                let proposed = |other: &str| {
                    let update = all.iter().find(|update| update.feature == other);
                    update.map_or_else(|| self.current_level(other, context), |update| update.level)
                };
                let Some(feature) = feature(name) else {
                    // Not even at level 0, where every node would be content: none could replay the record.
                    return refuse(&format!("Feature {name} not found."));
                };
                if let Err(error) = validate_level(feature, level, &proposed) {
                    return refuse(&error.to_string());
                }
                if name == ELIGIBLE_LEADER_REPLICAS_VERSION && level > 0 {
                    self.elr_safety_records(records);
                }
            }
        }
        let change = FeatureLevelRecord { name: StrBytes::copy_from(name), feature_level: level };
        records.push(record(change.into(), 0));
        Ok(())
    }

    /// Why not every node can run the level: this controller, registered brokers (fenced ones too), controllers.
    fn reason_not_supported(&self, name: &str, level: i16, context: &RequestContext<'_>) -> Option<String> {
        let local = feature(name).map(|it| it.supported_range(self.config.unstable_feature_versions_enable));
        let own = format!("Local controller {}", self.config.node_id);
        check_range(&own, local, level).or_else(|| {
            let of_node = |features: &BTreeMap<Arc<str>, VersionRange>, node: String| {
                check_range(&node, features.get(name).copied(), level)
            };
            let cluster = &self.image.cluster;
            let brokers = cluster.brokers.values();
            let mut brokers = brokers.filter_map(|it| of_node(&it.features, format!("Broker {}", it.id)));
            let controllers = cluster.controllers.values().filter(|it| it.id != self.config.node_id);
            let mut controllers = controllers.filter_map(|it| of_node(&it.features, format!("Controller {}", it.id)));
            brokers.next().or_else(|| controllers.next()).or_else(|| self.unregistered_voter(context))
        })
    }

    fn unregistered_voter(&self, context: &RequestContext<'_>) -> Option<String> {
        if !self.metadata_version().is_controller_registration_supported() {
            return None;
        }
        let is_missing = |id: &&ringlog_types::NodeId| {
            **id != self.config.node_id && !self.image.cluster.controllers.contains_key(id)
        };
        let missing = context.voters.iter().find(is_missing)?;
        Some(format!("controller {missing} has not registered, and may not support this feature"))
    }
}

fn check_range(node: &str, range: Option<VersionRange>, level: i16) -> Option<String> {
    // A node that says so of level 0 alone doesn't know the feature either.
    let Some(range) = range.filter(|range| (range.min, range.max) != (0, 0)) else {
        // Level 0 is what a node has that doesn't know the feature.
        return (level != 0).then(|| format!("{node} does not support this feature."));
    };
    let is_in = range.contains(level) || level == 0 && range.min == 0;
    (!is_in).then(|| {
        let versions =
            if range.min == range.max { range.min.to_string() } else { format!("{}-{}", range.min, range.max) };
        format!("{node} only supports versions {versions}")
    })
}

fn check_metadata_version(current: i16, level: i16, upgrade_type: UpgradeType) -> Result<(), ApiError> {
    let refuse = |text: String| Err(ApiError::new(ErrorCode::InvalidUpdateVersion, text));
    let Some(new) = MetadataVersion::from_level(level) else {
        return refuse(format!("Invalid metadata.version {level}. Unknown metadata.version {level}"));
    };
    if level >= current || !MetadataVersion::is_metadata_changed_between(MetadataVersion(current), new) {
        return Ok(());
    }
    let why = match upgrade_type {
        UpgradeType::UnsafeDowngrade => "Unsafe metadata downgrade is not supported in this version.",
        _ => "Refusing to perform the requested downgrade because it might delete metadata information.",
    };
    refuse(format!("Unsupported metadata.version downgrade from {current} to {level}. {why}"))
}
