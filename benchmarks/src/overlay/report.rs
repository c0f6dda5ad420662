//! The figures as tables.

use super::figures::{Figures, Metric, Way};
use super::peers::Peer;
use crate::table::{Table, count};

/// Streams over one way.
pub(super) fn streams(figures: &Figures, way: Way, peers: &[Peer]) -> Table {
    let cpu: &[Metric] = match way {
        Way::OneHop => &[Metric::CpuSender, Metric::CpuReceiver],
        Way::Relayed => &[Metric::CpuSender, Metric::CpuHub, Metric::CpuReceiver],
    };
    let mut table = Table::new(
        format!("overlay, {}, TCP in Mbit/s: {}", way.name(), path(way)),
        &[
            "",
            "1 stream",
            "least..most",
            "kubebus : it",
            "4",
            "reverse",
            "wire",
            "CPU s/GB",
            "MiB edge / cloud (anonymous)",
        ],
    );
    for peer in measured(figures, peers) {
        let of = |metric| figures.median(peer, way, metric);
        let least = figures.of(peer, way, Metric::Tcp).fold(f64::NAN, f64::min);
        let most = figures.of(peer, way, Metric::Tcp).fold(f64::NAN, f64::max);
        table.row([
            peer.name().to_owned(),
            shown(of(Metric::Tcp), count),
            format!("{}..{}", shown(least, count), shown(most, count)),
            shown(figures.ratio(Peer::KubeBus, peer, way, Metric::Tcp), two),
            shown(of(Metric::Tcp4), count),
            shown(of(Metric::Reverse), count),
            shown(of(Metric::WireTcp), count),
            cpu.iter().map(|metric| shown(of(*metric), two)).collect::<Vec<_>>().join(" / "),
            format!(
                "{} / {}",
                memory(of(Metric::ResidentEdge), of(Metric::AnonymousEdge)),
                memory(of(Metric::ResidentCloud), of(Metric::AnonymousCloud))
            ),
        ]);
    }
    table
}

/// Small packets and round trips over one way.
pub(super) fn packets(figures: &Figures, way: Way, peers: &[Peer]) -> Table {
    let mut table = Table::new(
        format!("overlay, {}: 64-byte datagrams, and round trips in ms", way.name()),
        &[
            "",
            "flood kpps",
            "kubebus : it",
            "lost at 50k/s",
            "at 100k/s",
            "idle",
            "99 of 100",
            "beside TCP",
            "99 of 100",
        ],
    );
    for peer in measured(figures, peers) {
        let of = |metric| figures.median(peer, way, metric);
        table.row([
            peer.name().to_owned(),
            shown(of(Metric::Flood), count),
            shown(figures.ratio(Peer::KubeBus, peer, way, Metric::Flood), two),
            shown(of(Metric::Loss50k), per_cent),
            shown(of(Metric::Loss100k), per_cent),
            shown(of(Metric::IdleMedian), two),
            shown(of(Metric::IdleP99), two),
            shown(of(Metric::LoadedMedian), two),
            shown(of(Metric::LoadedP99), two),
        ]);
    }
    table
}

fn measured(figures: &Figures, peers: &[Peer]) -> impl Iterator<Item = Peer> {
    peers.iter().copied().filter(|peer| figures.holds(*peer))
}

fn path(way: Way) -> &'static str {
    match way {
        Way::OneHop => "edge1 -> NAT -> cloud",
        Way::Relayed => "edge1 -> NAT -> cloud -> NAT -> edge2",
    }
}

/// One aim: what was reached, against what, and what it should be.
struct Aim {
    what: &'static str,
    reached: f64,
    aim: f64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    AtLeast,
    AtMost,
}

/// KubeBus against its aims.
pub(super) fn aims(figures: &Figures) -> Table {
    let mut table = Table::new("overlay: kubebus against its aims", &["", "reached", "aim", "met"]);
    for Aim { what, reached, aim, kind } in all_aims(figures) {
        let (words, met) = match kind {
            Kind::AtLeast => (format!("{aim} or more"), reached >= aim),
            Kind::AtMost => (format!("{aim} or less"), reached <= aim),
        };
        let met = if reached.is_nan() {
            "-"
        } else if met {
            "yes"
        } else {
            "no"
        };
        table.row([what.to_owned(), shown(reached, two), words, met.to_owned()]);
    }
    table
}

