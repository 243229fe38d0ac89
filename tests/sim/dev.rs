use ringlog_sim_tests::{Scenario, Stats, run};
fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap();
    let scenario = match kind.as_str() {
        "e" => Scenario::Elections,
        "f" => Scenario::Faults,
        "l" => Scenario::Log,
        _ => panic!(),
    };
    let from: u64 = args.next().unwrap().parse().unwrap();
    let count: u64 = args.next().unwrap().parse().unwrap();
    let mut stats = Stats::default();
    let begin = std::time::Instant::now();
    let mut failed = 0;
    for seed in from..from + count {
        match run(scenario, seed, None) {
            Ok(of) => stats.add(&of),
            Err(failure) => {
                failed += 1;
                if count == 1 {
                    println!("{failure}");
                } else {
                    println!("{seed}: {}", failure.message);
                }
            }
        }
    }
    println!("{failed} failed; {:?} {stats:?}", begin.elapsed());
}
