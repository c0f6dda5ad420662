//! The command line of the deterministic world.

use std::process::ExitCode;

use simulations::fleet;

const USAGE: &str = "usage: simulations run --seeds N [--from S]\n       simulations hunt --seeds N\n       simulations replay SEED";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["run", "--seeds", seeds] => run(seeds, "1"),
        ["run", "--seeds", seeds, "--from", from] | ["run", "--from", from, "--seeds", seeds] => {
            run(seeds, from)
        }
        ["hunt", "--seeds", seeds] => hunt(seeds),
        ["replay", seed] => replay(seed),
        _ => misused(),
    }
}

#[expect(clippy::print_stdout, reason = "its result")]
fn run(seeds: &str, from: &str) -> ExitCode {
    let (Ok(seeds), Ok(from)) = (seeds.parse(), from.parse()) else { return misused() };
    let total = fleet::play_all(from, seeds);
    print!("{total}");
    if total.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Succeeds if a violation is found: for a build that is broken on purpose.
#[expect(clippy::print_stdout, reason = "its result")]
fn hunt(seeds: &str) -> ExitCode {
    let Ok(seeds) = seeds.parse::<u64>() else { return misused() };
    let found = (1..=seeds).find_map(|seed| Some((seed, fleet::play(seed, false).violation?)));
    match &found {
        Some((seed, violation)) => println!("caught by seed {seed}: {violation}"),
        None => println!("{seeds} seeds violate nothing: the mistake in this build is not found"),
    }
    if found.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "its result")]
fn replay(seed: &str) -> ExitCode {
    let Ok(seed) = seed.parse() else { return misused() };
    let run = fleet::play(seed, true);
    run.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {} events, trace {}", run.events, run.hash);
    if run.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
