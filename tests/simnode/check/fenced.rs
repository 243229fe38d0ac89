//! Where nothing goes wrong, nobody is fenced who has been let serve.

use std::collections::BTreeMap;

use ringlog_metadata::image::Publication;
use ringlog_ring::sim::Control;

/// Looks on from now on, as long as `is_over` doesn't say that brokers are about to stop.
pub fn watch(world: &Control, is_over: impl Fn() -> bool + 'static) {
    let control = world.clone();
    // By broker and its epoch: whether it was fenced, by the newest image that any node was told.
    let mut last_offset = -1;
    let mut fenced: BTreeMap<(i32, i64), bool> = BTreeMap::new();
    world.observe(move |_, value| {
        let Some(Publication { image, .. }) = value.downcast_ref::<Publication>() else { return };
        let offset = image.provenance.last_contained_offset.0;
        if offset <= last_offset || is_over() {
            return;
        }
        last_offset = offset;
        for broker in image.cluster.brokers.values() {
            let was_fenced = fenced.insert((broker.id.0, broker.epoch.0), broker.is_fenced);
            if was_fenced == Some(false) && broker.is_fenced {
                let id = broker.id;
                control.add_violation(format!("nothing is wrong, and broker {id}, which served, is fenced"));
            }
        }
    });
}
