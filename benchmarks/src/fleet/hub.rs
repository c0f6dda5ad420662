//! The hub: a cloud's data plane, without the cloud around it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bus::{Channel, Class, Frame, Name, NodeId, Route, SubnetKind};
use ipnet::{Ipv4Net, Ipv6Net};
use router::Table;
use router::io::shard::{Command, Event, Lane, ShardConfig, spawn};

use super::credentials::Authority;

pub(super) fn run(room: &Path, edges: usize) -> Result<()> {
    let credentials = Authority::load(room)?.issue("bench/cloud/hub")?;
    let me = credentials.identity.node.clone();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = ShardConfig { accept: true, ..ShardConfig::new(listen, Some(credentials)) };
    let (shard, mut events) = spawn(config).context("start the data plane")?;
    let table = Table::new(me, (0..edges as u32).flat_map(routes), None);
    shard.send(Command::SetTable(Arc::new(table))).ok().context("the data plane ended")?;
    println!("{}", shard.local_addr());
    while let Some(event) = events.blocking_recv() {
        match event {
            // As a cloud does: it says who it is.
            Event::Up { link, lane: Lane::Bus, .. } => {
                let frame =
                    Frame::new(Channel::Bus, &b"hello, as long as one is: a few numbers and a name"[..]);
                let command = Command::Send { link, class: Class::Control, frame };
                shard.send(command).ok().context("the data plane ended")?;
            }
            Event::Up { link, lane: Lane::Packets, .. } => {
                shard.send(Command::Admit { link }).ok().context("the data plane ended")?;
            }
            Event::Down { peer, why, .. } => bail!("{peer:?} is gone: {why}"),
            Event::Up { lane: Lane::Join | Lane::Renew, .. }
            | Event::Frame { .. }
            | Event::Failed { .. }
            | Event::Moved { .. }
            | Event::Talk { .. }
            | Event::Report { .. } => {}
        }
    }
    Ok(())
}

/// What an edge has without a LAN: its addresses and its containers', of both families.
fn routes(number: u32) -> [Route; 4] {
    let owner =
        NodeId::edge(Name::new(&super::edges::name(number)).unwrap_or_else(|_| unreachable!("a name")));
    let (nodes_v4, containers_v4) = (0x0a00_0000 + number, 0x0b00_0000 + (number << 8));
    let ula = 0xfd86_u128 << 112;
    let (nodes_v6, containers_v6) = (ula | u128::from(number), ula | u128::from(number + 1) << 64);
    let v4 = |bits: u32, len| Ipv4Net::new_assert(Ipv4Addr::from(bits), len).into();
    let v6 = |bits: u128, len| Ipv6Net::new_assert(Ipv6Addr::from(bits), len).into();
    let route = |prefix, kind| Route { prefix, owner: owner.clone(), kind, real: None, peer: None };
    [
        route(v4(nodes_v4, 32), SubnetKind::EdgeNode),
        route(v6(nodes_v6, 128), SubnetKind::EdgeNode),
        route(v4(containers_v4, 24), SubnetKind::EdgeContainer),
        route(v6(containers_v6, 64), SubnetKind::EdgeContainer),
    ]
}
