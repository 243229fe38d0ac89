//! A network that a test has made, and can cut: each node in a network namespace of its own, all on one bridge.

use std::env;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{self, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::child::Reaper;
use crate::place::Place;

/// An Ethernet address that nobody has: what is sent there is lost without a word.
const NOWHERE: &str = "02:00:00:00:00:01";

/// The bridge and the nodes' namespaces. The bridge is in one too, so that the machine's own network isn't touched.
#[derive(Debug)]
pub struct Network {
    name: String,
    nodes: usize,
    reaper: Option<Reaper>,
}

impl Network {
    /// Whether networks can be made here. That they can't is an error in CI, where nobody would read about it.
    pub fn is_possible() -> Result<bool> {
        let name = format!("ringlog-{}-try", process::id());
        let can = |arguments: &[&str]| {
            let output = Command::new("ip").args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        let is_possible = can(&["netns", "add", &name]) && can(&["netns", "exec", &name, "true"]);
        can(&["netns", "del", &name]);
        if !is_possible {
            ensure!(env::var_os("CI").is_none(), "network namespaces can't be made: root and iproute2 are needed");
            println!("left out: network namespaces can't be made without root and iproute2");
        }
        Ok(is_possible)
    }

    /// A network with so many nodes.
    pub fn new(nodes: usize) -> Result<Network> {
        let name = format!("ringlog-{}", process::id());
        let mut network = Network { name, nodes, reaper: None };
        let all = network.names().join(" ");
        let script = format!("sleep 0.5; for name in {all}; do ip netns del $name; done");
        network.reaper = Some(Reaper::with(&script, &[])?);
        for name in network.names() {
            ip(&["netns", "add", &name])?;
            ip(&["-netns", &name, "link", "set", "lo", "up"])?;
        }
        let hub = network.hub();
        let mut commands = vec!["link add bridge type bridge forward_delay 0".to_owned()];
        commands.push("addr add 10.77.0.254/24 dev bridge".to_owned());
        commands.push("link set bridge up".to_owned());
        for node in 0..nodes {
            let peer = network.node(node);
            commands.push(format!("link add port{node} type veth peer name eth0 netns {peer}"));
            commands.push(format!("link set port{node} master bridge up"));
        }
        batch(&hub, &commands)?;
        for node in 0..nodes {
            let address = address(node);
            batch(&network.node(node), &[format!("addr add {address}/24 dev eth0"), "link set eth0 up".to_owned()])?;
        }
        Ok(network)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn node(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    fn names(&self) -> Vec<String> {
        (0..self.nodes).map(|node| self.node(node)).chain([self.hub()]).collect()
    }

    /// Where the nodes run.
    pub fn places(&self) -> Vec<Place> {
        let place = |node| Place { address: address(node), namespace: Some(self.node(node)) };
        (0..self.nodes).map(place).collect()
    }

    /// Does something in the bridge's namespace, from where every node can be reached.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = fs::File::open(format!("/run/netns/{}", self.hub()))?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Only this thread moves, and what it starts.
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Nothing that one node sends reaches the other any more.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        let (namespace, address) = (self.node(from), address(to));
        batch(&namespace, &[format!("neigh replace {address} lladdr {NOWHERE} nud permanent dev eth0")])
    }

    /// What one node sends reaches the other again.
    pub fn mend(&self, from: usize, to: usize) -> Result<()> {
        batch(&self.node(from), &[format!("neigh del {} dev eth0", address(to))])
    }

    /// No cable to the node any more.
    pub fn unplug(&self, node: usize) -> Result<()> {
        batch(&self.hub(), &[format!("link set port{node} down")])
    }

    /// A cable again.
    pub fn plug(&self, node: usize) -> Result<()> {
        batch(&self.hub(), &[format!("link set port{node} up")])
    }

    /// What comes to the node and what it sends is slow from now on: what doesn't fit through in time is lost.
    pub fn slow(&self, node: usize, kilobits_per_s: u64, latency_ms: u64) -> Result<()> {
        for (namespace, device) in self.ends(node) {
            let rate = format!("{kilobits_per_s}kbit");
            let latency = format!("{latency_ms}ms");
            let bucket = ["tbf", "rate", &rate, "burst", "16kb", "latency", &latency];
            tc(&namespace, &[&["qdisc", "replace", "dev", &device, "root"], &bucket[..]].concat())?;
        }
        Ok(())
    }

    /// As fast as ever.
    pub fn fast(&self, node: usize) -> Result<()> {
        self.ends(node)
            .iter()
            .try_for_each(|(namespace, device)| tc(namespace, &["qdisc", "del", "dev", device, "root"]))
    }

    fn ends(&self, node: usize) -> [(String, String); 2] {
        [(self.hub(), format!("port{node}")), (self.node(node), "eth0".to_owned())]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = ip(&["netns", "del", &name]);
        }
        if let Some(reaper) = self.reaper.take() {
            reaper.dismiss();
        }
    }
}

fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running ip")?;
    ensure!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn tc(namespace: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new("tc").args(["-netns", namespace]).args(arguments).output().context("running tc")?;
    ensure!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Several commands in a namespace.
fn batch(namespace: &str, commands: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-netns", namespace, "-batch", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("running ip")?;
    child.stdin.take().context("input is piped")?.write_all((commands.join("\n") + "\n").as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{commands:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
