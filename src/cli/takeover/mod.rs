//! `takeover check`: what stands in the way of a Ringlog node taking a Kafka node's place.
//!
//! `cluster` asks, the others judge: `features`, `brokers`, `quorum`, `partitions`, `usage` what the cluster says, `node`
//! and `directories` what is on this machine. Judging has no side effects, and nothing is changed anywhere.

mod args;
mod brokers;
mod cluster;
mod directories;
mod features;
mod findings;
mod node;
mod partitions;
mod quorum;
mod usage;

pub use args::TakeoverArgs;

use self::args::{CheckArgs, NOT_CHECKED};
use self::cluster::Cluster;
use self::findings::Finding;
use self::node::NodeFile;
use self::partitions::Replaced;
use super::admin::{self, Admin, AdminError};
use super::output::Output;

/// How long to wait for the cluster, in milliseconds, unless the client's file says otherwise: it should be there.
const PATIENCE_MS: &str = "15000";

/// Runs the tool and returns its exit code.
pub fn run(args: &TakeoverArgs, out: &mut dyn Output) -> u8 {
    match check(args.check(), out) {
        Ok(exit_code) => exit_code,
        Err(fault) => {
            out.error(&fault);
            NOT_CHECKED
        }
    }
}

fn check(args: &CheckArgs, out: &mut dyn Output) -> Result<u8, String> {
    let node = args.config.as_deref().map(NodeFile::read).transpose()?;
    let mut properties = admin::read_config(args.command_config.as_deref(), |path| format!("{path} isn't there"))?;
    properties.set_default("default.api.timeout.ms", PATIENCE_MS);
    let admin = Admin::new(Some(args.bootstrap_server.clone()), None, &properties);
    let mut admin = admin.map_err(|fault| match fault {
        AdminError::Properties(text) | AdminError::Bootstrap(text) => text,
    })?;
    let cluster = Cluster::ask(&mut admin, out)
        .map_err(|fault| format!("the cluster at {} can't be looked at: {fault}", args.bootstrap_server))?;
    let (subject, findings) = match &node {
        None => ("one of its nodes".to_owned(), judge_cluster(&cluster, None)),
        Some(node) => {
            let subject = node.id.map_or_else(|| "the node".to_owned(), |id| format!("node {id}"));
            let mut findings = judge_cluster(&cluster, Some(node));
            findings.extend(judge_membership(&cluster, node));
            findings.extend(node.judge());
            findings.extend(node.judge_place(&cluster.id));
            (subject, findings)
        }
    };
    Ok(findings::print(&findings, &subject, out))
}

/// `node` is the one whose place is to be taken; any if not given.
fn judge_cluster(cluster: &Cluster, node: Option<&NodeFile>) -> Vec<Finding> {
    let id = node.and_then(|node| node.id);
    let is_stopped = id.and_then(|id| cluster.brokers.get(&id)).is_some_and(|broker| broker.is_fenced);
    let mut findings = vec![Finding::ok(format!("cluster {} answers", cluster.id))];
    findings.extend(features::judge(&cluster.features));
    findings.extend(quorum::judge(&cluster.quorum, id));
    findings.extend(brokers::judge(&cluster.brokers, id));
    findings.extend(partitions::judge_topics(&cluster.topics));
    findings.extend(partitions::judge_partitions(&cluster.topics, Replaced { id, is_stopped }));
    findings.extend(cluster.reassigned.as_deref().map(partitions::judge_reassignments));
    findings.extend(usage::judge(&cluster.usage, &cluster.topics, id));
    findings
}

/// A file of another cluster is noticed here even where the directories aren't on this machine.
fn judge_membership(cluster: &Cluster, node: &NodeFile) -> Option<Finding> {
    let id = node.id?;
    let is_known =
        if node.is_broker() { cluster.brokers.contains_key(&id) } else { cluster.quorum.voters.contains(&id) };
    (!is_known).then(|| {
        let role = if node.is_broker() { "broker" } else { "voter" };
        Finding::warn(format!("the cluster has no {role} {id}: it would be a new node; is --config the right file?"))
    })
}
