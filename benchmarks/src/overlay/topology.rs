//! The lab: a cloud, and two edges, each behind a NAT of the kernel's, on cables of the kernel's (veth).
//!
//! ```text
//!  edge1 ------- nat1 -------.          .------- nat2 ------- edge2
//!  192.168.1.2   203.0.113.21 \        /  203.0.113.22   192.168.2.2
//!                              internet          a bridge
//!                                 |
//!                               cloud  203.0.113.10
//! ```
//! The NATs give each flow a random port, admit nothing from outside and let nothing pass from one to the other: two
//! edges must be relayed. All MTUs are 1500. There is no way out.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::space::Space;

pub(crate) const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Where a peer runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sites<'a> {
    pub(crate) cloud: &'a Space,
    pub(crate) edges: &'a [Space],
}

#[derive(Debug)]
pub(crate) struct Topology {
    cloud: Space,
    edges: Vec<Space>,
    nats: Vec<Space>,
    internet: Space,
}

impl Topology {
    pub(crate) fn new() -> Result<Self> {
        let both = |what: &str| -> Result<Vec<Space>> {
            (1..=2).map(|n| Space::new(&format!("{what}{n}"))).collect()
        };
        let topology = Self {
            cloud: Space::new("cloud")?,
            edges: both("edge")?,
            nats: both("nat")?,
            internet: Space::new("internet")?,
        };
        topology.lay().context("lay the cables")?;
        Ok(topology)
    }

    pub(crate) fn sites(&self) -> Sites<'_> {
        Sites { cloud: &self.cloud, edges: &self.edges }
    }

    /// Somebody else on the internet.
    pub(crate) fn stranger(&self) -> Result<Space> {
        let stranger = Space::new("stranger")?;
        self.plug(&stranger, "stranger")?;
        stranger.run("ip address add 203.0.113.66/24 dev wan")?;
        Ok(stranger)
    }

    fn lay(&self) -> Result<()> {
        self.internet.run_all(&["ip link add br0 type bridge", "ip link set br0 up"])?;
        self.plug(&self.cloud, "cloud")?;
        self.cloud.run(&format!("ip address add {CLOUD}/24 dev wan"))?;
        self.cloud.set("net/ipv4/ip_forward", "1")?;
        for (number, (nat, edge)) in (1..).zip(self.nats.iter().zip(&self.edges)) {
            self.plug(nat, &format!("nat{number}"))?;
            cable(nat, "lan", edge, "wan")?;
            translate(nat, edge, number)?;
            // The way that `RawPath` opens; without the edges' addresses it leads nowhere.
            self.cloud.run(&format!("ip route add 172.31.{number}.0/24 via 203.0.113.2{number}"))?;
        }
        Ok(())
    }

    fn plug(&self, space: &Space, port: &str) -> Result<()> {
        cable(&self.internet, port, space, "wan")?;
        self.internet.run(&format!("ip link set {port} master br0")).map(drop)
    }

    /// Off: every cable carries frames of the MTU, as a network card without segmentation does. On: super-packets of
    /// 64 KiB pass whole, as with a card that segments and a receiver that merges.
    pub(crate) fn set_offloads(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let set = |space: &Space, link: &str| {
            space
                .run(&format!("ethtool -K {link} tso {state} gso {state} tx-udp-segmentation {state}"))
                .map(drop)
        };
        ["cloud", "nat1", "nat2"].iter().try_for_each(|port| set(&self.internet, port))?;
        self.nats.iter().try_for_each(|nat| set(nat, "wan").and(set(nat, "lan")))?;
        self.edges.iter().chain([&self.cloud]).try_for_each(|end| set(end, "wan"))
    }

    /// From edge to edge over the cloud without a tunnel, as long as it is held.
    pub(crate) fn open_raw_path(&self) -> Result<RawPath<'_>> {
        let path = RawPath { edges: &self.edges };
        path.set("add")?;
        Ok(path)
    }
}

/// What is to be measured against needs a way past the NATs. It is there only while it is measured: a peer that looks
/// for a better way than over its relay (nebula does) finds and takes it.
#[derive(Debug)]
pub(crate) struct RawPath<'a> {
    edges: &'a [Space],
}

impl RawPath<'_> {
    pub(crate) fn address(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, number as u8, 2)
    }

    fn set(&self, what: &str) -> Result<()> {
        for (number, edge) in (1..).zip(self.edges) {
            let (own, other) = (Self::address(number), Self::address(3 - number));
            edge.run(&format!("ip address {what} {own}/32 dev lo"))?;
            if what == "add" {
                edge.run(&format!("ip route add {other} via 192.168.{number}.1 src {own}"))?;
            }
        }
        Ok(())
    }
}

impl Drop for RawPath<'_> {
    fn drop(&mut self) {
        // The routes go with their source addresses.
        if let Err(error) = self.set("del") {
            eprintln!("the raw path stays open: {error:#}");
        }
    }
}

fn cable(one: &Space, one_name: &str, other: &Space, other_name: &str) -> Result<()> {
    one.run(&format!("ip link add {one_name} type veth peer name {other_name} netns {}", other.path()))?;
    one.run(&format!("ip link set {one_name} up"))?;
    other.run(&format!("ip link set {other_name} up")).map(drop)
}

fn translate(nat: &Space, edge: &Space, number: usize) -> Result<()> {
    nat.set("net/ipv4/ip_forward", "1")?;
    nat.run_all(&[
        &format!("ip address add 203.0.113.2{number}/24 dev wan"),
        &format!("ip address add 192.168.{number}.1/24 dev lan"),
        &format!("ip route add 172.31.{number}.0/24 via 192.168.{number}.2"),
        &format!("ip route add 172.31.{}.0/24 via {CLOUD}", 3 - number),
    ])?;
    nat.rules(RULES)?;
    edge.run_all(&[
        &format!("ip address add 192.168.{number}.2/24 dev wan"),
        &format!("ip route add default via 192.168.{number}.1"),
    ])
}

/// 172.31.0.0/16 is the raw path's.
const RULES: &str = "
table ip lab {
  chain leaving {
    type nat hook postrouting priority srcnat;
    oifname \"wan\" ip saddr 192.168.0.0/16 masquerade fully-random
  }
  chain through {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ip saddr 172.31.0.0/16 ip daddr 172.31.0.0/16 accept
    iifname \"lan\" oifname \"wan\" ip saddr 192.168.0.0/16 ip daddr != { 203.0.113.21, 203.0.113.22 } accept
  }
  chain inbound {
    type filter hook input priority filter; policy accept;
    iifname \"wan\" ct state new drop
  }
}
";
