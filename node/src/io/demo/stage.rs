//! The demo's machines and networks: nine namespaces, five cables, one small internet.
//!
//! ```text
//!   cloud-vm -- cloud -- cloud-container          203.0.113.10, 30 ms away from everybody
//!                 |
//!              internet (user space)
//!               /      \
//!       NAT 203.0.113.21  NAT 203.0.113.22         admit nothing inbound; 3 Mbit/s, 20 ms
//!            |              |
//!   lan-a -- edge-a      edge-b -- lan-b           192.168.10.0/24, 192.168.20.0/24
//!            |              |
//!      container-a      container-b                a /24 of each edge's lease
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use lab::io::lan::{LanAddress, LanLink, connect};
use lab::io::{Namespace, Wire};
use lab::{Attachment, LinkSettings, NatKind, NatSettings, PortId, Rate};

/// Addresses for documentation (RFC 5737): nobody's, and only inside the demo's namespaces.
pub(super) const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// The subnet of cloud VMs: its gateway is the cloud node.
pub(super) const VM_SUBNETS: [&str; 2] = ["10.50.1.0/24", "fd50:1::/64"];

/// One way from a node to the internet.
const CLOUD_DELAY: Duration = Duration::from_millis(10);
const SITE_DELAY: Duration = Duration::from_millis(20);

/// What an edge has up and down.
const SITE_RATE: Rate = Rate::mbit(3);

/// One site's machines.
#[derive(Debug)]
pub(super) struct Site {
    /// `a` or `b`.
    pub(super) letter: char,
    pub(super) edge: Namespace,
    pub(super) host: Namespace,
    pub(super) container: Namespace,
    /// Its NAT's public address.
    pub(super) public: Ipv4Addr,
    /// The edge's address behind the NAT.
    pub(super) private: Ipv4Addr,
}

impl Site {
    /// Networks that the site's token allows it to advertise.
    pub(super) fn lans(&self) -> [String; 2] {
        let n = self.number();
        [format!("192.168.{n}.0/24"), format!("fd{n}::/64")]
    }

    /// Addresses of the host on the LAN.
    pub(super) fn host_addresses(&self) -> Result<[IpAddr; 2]> {
        let n = self.number();
        Ok([format!("192.168.{n}.10").parse()?, format!("fd{n}::10").parse()?])
    }

    fn number(&self) -> u8 {
        10 * (self.letter as u8 - b'a' + 1)
    }
}

/// Everything that stands before a node runs.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) wire: Wire,
    pub(super) cloud: Namespace,
    pub(super) cloud_port: PortId,
    pub(super) vm: Namespace,
    pub(super) cloud_container: Namespace,
    pub(super) sites: [Site; 2],
}

impl Stage {
    /// Builds it all; needs own user and network namespaces.
    pub(super) fn build(seed: u64) -> Result<Self> {
        let wire = Wire::start(seed).context("start the internet")?;
        let cloud = Namespace::create("cloud")?;
        let cloud_port = wire
            .attach(
                &cloud,
                Attachment {
                    name: "cloud".to_owned(),
                    public: CLOUD,
                    nat: None,
                    link: LinkSettings { delay: CLOUD_DELAY, ..LinkSettings::default() },
                },
            )
            .context("attach the cloud")?;
        let vm = Namespace::create("cloud-vm")?;
        cable(&cloud, &vm, "vm0", &[("10.50.1.1", "10.50.1.10"), ("fd50:1::1", "fd50:1::10")])?;
        let cloud_container = Namespace::create("cloud-container")?;
        let sites = [site(&wire, 'a')?, site(&wire, 'b')?];
        Ok(Self { wire, cloud, cloud_port, vm, cloud_container, sites })
    }
}

fn site(wire: &Wire, letter: char) -> Result<Site> {
    let offset = letter as u8 - b'a' + 1;
    let private = Ipv4Addr::new(192, 168, 100 + offset, 2);
    let public = Ipv4Addr::new(203, 0, 113, 20 + offset);
    let edge = Namespace::create(&format!("edge-{letter}"))?;
    // The kind that only lets in who was written to, port by port: the strictest that still keeps its mappings.
    let nat = NatSettings { kind: NatKind::PortRestricted, inside: Ipv4Net::new(private, 24)? };
    let link = LinkSettings {
        up: Some(SITE_RATE),
        down: Some(SITE_RATE),
        delay: SITE_DELAY,
        ..LinkSettings::default()
    };
    wire.attach(&edge, Attachment { name: format!("site-{letter}"), public, nat: Some(nat), link })
        .with_context(|| format!("attach site {letter}"))?;
    let host = Namespace::create(&format!("lan-{letter}"))?;
    let container = Namespace::create(&format!("container-{letter}"))?;
    let site = Site { letter, edge, host, container, public, private };
    let n = site.number();
    let (v4, v6) = (format!("192.168.{n}."), format!("fd{n}::"));
    cable(
        &site.edge,
        &site.host,
        "lan0",
        &[(&format!("{v4}1"), &format!("{v4}10")), (&format!("{v6}1"), &format!("{v6}10"))],
    )?;
    Ok(site)
}

/// Puts a container behind a node, in the subnets that the node's lease has for containers; returns its addresses.
pub(super) fn attach_container(
    node: &Namespace,
    container: &Namespace,
    subnets: &[IpNet; 2],
) -> Result<[IpAddr; 2]> {
    let mut hosts = Vec::new();
    let mut addresses = Vec::new();
    for subnet in subnets {
        let mut usable = subnet.hosts().filter(|address| *address != subnet.network());
        let (Some(gateway), Some(host)) = (usable.next(), usable.next()) else {
            bail!("{subnet} has no room for a container");
        };
        addresses.push(LanAddress { gateway, host });
        hosts.push(host);
    }
    let link = LanLink { gateway_interface: "cni0".to_owned(), host_interface: "eth0".to_owned(), addresses };
    connect(node, container, &link).with_context(|| format!("connect {}", container.name()))?;
    Ok([hosts[0], hosts[1]])
}

fn cable(gateway: &Namespace, host: &Namespace, interface: &str, addresses: &[(&str, &str)]) -> Result<()> {
    let parse =
        |(gateway, host): &(&str, &str)| Ok(LanAddress { gateway: gateway.parse()?, host: host.parse()? });
    let link = LanLink {
        gateway_interface: interface.to_owned(),
        host_interface: "eth0".to_owned(),
        addresses: addresses.iter().map(parse).collect::<Result<_>>()?,
    };
    connect(gateway, host, &link).with_context(|| format!("connect {}", host.name()))
}
