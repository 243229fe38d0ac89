//! Clusters one after the other, rounds in each, and what is told of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringlog_e2e_tests::namespaces::Network;
use ringlog_e2e_tests::paths;

use super::checker::{self, Kind, Verdict};
use super::dice::Dice;
use super::faults::{self, Fault};
use super::history::History;
use super::load::Load;
use super::plan::{Kinds, PARTITIONS, Plan};
use super::world::{self, World};
use super::{files, programs};

/// Rounds that one cluster lives for.
const ROUNDS_OF_A_CLUSTER: usize = 15;
/// What of failed clusters is kept.
const KEPT: usize = 5;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many rounds in all.
    pub rounds: usize,
    /// The first cluster's; each has the next one.
    pub seed: u64,
    /// Which programs.
    pub kinds: Kinds,
    /// Whether faults are planted in the logs of the last cluster, which have to be found.
    pub plants: bool,
}

/// What came of it all.
#[derive(Debug, Default)]
struct Summary {
    rounds: usize,
    clusters: usize,
    faults: BTreeMap<&'static str, usize>,
    acknowledged: usize,
    read: usize,
    refused: usize,
    unknown: usize,
    doubled: usize,
    failures: Vec<String>,
}

/// Runs the rounds; an error if one failed.
pub fn run(options: Options) -> Result<()> {
    if !Network::is_possible()? {
        return Ok(());
    }
    println!("rounds {}, seed {}, {:?}", options.rounds, options.seed, options.kinds);
    let begin = Instant::now();
    let mut summary = Summary::default();
    let mut seed = options.seed;
    while summary.rounds < options.rounds {
        let rounds = (options.rounds - summary.rounds).min(ROUNDS_OF_A_CLUSTER);
        let is_last = summary.rounds + rounds == options.rounds;
        let plan = Plan::new(seed, options.kinds);
        let folder = paths::work()?.join("rounds").join(format!("seed-{seed}"));
        fs::create_dir_all(&folder)?;
        let history = Arc::new(History::new(&folder.join("history"))?);
        summary.clusters += 1;
        let before = summary.rounds;
        let outcome = live(&plan, rounds, options.plants && is_last, &history, &folder, &mut summary);
        match outcome {
            Ok(()) => {
                fs::remove_dir_all(&folder)?;
                world::forget_words(&plan)?;
            }
            Err(error) => {
                // A cluster that doesn't get as far as its first round counts as one, or this would never end.
                summary.rounds = summary.rounds.max(before + 1);
                let again = format!(
                    "cargo xtask rounds --seed {seed} --rounds {} --kinds {}",
                    summary.rounds - before,
                    options.kinds.word()
                );
                println!("FAILED seed {seed}: {error:#}\n  kept in {}; again: {again}", folder.display());
                summary.failures.push(format!("{again}: {}", error.to_string().lines().next().unwrap_or_default()));
                if summary.failures.len() > KEPT {
                    fs::remove_dir_all(&folder)?;
                }
            }
        }
        seed += 1;
    }
    summary.print(begin.elapsed());
    ensure!(
        summary.failures.is_empty(),
        "{} clusters failed:\n{}",
        summary.failures.len(),
        summary.failures.join("\n")
    );
    Ok(())
}

impl Summary {
    fn print(&self, time: Duration) {
        let Summary { rounds, clusters, acknowledged, read, refused, unknown, doubled, .. } = self;
        println!("{rounds} rounds of {clusters} clusters in {:.0} s", time.as_secs_f64());
        println!("records: {acknowledged} acknowledged, {read} read, {refused} refused, {unknown} unknown");
        println!("{doubled} are there twice since a producer without an id sent them again");
        let faults = self.faults.iter().map(|(name, count)| format!("{name} {count}"));
        println!("faults: {}", faults.collect::<Vec<_>>().join(", "));
        println!("failed clusters: {}", self.failures.len());
    }
}

