//! The second act: who reaches whom over the overlay, and who does not from outside.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::{SOON, Story, indent, since};
use crate::io::demo::cluster::Member;
use crate::io::demo::matrix::{Echoes, Endpoint, Matrix, knock};
use crate::io::demo::stage::{Stage, attach_container};

impl Story {
    pub(super) fn reach_everybody(&mut self) -> Result<()> {
        let Some(stage) = self.stage.take() else { return Ok(()) };
        let done = self.open_the_sites(&stage).and_then(|()| self.endpoints(&stage));
        let done = done.and_then(|endpoints| self.probe(&stage, &endpoints));
        self.stage = Some(stage);
        done
    }

    /// Two sites are closed to each other until a policy opens them.
    fn open_the_sites(&mut self, stage: &Stage) -> Result<()> {
        let [a, b] = &stage.sites;
        let IpAddr::V4(address) = addresses(&self.edges[1])?[0] else { bail!("edge b has no IPv4 address") };
        let through = knock(&a.edge, &b.edge, address, address)?;
        let denied = self.cloud.status()?["counters"]["router_packets_dropped"]["denied"].as_u64();
        let seen = format!("from edge a to {address} got through: {through:?}; the cloud denied {denied:?}");
        self.check(
            through.is_empty() && denied > Some(0),
            "between sites nothing passes that no access policy allows",
            seen,
        );
        let path = self.manifests.join("access.yaml");
        std::fs::write(&path, include_str!("../../../../../simulations/water/manifests/access.yaml"))
            .with_context(|| path.display().to_string())?;
        self.narrator.typed("apply -f access.yaml");
        let said = self.cloud.ask(&["apply", "-f", &path.display().to_string()])?;
        self.narrator.print(indent(&said));
        let took = self.wait_for(SOON, |story| {
            let [a, b] = &story.edges;
            let is_told = |edge: &Member, from: &str| edge.ask(&["policy", "test", from, &edge.name]).is_ok();
            Ok(is_told(a, &b.name) && is_told(b, &a.name))
        })?;
        self.check(
            took.is_some(),
            "both edges know the access policy and enforce it themselves",
            since(took),
        );
        let said = self.cloud.tell(&self.narrator, &["policy", "test", "a", "b"])?;
        self.narrator.print(indent(&said));
        Ok(())
    }

    fn endpoints(&self, stage: &Stage) -> Result<Vec<Endpoint>> {
        let endpoint = |label: String, namespace: &lab::io::Namespace, addresses: [IpAddr; 2]| Endpoint {
            label,
            namespace: namespace.clone(),
            addresses,
        };
        let vm = ["10.50.1.10".parse()?, "fd50:1::10".parse()?];
        let cloud = &self.cloud;
        let mut all = vec![
            endpoint("cloud-node".to_owned(), &stage.cloud, addresses(cloud)?),
            endpoint("cloud-vm".to_owned(), &stage.vm, vm),
        ];
        let container = attach_container(&stage.cloud, &stage.cloud_container, &containers(cloud)?)?;
        all.push(endpoint("cloud-cont".to_owned(), &stage.cloud_container, container));
        for (site, edge) in stage.sites.iter().zip(&self.edges) {
            let container = attach_container(&site.edge, &site.container, &containers(edge)?)?;
            all.push(endpoint(format!("edge-{}", site.letter), &site.edge, addresses(edge)?));
            all.push(endpoint(format!("cont-{}", site.letter), &site.container, container));
            all.push(endpoint(format!("lan-{}", site.letter), &site.host, site.host_addresses()?));
        }
        Ok(all)
    }

    fn probe(&mut self, stage: &Stage, endpoints: &[Endpoint]) -> Result<()> {
        self.narrator.say("who reaches whom over the overlay: ping, UDP and TCP, IPv4 and IPv6");
        let echoes = Echoes::start(endpoints)?;
        let matrix = Matrix::probe(endpoints)?;
        drop(echoes);
        self.narrator.print(matrix.render());
        let failures = matrix.failures();
        let seen = match failures.first() {
            None => format!("{} pairs, each by ping, UDP and TCP over IPv4 and IPv6", matrix.pairs()),
            Some(first) => format!("{} probes failed, the first: {first}", failures.len()),
        };
        self.check(failures.is_empty(), "all subnet kinds reach each other over the overlay", seen);
        for (site, other) in [(0, 1), (1, 0)] {
            let target = &stage.sites[site];
            for outside in [&stage.cloud, &stage.sites[other].edge] {
                let through = knock(outside, &target.edge, target.private, target.public)?;
                let claim = format!("nothing gets in through the NAT of site {}", target.letter);
                let seen =
                    format!("UDP, TCP and ping from {} to {}: {through:?}", outside.name(), target.public);
                self.check(through.is_empty(), &claim, seen);
            }
        }
        self.narrator.say("and nobody gets in through a NAT unasked");
        Ok(())
    }
}

fn addresses(member: &Member) -> Result<[IpAddr; 2]> {
    match member.overlay("addresses")?.as_slice() {
        [v4, v6] => Ok([v4.parse()?, v6.parse()?]),
        other => bail!("{} has addresses {other:?}", member.name),
    }
}

fn containers(member: &Member) -> Result<[IpNet; 2]> {
    match member.overlay("containers")?.as_slice() {
        [v4, v6] => Ok([v4.parse()?, v6.parse()?]),
        other => bail!("{} has container subnets {other:?}", member.name),
    }
}
