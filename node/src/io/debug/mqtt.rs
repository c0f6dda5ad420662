//! Whether a broker answers: a CONNECT (MQTT 3.1.1 §3.1), and what its CONNACK says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// On the same machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Clean session, no name, no client id, a minute of keep-alive.
const CONNECT: [u8; 14] = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0];

/// Not authorised, or wrong name and password: it works, and does not know us.
const LOGIN_WANTED: [u8; 2] = [4, 5];

/// Why the broker at an address is of no use; `None` if it is.
pub(super) async fn problem(listen: SocketAddr) -> Option<String> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    match timeout(PATIENCE, answer(address)).await {
        Err(_) => Some(format!("it takes the connection and does not answer within {PATIENCE:?}")),
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok([0x20, _, _, code])) if code == 0 || LOGIN_WANTED.contains(&code) => None,
        Ok(Ok([0x20, _, _, code])) => Some(format!("it refuses clients with return code {code}")),
        Ok(Ok(_)) => Some("what answers there does not speak MQTT".to_owned()),
    }
}

async fn answer(address: SocketAddr) -> std::io::Result<[u8; 4]> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&CONNECT).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    // DISCONNECT: nobody's log has a client that vanished.
    let _ = stream.write_all(&[0xe0, 0]).await;
    Ok(answer)
}

fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => ip,
    }
}
