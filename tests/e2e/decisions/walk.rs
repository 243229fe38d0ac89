//! A walk of many steps by chance, the same for a seed.

use anyhow::{Context, Result};
use ringlog_protocol::{RequestBody, ResponseBody};

use super::chance::Chance;
use super::pair::Pair;

/// After so many steps the controllers start again: there are things that only a new controller does.
const STEPS_PER_LIFE: usize = 1_500;

/// Takes so many steps at most; how many. Kafka's controller has faults of its own, where a walk ends.
pub fn walk(pair: &mut Pair, seed: u64, steps: usize) -> Result<usize> {
    let mut chance = Chance::new(seed);
    for step in 1..=steps {
        let request = chance.request(&pair.image);
        let version = version(&mut chance, pair, &request)?;
        let request = in_version(request, version);
        let before = pair.image.clone();
        let broker = match &request {
            RequestBody::BrokerRegistration(it) => Some(it.broker_id),
            _ => None,
        };
        let shown = format!("{request:?}");
        let answer = pair.ask_in(request, version).with_context(|| format!("step {step} of seed {seed}"))?;
        let Some(answer) = answer else {
            println!("Kafka fails at step {step} of seed {seed}: {shown}");
            return Ok(step);
        };
        if matches!(&answer, ResponseBody::BrokerRegistration(it) if it.error_code == 0) {
            chance.registered.extend(broker);
        }
        chance.note_cleared(&before, &pair.image);
        // Once at least, and not at the very end.
        if step % STEPS_PER_LIFE == 0 || (steps <= STEPS_PER_LIFE && step == steps / 2) {
            pair.restart().with_context(|| format!("restart after step {step} of seed {seed}"))?;
            chance.registered.clear();
        }
    }
    Ok(steps)
}

/// As a rule the highest version; else one that can say the same.
fn version(chance: &mut Chance, pair: &Pair, request: &RequestBody) -> Result<i16> {
    let highest = pair.highest_version(request)?;
    let lowest = request.api_key().min_version();
    if !chance.percent(20) {
        return Ok(highest);
    }
    let version = lowest + chance.below((highest - lowest) as usize + 1) as i16;
    let can_say = in_version(request.clone(), version).size(version).is_ok();
    Ok(if can_say { version } else { highest })
}

/// The request as older versions say it.
fn in_version(mut request: RequestBody, version: i16) -> RequestBody {
    match &mut request {
        RequestBody::AlterPartition(it) if version < 3 => {
            for partition in it.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                let members = std::mem::take(&mut partition.new_isr_with_epochs);
                partition.new_isr = members.iter().map(|member| member.broker_id).collect();
            }
        }
        RequestBody::DeleteTopics(it) if version < 6 => {
            it.topic_names = it.topics.drain(..).filter_map(|topic| topic.name).collect();
        }
        _ => {}
    }
    request
}
