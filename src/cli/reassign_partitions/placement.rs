//! Where `--generate` proposes to put replicas: as Kafka's controllers put those of new topics, striped over racks and
//! brokers.

use std::collections::BTreeMap;

use ringlog_client::Broker;
use ringlog_types::Random;

use super::fault::Fault;
use crate::cli::exception::Exception;

/// The brokers of a rack in a circle that begins one further on for each partition.
#[derive(Debug, Default)]
struct Rack {
    brokers: Vec<i32>,
    first: usize,
    taken: usize,
    epoch: usize,
}

impl Rack {
    /// The next broker for partition number `epoch`, each at most once.
    fn next(&mut self, epoch: usize) -> Option<i32> {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.taken = 0;
            self.first += 1;
        }
        if self.taken == self.brokers.len() {
            return None;
        }
        self.taken += 1;
        Some(self.brokers[(self.first + self.taken - 1) % self.brokers.len()])
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, index(random, last + 1));
    }
}

fn index(random: &mut Random, bound: usize) -> usize {
    random.below(bound as u64) as usize
}

/// The replicas of so many partitions, `factor` each.
pub fn place(
    brokers: &BTreeMap<i32, Broker>,
    partitions: usize,
    factor: usize,
    random: &mut Random,
) -> Result<Vec<Vec<i32>>, Fault> {
    let refuse = |text: String| Err(Fault::from_thrown(Exception::new("InvalidReplicationFactorException", text)));
    let count = brokers.len();
    if count == 0 {
        return refuse("All brokers are currently fenced, or have all their log directories cordoned.".to_owned());
    }
    if factor > count {
        return refuse(format!(
            "The target replication factor of {factor} cannot be reached because only {count} broker(s) are registered \
             or some brokers have all their log directories cordoned."
        ));
    }
    let mut racks: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
    for broker in brokers.values() {
        racks.entry(broker.rack.as_deref()).or_default().brokers.push(broker.id);
    }
    let mut racks: Vec<Rack> = racks.into_values().collect();
    for rack in &mut racks {
        rack.first = index(random, rack.brokers.len());
    }
    let mut first_rack = index(random, racks.len());
    let mut placements = Vec::with_capacity(partitions);
    for epoch in 1..=partitions {
        // Once every broker had its turn to lead, another order begins.
        if epoch > 1 && (epoch - 1) % count == 0 && count > 1 {
            shuffle(&mut racks, random);
            racks.iter_mut().for_each(|rack| shuffle(&mut rack.brokers, random));
        }
        first_rack = (first_rack + 1) % racks.len();
        let mut replicas = Vec::with_capacity(factor);
        let mut rack = first_rack;
        // There are enough brokers, so this ends.
        while replicas.len() < factor {
            replicas.extend(racks[rack].next(epoch));
            rack = (rack + 1) % racks.len();
        }
        placements.push(replicas);
    }
    Ok(placements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(racks: &[Option<&str>]) -> BTreeMap<i32, Broker> {
        let broker = |(id, rack): (i32, &Option<&str>)| {
            let rack = rack.map(str::to_owned);
            (id, Broker { id, host: String::new(), port: 0, rack })
        };
        (1..).zip(racks).map(broker).collect()
    }

    #[test]
    fn replicas_are_spread_over_brokers_and_racks() {
        for seed in 0..50 {
            let brokers = brokers(&[Some("a"), Some("b"), Some("a"), Some("b")]);
            let placements = place(&brokers, 8, 2, &mut Random::from_seed(seed)).unwrap();
            for id in 1..=4 {
                let count = placements.iter().filter(|replicas| replicas.contains(&id)).count();
                assert_eq!(count, 4, "{seed}: {placements:?}");
            }
            for replicas in placements {
                let rack = |id: i32| brokers[&id].rack.clone();
                assert_ne!(rack(replicas[0]), rack(replicas[1]), "{seed}");
            }
        }
    }

    #[test]
    fn there_have_to_be_brokers() {
        let message = |fault: Result<Vec<Vec<i32>>, Fault>| fault.unwrap_err().to_string();
        let none = message(place(&brokers(&[]), 1, 1, &mut Random::from_seed(1)));
        assert!(none.starts_with("Error: All brokers are currently fenced, or have"), "{none}");
        let few = message(place(&brokers(&[None]), 1, 2, &mut Random::from_seed(1)));
        assert!(few.contains("factor of 2 cannot be reached because only 1 broker(s) are registered"), "{few}");
    }
}
