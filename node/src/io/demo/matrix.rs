//! Who reaches whom over the overlay, and that nobody gets in through a NAT.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::io::Namespace;
use lab::io::probe::{EchoServer, ProbeError, ping, tcp_echo, udp_echo};

/// One host on the overlay.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// At most 11 characters, for the table.
    pub(super) label: String,
    pub(super) namespace: Namespace,
    /// IPv4, then IPv6.
    pub(super) addresses: [IpAddr; 2],
}

/// The echo port of all endpoints.
const PORT: u16 = 7007;

/// A relayed round trip takes 120 ms here, a lost packet must be tried again: RFC 1122's three tries.
const TIMEOUT: Duration = Duration::from_secs(2);
const TRIES: usize = 3;

/// What one endpoint got from another: UDP, TCP and ICMP over both families, and why not.
#[derive(Debug)]
struct Cell {
    failures: Vec<String>,
    round_trip: Duration,
}

/// All pairs.
#[derive(Debug)]
pub(super) struct Matrix {
    labels: Vec<String>,
    /// By source, then destination; `None` on the diagonal.
    cells: Vec<Vec<Option<Cell>>>,
}

/// Keeps the echo servers of all endpoints running while it lives.
#[derive(Debug)]
pub(super) struct Echoes {
    _servers: Vec<EchoServer>,
}

impl Echoes {
    pub(super) fn start(endpoints: &[Endpoint]) -> Result<Self> {
        let mut servers = Vec::new();
        for endpoint in endpoints {
            for address in endpoint.addresses {
                let started = EchoServer::start(&endpoint.namespace, SocketAddr::new(address, PORT));
                servers.push(started.with_context(|| format!("echo server at {}", endpoint.label))?);
            }
        }
        Ok(Self { _servers: servers })
    }
}

impl Matrix {
    /// Probes all pairs, the sources side by side.
    pub(super) fn probe(endpoints: &[Endpoint]) -> Result<Self> {
        let rows = std::thread::scope(|scope| {
            let probing: Vec<_> = endpoints
                .iter()
                .enumerate()
                .map(|(index, source)| scope.spawn(move || source.namespace.run(|| row(endpoints, index))))
                .collect();
            probing
                .into_iter()
                .map(|row| row.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .collect()
        });
        let rows: Vec<Result<_, _>> = rows;
        let cells = rows.into_iter().collect::<Result<_, _>>().context("enter a namespace")?;
        Ok(Self { labels: endpoints.iter().map(|e| e.label.clone()).collect(), cells })
    }

    /// Pairs, and those of them that failed in words.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (from, row) in self.labels.iter().zip(&self.cells) {
            for (to, cell) in self.labels.iter().zip(row) {
                let failures = cell.iter().flat_map(|cell| &cell.failures);
                found.extend(failures.map(|failure| format!("{from} to {to}: {failure}")));
            }
        }
        found
    }

    pub(super) fn pairs(&self) -> usize {
        self.labels.len() * self.labels.len().saturating_sub(1)
    }

    /// A table with the round trip of a ping in ms, or `no`.
    pub(super) fn render(&self) -> String {
        let mut out = format!("  {:<12}", "ping, ms");
        for label in &self.labels {
            let _ = write!(out, "{label:>12}");
        }
        for (label, row) in self.labels.iter().zip(&self.cells) {
            let _ = write!(out, "\n  {label:<12}");
            for cell in row {
                let text = match cell {
                    None => "-".to_owned(),
                    Some(cell) if cell.failures.is_empty() => {
                        format!("{:.1}", cell.round_trip.as_secs_f64() * 1e3)
                    }
                    Some(_) => "no".to_owned(),
                };
                let _ = write!(out, "{text:>12}");
            }
        }
        out
    }
}

fn row(endpoints: &[Endpoint], from: usize) -> Vec<Option<Cell>> {
    let probe = |(to, target): (usize, &Endpoint)| (to != from).then(|| cell(target));
    endpoints.iter().enumerate().map(probe).collect()
}

type Probe = fn(SocketAddr, Duration) -> Result<Duration, ProbeError>;

fn cell(target: &Endpoint) -> Cell {
    let mut cell = Cell { failures: Vec::new(), round_trip: Duration::ZERO };
    for address in target.addresses {
        let echo = SocketAddr::new(address, PORT);
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        match tried(|| ping(address, TIMEOUT)) {
            Ok(round_trip) if address.is_ipv4() => cell.round_trip = round_trip,
            Ok(_) => {}
            Err(error) => cell.failures.push(format!("{family} ping: {error}")),
        }
        let others: [(&str, Probe); 2] = [("UDP", udp_echo), ("TCP", tcp_echo)];
        for (protocol, probe) in others {
            if let Err(error) = tried(|| probe(echo, TIMEOUT)) {
                cell.failures.push(format!("{family} {protocol}: {error}"));
            }
        }
    }
    cell
}

fn tried(mut probe: impl FnMut() -> Result<Duration, ProbeError>) -> Result<Duration, ProbeError> {
    let mut outcome = probe();
    for _ in 1..TRIES {
        if outcome.is_ok() {
            break;
        }
        outcome = probe();
    }
    outcome
}

/// Tries to get from `outside` to a listener that stands at `private` behind a NAT, over its `public` address; returns
/// what got through.
pub(super) fn knock(
    outside: &Namespace,
    inside: &Namespace,
    private: std::net::Ipv4Addr,
    public: std::net::Ipv4Addr,
) -> Result<Vec<&'static str>> {
    /// Long enough for the round trip, short enough to wait for in vain.
    const PATIENCE: Duration = Duration::from_millis(700);
    let _server =
        EchoServer::start(inside, SocketAddr::new(private.into(), PORT)).context("listen behind the NAT")?;
    let target = SocketAddr::new(public.into(), PORT);
    let probe = || {
        let answers = [
            ("UDP", udp_echo(target, PATIENCE).is_ok()),
            ("TCP", tcp_echo(target, PATIENCE).is_ok()),
            ("ping", ping(target.ip(), PATIENCE).is_ok()),
        ];
        answers.into_iter().filter(|(_, answered)| *answered).map(|(name, _)| name).collect()
    };
    outside.run(probe).context("enter a namespace")
}
