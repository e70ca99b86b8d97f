//! Runs clusters from seeds until something breaks.

use clap::Parser;
use sim::canary::Canary;
use sim::report::{COMMIT, Report, Totals};
use sim::run::{Options, plan_of, run, run_plan};
use sim::shape::Profile;
use sim::world::Failure;
use std::io::{IsTerminal, Write};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// How often progress is shown on a terminal.
const SHOWN_EVERY: Duration = Duration::from_secs(1);
/// And how often it is told elsewhere.
const TOLD_EVERY: Duration = Duration::from_secs(60);

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
    let shared = Shared { seeds: Mutex::new(seeds), progress: Mutex::default() };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| shared.work(options, args.keep_going, deadline, start));
        }
    });
    let totals = &lock(&shared.progress).totals;
    progress_line(totals, start);
    let wall_s = start.elapsed().as_secs_f64();
    println!("\n\n{}", totals.table(options, COMMIT, wall_s));
    // A canary is only looked for; nobody has to explain it.
    let first = totals.failures.first_key_value().filter(|_| !args.keep_going && args.canary.is_none());
    if let Some((seed, failure)) = first {
        eprintln!("{}", Report::of(*seed, options, failure.clone()));
    }
    if totals.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the threads share.
struct Shared {
    seeds: Mutex<RangeInclusive<u64>>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    totals: Totals,
    shown: Option<Instant>,
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
            if is_over || (!keep_going && !lock(&self.progress).totals.failures.is_empty()) {
                return;
            }
            let Some(seed) = lock(&self.seeds).next() else { return };
            let outcome = run(seed, options);
            if let Some(failure) = &outcome.failure {
                eprintln!("\nseed {seed} of profile {} at commit {}: {failure}", options.profile, COMMIT);
            }
            let mut progress = lock(&self.progress);
            let interval = if std::io::stdout().is_terminal() { SHOWN_EVERY } else { TOLD_EVERY };
            progress.totals.add(seed, &outcome.figures, outcome.failure);
            if progress.shown.is_none_or(|shown| shown.elapsed() >= interval) {
                progress.shown = Some(Instant::now());
                progress_line(&progress.totals, start);
            }
        }
    }
}

/// On a terminal the line is written anew in its place; elsewhere, such as in a file, each stands for itself.
fn progress_line(totals: &Totals, start: Instant) {
    let (before, after) = if std::io::stdout().is_terminal() { ("\r", "   ") } else { ("", "\n") };
    print!(
        "{before}{} seeds, {:.1} seeds/s, {:.2} virtual hours, {} events, {} operations checked, {} faults{after}",
        totals.seeds,
        totals.seeds as f64 / start.elapsed().as_secs_f64(),
        totals.hours(),
        totals.figures.events,
        totals.figures.operations,
        totals.faults(),
    );
    // Nobody reads it: nothing is lost.
    let _ = std::io::stdout().flush();
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