fn all_aims(figures: &Figures) -> Vec<Aim> {
    use Metric as M;
    let ours = |way, metric| figures.median(Peer::KubeBus, way, metric);
    let to = |peer, way, metric| figures.ratio(Peer::KubeBus, peer, way, metric);
    let (hop, rel) = (Way::OneHop, Way::Relayed);
    let ends = [
        ours(hop, M::CpuSender),
        ours(hop, M::CpuReceiver),
        ours(rel, M::CpuSender),
        ours(rel, M::CpuReceiver),
    ];
    let resident = [
        ours(hop, M::ResidentEdge),
        ours(rel, M::ResidentEdge),
        ours(hop, M::ResidentCloud),
        ours(rel, M::ResidentCloud),
    ];
    let least = |what, reached, aim| Aim { what, reached, aim, kind: Kind::AtLeast };
    let most = |what, reached, aim| Aim { what, reached, aim, kind: Kind::AtMost };
    vec![
        least("one TCP stream, one hop, to quincy", to(Peer::Quincy, hop, M::Tcp), 3.0),
        least("one TCP stream, relayed, to quincy", to(Peer::Quincy, rel, M::Tcp), 2.5),
        least("one TCP stream, one hop, to wireguard-go", to(Peer::WireguardGo, hop, M::Tcp), 12.0),
        least("one TCP stream, relayed, to wireguard-go", to(Peer::WireguardGo, rel, M::Tcp), 12.0),
        most("CPU seconds a GB, dearest end", worst(&ends), 0.75),
        most("CPU seconds a GB, relay", ours(rel, M::CpuHub), 1.1),
        least("wire: one TCP stream, one hop, to raw", to(Peer::Raw, hop, M::WireTcp), 0.45),
        least("64-byte datagrams received, one hop, to quincy", to(Peer::Quincy, hop, M::Flood), 1.2),
        least("64-byte datagrams received, relayed, to quincy", to(Peer::Quincy, rel, M::Flood), 1.2),
        most("idle round trip, relayed, 99 of 100, to quincy", to(Peer::Quincy, rel, M::IdleP99), 1.0),
        most("MiB resident under load, largest node", worst(&resident), 16.0),
    ]
}

/// The largest of those that were measured.
fn worst(of: &[f64]) -> f64 {
    of.iter().copied().fold(f64::NAN, f64::max)
}

fn shown(value: f64, format: impl Fn(f64) -> String) -> String {
    if value.is_finite() { format(value) } else { "-".to_owned() }
}

fn memory(resident: f64, anonymous: f64) -> String {
    if resident.is_finite() { format!("{} ({})", one(resident), one(anonymous)) } else { "-".to_owned() }
}

fn one(value: f64) -> String {
    format!("{value:.1}")
}

fn two(value: f64) -> String {
    format!("{value:.2}")
}

fn per_cent(value: f64) -> String {
    format!("{value:.1} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aim(figures: &Figures, what: &str) -> String {
        let table = aims(figures).to_string();
        let line = table.lines().find(|line| line.contains(what)).unwrap();
        line.split_whitespace().skip(what.split_whitespace().count()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let mut figures = Figures::default();
        figures.add(Peer::KubeBus, Way::OneHop, Metric::Tcp, 900.0);
        assert_eq!(aim(&figures, "one TCP stream, one hop, to quincy"), "- 3 or more -");
    }

    #[test]
    fn aims_are_held_against_medians_of_rounds() {
        let mut figures = Figures::default();
        for (ours, theirs) in [(900.0, 300.0), (9000.0, 100.0), (890.0, 290.0)] {
            figures.add(Peer::KubeBus, Way::OneHop, Metric::Tcp, ours);
            figures.add(Peer::Quincy, Way::OneHop, Metric::Tcp, theirs);
            figures.next_round();
        }
        figures.add(Peer::KubeBus, Way::Relayed, Metric::CpuHub, 1.2);
        assert_eq!(aim(&figures, "one TCP stream, one hop, to quincy"), "3.07 3 or more yes");
        assert_eq!(aim(&figures, "CPU seconds a GB, relay"), "1.20 1.1 or less no");
    }
}
