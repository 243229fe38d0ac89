//! Topics that are created because somebody asked for them: by Metadata, or as internal topics of coordinators.
//!
//! Bounds: a topic is asked for once at a time per core; at most [`MAX_IN_FLIGHT`] of them, more are left for the
//! client's next try.

use std::cell::RefCell;
use std::rc::Rc;

use ringlog_config::ServerConfig;
use ringlog_protocol::ResponseBody;
use ringlog_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use ringlog_types::{ErrorCode, GROUP_METADATA_TOPIC};
use rustc_hash::FxHashSet;
use tracing::{info, warn};

use super::forward;
use crate::controller::Controller;
use crate::core::Room as _;

/// Topics that one core may be creating at a time.
const MAX_IN_FLIGHT: usize = 1_000;

/// What one core asks for.
pub struct TopicCreation {
    controller: Rc<Controller>,
    /// Names of topics that are being created.
    in_flight: RefCell<FxHashSet<String>>,
}

impl TopicCreation {
    /// Nothing is asked for yet.
    pub fn new(controller: Rc<Controller>) -> TopicCreation {
        TopicCreation { controller, in_flight: RefCell::default() }
    }

    /// Asks the controller for topics, and doesn't wait for it. Internal ones get the settings of their coordinator, the
    /// others this broker's `num.partitions` and `default.replication.factor`.
    pub fn begin(self: &Rc<Self>, names: Vec<String>) {
        let names: Vec<String> = {
            let mut in_flight = self.in_flight.borrow_mut();
            let room = MAX_IN_FLIGHT.saturating_sub(in_flight.len());
            let new: Vec<String> = names.into_iter().filter(|name| !in_flight.contains(name)).take(room).collect();
            in_flight.extend(new.iter().cloned());
            new
        };
        if names.is_empty() {
            return;
        }
        let work = create(self.clone(), names);
        // When the gate is closed the node stops: nobody will ask for the topics again.
        let _ = self.controller.core().gate.spawn(work);
    }
}

async fn create(creation: Rc<TopicCreation>, names: Vec<String>) {
    let config = &creation.controller.core().node.config;
    let request = CreateTopicsRequest {
        topics: names.iter().map(|name| creatable(config, name)).collect(),
        timeout_ms: config.network.request_timeout_ms,
        validate_only: false,
    };
    let response = forward::ask(&creation.controller, request.into()).await;
    if let ResponseBody::CreateTopics(response) = response {
        for topic in response.topics {
            match ErrorCode::from_code(topic.error_code) {
                Some(ErrorCode::None) => info!(topic = %topic.name, "created on demand"),
                Some(ErrorCode::TopicAlreadyExists) => {}
                error => {
                    let why = topic.error_message.as_deref().unwrap_or_default();
                    let error = error.map_or("unknown error", ErrorCode::name);
                    warn!(topic = %topic.name, error, "can't be created on demand: {why}");
                }
            }
        }
    }
    let mut in_flight = creation.in_flight.borrow_mut();
    for name in &names {
        in_flight.remove(name);
    }
}

fn creatable(config: &ServerConfig, name: &str) -> CreatableTopic {
    let topic = |num_partitions, replication_factor, configs: Vec<(&'static str, String)>| CreatableTopic {
        name: ringlog_protocol::StrBytes::copy_from(name),
        num_partitions,
        replication_factor,
        assignments: Vec::new(),
        configs: configs
            .into_iter()
            .map(|(key, value)| CreatableTopicConfig { name: key.into(), value: Some(value.into()) })
            .collect(),
    };
    if name == GROUP_METADATA_TOPIC {
        let group = &config.group;
        let configs = vec![
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("segment.bytes", group.offsets_topic_segment_bytes.to_string()),
        ];
        return topic(group.offsets_topic_num_partitions, group.offsets_topic_replication_factor, configs);
    }
    let replication_factor = i16::try_from(config.topics.default_replication_factor).unwrap_or(i16::MAX);
    topic(config.topics.num_partitions, replication_factor, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_get_this_brokers_numbers_and_internal_ones_their_own() {
        let config = ServerConfig::dev("data", 9092);
        let plain = creatable(&config, "orders");
        assert_eq!((plain.num_partitions, plain.replication_factor, plain.configs.len()), (1, 1, 0));
        let offsets = creatable(&config, GROUP_METADATA_TOPIC);
        assert_eq!((offsets.num_partitions, offsets.replication_factor), (50, 1));
        let configs: Vec<String> =
            offsets.configs.iter().map(|it| format!("{}={}", it.name, it.value.as_deref().unwrap_or(""))).collect();
        assert_eq!(configs, ["cleanup.policy=compact", "compression.type=producer", "segment.bytes=104857600"]);
    }
}
