//! Runs clusters from seeds until something breaks.

use clap::Parser;
use sim::canary::Canary;
use sim::run::{Options, last_lines, plan_of, run, run_plan, shorten};
use sim::shape::Profile;
use sim::world::{Failure, Kind};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tries to shorten the plan of a seed that fails.
const SHRINK_TRIES_MAX: usize = 200;
/// Lines of each process that are shown of a failure.
const LAST_LINES: usize = 12;

/// Runs whole clusters from seeds and looks whether what must hold holds.
#[derive(Parser)]
#[command(name = "sim")]
struct Args {
    /// So many seeds, from `--first` on.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Just this one.
    #[arg(long, conflicts_with_all = ["seeds", "first", "minutes"])]
    seed: Option<u64>,
    /// As many seeds as fit into so many minutes.
    #[arg(long, conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// How much is asked of each.
    #[arg(long, default_value = "light")]
    profile: Profile,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
    /// Goes on after a failure, which is then not shortened.
    #[arg(long)]
    keep_going: bool,
    /// Threads, each with seeds of its own; as many as there are processors.
    #[arg(long)]
    threads: Option<usize>,
    /// Switches a deliberate bug on, to see in how many seeds it is found.
    #[arg(long)]
    canary: Option<Canary>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options { profile: args.profile, canary: args.canary };
    // A panic of a core is caught and reported with its seed.
    let quiet = !args.trace && args.seed.is_none();
    if quiet {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if let (Some(seed), true) = (args.seed, args.trace) {
        let print = Box::new(|line: &str| println!("{line}"));
        let outcome = run_plan(seed, options, plan_of(seed, options), Some(print));
        println!("digest {:016x}, {} events", outcome.figures.digest, outcome.figures.events);
        return verdict(outcome.failure.as_ref());
    }
    let start = Instant::now();
    let seeds = match (args.seed, args.minutes) {
        (Some(seed), _) => seed..=seed,
        (None, Some(_)) => args.first..=u64::MAX,
        (None, None) => args.first..=args.first + args.seeds.saturating_sub(1),
    };
    let threads =
        args.threads.or_else(|| Some(std::thread::available_parallelism().ok()?.get())).unwrap_or(1);
    let deadline = args.minutes.map(|minutes| start + Duration::from_secs(60 * minutes));
    let shared = Shared { seeds: Mutex::new(seeds), totals: Mutex::default(), failures: Mutex::default() };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| shared.work(options, args.keep_going, deadline, start));
        }
    });
    let totals = lock(&shared.totals);
    totals.progress(start);
    println!("\n{}", totals.faults());
    let failures = lock(&shared.failures);
    println!("{}", by_kind(&failures));
    if let Some((seed, failure)) =
        failures.first_key_value().filter(|_| !args.keep_going && args.canary.is_none())
    {
        explain(*seed, options, failure);
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the threads share.
struct Shared {
    seeds: Mutex<RangeInclusive<u64>>,
    totals: Mutex<Totals>,
    failures: Mutex<BTreeMap<u64, Failure>>,
}

/// A thread that panicked while it held the lock left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn work(&self, options: Options, keep_going: bool, deadline: Option<Instant>, start: Instant) {
        loop {
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            // A canary is only looked for; nobody has to explain it.
            let keep_going = keep_going && options.canary.is_none();
            if is_over || (!keep_going && !lock(&self.failures).is_empty()) {
                return;
            }
            let Some(seed) = lock(&self.seeds).next() else { return };
            let outcome = run(seed, options);
            let mut totals = lock(&self.totals);
            totals.add(&outcome.figures);
            totals.progress_now_and_then(start);
            if let Some(failure) = outcome.failure {
                eprintln!("\nseed {seed} of profile {} at commit {}: {failure}", options.profile, commit());
                lock(&self.failures).insert(seed, failure);
            }
        }
    }
}

fn by_kind(failures: &BTreeMap<u64, Failure>) -> String {
    let count = |kind| failures.values().filter(|failure| failure.kind == kind).count();
    format!(
        "failures: {} of safety, {} of liveness, {} crashes",
        count(Kind::Safety),
        count(Kind::Liveness),
        count(Kind::Crash)
    )
}

fn verdict(failure: Option<&Failure>) -> ExitCode {
    match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn explain(seed: u64, options: Options, failure: &Failure) {
    let plan = shorten(seed, options, failure, SHRINK_TRIES_MAX);
    eprintln!("The faults that it takes ({} of {}):", plan.len(), plan_of(seed, options).len());
    for planned in &plan {
        eprintln!("  {planned}");
    }
    eprintln!("What each process did last:");
    for line in last_lines(seed, options, plan, LAST_LINES) {
        eprintln!("  {line}");
    }
    eprintln!("Again: cargo run --release -p sim -- --profile {} --seed {seed} [--trace]", options.profile);
}

/// The commit that runs.
fn commit() -> String {
    let said = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let said = said.ok().filter(|output| output.status.success());
    said.map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    virtual_us: u64,
    events: u64,
    operations: u64,
    faults: BTreeMap<&'static str, u64>,
    shown: Option<Instant>,
}

impl Totals {
    fn add(&mut self, figures: &sim::world::Figures) {
        self.seeds += 1;
        self.virtual_us += figures.virtual_us;
        self.events += figures.events;
        self.operations += figures.operations;
        for (kind, count) in &figures.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    fn progress_now_and_then(&mut self, start: Instant) {
        if self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_secs(1)) {
            self.shown = Some(Instant::now());
            self.progress(start);
        }
    }

    fn progress(&self, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        let hours = self.virtual_us as f64 / 3.6e9;
        print!(
            "\r{} seeds, {:.1} seeds/s, {hours:.2} virtual hours, {} events, {} operations checked, {} faults   ",
            self.seeds,
            self.seeds as f64 / seconds,
            self.events,
            self.operations,
            self.faults.values().sum::<u64>(),
        );
        // Nobody reads it: nothing is lost.
        let _ = std::io::stdout().flush();
    }

    fn faults(&self) -> String {
        let each: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!("faults: {}", each.join(", "))
    }
}
