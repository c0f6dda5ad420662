//! Knocking at the cloud's door: looking it up, UDP small and large, other signs of life, a handshake.
//!
//! Nothing here takes the place of a link that stands. Packets of a version that nobody speaks ask for version
//! negotiation (RFC 9000 §6), which a server answers without remembering us, and needs no certificate. A handshake on the
//! join lane shows the server's certificate and asks for nothing; with our own certificate only a node that does not run is
//! tried.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bus::token::CaHash;
use bus::{Identity, NodeId};
use router::io::shard::{self, Command, Credentials, Event, Expect, Lane, ShardConfig};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::dials::fault_of;
use crate::diagnose::{Endpoint, Host, LinkFault, Lookup, Udp};
use crate::io::identity::EdgeIdentity;
use crate::io::ping::{self, Echo};
use crate::io::upstream;

/// A name server that is away is asked again by the system for longer than people wait.
pub(super) const LOOKUP: Duration = Duration::from_secs(5);

/// For an answer: two satellites, and one packet lost.
const ANSWER: Duration = Duration::from_millis(2400);

/// Between two packets that ask the same: three in [`ANSWER`].
const AGAIN: Duration = Duration::from_millis(700);

/// A handshake is two round trips.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// How long a cloud may take to turn a node away that it does not know.
const TURNED_AWAY: Duration = Duration::from_millis(1500);

/// QUIC's first packets, and its shortest ones with a large load (RFC 9000 §14.1).
const FIRST: usize = 1200;

/// As long as an Ethernet without tunnels lets through, with room for PPPoE and a tunnel.
const LARGE: usize = 1400;

/// How far to go.
#[derive(Debug, Clone)]
pub(super) struct Knock {
    pub(super) stored: Arc<EdgeIdentity>,
    pub(super) cloud: Identity,
    /// The node has its link: it is only looked whether the way is wide.
    pub(super) is_connected: bool,
    /// The node does not run: its own certificate may be tried.
    pub(super) is_down: bool,
}

/// All that can be found out of one endpoint.
pub(super) async fn endpoint((host, port): &upstream::Endpoint, knock: &Knock) -> Endpoint {
    let mut found = Endpoint { name: upstream::format(&(host.clone(), *port)), ..Endpoint::default() };
    found.lookup = lookup(host, *port).await;
    let Lookup::Found(addresses) = &found.lookup else { return found };
    let Some(address) = addresses.first().map(|ip| SocketAddr::new(*ip, *port)) else { return found };
    found.udp = udp(address, FIRST).await;
    match found.udp {
        Udp::Answers => found.large_passes = Some(udp(address, LARGE).await == Udp::Answers),
        Udp::Silent => found.host = host_signs(address).await,
        Udp::NotTried | Udp::Refused | Udp::Forbidden | Udp::NoWay | Udp::TooLarge => {}
    }
    if found.udp == Udp::Answers && !knock.is_connected {
        found.handshake = Some(handshake(address, knock).await);
    }
    found
}

async fn lookup(host: &str, port: u16) -> Lookup {
    match timeout(LOOKUP, tokio::net::lookup_host((host, port))).await {
        Err(_) => Lookup::Silent,
        Ok(Err(why)) => Lookup::Failed(format!("{host}: {why}")),
        Ok(Ok(found)) => match found.map(|address| address.ip()).collect::<Vec<_>>() {
            none if none.is_empty() => Lookup::Failed(format!("{host} has no address")),
            addresses => Lookup::Found(addresses),
        },
    }
}

/// Asks for version negotiation with a packet of `len` bytes, up to three times.
async fn udp(address: SocketAddr, len: usize) -> Udp {
    let Ok(socket) = connected(address).await else { return Udp::NoWay };
    let packet = of_no_version(len);
    let asked = async {
        loop {
            if let Err(why) = socket.send(&packet).await {
                return verdict(&why);
            }
            match timeout(AGAIN, heard(&socket, &packet)).await {
                Ok(verdict) => return verdict,
                Err(_) => continue,
            }
        }
    };
    timeout(ANSWER, asked).await.unwrap_or(Udp::Silent)
}

/// Unfragmented: that is how QUIC sends.
async fn connected(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    match address.is_ipv4() {
        true => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?,
        false => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO)?,
    }
    socket.connect(address).await?;
    Ok(socket)
}

/// Connection ids, so that an answer is known as ours.
const ID_LEN: usize = 8;

/// A long header (RFC 8999 §5.1) of a version that is reserved to be negotiated away (RFC 9000 §15).
fn of_no_version(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    let head = [0xc0, 0x1a, 0x2a, 0x3a, 0x4a, ID_LEN as u8];
    packet[..head.len()].copy_from_slice(&head);
    // Without randomness the id is zeros: an answer is no less true.
    let _ = getrandom::fill(&mut packet[6..6 + ID_LEN]);
    packet[6 + ID_LEN] = ID_LEN as u8;
    let _ = getrandom::fill(&mut packet[7 + ID_LEN..7 + 2 * ID_LEN]);
    packet
}

async fn heard(socket: &UdpSocket, asked: &[u8]) -> Udp {
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(len) if answers(&buffer[..len], asked) => return Udp::Answers,
            Ok(_) => {}
            Err(why) => return verdict(&why),
        }
    }
}

