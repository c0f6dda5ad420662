//! `kubebus ping`: ICMP echo between two addresses of the overlay, with the path below it.

mod echo;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use self::echo::Heard;
pub(super) use self::echo::{Echo, EchoError};
use super::cli::Place;
use super::commands::{block_on, say};
use super::exit::Exit;
use super::route::{find, link_line};

#[derive(Debug, Args)]
pub struct PingArgs {
    /// A node's name, or an address on the overlay
    #[arg(value_name = "NODE|ADDRESS")]
    pub to: String,
    /// How many echo requests, up to 1000
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// From one to the next
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,
    #[command(flatten)]
    pub place: Place,
}

/// A thin link must not be filled by it.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Longer is no longer ping.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_fit = (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval);
    if is_fit { Ok(interval) } else { Err("from 10ms to 1m".to_owned()) }
}

/// How long the last answer may take: three times the round trip over two satellites.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Outside of the runtime: it waits for its socket.
pub(super) fn run(PingArgs { to, count, interval, place }: PingArgs) -> Result<Exit> {
    let query = json!({ "to": to, "protocol": "icmp" });
    let look = || block_on(find(&place, &query));
    let way = look()?;
    let address = |field: &str| -> Result<IpAddr> {
        way[field].as_str().unwrap_or_default().parse().context("the node's answer")
    };
    let (from, target) = (address("from")?, address("address")?);
    let echo = Echo::open(from, target)?;
    say(&format!("ping {target} ({}) from {from}", way["owner"].as_str().unwrap_or_default()))?;
    let tally = probe(&echo, count, (interval, LAST_WAIT), &mut |line| say(&line))?;
    // The link's figures as they are after the probes.
    let way = look().unwrap_or(way);
    say(&format!("--- {target}\n{}\n{}", tally.summary(), path(&way)))?;
    if tally.answered() > 0 {
        return Ok(Exit::Ok);
    }
    eprintln!("kubebus: no answer from {target}: {}", why(&way));
    Ok(Exit::Unreachable)
}

/// Tells each answer as it comes. `last` is how long the answers may take that are missing after the last request.
pub(super) fn probe(
    echo: &Echo,
    count: u16,
    (interval, last): (Duration, Duration),
    tell: &mut dyn FnMut(String) -> Result<()>,
) -> Result<Tally> {
    let start = Instant::now();
    let mut tally = Tally::default();
    for seq in 1..=count {
        tally.handle_sent(start.elapsed());
        if let Err(error) = echo.send(seq) {
            tell(format!("seq={seq} not sent: {error}"))?;
        }
        let is_last = seq == count;
        let until = Instant::now() + if is_last { last.max(interval) } else { interval };
        // What is heard until then, or until all is answered that ever will be sent.
        while !(is_last && tally.is_complete()) {
            match echo.hear(until)? {
                Heard::Nothing => break,
                Heard::Other => {}
                Heard::Refused(why) => tell(format!("from the way: {why}"))?,
                Heard::Answer(seq) => {
                    if let Some(time) = tally.handle_answer(seq, start.elapsed()) {
                        tell(format!("seq={seq} time={} ms", millis(time)))?;
                    }
                }
            }
        }
    }
    Ok(tally)
}

/// Which request was answered when.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Since the start, by sequence number, which begins with 1.
    sent: Vec<Duration>,
    times: Vec<Option<Duration>>,
}

impl Tally {
    fn handle_sent(&mut self, at: Duration) {
        self.sent.push(at);
        self.times.push(None);
    }

    /// The round trip; `None` for an answer that came before, or to what was not asked.
    fn handle_answer(&mut self, seq: u16, at: Duration) -> Option<Duration> {
        let index = usize::from(seq).checked_sub(1)?;
        let (sent, time) = (self.sent.get(index)?, self.times.get_mut(index)?);
        if time.is_some() {
            return None;
        }
        *time = Some(at.saturating_sub(*sent));
        *time
    }

    pub(super) fn answered(&self) -> usize {
        self.times.iter().flatten().count()
    }

    fn is_complete(&self) -> bool {
        self.answered() == self.times.len()
    }

    /// The mean of those that were answered.
    pub(super) fn mean(&self) -> Option<Duration> {
        let answered = u32::try_from(self.answered()).unwrap_or(u32::MAX);
        self.times.iter().flatten().sum::<Duration>().checked_div(answered)
    }

    fn summary(&self) -> String {
        let (sent, answered) = (self.sent.len(), self.answered());
        let loss = 100.0 * (sent - answered) as f64 / sent.max(1) as f64;
        let counted = format!("{sent} sent, {answered} answered, {loss:.0} % lost");
        let times = || self.times.iter().flatten().copied();
        let (Some(min), Some(mean), Some(max)) = (times().min(), self.mean(), times().max()) else {
            return counted;
        };
        format!("{counted}\nmin/avg/max {}/{}/{} ms", millis(min), millis(mean), millis(max))
    }
}

pub(super) fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

fn path(way: &Value) -> String {
    match way["next_hop"]["peer"].as_str() {
        Some(peer) => format!("path: {peer} at {}", link_line(&way["link"])),
        None => "path: it lies behind this node".to_owned(),
    }
}

/// The likeliest cause of silence: a link that is down, else the policy, else the host itself.
pub(super) fn why(way: &Value) -> &str {
    let policy = &way["policy"];
    let because = policy["because"].as_str().filter(|_| policy["decision"] != "allow");
    way["problem"].as_str().or(because).unwrap_or("the host is down, or does not answer pings")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn each_request_is_answered_once_also_late() {
        let mut tally = Tally::default();
        tally.handle_sent(ms(0));
        tally.handle_sent(ms(1000));
        tally.handle_sent(ms(2000));
        assert_eq!(tally.handle_answer(2, ms(1030)), Some(ms(30)));
        assert_eq!(tally.handle_answer(1, ms(1050)), Some(ms(1050)));
        assert_eq!(tally.handle_answer(2, ms(1060)), None, "a duplicate");
        assert_eq!((tally.handle_answer(0, ms(1)), tally.handle_answer(9, ms(1))), (None, None));
        assert!(!tally.is_complete());
        assert_eq!(tally.summary(), "3 sent, 2 answered, 33 % lost\nmin/avg/max 30.00/540.00/1050.00 ms");
    }

    #[test]
    fn without_an_answer_there_are_no_times() {
        let mut tally = Tally::default();
        tally.handle_sent(ms(0));
        assert_eq!(tally.summary(), "1 sent, 0 answered, 100 % lost");
    }

    #[test]
    fn silence_is_explained_by_the_link_then_the_policy_then_the_host() {
        let way = |problem: Value, decision: &str| json!({ "problem": problem, "policy": { "decision": decision, "because": "no access policy" } });
        assert_eq!(why(&way(json!("edge/b is away"), "deny")), "edge/b is away");
        assert_eq!(why(&way(Value::Null, "deny")), "no access policy");
        assert_eq!(why(&way(Value::Null, "unknown")), "no access policy");
        assert!(why(&way(Value::Null, "allow")).starts_with("the host is down"));
    }

    #[test]
    fn an_interval_has_bounds() {
        assert_eq!(parse_interval("200ms"), Ok(ms(200)));
        for text in ["1ms", "2m", "soon"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
