//! UDP: one socket to the device for each of the mapper's.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Hub;
use super::fault::{Conversation, Direction, Do, Mode};
use crate::fixture::Endpoint;

/// Largest datagram, in bytes.
const DATAGRAM: usize = 64 * 1024;

/// Datagrams that wait for one conversation; more are lost, as on any network.
const WAITING: usize = 64;

pub(super) async fn serve(
    device: SocketAddr,
    hub: Arc<Hub>,
    tasks: &mut JoinSet<()>,
) -> io::Result<Endpoint> {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let at = socket.local_addr()?;
    tasks.spawn(async move {
        let mut mappers: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
        let mut conversations = JoinSet::new();
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let Ok((n, from)) = socket.recv_from(&mut datagram).await else { continue };
            if hub.mode() == Mode::Refuse {
                continue; // a datagram to nobody
            }
            mappers.retain(|_, requests| !requests.is_closed());
            let requests = mappers.entry(from).or_insert_with(|| {
                let (requests, requests_rx) = mpsc::channel(WAITING);
                conversations.spawn(converse(
                    device,
                    Arc::clone(&socket),
                    from,
                    requests_rx,
                    Arc::clone(&hub),
                ));
                requests
            });
            drop(requests.try_send(datagram[..n].to_vec()));
        }
    });
    Ok(Endpoint::Udp(at))
}

async fn converse(
    device: SocketAddr,
    socket: Arc<UdpSocket>,
    mapper: SocketAddr,
    mut requests: mpsc::Receiver<Vec<u8>>,
    hub: Arc<Hub>,
) {
    let _opened = hub.opened();
    tokio::select! {
        end = talk(device, &socket, mapper, &mut requests, &hub) => drop(end),
        () = hub.cut() => {}
    }
}

async fn talk(
    device: SocketAddr,
    socket: &UdpSocket,
    mapper: SocketAddr,
    requests: &mut mpsc::Receiver<Vec<u8>>,
    hub: &Hub,
) -> io::Result<()> {
    let line = UdpSocket::bind("127.0.0.1:0").await?;
    line.connect(device).await?;
    let mut conversation = Conversation::default();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let (direction, chunk) = tokio::select! {
            request = requests.recv() => match request {
                Some(request) => (Direction::ToDevice, request),
                None => return Ok(()),
            },
            // A device that is not there is told by ICMP: the mapper hears silence, as it would from afar.
            n = line.recv(&mut datagram) => match n {
                Ok(n) => (Direction::ToMapper, datagram[..n].to_vec()),
                Err(_) => continue,
            },
        };
        hub.thawed().await;
        for act in hub.pass(&mut conversation, direction, chunk) {
            match act {
                Do::Wait(time) => sleep(time).await,
                Do::Send(Direction::ToDevice, bytes) => drop(line.send(&bytes).await),
                Do::Send(Direction::ToMapper, bytes) => {
                    hub.answered();
                    socket.send_to(&bytes, mapper).await?;
                }
                Do::HangUp => {} // a datagram more or less ends nothing
            }
        }
    }
}
