//! What one core knows of the cluster: the newest image that reached it, and the settings that follow from it.
//!
//! Images come in order, from the controller's core ([`MetadataView::publish`]); what they mean for this core's
//! partitions is worked out by [`crate::broker::metadata_publisher`], which then replaces the image.

mod log_config;
mod settings;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use ringlog_config::{ServerConfig, TopicThrottles};
use ringlog_log::LogConfig;
use ringlog_metadata::image::TopicImage;
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, Uuid};
use rustc_hash::FxHashMap;

pub use log_config::log_config;

use crate::core::{Core, Room};
use crate::mesh::LocalFuture;
use crate::node::Node;

/// The metadata as one core sees it.
pub struct MetadataView {
    core: Rc<Core>,
    image: RefCell<Arc<MetadataImage>>,
    /// Changes with each new image.
    pub changed: ring::Notify,
    queue: RefCell<VecDeque<Publication>>,
    /// What is different in the image that is being taken over.
    under_way: RefCell<Option<Arc<MetadataChanges>>>,
    arrived: ring::Notify,
    /// Settings of the topics that have partitions here, and of those that others write to by way of this core.
    topic_configs: RefCell<FxHashMap<Uuid, Rc<LogConfig>>>,
    /// Which of them have replicas that are throttled here: usually none.
    throttles: RefCell<FxHashMap<Uuid, TopicThrottles>>,
    /// The node's configuration with dynamic values on top; `None` as long as there are none.
    server_config: RefCell<Option<Rc<ServerConfig>>>,
    /// An image is being taken over: what is resolved by the one before isn't kept.
    is_taking_over: Cell<bool>,
}

/// An image that this core is to take over.
pub struct Publication {
    /// The image.
    pub image: Arc<MetadataImage>,
    /// What is different from the one before.
    pub changes: Arc<MetadataChanges>,
    /// To be told when it is taken over.
    pub done: ring::OneshotSender<()>,
}

impl Room for MetadataView {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl MetadataView {
    /// Nothing is known yet.
    pub fn new(core: Rc<Core>) -> MetadataView {
        MetadataView {
            core,
            image: RefCell::new(Arc::new(MetadataImage::empty())),
            changed: ring::Notify::new(),
            queue: RefCell::default(),
            under_way: RefCell::default(),
            arrived: ring::Notify::new(),
            topic_configs: RefCell::default(),
            throttles: RefCell::default(),
            server_config: RefCell::default(),
            is_taking_over: Cell::default(),
        }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.core.node
    }

    /// Hands a new image to this core, in order. The future ends when it is taken over.
    pub fn publish(&self, image: Arc<MetadataImage>, changes: Arc<MetadataChanges>) -> LocalFuture<()> {
        let (done, taken_over) = ring::oneshot();
        self.queue.borrow_mut().push_back(Publication { image, changes, done });
        self.arrived.notify_all();
        Box::pin(async move {
            // Dropped only when the node stops.
            let _ = taken_over.await;
        })
    }

    /// The next image to take over, if one has come.
    pub fn next_publication(&self) -> Option<Publication> {
        let next = self.queue.borrow_mut().pop_front()?;
        self.under_way.replace(Some(next.changes.clone()));
        Some(next)
    }

    /// Whether one of the images that wait to be taken over, or the one that is, has a topic deleted.
    pub fn is_about_to_go(&self, topic_id: Uuid) -> bool {
        let (under_way, queue) = (self.under_way.borrow(), self.queue.borrow());
        let mut changes = under_way.iter().chain(queue.iter().map(|waiting| &waiting.changes));
        changes.any(|changes| changes.deleted_topics.contains_key(&topic_id))
    }

    /// Ends when another image comes.
    pub async fn publication_arrived(&self) {
        self.arrived.wait().await;
    }

    /// The newest image that reached this core.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// The image counts from now on.
    pub fn replace_image(&self, image: Arc<MetadataImage>) {
        self.image.replace(image);
        self.under_way.replace(None);
        self.is_taking_over.set(false);
        self.changed.notify_all();
    }