/// One cluster's life.
fn live(
    plan: &Plan,
    rounds: usize,
    plants: bool,
    history: &Arc<History>,
    folder: &Path,
    summary: &mut Summary,
) -> Result<()> {
    let begin = Instant::now();
    let network = Network::new(plan.kinds.len())?;
    network.inside(|| {
        let mut world = World::start(plan, &network).context("starting the cluster")?;
        let outcome = live_in(&mut world, plan, rounds, plants, begin, history, summary);
        if outcome.is_err()
            && let Err(error) = keep(&mut world, folder)
        {
            println!("not all could be kept: {error:#}");
        }
        outcome
    })
}

fn live_in(
    world: &mut World<'_>,
    plan: &Plan,
    rounds: usize,
    plants: bool,
    begin: Instant,
    history: &Arc<History>,
    summary: &mut Summary,
) -> Result<()> {
    let bootstrap = world.cluster.bootstrap();
    let mut load = Load::start(plan, &bootstrap, history.clone())?;
    load.wait_until_all_go_on().context("before the first round")?;
    world.wait_until_in_sync(plan).context("before the first round")?;
    println!("seed {}: {:?} after {:.1} s", plan.seed, plan.kinds, begin.elapsed().as_secs_f64());
    let mut dice = Dice::new(plan.seed ^ 0x0f0f);
    for number in 1..=rounds {
        let active = world.active_controller();
        let faults = faults::draw(&mut dice, world.len(), world.disk(0).is_some(), active);
        let names = faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(" + ");
        faults.iter().for_each(|fault| *summary.faults.entry(fault.name()).or_default() += 1);
        summary.rounds += 1;
        let begin = Instant::now();
        let verdict = round(world, &mut load, plan, &faults, &mut dice, history);
        let verdict = verdict.with_context(|| format!("round {number} of seed {}: {names}", plan.seed))?;
        let time = begin.elapsed().as_secs_f64();
        let Verdict { acknowledged, read, found, .. } = verdict;
        println!(
            "  {number:>2} {names:<32} {time:>5.1} s  {acknowledged:>6} acknowledged {read:>7} read {found} anomalies"
        );
        judge(&verdict).with_context(|| format!("round {number} of seed {}: {names}", plan.seed))?;
    }
    load.finish().context("the clients' end")?;
    let topics: Vec<&str> = plan.topics.iter().map(|topic| topic.name).collect();
    let bootstrap = world.cluster.bootstrap();
    programs::read_all(&bootstrap, &topics, history).context("the final reader")?;
    let verdict = checker::check(&history.text());
    judge(&verdict).context("at the end")?;
    world.wait_until_in_sync(plan).context("at the end")?;
    world.stop()?;
    let bytes = compare(world, plan)?;
    world.check_words()?;
    println!(
        "  end: {} acknowledged, {} read, {} unknown, {bytes} bytes the same everywhere; {:.0} s",
        verdict.acknowledged,
        verdict.read,
        verdict.unknown,
        begin.elapsed().as_secs_f64()
    );
    summary.acknowledged += verdict.acknowledged;
    summary.read += verdict.read;
    summary.refused += verdict.refused;
    summary.unknown += verdict.unknown;
    summary.doubled += verdict.doubled_by_sending_again;
    if plants { plant(world, plan, history) } else { Ok(()) }
}

/// Faults, some time, and everything well again.
fn round(
    world: &mut World<'_>,
    load: &mut Load,
    plan: &Plan,
    faults: &[Fault],
    dice: &mut Dice,
    history: &Arc<History>,
) -> Result<Verdict> {
    if dice.once_in(3) {
        load.seek()?;
    }
    for fault in faults {
        history.tell("rounds", &format!("fault ok {fault}"));
        fault.apply(world, dice).with_context(|| format!("{fault}"))?;
        load.send_by_kcat();
        thread::sleep(Duration::from_millis(dice.below(700) as u64));
    }
    let end = Instant::now() + Duration::from_millis(500 + dice.below(2500) as u64);
    while Instant::now() < end {
        load.listen()?;
        thread::sleep(Duration::from_millis(50));
    }
    for fault in faults.iter().rev() {
        fault.heal(world).with_context(|| format!("the end of {fault}"))?;
    }
    history.tell("rounds", "healed ok");
    world.start_all()?;
    world.wait_until_in_sync(plan)?;
    history.tell("rounds", "synced ok");
    load.wait_until_all_go_on().with_context(|| world.cluster.explanation())?;
    // A replica that only hadn't been found out yet isn't in sync any more by now.
    world.wait_until_in_sync(plan)?;
    world.check_words()?;
    Ok(checker::check(&history.text()))
}

