//! Makes the topics of a run.

use std::rc::Rc;

use ringlog_ring::sleep_ms;

use super::connection::Connection;
use super::routes::ask;
use super::{Shared, admin};

/// By so much a limit of batches is higher that is lowered later.
const LATE_LIMIT_EXCESS: u64 = 500;

/// Makes the plan's topics, and waits until they are led.
pub async fn run(shared: &Rc<Shared>) {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    for (number, topic) in shared.plan.topics.iter().enumerate() {
        let mut configs = vec![
            ("internal.segment.bytes", topic.segment_bytes.to_string()),
            ("segment.ms", topic.segment_ms.to_string()),
        ];
        let (workload, more) = (&shared.plan.workload, &shared.plan.workload.topics[number]);
        configs.extend(more.configs());
        let excess = if workload.has_late_limits { LATE_LIMIT_EXCESS } else { 0 };
        configs.extend(more.message_bytes_max.map(|bytes| ("max.message.bytes", (bytes + excess).to_string())));
        if topic.flushes {
            configs.push(("flush.messages", "1".to_owned()));
        }
        for turn in 0.. {
            sleep_ms(20).await;
            let Ok(mut connection) = Connection::open(addresses[turn % addresses.len()]).await else { continue };
            match admin::create(&mut connection, &topic.name, (topic.partitions, shared.plan.replicas), &configs).await
            {
                Ok(0 | admin::EXISTS) => {}
                Ok(code) => {
                    shared.judge_code("maker", code, &admin::RETRIABLE);
                    continue;
                }
                Err(fault) => {
                    shared.judge("maker", &fault);
                    continue;
                }
            }
            let Ok(Some(route)) = ask(&mut connection, &topic.name).await else { continue };
            let is_led = route.leaders.values().all(|leader| *leader > 0);
            if is_led && route.leaders.len() == topic.partitions as usize {
                break;
            }
        }
    }
}
