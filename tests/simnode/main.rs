//! `simnode`: runs of whole nodes, by seed or for a while.

#[cfg(ringlog_sim)]
mod hunt {
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use clap::Parser;
    use ringlog_ring::sim::SECOND;
    use ringlog_simnode_tests::plan::Plan;
    use ringlog_simnode_tests::run::{Outcome, run};
    use ringlog_simnode_tests::shrink::{Parts, again, plan_without, shrink};
    use ringlog_simnode_tests::story;

    /// Runs of whole nodes in a simulated world.
    #[derive(Parser)]
    struct Options {
        /// What to run; there is one thing.
        #[arg(default_value = "nodes")]
        scenario: String,
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
        failed: AtomicU64,
    }

    pub fn main() -> ExitCode {
        let options = Options::parse();
        match options.seed {
            Some(seed) => one(seed, &options),
            None if options.hashes => hashes(&options),
            None => many(&options),
        }
    }

    /// A line for each seed: the same whatever the profile.
    fn hashes(options: &Options) -> ExitCode {
        let first = options.from.unwrap_or(0);
        for seed in first..first + options.seeds.unwrap_or(3) {
            println!("{seed} {:016x}", run(&Plan::of(seed), |_| ()).trace_hash);
        }
        ExitCode::SUCCESS
    }

    /// Prints how to run what is left of a seed that fails; not where that is what is wanted.
    fn tell_again(seed: u64) {
        println!("again, as a story: {}", again(seed, &[]));
        if std::env::var_os("RINGLOG_MUTANT").is_none() {
            let parts = shrink(seed);
            if !parts.is_empty() {
                println!("seed {seed} fails also with less: {}", again(seed, &parts));
            }
        }
    }

    fn one(seed: u64, options: &Options) -> ExitCode {
        let traced = options.trace;
        let plan = plan_without(seed, &options.without);
        println!("{plan:#?}");
        if traced {
            story::print_logs();
        }
        let begun = Instant::now();
        let outcome = run(&plan, |world| {
            if traced {
                story::tell(world);
            }
        });
        println!("{outcome:#?}");
        let (took, virtual_s) = (begun.elapsed().as_secs_f64(), outcome.took_ns as f64 / SECOND as f64);
        println!("{virtual_s:.1} virtual seconds in {took:.1} s: {:.0} a second", virtual_s / took);
        for violation in &outcome.violations {
            println!("FAILED nodes seed {seed}: {violation}");
        }
        if outcome.violations.is_empty() {
            return ExitCode::SUCCESS;
        }
        if !traced && options.without.is_empty() {
            tell_again(seed);
        }
        ExitCode::FAILURE
    }

    fn many(options: &Options) -> ExitCode {
        let begun = Instant::now();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let first = options.from.unwrap_or(clock / 1_000 % 1_000_000_000_000);
        let limit = options.seconds.map(Duration::from_secs);
        let seeds = options.seeds.unwrap_or(if limit.is_some() { u64::MAX } else { 100 });
        let (next, is_over, totals, output) =
            (AtomicU64::new(0), AtomicBool::new(false), Totals::default(), Mutex::new(()));
        let work = || {
            while !is_over.load(Ordering::Relaxed) && limit.is_none_or(|limit| begun.elapsed() < limit) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= seeds {
                    return;
                }
                let seed = first.wrapping_add(number);
                let outcome = run(&Plan::of(seed), |_| ());
                if totals.add(seed, &outcome, &output) && options.first {
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
        totals.print(first, begun.elapsed())
    }

    impl Totals {
        /// Says whether it failed.
        fn add(&self, seed: u64, outcome: &Outcome, output: &Mutex<()>) -> bool {
            self.runs.fetch_add(1, Ordering::Relaxed);
            self.virtual_ns.fetch_add(outcome.took_ns, Ordering::Relaxed);
            self.events.fetch_add(outcome.events, Ordering::Relaxed);
            self.answers.fetch_add(outcome.answers, Ordering::Relaxed);
            let Some(violation) = outcome.violations.first() else { return false };
            let failed = self.failed.fetch_add(1, Ordering::Relaxed);
            let _turn = output.lock();
            println!("FAILED nodes seed {seed}: {}", violation.replace('\n', " "));
            match failed < SHRUNK_MAX {
                true => tell_again(seed),
                false => println!("again, as a story: {}", again(seed, &[])),
            }
            true
        }

        fn print(&self, first: u64, took: Duration) -> ExitCode {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let virtual_s = read(&self.virtual_ns) as f64 / SECOND as f64;
            println!(
                "{} runs from seed {first} on, {virtual_s:.0} virtual seconds ({:.0} a second), {} events, {} answers, {} \
                 failed",
                read(&self.runs),
                virtual_s / took.as_secs_f64(),
                read(&self.events),
                read(&self.answers),
                read(&self.failed)
            );
            if read(&self.failed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
