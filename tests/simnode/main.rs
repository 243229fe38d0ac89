//! `simnode`: runs of whole nodes, by seed or for a while.

#[cfg(ringlog_sim)]
#[allow(clippy::disallowed_methods, reason = "how long runs take is told, and fresh seeds come from the clock")]
mod hunt {
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use clap::Parser;
    use ringlog_ring::sim::SECOND;
    use ringlog_simnode_tests::run::Outcome;
    use ringlog_simnode_tests::scenario::Scenario;
    use ringlog_simnode_tests::shrink::Parts;
    use ringlog_simnode_tests::story;

    /// Runs of whole nodes in a simulated world.
    #[derive(Parser)]
    struct Options {
        /// What to run, one after the other: `nodes` if nothing is named.
        scenarios: Vec<Scenario>,
        /// Run this seed, and print what it is like.
        #[arg(long, conflicts_with_all = ["seeds", "seconds", "from"])]
        seed: Option<u64>,
        /// With `--seed`: tell what happens, line by line.
        #[arg(long, requires = "seed")]
        trace: bool,
        /// With `--seed`: leave out parts of its plan, as in `faults:3,5`.
        #[arg(long, requires = "seed")]
        without: Vec<Parts>,
        /// Print the hash of all that happens for each seed.
        #[arg(long, requires = "from")]
        hashes: bool,
        /// Run so many seeds.
        #[arg(long)]
        seeds: Option<u64>,
        /// Run elections until so many epochs have had a leader.
        #[arg(long, conflicts_with_all = ["seed", "seeds", "seconds"])]
        elections: Option<u64>,
        /// Run seeds for so long.
        #[arg(long)]
        seconds: Option<u64>,
        /// Consecutive seeds from this one on, instead of fresh ones.
        #[arg(long)]
        from: Option<u64>,
        /// How many run at a time; as many as there are CPUs unless told otherwise.
        #[arg(long)]
        threads: Option<usize>,
        /// Stop at the first that fails.
        #[arg(long)]
        first: bool,
    }

    /// So many seeds of a hunt are shrunk.
    const SHRUNK_MAX: u64 = 3;

    /// What has come of all runs so far.
    #[derive(Default)]
    struct Totals {
        runs: AtomicU64,
        virtual_ns: AtomicU64,
        events: AtomicU64,
        answers: AtomicU64,
        elections: AtomicU64,
        failed: AtomicU64,
    }

    pub fn main() -> ExitCode {
        let mut options = Options::parse();
        if options.scenarios.is_empty() {
            let is_about_elections = options.elections.is_some();
            options.scenarios.push(if is_about_elections { Scenario::ELECTIONS } else { Scenario::DEFAULT });
        }
        let code = |is_fine: bool| if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        let mut scenarios = options.scenarios.iter().copied();
        match options.seed {
            // All of them, whatever comes of the first.
            Some(seed) => code(scenarios.filter(|scenario| !one(*scenario, seed, &options)).count() == 0),
            None if options.hashes => {
                scenarios.for_each(|scenario| print_hashes(scenario, &options));
                ExitCode::SUCCESS
            }
            None => {
                let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
                let first = options.from.unwrap_or(clock / 1_000 % 1_000_000_000_000);
                code(scenarios.all(|scenario| many(scenario, first, &options)))
            }
        }
    }

    /// A line for each seed: the same whatever the profile.
    fn print_hashes(scenario: Scenario, options: &Options) {
        let first = options.from.unwrap_or(0);
        for seed in first..first + options.seeds.unwrap_or(3) {
            println!("{scenario} {seed} {:016x}", scenario.plan(seed, &[]).run(|_| ()).trace_hash);
        }
    }

    /// Prints how to run what is left of a seed that fails; not where that is what is wanted.
    fn tell_again(scenario: Scenario, seed: u64, is_shrunk: bool) {
        println!("again, as a story: {}", scenario.again(seed, &[]));
        if is_shrunk && std::env::var_os("RINGLOG_MUTANT").is_none() {
            let parts = scenario.shrink(seed);
            if !parts.is_empty() {
                println!("seed {seed} fails also with less: {}", scenario.again(seed, &parts));
            }
        }
    }

