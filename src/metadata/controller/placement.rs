//! Where new replicas go: striped over racks and brokers, never by load.

use std::collections::BTreeMap;

use ringlog_types::{NodeId, Random};

use crate::image::ClusterImage;

/// Replicas can't be placed. The text is Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacementError(pub(crate) String);

/// Brokers in a circle. The start moves by one with each partition.
#[derive(Debug, Default)]
struct BrokerList {
    brokers: Vec<NodeId>,
    /// Where the circle begins for this partition.
    offset: usize,
    /// How many were taken for this partition.
    taken: usize,
    epoch: usize,
}

impl BrokerList {
    fn initialize(&mut self, random: &mut Random) {
        self.brokers.sort_unstable();
        self.offset = random.below(self.brokers.len() as u64) as usize;
    }

    fn shuffle(&mut self, random: &mut Random) {
        shuffle(&mut self.brokers, random);
    }

    /// The next broker for the partition number `epoch`; each one at most once.
    fn next(&mut self, epoch: usize) -> Option<NodeId> {
        if self.brokers.is_empty() {
            return None;
        }
        if self.epoch != epoch {
            self.epoch = epoch;
            self.taken = 0;
            self.offset = (self.offset + 1) % self.brokers.len();
        }
        if self.taken >= self.brokers.len() {
            return None;
        }
        let broker = self.brokers[(self.offset + self.taken) % self.brokers.len()];
        self.taken += 1;
        Some(broker)
    }
}

#[derive(Debug, Default)]
struct Rack {
    unfenced: BrokerList,
    fenced: BrokerList,
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for index in (1..items.len()).rev() {
        items.swap(index, random.below(index as u64 + 1) as usize);
    }
}

/// Places `partitions` new partitions with `replication_factor` replicas each.
///
/// The first replica of each partition is an unfenced broker of the next rack that has one; the others go round the
/// racks, one each, unfenced before fenced inside a rack, and the racks again once all are used. Who is shutting down gets
/// none; who has done so is a fenced broker like others.
pub(crate) fn place(
    cluster: &ClusterImage,
    is_shutting_down: &dyn Fn(NodeId) -> bool,
    partitions: usize,
    replication_factor: usize,
    random: &mut Random,
) -> Result<Vec<Vec<NodeId>>, PlacementError> {
    let mut racks: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
    let (mut candidates, mut unfenced) = (0, 0);
    for broker in cluster.brokers.values() {
        if is_shutting_down(broker.id) || !broker.has_uncordoned_directory() {
            continue;
        }
        let rack = racks.entry(broker.rack.as_deref()).or_default();
        let list = if broker.is_fenced { &mut rack.fenced } else { &mut rack.unfenced };
        list.brokers.push(broker.id);
        candidates += 1;
        unfenced += usize::from(!broker.is_fenced);
    }
    let refuse = |why: String| Err(PlacementError(why));
    if unfenced == 0 {
        return refuse("All brokers are currently fenced, or have all their log directories cordoned.".to_owned());
    }
    if replication_factor > candidates {
        return refuse(format!(
            "The target replication factor of {replication_factor} cannot be reached because only {candidates} \
             broker(s) are registered or some brokers have all their log directories cordoned."
        ));
    }
    let mut racks: Vec<Rack> = racks.into_values().collect();
    for rack in &mut racks {
        rack.unfenced.initialize(random);
        rack.fenced.initialize(random);
    }
    let mut rack_offset = random.below(racks.len() as u64) as usize;
    let mut placements = Vec::with_capacity(partitions);
    let mut since_shuffle = 0;
    for epoch in 1..=partitions {
        if since_shuffle == unfenced && unfenced > 1 {
            since_shuffle = 0;
            shuffle(&mut racks, random);
            racks.iter_mut().for_each(|rack| {
                rack.unfenced.shuffle(random);
                rack.fenced.shuffle(random);
            });
        }
        since_shuffle += 1;
        rack_offset = (rack_offset + 1) % racks.len();
        placements.push(place_one(&mut racks, rack_offset, epoch, replication_factor));
    }
    Ok(placements)
}

fn place_one(racks: &mut [Rack], rack_offset: usize, epoch: usize, replication_factor: usize) -> Vec<NodeId> {
    let count = racks.len();
    let mut replicas = Vec::with_capacity(replication_factor);
    let mut step = 0;
    // The first replica leads, so it is never a fenced broker.
    while replicas.is_empty() && step < count {
        replicas.extend(racks[(rack_offset + step) % count].unfenced.next(epoch));
        step += 1;
    }
    // Each round of the racks that finds nobody ends the search; the candidates were counted before.
    let mut misses = 0;
    while replicas.len() < replication_factor && misses < count {
        let rack = &mut racks[(rack_offset + step) % count];
        step += 1;
        match rack.unfenced.next(epoch).or_else(|| rack.fenced.next(epoch)) {
            Some(broker) => {
                replicas.push(broker);
                misses = 0;
            }
            None => misses += 1,
        }
    }
    replicas
}
