//! An admin that changes settings of topics and brokers while they are at work. None of them takes a promise back.

use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringlog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use ringlog_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use ringlog_ring::{sim, sleep_ms};

use super::connection::{CallFault, Connection};
use super::{Shared, admin};
use crate::check::configs::Setting;

const CALL_LIMIT_MS: u64 = 45_000;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
/// Where a setting comes from: the topic itself, or the entry for all brokers.
const OWN: [i8; 2] = [1, 3];
/// The topic isn't known yet.
const UNKNOWN_TOPIC: i16 = 3;
const TRIES: usize = 200;

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>) {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    while !shared.is_over.get() {
        let address = addresses[sim::draw(addresses.len() as u64) as usize];
        if let Ok(mut connection) = Connection::open(address).await {
            for _ in 0..sim::draw(10) {
                if let Err(fault) = change(&shared, &mut connection).await {
                    shared.judge("who changes settings", &fault);
                    break;
                }
                sleep_ms(sim::draw(300)).await;
            }
        }
        sleep_ms(50 + sim::draw(100)).await;
    }
}

/// A setting and a value that it may have.
fn draw(shared: &Rc<Shared>) -> (Setting, String) {
    let number = sim::draw(shared.plan.topics.len() as u64) as usize;
    let (plan, more) = (&shared.plan.topics[number], &shared.plan.workload.topics[number]);
    let pick = |values: &[u64]| values[sim::draw(values.len() as u64) as usize].to_string();
    let topic = |key, value| ((TOPIC, plan.name.clone(), key), value);
    match sim::draw(8) {
        // A batch has to fit in.
        0 => topic(
            "internal.segment.bytes",
            pick(&[plan.segment_bytes, plan.segment_bytes.saturating_mul(2).min(1 << 30)]),
        ),
        1 => topic("segment.ms", pick(&[200, 2_000, 604_800_000])),
        2 if more.message_bytes_max.is_none() => topic("max.message.bytes", pick(&[1_000_000, 2_000_000, 5_000_000])),
        3 if !plan.flushes => topic("flush.messages", pick(&[1, 10, 1_000_000])),
        4 => topic("flush.ms", pick(&[100, 5_000])),
        // What the ledger doesn't know of may not go.
        5 if more.retention.ms.is_some() => {
            topic("retention.ms", pick(&[more.retention.ms.unwrap_or(0) as u64, 600_000]))
        }
        6 if more.is_append_time => {
            let value = ["CreateTime", "LogAppendTime"][sim::draw(2) as usize];
            topic("message.timestamp.type", value.to_owned())
        }
        _ => {
            let key = ["background.threads", "num.io.threads"][sim::draw(2) as usize];
            ((BROKER, String::new(), key), pick(&[8, 9, 10]))
        }
    }
}

async fn change(shared: &Rc<Shared>, connection: &mut Connection) -> Result<(), CallFault> {
    let (setting, value) = draw(shared);
    let keeps = [(TOPIC, "internal.segment.bytes"), (TOPIC, "retention.ms"), (TOPIC, "message.timestamp.type")];
    let removes = sim::draw(4) == 0 && !keeps.contains(&(setting.0, setting.2));
    let config = AlterableConfig {
        name: StrBytes::copy_from(setting.2),
        config_operation: if removes { DELETE } else { SET },
        value: Some(StrBytes::copy_from(&value)).filter(|_| !removes),
    };
    let resource = AlterConfigsResource {
        resource_type: setting.0,
        resource_name: StrBytes::copy_from(&setting.1),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    shared.configs.borrow_mut().on_attempt(&setting);
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    match answer.responses.first().map(|it| it.error_code) {
        Some(0) => shared.configs.borrow_mut().on_changed(&setting, Some(value).filter(|_| !removes)),
        Some(UNKNOWN_TOPIC) => {}
        Some(code) => shared.judge_code(&format!("who sets {setting:?} to {value}"), code, &admin::RETRIABLE),
        None => return Err(CallFault::Nonsense("an answer without the resource".to_owned())),
    }
    Ok(())
}

/// Sets a topic's setting, however long that takes. For settings that nobody else changes.
pub async fn set(shared: &Rc<Shared>, topic: &str, key: &'static str, value: &str) {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    while !shared.is_over.get() {
        let address = addresses[sim::draw(addresses.len() as u64) as usize];
        let set = async {
            let config = AlterableConfig {
                name: StrBytes::copy_from(key),
                config_operation: SET,
                value: Some(StrBytes::copy_from(value)),
            };
            let resource = AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: StrBytes::copy_from(topic),
                configs: vec![config],
            };
            let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
            let answer = Connection::open(address).await?.call(&request, CALL_LIMIT_MS).await?;
            Ok::<_, CallFault>(answer.responses.first().map(|it| it.error_code))
        };
        match set.await {
            Ok(Some(0)) => return,
            Ok(Some(UNKNOWN_TOPIC)) => {}
            Ok(Some(code)) => shared.judge_code(&format!("who sets {key} of {topic}"), code, &admin::RETRIABLE),
            Ok(None) => shared.complain("an answer without the resource".to_owned()),
            Err(fault) => shared.judge("who sets a topic's setting", &fault),
        }
        sleep_ms(50 + sim::draw(100)).await;
    }
}

/// Whether every broker says of the settings what was said when they were changed.
pub async fn check(shared: &Rc<Shared>) -> Result<(), String> {
    let known = shared.configs.borrow().known();
    for (node, address) in &shared.brokers {
        for (setting, value) in &known {
            let mut last = None;
            for _ in 0..TRIES {
                if let Ok(mut connection) = Connection::open(*address).await {
                    last = describe(&mut connection, setting).await.map_err(|fault| format!("{fault:?}"))?;
                    if last == *value {
                        break;
                    }
                }
                sleep_ms(100).await;
            }
            if last != *value {
                return Err(format!("{setting:?} was set to {value:?}, and node {node} has {last:?}"));
            }
        }
    }
    Ok(())
}

async fn describe(connection: &mut Connection, setting: &Setting) -> Result<Option<String>, CallFault> {
    let resource = DescribeConfigsResource {
        resource_type: setting.0,
        resource_name: StrBytes::copy_from(&setting.1),
        configuration_keys: Some(vec![StrBytes::copy_from(setting.2)]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let mut configs = answer.results.into_iter().flat_map(|it| it.configs);
    let own = configs.find(|it| it.name.as_str() == setting.2 && OWN.contains(&it.config_source));
    Ok(own.and_then(|it| it.value).map(|value| value.as_str().to_owned()))
}
