//! The loads, each bounded in time, and what is read off them.

use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::figures::{Metric, Way};
use super::peers::{End, Tunnel};
use super::space::{Process, Resident, Space, finish};
use super::topology::Sites;
use crate::table::percentile;

/// iperf3's port.
const PORT: u16 = 5201;

/// Beyond the time that a load was given: for its connections to open and close over a tunnel that drops.
const SLACK: Duration = Duration::from_secs(30);

/// Of loads other than the one TCP stream.
const SHORT_SECONDS: u64 = 2;

const SMALL: usize = 64;

/// Figures as they are taken, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) figures: Vec<(Metric, f64)>,
    pub(super) failures: Vec<String>,
}

impl Taken {
    fn add(&mut self, what: &str, measured: Result<Vec<(Metric, f64)>>) {
        match measured {
            Ok(figures) => self.figures.extend(figures),
            Err(error) => self.failures.push(format!("{what}: {error:#}")),
        }
    }
}

/// One way through one tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) sites: Sites<'a>,
    pub(super) tunnel: &'a Tunnel<'a>,
    pub(super) way: Way,
    /// Of the one TCP stream.
    pub(super) seconds: u64,
}

impl<'a> Course<'a> {
    fn near(self) -> &'a Space {
        &self.sites.edges[0]
    }

    fn far(self) -> (&'a Space, &'a End) {
        match self.way {
            Way::OneHop => (self.sites.cloud, &self.tunnel.cloud),
            Way::Relayed => (&self.sites.edges[1], &self.tunnel.edges[1]),
        }
    }

    fn target(self) -> Ipv4Addr {
        self.far().1.address
    }

    /// Everything, on cables with offloads.
    pub(super) fn measure(self) -> Taken {
        let mut taken = Taken::default();
        taken.add("idle RTT", self.idle());
        taken.add("one TCP stream", self.one_stream());
        taken.add("four TCP streams", self.throughput(Metric::Tcp4, &["-P", "4"], SHORT_SECONDS));
        taken.add("TCP in reverse", self.throughput(Metric::Reverse, &["-R"], SHORT_SECONDS));
        taken.add("64 bytes, 50,000/s", self.small(Some(50_000)));
        taken.add("64 bytes, 100,000/s", self.small(Some(100_000)));
        taken.add("64 bytes, flood", self.small(None));
        taken
    }

    /// On cables without.
    pub(super) fn measure_wire(self) -> Taken {
        let mut taken = Taken::default();
        taken.add("one TCP stream, wire", self.throughput(Metric::WireTcp, &[], self.seconds));
        taken
    }

    fn idle(self) -> Result<Vec<(Metric, f64)>> {
        let ping = self.ping(&["-i", "0.002", "-c", "800", "-w", "10"])?;
        let trips = round_trips(&finish(ping, SLACK + Duration::from_secs(10), || {})?)?;
        Ok(vec![(Metric::IdleMedian, percentile(&trips, 50)), (Metric::IdleP99, percentile(&trips, 99))])
    }

    pub(super) fn one_stream(self) -> Result<Vec<(Metric, f64)>> {
        let before = self.cpu()?;
        let ping = self.ping(&["-i", "0.02", "-w", &self.seconds.to_string()])?;
        let mut most = [Resident::default(); 2];
        let report = self.iperf(&["-C", "cubic"], self.seconds, || self.watch(&mut most));
        let trips = finish(ping, SLACK, || {}).and_then(|words| round_trips(&words));
        let (report, after) = (report?, self.cpu()?);
        let sum = &report["end"]["sum_received"];
        let (rate, bytes) = (number(&sum["bits_per_second"])?, number(&sum["bytes"])?);
        ensure!(bytes > 0.0, "nothing came through");
        let mut figures = vec![(Metric::Tcp, rate / 1e6)];
        for (metric, before, after) in self.costs(before, after) {
            figures.push((metric, (after - before) / (bytes / 1e9)));
        }
        if let Ok(trips) = trips {
            figures.push((Metric::LoadedMedian, percentile(&trips, 50)));
            figures.push((Metric::LoadedP99, percentile(&trips, 99)));
        }
        figures.extend(memory(most));
        Ok(figures)
    }

    /// Seconds used by edge1, cloud and edge2; none where no program is.
    fn cpu(self) -> Result<[Option<f64>; 3]> {
        let of = |end: Option<&End>| end.and_then(|end| end.process.as_ref()).map(Process::cpu).transpose();
        Ok([of(self.tunnel.edges.first())?, of(Some(&self.tunnel.cloud))?, of(self.tunnel.edges.get(1))?])
    }

    fn costs(self, before: [Option<f64>; 3], after: [Option<f64>; 3]) -> Vec<(Metric, f64, f64)> {
        let roles = match self.way {
            Way::OneHop => [Some(Metric::CpuSender), Some(Metric::CpuReceiver), None],
            Way::Relayed => [Some(Metric::CpuSender), Some(Metric::CpuHub), Some(Metric::CpuReceiver)],
        };
        let all = roles.into_iter().zip(before).zip(after);
        all.filter_map(|((role, before), after)| Some((role?, before?, after?))).collect()
    }

    /// Keeps the most memory that edge1 and the cloud were seen with.
    fn watch(self, most: &mut [Resident; 2]) {
        let ends = [self.tunnel.edges.first(), Some(&self.tunnel.cloud)];
        for (most, end) in most.iter_mut().zip(ends) {
            let process = end.and_then(|end| end.process.as_ref());
            if let Some(Ok(now)) = process.map(Process::resident)
                && now.all > most.all
            {
                *most = now;
            }
        }
    }

    fn throughput(self, metric: Metric, args: &[&str], seconds: u64) -> Result<Vec<(Metric, f64)>> {
        let args = [&["-C", "cubic"], args].concat();
        let report = self.iperf(&args, seconds, || {})?;
        Ok(vec![(metric, number(&report["end"]["sum_received"]["bits_per_second"])? / 1e6)])
    }

    /// Datagrams of 64 bytes, so many a second or as many as go in.
    fn small(self, a_second: Option<u64>) -> Result<Vec<(Metric, f64)>> {
        let bits = a_second.map_or(0, |packets| packets * SMALL as u64 * 8).to_string();
        let size = SMALL.to_string();
        let report = self.iperf(&["-u", "-l", &size, "-b", &bits], SHORT_SECONDS, || {})?;
        let sum = &report["end"]["sum"];
        let (packets, lost) = (number(&sum["packets"])?, number(&sum["lost_packets"])?);
        Ok(vec![match a_second {
            None => (Metric::Flood, (packets - lost) / number(&sum["seconds"])? / 1e3),
            Some(50_000) => (Metric::Loss50k, 100.0 * lost / packets),
            Some(_) => (Metric::Loss100k, 100.0 * lost / packets),
        }])
    }

    /// One run of iperf3 from edge1, whose report it returns. The server serves one client and ends.
    pub(super) fn iperf(self, args: &[&str], seconds: u64, glance: impl FnMut()) -> Result<Value> {
        let mut server = self.far().0.command("iperf3");
        server.args(["-s", "-1", "-p", &PORT.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(server.spawn().context("start iperf3")?);
        server.wait_until_it_listens()?;
        let mut client = self.near().command("iperf3");
        client.args(["-c", &self.target().to_string(), "-p", &PORT.to_string(), "-J", "-t"]);
        client.arg(seconds.to_string()).args(args).stdout(Stdio::piped());
        let client = client.spawn().context("start iperf3")?;
        let words = finish(client, Duration::from_secs(seconds) + SLACK, glance)?;
        let report: Value = serde_json::from_str(&words).context("iperf3's report")?;
        if let Some(error) = report["error"].as_str() {
            bail!("iperf3: {error}");
        }
        Ok(report)
    }

    pub(super) fn ping(self, args: &[&str]) -> Result<Child> {
        let mut ping = self.near().command("ping");
        ping.args(args).arg(self.target().to_string()).stdout(Stdio::piped()).spawn().context("start ping")
    }
}

/// iperf3's server. Killed when dropped.
struct Server(Child);

impl Server {
    fn wait_until_it_listens(&self) -> Result<()> {
        let port = format!(":{PORT:04X} ");
        for _ in 0..500 {
            // Each process's own view of its network: proc(5). 0A: it listens.
            let sockets = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", self.0.id()));
            let is_it = |line: &str| line.contains(&port) && line.contains(" 0A ");
            let listens = |table: &String| {
                std::fs::read_to_string(table).is_ok_and(|sockets| sockets.lines().any(is_it))
            };
            if sockets.iter().any(listens) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("iperf3 does not listen")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn memory([edge, cloud]: [Resident; 2]) -> Vec<(Metric, f64)> {
    let mib = [
        (Metric::ResidentEdge, edge.all),
        (Metric::ResidentCloud, cloud.all),
        (Metric::AnonymousEdge, edge.anonymous),
        (Metric::AnonymousCloud, cloud.anonymous),
    ];
    mib.into_iter().filter(|(_, kib)| *kib > 0.0).map(|(metric, kib)| (metric, kib / 1024.0)).collect()
}

/// Those of ping's lines, in ms, in order of size.
pub(super) fn round_trips(words: &str) -> Result<Vec<f64>> {
    let time = |line: &str| line.split_once("time=")?.1.split(' ').next()?.parse().ok();
    let mut trips: Vec<f64> = words.lines().filter_map(time).collect();
    ensure!(!trips.is_empty(), "no answer to any ping");
    trips.sort_by(f64::total_cmp);
    Ok(trips)
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().context("a number of iperf3's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_taken_from_answers_alone_and_put_in_order() {
        let words = "PING 203.0.113.10 (203.0.113.10) 56(84) bytes of data.\n\
             64 bytes from 203.0.113.10: icmp_seq=1 ttl=63 time=12.5 ms\n\
             no answer yet for icmp_seq=2\n\
             64 bytes from 203.0.113.10: icmp_seq=3 ttl=63 time=0.031 ms\n\
             --- 203.0.113.10 ping statistics ---\n\
             3 packets transmitted, 2 received, 33% packet loss, time 2003ms\n";
        assert_eq!(round_trips(words).unwrap(), [0.031, 12.5]);
        assert!(round_trips("3 packets transmitted, 0 received, 100% packet loss, time 2003ms").is_err());
    }
}