    /// The epoch of this process's registration, as far as this core knows.
    pub fn broker_epoch(&self) -> Option<BrokerEpoch> {
        own_epoch(&self.core.node, &self.image())
    }

    /// The node's configuration with the dynamic values of the image on top.
    pub fn with_server_config<R>(&self, read: impl FnOnce(&ServerConfig) -> R) -> R {
        let dynamic = self.server_config.borrow().clone();
        read(dynamic.as_deref().unwrap_or(&self.core.node.config))
    }

    /// A topic's settings, wherever its partitions are.
    pub fn topic_config(&self, image: &MetadataImage, topic: &TopicImage) -> Rc<LogConfig> {
        if let Some(known) = self.topic_configs.borrow().get(&topic.id) {
            return known.clone();
        }
        let (config, throttles) = self.resolve(image, &topic.name);
        if !self.is_taking_over.get() {
            self.topic_configs.borrow_mut().insert(topic.id, config.clone());
            self.note_throttles(topic.id, throttles);
        }
        config
    }

    /// The settings of a topic that has partitions here, by an image that is being taken over.
    pub fn new_topic_config(&self, image: &MetadataImage, topic: &TopicImage) -> Rc<LogConfig> {
        if let Some(known) = self.topic_configs.borrow().get(&topic.id) {
            return known.clone();
        }
        let (config, throttles) = self.resolve(image, &topic.name);
        self.topic_configs.borrow_mut().insert(topic.id, config.clone());
        self.note_throttles(topic.id, throttles);
        config
    }

    /// Begins to take `image` over: settings are resolved by it from now on. Returns those of topics that changed.
    pub fn begin_taking_over(
        &self,
        image: &MetadataImage,
        changes: &MetadataChanges,
    ) -> FxHashMap<Uuid, Rc<LogConfig>> {
        self.is_taking_over.set(true);
        let broker_changed = settings::broker_changed(self.core.node.id, changes);
        if broker_changed {
            *self.server_config.borrow_mut() = Some(Rc::new(settings::server_config(&self.core.node, image)));
        }
        let known: Vec<Uuid> = self.topic_configs.borrow().keys().copied().collect();
        let mut changed = FxHashMap::default();
        for topic_id in known {
            let Some(topic) = image.topics.by_id(topic_id) else { continue };
            if broker_changed || settings::topic_changed(&topic.name, changes) {
                let (config, throttles) = self.resolve(image, &topic.name);
                changed.insert(topic_id, config.clone());
                self.topic_configs.borrow_mut().insert(topic_id, config);
                self.note_throttles(topic_id, throttles);
            }
        }
        changed
    }

    /// A topic is gone.
    pub fn forget_topic(&self, topic: Uuid) {
        self.topic_configs.borrow_mut().remove(&topic);
        self.note_throttles(topic, None);
    }

    /// Whether replicas of some topic are throttled here.
    pub fn has_throttles(&self) -> bool {
        !self.throttles.borrow().is_empty()
    }

    /// What of a topic that has partitions on this core is throttled here.
    pub fn with_throttles(&self, topic: Uuid, is_throttled: impl FnOnce(&TopicThrottles) -> bool) -> bool {
        self.throttles.borrow().get(&topic).is_some_and(is_throttled)
    }

    fn note_throttles(&self, topic: Uuid, throttles: Option<TopicThrottles>) {
        let mut known = self.throttles.borrow_mut();
        match throttles {
            Some(throttles) => drop(known.insert(topic, throttles)),
            None => drop(known.remove(&topic)),
        }
    }

    fn resolve(&self, image: &MetadataImage, topic: &str) -> (Rc<LogConfig>, Option<TopicThrottles>) {
        let topic = settings::topic_config(&self.core.node, image, topic);
        let throttles = TopicThrottles::of(&topic, self.core.node.id);
        (Rc::new(self.with_server_config(|server| log_config(&topic, server))), throttles)
    }
}

/// The epoch with which this process is registered in `image`.
pub fn own_epoch(node: &Node, image: &MetadataImage) -> Option<BrokerEpoch> {
    let own = image.cluster.broker(node.id).filter(|broker| broker.incarnation_id == node.incarnation_id);
    own.map(|broker| broker.epoch)
}
