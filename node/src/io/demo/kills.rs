//! kill -9 of the cloud or an edge at random moments, over the live demo.

use std::time::Duration;

use anyhow::Result;
use bus::backoff::Jitter;

use super::report::Narrator;
use super::story::Story;
use super::{pause, stopped};

/// Up to this long a node lives before the next kill: some are killed while they start, some while they sync.
const LONGEST_LIFE: Duration = Duration::from_millis(2500);

/// After the last kill both sides have this long to agree: the longest wait of a dialler and some.
const QUIET: Duration = Duration::from_secs(90);

/// Kills `times` times; afterwards both sides must agree, and nothing acknowledged may be missing.
pub(super) fn run(story: &mut Story, times: u32) -> Result<()> {
    let mut dice = Jitter::new(u64::from(std::process::id()));
    let mut counts = [0u32; 3];
    let mut wished = 0u32;
    story.narrator().say(format_args!("{times} times kill -9 of the cloud or an edge at a random moment"));
    for kill in 1..=times {
        if stopped() {
            return Ok(());
        }
        pause(dice.up_to(LONGEST_LIFE));
        wished += u32::from(wish(story, kill));
        let victim = (dice.next_u64() % 3) as usize;
        counts[victim] += 1;
        let member = if victim == 2 { &mut story.cloud } else { &mut story.edges[victim] };
        member.kill()?;
        member.launch()?;
        if kill % 10 == 0 {
            progress(story.narrator(), kill, times);
        }
    }
    for member in story.edges.iter_mut().chain([&mut story.cloud]) {
        member.wait_ready()?;
    }
    let took = story.wait_for(QUIET, |story| story.agree())?;
    let seen = format!(
        "{} kills of edge a, {} of edge b, {} of the cloud; {wished} set points accepted; agreed {}",
        counts[0],
        counts[1],
        counts[2],
        took.map_or("never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()))
    );
    story.check(took.is_some(), "after kill -9 at random moments both sides agree", seen);
    let last = LAST_WISH.load(std::sync::atomic::Ordering::Relaxed);
    let held = story.cloud.twin("water/valve", "setpoint")?["desired"].as_f64();
    let expected = setpoint(last);
    story.check(
        last == 0 || held == Some(expected),
        "no accepted set point was lost",
        format_args!("the last accepted was {expected}, the cloud holds {held:?}"),
    );
    Ok(())
}

/// The number of the last wish that the cloud accepted.
static LAST_WISH: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Sets the set point to a value of its own; whether the cloud accepted it. A cloud that was just killed does not.
fn wish(story: &Story, number: u32) -> bool {
    let value = setpoint(number).to_string();
    let accepted = story.cloud.ask(&["twin", "set", "water/valve", "setpoint", &value]).is_ok();
    if accepted {
        LAST_WISH.store(number, std::sync::atomic::Ordering::Relaxed);
    }
    accepted
}

/// A value that tells which wish it was.
fn setpoint(number: u32) -> f64 {
    2.0 + f64::from(number) / 128.0
}

fn progress(narrator: &Narrator, kill: u32, times: u32) {
    narrator.say(format_args!("{kill} of {times} kills"));
}