/// Version negotiation to our packet: version 0, and our source id as destination.
fn answers(packet: &[u8], asked: &[u8]) -> bool {
    let own = &asked[7 + ID_LEN..7 + 2 * ID_LEN];
    packet.len() > 6 + ID_LEN
        && packet[0] & 0x80 != 0
        && packet[1..5] == [0; 4]
        && packet[5] == ID_LEN as u8
        && packet[6..6 + ID_LEN] == *own
}

fn verdict(why: &std::io::Error) -> Udp {
    match (why.kind() == ErrorKind::ConnectionRefused, why.raw_os_error()) {
        (true, _) => Udp::Refused,
        (false, Some(libc::EMSGSIZE)) => Udp::TooLarge,
        (false, Some(libc::EPERM | libc::EACCES)) => Udp::Forbidden,
        (false, _) => Udp::NoWay,
    }
}

/// TCP at the same port, which a host that is up refuses, and pings.
async fn host_signs(address: SocketAddr) -> Host {
    let (tcp, (echo, large_echo)) = tokio::join!(tcp(address), echoes(address.ip()));
    Host { tcp: Some(tcp), echo, large_echo }
}

async fn tcp(address: SocketAddr) -> bool {
    match timeout(ANSWER, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(why)) => why.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// Of a usual ping, and of one whose packet is as long as QUIC's first; `None` where we may not ping.
async fn echoes(to: IpAddr) -> (Option<bool>, Option<bool>) {
    // Its socket blocks, for about a second.
    let ask = move |payload: usize| {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let echo = Echo::open(any, to).ok()?.with_payload(payload);
        let tally =
            ping::probe(&echo, 3, (Duration::from_millis(300), Duration::from_millis(500)), &mut |_| Ok(()));
        Some(tally.is_ok_and(|tally| tally.answered() > 0))
    };
    let [small, large] = [56, FIRST].map(|payload| tokio::task::spawn_blocking(move || ask(payload)));
    (small.await.ok().flatten(), large.await.ok().flatten())
}

type Shaken = Result<(), (LinkFault, String)>;

async fn handshake(address: SocketAddr, knock: &Knock) -> Shaken {
    let hash = CaHash::of_der(&knock.stored.ca);
    shake(address, None, (Expect::CaHash(hash), Lane::Join), Duration::ZERO).await?;
    if !knock.is_down {
        return Ok(());
    }
    let own = super::certificate::credentials(&knock.stored);
    shake(address, Some(own), (Expect::Node(knock.cloud.clone()), Lane::Packets), TURNED_AWAY).await
}

/// Dials, and waits `stay` for the other side to think better of it.
async fn shake(
    address: SocketAddr,
    credentials: Option<Credentials>,
    (expect, lane): (Expect, Lane),
    stay: Duration,
) -> Shaken {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let other = |why: String| (LinkFault::Other, why);
    let config = ShardConfig::new((any, 0).into(), credentials);
    let (shard, mut events) = shard::spawn(config).map_err(|why| other(bus::with_causes(&why)))?;
    let _ = shard.send(Command::Dial { attempt: 0, address, expect, lane, in_reserve: true });
    let talk = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Up { .. } => {
                    let ended = async {
                        while let Some(event) = events.recv().await {
                            if let Event::Down { why, .. } = event {
                                return Err((LinkFault::of_words(&why), why));
                            }
                        }
                        Ok(())
                    };
                    return tokio::select! {
                        ended = ended => ended,
                        () = sleep(stay) => Ok(()),
                    };
                }
                Event::Failed { why, .. } => return Err((fault_of(&why), why.to_string())),
                Event::Down { .. }
                | Event::Frame { .. }
                | Event::Moved { .. }
                | Event::Talk { .. }
                | Event::Report { .. } => {}
            }
        }
        Err(other("the dial was given up".to_owned()))
    };
    let silent = (LinkFault::NoAnswer, format!("no answer to a handshake within {HANDSHAKE:?}"));
    let done = timeout(HANDSHAKE, talk).await.unwrap_or(Err(silent));
    let _ = shard.send(Command::Stop);
    done
}

/// Who the cloud of an edge is.
pub(super) fn cloud_of(stored: &EdgeIdentity) -> Identity {
    let membership = &stored.membership;
    Identity { cluster: membership.cluster.clone(), node: NodeId::cloud(membership.cloud.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_meaning() {
        let told = [
            (libc::ECONNREFUSED, Udp::Refused),
            (libc::EPERM, Udp::Forbidden),
            (libc::EACCES, Udp::Forbidden),
            (libc::EMSGSIZE, Udp::TooLarge),
            (libc::ENETUNREACH, Udp::NoWay),
        ];
        for (number, meaning) in told {
            assert_eq!(verdict(&std::io::Error::from_raw_os_error(number)), meaning, "{number}");
        }
    }

    #[test]
    fn only_an_answer_to_our_own_packet_counts() {
        let asked = of_no_version(FIRST);
        assert_eq!(asked.len(), FIRST);
        let mut answer = vec![0xca, 0, 0, 0, 0, ID_LEN as u8];
        answer.extend_from_slice(&asked[15..23]);
        answer.push(0);
        assert!(answers(&answer, &asked));
        answer[7] ^= 1;
        assert!(!answers(&answer, &asked));
        (0..14).for_each(|len| assert!(!answers(&answer[..len], &asked)));
    }
}