fn judge(verdict: &Verdict) -> Result<()> {
    let told = verdict.anomalies.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    ensure!(verdict.found == 0, "{} anomalies:\n  {told}", verdict.found);
    ensure!(verdict.acknowledged > 0 && verdict.read > 0, "nothing happened");
    Ok(())
}

/// What all replicas of each partition have on their disks is the same; how many bytes.
fn compare(world: &World<'_>, plan: &Plan) -> Result<usize> {
    let mut bytes = 0;
    for topic in &plan.topics {
        for (partition, replicas) in topic.replicas.iter().enumerate() {
            let folders: Vec<&Path> = replicas.iter().map(|id| world.folder(*id as usize - 1).as_path()).collect();
            bytes += files::compare(&folders, &format!("{}-{partition}", topic.name))?;
        }
    }
    for partition in 0..PARTITIONS {
        let name = format!("__consumer_offsets-{partition}");
        let folders: Vec<&Path> = (0..world.len()).map(|place| world.folder(place).as_path()).collect();
        let folders: Vec<&Path> = folders.into_iter().filter(|folder| folder.join(&name).is_dir()).collect();
        ensure!(folders.len() == 3, "{name} lies in {folders:?}");
        bytes += files::compare(&folders, &name)?;
    }
    Ok(bytes)
}

/// With the nodes stopped: one partition's log is cut on all its replicas, in another a record is altered. The checker has
/// to find both.
fn plant(world: &mut World<'_>, plan: &Plan, history: &Arc<History>) -> Result<()> {
    let topic = &plan.topics[0];
    for id in &topic.replicas[0] {
        files::cut_last_batch(&world.folder(*id as usize - 1).join(format!("{}-0", topic.name)))?;
    }
    for id in &topic.replicas[1] {
        files::alter_first_batch(&world.folder(*id as usize - 1).join(format!("{}-1", topic.name)))?;
    }
    world.cluster.start()?;
    world.wait_until_in_sync(plan)?;
    let before = history.text();
    let before: String =
        before.lines().filter(|line| line.split(' ').nth(1) != Some("final")).map(|line| format!("{line}\n")).collect();
    let topics: Vec<&str> = plan.topics.iter().map(|topic| topic.name).collect();
    let file = paths::work()?.join("rounds").join("planted");
    let again = History::new(&file)?;
    programs::read_all(&world.cluster.bootstrap(), &topics, &again)?;
    fs::remove_file(file)?;
    let verdict = checker::check(&(before + &again.text()));
    for kind in [Kind::Lost, Kind::Changed] {
        ensure!(verdict.has(kind), "{kind:?} wasn't found, but {:?}", verdict.anomalies);
    }
    println!(
        "  planted faults were found: {}",
        verdict.anomalies.iter().map(|it| format!("\n    {it}")).collect::<String>()
    );
    world.stop()
}

/// Keeps what explains a failure: the histories are there already; the nodes' logs, settings and partitions.
fn keep(world: &mut World<'_>, folder: &Path) -> Result<()> {
    for place in 0..world.len() {
        let target = folder.join(format!("node-{}", place + 1));
        fs::create_dir_all(&target)?;
        let node = world.node(place)?;
        fs::write(target.join("log"), node.words()?)?;
        fs::copy(node.properties(), target.join("server.properties"))?;
        if node.is_started() {
            node.kill()?;
        }
        let metadata = node.metadata_folder();
        for from in [world.folder(place).clone(), metadata] {
            copy(&from, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &PathBuf, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-r", "--sparse=always"]).arg(from).arg(to).status()?;
    if !status.success() {
        bail!("{} couldn't be copied", from.display());
    }
    Ok(())
}