    /// Whether nothing was found.
    fn one(scenario: Scenario, seed: u64, options: &Options) -> bool {
        let traced = options.trace;
        let plan = scenario.plan(seed, &options.without);
        println!("{plan:#?}");
        if traced {
            story::print_logs();
        }
        let begun = Instant::now();
        let outcome = plan.run(|world| {
            if traced {
                story::tell(world);
            }
        });
        println!("{outcome:#?}");
        let (took, virtual_s) = (begun.elapsed().as_secs_f64(), outcome.took_ns as f64 / SECOND as f64);
        println!("{virtual_s:.1} virtual seconds in {took:.1} s: {:.0} a second", virtual_s / took);
        for violation in &outcome.violations {
            println!("FAILED {scenario} seed {seed}: {violation}");
        }
        if outcome.violations.is_empty() {
            return true;
        }
        if !traced && options.without.is_empty() {
            tell_again(scenario, seed, true);
        }
        false
    }

    /// Whether nothing was found. When it is about time, each scenario has its share of it.
    fn many(scenario: Scenario, first: u64, options: &Options) -> bool {
        let begun = Instant::now();
        let limit = options.seconds.map(Duration::from_secs).map(|all| all / options.scenarios.len() as u32);
        let is_bounded = limit.is_some() || options.elections.is_some();
        let seeds = options.seeds.unwrap_or(if is_bounded { u64::MAX } else { 100 });
        let (next, is_over, totals, output) =
            (AtomicU64::new(0), AtomicBool::new(false), Totals::default(), Mutex::new(()));
        let has_enough = || options.elections.is_some_and(|wanted| totals.elections.load(Ordering::Relaxed) >= wanted);
        let work = || {
            while !is_over.load(Ordering::Relaxed) && !has_enough() && limit.is_none_or(|limit| begun.elapsed() < limit)
            {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= seeds {
                    return;
                }
                let seed = first.wrapping_add(number);
                let outcome = scenario.plan(seed, &[]).run(|_| ());
                if totals.add(scenario, seed, &outcome, &output) && options.first {
                    is_over.store(true, Ordering::Relaxed);
                }
            }
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..options.threads.unwrap_or(cpus) {
                scope.spawn(work);
            }
        });
        totals.print(scenario, first, begun.elapsed())
    }

    impl Totals {
        /// Says whether it failed.
        fn add(&self, scenario: Scenario, seed: u64, outcome: &Outcome, output: &Mutex<()>) -> bool {
            self.runs.fetch_add(1, Ordering::Relaxed);
            self.virtual_ns.fetch_add(outcome.took_ns, Ordering::Relaxed);
            self.events.fetch_add(outcome.events, Ordering::Relaxed);
            self.answers.fetch_add(outcome.answers, Ordering::Relaxed);
            self.elections.fetch_add(outcome.elections, Ordering::Relaxed);
            let Some(violation) = outcome.violations.first() else { return false };
            let failed = self.failed.fetch_add(1, Ordering::Relaxed);
            let _turn = output.lock();
            println!("FAILED {scenario} seed {seed}: {}", violation.replace('\n', " "));
            tell_again(scenario, seed, failed < SHRUNK_MAX);
            true
        }

        /// Says whether nothing was found.
        fn print(&self, scenario: Scenario, first: u64, took: Duration) -> bool {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let (virtual_s, took_s) = (read(&self.virtual_ns) as f64 / SECOND as f64, took.as_secs_f64());
            println!(
                "{scenario}: {} runs from seed {first} on, {virtual_s:.0} virtual seconds in {took_s:.0} s ({:.0} a second), \
                 {} events, {} answers, {} elections, {} failed",
                read(&self.runs),
                virtual_s / took_s,
                read(&self.events),
                read(&self.answers),
                read(&self.elections),
                read(&self.failed)
            );
            read(&self.failed) == 0
        }
    }
}

/// A run is made of many small pieces of memory.
#[cfg(ringlog_sim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(ringlog_sim)]
fn main() -> std::process::ExitCode {
    hunt::main()
}

#[cfg(not(ringlog_sim))]
fn main() {
    println!("this is of use only when built with --cfg ringlog_sim: cargo xtask simnode");
}
